//! What is mounted without a line in fstab: by systemd's mount units, and by the
//! types of GPT partitions (the Discoverable Partitions Specification).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::tree::resolve;

/// Partition types that say where their file systems are mounted.
const TYPES: [(&str, &str); 7] = [
    ("933ac7e1-2eb4-4f13-b844-0e14e2aef915", "/home"),
    ("3b8f8425-20e0-4f3b-907f-1a25a76f98e8", "/srv"),
    ("4d21b016-b534-45c2-a9fb-5c16e091fd2d", "/var"),
    ("7ec6f557-3bc5-4aca-b293-16ef5df639d1", "/var/tmp"),
    ("8484680c-9521-48c6-9c11-b0720656f69e", "/usr"),
    ("bc13c2ff-59e6-4262-a352-b275fd6f7172", "/boot"),
    ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "/efi or /boot"),
];

/// Where administrators and packages put units.
const UNIT_DIRS: [&str; 3] = [
    "etc/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];
/// More units than a system has, and a longer one than there is.
const MAX_UNITS: usize = 10_000;
const MAX_UNIT_BYTES: u64 = 1 << 20;

/// Returns where a partition of this type is mounted.
pub fn mount_point(partition_type: &str) -> Option<&'static str> {
    let found = TYPES
        .iter()
        .find(|(guid, _)| guid.eq_ignore_ascii_case(partition_type));
    found.map(|(_, point)| *point)
}

/// A mount unit.
#[derive(Debug, PartialEq, Eq)]
pub struct Unit {
    /// The name of its file.
    pub name: String,
    /// What it mounts, as in fstab.
    pub what: String,
    /// Where it mounts it.
    pub place: PathBuf,
}

/// Lists the mount units in the system `tree`.
///
/// # Errors
/// When a directory of units cannot be read.
pub fn units(tree: &Path) -> Result<Vec<Unit>> {
    let mut units: Vec<Unit> = Vec::new();
    for dir in UNIT_DIRS {
        let found = resolve::resolve(tree, Path::new(dir))
            .with_context(|| format!("looking up /{dir} in the image"))?;
        let Some(found) = found else { continue };
        let entries = match fs::read_dir(tree.join(&found)) {
            Err(error) if error.kind() == ErrorKind::NotADirectory => continue,
            other => other.with_context(|| format!("listing /{dir} in the image"))?,
        };
        for entry in entries.take(MAX_UNITS) {
            let name = entry
                .with_context(|| format!("listing /{dir} in the image"))?
                .file_name();
            let Some(name) = name.to_str().filter(|name| name.ends_with(".mount")) else {
                continue;
            };
            // What an administrator wrote stands for what a package brings.
            if units.iter().all(|unit| unit.name != name) {
                units.extend(read_unit(tree, &found, name)?);
            }
        }
    }
    units.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(units)
}

fn read_unit(tree: &Path, dir: &Path, name: &str) -> Result<Option<Unit>> {
    let found = resolve::resolve(tree, &dir.join(name))
        .with_context(|| format!("looking up {name} in the image"))?;
    let Some(file) = found.map(|path| tree.join(path)) else {
        return Ok(None);
    };
    let meta = fs::metadata(&file).with_context(|| format!("looking at {name} in the image"))?;
    if !meta.is_file() || meta.len() > MAX_UNIT_BYTES {
        return Ok(None);
    }
    let bytes = fs::read(&file).with_context(|| format!("reading {name} in the image"))?;
    Ok(parse_unit(name, &String::from_utf8_lossy(&bytes)))
}

fn parse_unit(name: &str, text: &str) -> Option<Unit> {
    let value = |wanted: &str| {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs
            .filter(|(key, _)| key.trim() == wanted)
            .map(|(_, value)| value.trim())
            .next_back()
    };
    Some(Unit {
        name: name.to_owned(),
        what: value("What")?.to_owned(),
        place: PathBuf::from(value("Where")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn units_are_read_where_systemd_looks_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path();
        let (etc, usr) = (tree.join(UNIT_DIRS[0]), tree.join(UNIT_DIRS[1]));
        fs::create_dir_all(&etc).unwrap();
        fs::create_dir_all(&usr).unwrap();
        symlink("usr/lib", tree.join("lib")).unwrap();
        let unit = "[Mount]\nWhat = LABEL=home\nWhere=/home\nType=ext4\n";
        fs::write(usr.join("home.mount"), unit.replace("=home", "=old")).unwrap();
        fs::write(etc.join("home.mount"), unit).unwrap();
        symlink("/dev/null", usr.join("tmp.mount")).unwrap();
        fs::write(usr.join("x.service"), unit).unwrap();
        let found = units(tree).unwrap();
        assert_eq!(
            found,
            [Unit {
                name: "home.mount".into(),
                what: "LABEL=home".into(),
                place: "/home".into(),
            }]
        );
        assert_eq!(
            mount_point("933AC7E1-2EB4-4F13-B844-0E14E2AEF915"),
            Some("/home")
        );
    }
}
