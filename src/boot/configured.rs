//! The kernel arguments that the boot configuration of a tree names, of either
//! family. Looks only, and stays inside the tree.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::tree::resolve;

const GRUB_DEFAULTS: &str = "etc/default/grub";
const GRUBENVS: [&str; 2] = ["boot/grub/grubenv", "boot/grub2/grubenv"];

/// Where a boot configuration is, the sources of it before what is made of them.
const FILES: [&str; 6] = [
    GRUB_DEFAULTS,
    "etc/kernel/cmdline",
    "boot/grub/grub.cfg",
    "boot/grub2/grub.cfg",
    GRUBENVS[0],
    GRUBENVS[1],
];

/// Directories of such files, and how their names end.
const GRUB_DEFAULTS_DIR: (&str, &str) = ("etc/default/grub.d", "cfg");
const ENTRIES_DIR: (&str, &str) = ("boot/loader/entries", "conf");

/// The most of a file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Returns the words of each file of the boot configuration in the tree at
/// `root`, without comments and quotes; kernel arguments stand among them.
///
/// # Errors
/// When a file is there and cannot be read.
pub fn words_by_file(root: &Path) -> Result<Vec<Vec<String>>> {
    let mut paths: Vec<PathBuf> = FILES.iter().map(PathBuf::from).collect();
    for (dir, extension) in [GRUB_DEFAULTS_DIR, ENTRIES_DIR] {
        paths.extend(list(root, dir, extension)?);
    }
    let mut found = Vec::new();
    for path in paths {
        found.extend(read(root, &path)?.map(|text| words(&text)));
    }
    Ok(found)
}

/// Returns the text of a file of the tree at `root`; `None` where there is none.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read(root: &Path, path: &Path) -> Result<Option<String>> {
    let context = || format!("reading {} in {}", path.display(), root.display());
    let file = resolve::resolve(root, path).with_context(context)?;
    let Some(file) = file.map(|file| root.join(file)).filter(|f| f.is_file()) else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    let opened = File::open(file).with_context(context)?;
    opened
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .with_context(context)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// A boot loader entry (the UAPI group's "Boot Loader Specification", type 1).
pub struct LoaderEntry {
    /// Its file's name.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Returns the boot loader entries of the tree at `root`, by name.
///
/// # Errors
/// When one cannot be read.
pub fn entries(root: &Path) -> Result<Vec<LoaderEntry>> {
    let (dir, extension) = ENTRIES_DIR;
    let mut found = Vec::new();
    for path in list(root, dir, extension)? {
        let name = path.file_name().unwrap_or_default();
        if let Some(text) = read(root, &path)? {
            let name = name.to_string_lossy().into_owned();
            found.push(LoaderEntry { name, text });
        }
    }
    Ok(found)
}

/// Returns the texts of GRUB's defaults in the order its scripts read them.
///
/// # Errors
/// When one cannot be read.
pub fn grub_defaults(root: &Path) -> Result<Vec<String>> {
    let (dir, extension) = GRUB_DEFAULTS_DIR;
    let mut paths = vec![PathBuf::from(GRUB_DEFAULTS)];
    paths.extend(list(root, dir, extension)?);
    let texts = paths.iter().map(|path| read(root, path));
    Ok(texts
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect())
}

/// Returns the variables of the distribution's own GRUB environment block.
///
/// # Errors
/// When it cannot be read.
pub fn grubenv(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for path in GRUBENVS {
        let text = read(root, Path::new(path))?.unwrap_or_default();
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        variables.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    Ok(variables)
}

/// Lists the files in `dir` whose names end in `extension`, by name.
fn list(root: &Path, dir: &str, extension: &str) -> Result<Vec<PathBuf>> {
    let context = || format!("listing {dir} in {}", root.display());
    let found = resolve::resolve(root, Path::new(dir)).with_context(context)?;
    let Some(found) = found.map(|found| root.join(found)).filter(|f| f.is_dir()) else {
        return Ok(Vec::new());
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(found).with_context(context)? {
        let path = Path::new(dir).join(entry.with_context(context)?.file_name());
        if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for line in text.lines().filter(|line| !line.trim().starts_with('#')) {
        for word in line.split(|c: char| c.is_whitespace() || "\"'".contains(c)) {
            words.push(word.to_owned());
            // The first argument of `GRUB_CMDLINE_LINUX=a=b`.
            words.extend(word.split_once('=').map(|(_, value)| value.to_owned()));
        }
    }
    words.retain(|word| word.contains('='));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_found_in_every_form_of_a_configuration() {
        for (text, wanted) in [
            (
                "GRUB_CMDLINE_LINUX=\"ro crashkernel=1G quiet\"\n",
                "crashkernel=1G",
            ),
            ("GRUB_CMDLINE_LINUX=crashkernel=1G\n", "crashkernel=1G"),
            (
                "  linux /vmlinuz root=x 'init=/sbin/own'\n",
                "init=/sbin/own",
            ),
            (
                "kernelopts=root=x ro init=/sbin/own\n####",
                "init=/sbin/own",
            ),
            ("options root=x init=/sbin/own\n", "init=/sbin/own"),
        ] {
            assert!(words(text).contains(&wanted.to_owned()), "{text}");
        }
        assert!(words("#GRUB_CMDLINE_LINUX=crashkernel=1G\n").is_empty());
    }

    #[test]
    fn files_are_read_in_their_order_and_links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("secret"));
        fs::write(&outside, "a=outside").unwrap();
        for (path, text) in [
            ("etc/default/grub", "a=1"),
            ("boot/loader/entries/b.conf", "options a=3"),
            ("boot/loader/entries/a.conf", "options a=2"),
            ("boot/loader/entries/a.conf.rpmsave", "options a=4"),
        ] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        }
        fs::create_dir_all(root.join("boot/grub2")).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("boot/grub2/grub.cfg")).unwrap();
        let found = words_by_file(&root).unwrap().concat();
        assert_eq!(found, ["a=1", "a=2", "a=3"]);
    }
}
