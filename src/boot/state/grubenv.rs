//! GRUB's environment block: exactly 1024 bytes of `name=value` lines.
//!
//! Format: GRUB manual, "GRUB environment block". Pure; reads and writes no file.

use anyhow::{Result, bail, ensure};

/// The size of an environment block in bytes.
pub const SIZE_BYTES: usize = 1024;

/// Variables must end here: one sector is written whole or not at all.
const SECTOR_BYTES: usize = 512;

const HEADER: &str = "# GRUB Environment Block\n";

/// Renders `variables`, in order, as an environment block.
///
/// # Errors
/// When they do not fit in the first sector, or a value spans lines.
pub fn render(variables: &[(&str, String)]) -> Result<[u8; SIZE_BYTES]> {
    let mut text = HEADER.to_owned();
    for (name, value) in variables {
        ensure!(
            !value.contains(['\n', '\\']),
            "the boot state cannot hold {name}={value:?}"
        );
        text.push_str(&format!("{name}={value}\n"));
    }
    ensure!(
        text.len() <= SECTOR_BYTES,
        "the boot state needs {} bytes, a sector holds 512",
        text.len()
    );
    let mut block = [b'#'; SIZE_BYTES];
    block[..text.len()].copy_from_slice(text.as_bytes());
    Ok(block)
}

/// Returns the variables of a block, in order; a repeated name appears again.
///
/// # Errors
/// When `block` is not an environment block.
pub fn parse(block: &[u8]) -> Result<Vec<(String, String)>> {
    ensure!(
        block.len() == SIZE_BYTES,
        "it has {} bytes, not {SIZE_BYTES}",
        block.len()
    );
    let Some(body) = block.strip_prefix(HEADER.as_bytes()) else {
        bail!("its first line is not that of a GRUB environment block");
    };
    let text = String::from_utf8_lossy(body);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    Ok(lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_reads_back_as_written() {
        let block = render(&[("va_commit", "root".into()), ("va_trial", String::new())]).unwrap();
        assert!(block.starts_with(b"# GRUB Environment Block\nva_commit=root\nva_trial=\n####"));
        let read = parse(&block).unwrap();
        assert_eq!(
            read,
            [
                ("va_commit".into(), "root".into()),
                ("va_trial".into(), String::new())
            ]
        );
    }

    #[test]
    fn what_is_not_a_block_is_refused() {
        assert!(parse(b"short").is_err());
        assert!(parse(&[0; SIZE_BYTES]).is_err());
    }

    #[test]
    fn variables_never_reach_the_second_sector() {
        assert!(render(&[("a", "x".repeat(500))]).is_err());
    }
}
