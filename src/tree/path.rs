//! Paths as bytes: names of any bytes and any length, split, cleaned and shown.

use anyhow::{Result, bail, ensure};

/// The longest path that a member of an archive may have, in bytes: 64 times
/// what the kernel takes at once.
const MAX_PATH_BYTES: usize = 256 << 10;
/// The longest name in it, as on every Linux file system (`NAME_MAX`).
const MAX_NAME_BYTES: usize = 255;

/// Splits a path into its directory and its name.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// Shows a path in a message, whatever bytes and however many it has.
pub fn show(path: &[u8]) -> String {
    const SHOWN: usize = 200;
    match path.len() {
        0 => ".".to_owned(),
        length if length > SHOWN => {
            let tail = &path[length - SHOWN..];
            format!("...{}", tail.escape_ascii())
        }
        _ => show_whole(path),
    }
}

/// Shows the whole of a name on one line, whatever bytes it has.
pub fn show_whole(name: &[u8]) -> String {
    match str::from_utf8(name) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => name.escape_ascii().to_string(),
    }
}

/// Renders a name that is not UTF-8 in hexadecimal; text needs no such help.
pub fn hex_unless_text(name: &[u8]) -> Option<String> {
    let is_text = str::from_utf8(name).is_ok();
    (!is_text).then(|| name.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Undoes [`hex_unless_text`]; `None` if it is no hexadecimal.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8; 2]| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok();
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

/// Makes a member's name a plain relative path, or refuses it.
pub fn clean_path(name: &[u8]) -> Result<Vec<u8>> {
    ensure!(!name.is_empty(), "a name is empty");
    ensure!(!name.starts_with(b"/"), "its name is absolute");
    ensure!(!name.contains(&0), "its name has a zero in it");
    ensure!(
        name.len() <= MAX_PATH_BYTES,
        "its path has {} bytes, more than {MAX_PATH_BYTES}",
        name.len()
    );
    let mut path = Vec::with_capacity(name.len());
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => bail!("its name leads out of the tree"),
            part => {
                ensure!(
                    part.len() <= MAX_NAME_BYTES,
                    "a name in its path has {} bytes, more than {MAX_NAME_BYTES}",
                    part.len()
                );
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(part);
            }
        }
    }
    Ok(path)
}
