//! The words for the root device in a tree's own boot configuration.
//!
//! A builder's image names the builder's root there. Tools of the distribution
//! that run in the slot later (kernel-install(8), grub-mkconfig) would make entries
//! from it that cannot boot. Only the words for the root are replaced.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::linux::{device_mapper, fstab};
use crate::slot::Slot;
use crate::system::files;
use crate::tree::resolve;

/// Files with kernel arguments; shell assignments in the second.
const FILES: [&str; 2] = ["/etc/kernel/cmdline", "/etc/default/grub"];

/// A directory of more such assignments, in files that end in `.cfg`.
const MORE: &str = "/etc/default/grub.d";

/// The largest file that is changed, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The root device of a slot.
pub struct Root<'a> {
    /// The volume group.
    pub group: &'a str,
    /// The volume of the slot.
    pub volume: &'a str,
    /// The volumes of all slots.
    pub slots: [&'a str; Slot::ALL.len()],
}

/// Has the boot configuration of the tree at `tree` name the device of `root`
/// where it names a root; `of_image` is the fstab it was delivered with.
///
/// # Errors
/// When a file cannot be read or written.
pub fn settle(tree: &Path, root: &Root, of_image: &str) -> Result<()> {
    let mut texts = Vec::new();
    for path in paths(tree)? {
        if let Some(text) = read(&path)? {
            texts.push((path, text));
        }
    }
    let mut devices: Vec<String> = fstab::parse(of_image)
        .into_iter()
        .filter(|line| line.mount_point == Path::new("/"))
        .map(|line| line.source)
        .collect();
    for (_, text) in &texts {
        each_word(text, &mut |word| {
            devices.extend(word.strip_prefix("root=").map(str::to_owned));
            None
        });
    }
    for (path, text) in texts {
        let settled = each_word(&text, &mut |word| own_word(word, root, &devices));
        if settled != text {
            let mode = fs::metadata(&path)?.permissions().mode() & 0o7777;
            files::write_atomic(&path, settled.as_bytes(), mode)?;
        }
    }
    Ok(())
}

/// Returns the files that are there.
fn paths(tree: &Path) -> Result<Vec<PathBuf>> {
    let mut wanted: Vec<PathBuf> = FILES.iter().map(PathBuf::from).collect();
    if let Some(dir) = resolve::resolve(tree, Path::new(MORE))? {
        let listed = fs::read_dir(tree.join(dir)).with_context(|| format!("listing {MORE}"))?;
        for entry in listed {
            wanted.push(Path::new(MORE).join(entry?.file_name()));
        }
        wanted[FILES.len()..].sort();
    }
    let mut found = Vec::new();
    for (at, path) in wanted.iter().enumerate() {
        let is_read = at < FILES.len() || path.extension().is_some_and(|e| e == "cfg");
        let file = resolve::resolve(tree, path)?.map(|file| tree.join(file));
        found.extend(file.filter(|file| is_read && file.is_file()));
    }
    Ok(found)
}

/// Reads a file; `None` where it is nothing that a person wrote.
fn read(path: &Path) -> Result<Option<String>> {
    let mut bytes = Vec::new();
    let opened = fs::File::open(path);
    opened
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .with_context(|| format!("reading {}", path.display()))?;
    let is_small = bytes.len() as u64 <= MAX_BYTES;
    Ok(String::from_utf8(bytes).ok().filter(|_| is_small))
}

/// Returns `text` with every kernel argument replaced for which `own` has another.
/// What is between them, and comments, stay byte for byte.
fn each_word(text: &str, own: &mut dyn FnMut(&str) -> Option<String>) -> String {
    let is_between = |c: char| c.is_whitespace() || "\"'\\".contains(c);
    let mut settled = String::new();
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('#') {
            settled.push_str(line);
            continue;
        }
        let mut rest = line;
        while !rest.is_empty() {
            let start = rest.find(|c| !is_between(c)).unwrap_or(rest.len());
            settled.push_str(&rest[..start]);
            rest = &rest[start..];
            let end = rest.find(is_between).unwrap_or(rest.len());
            let mut word = &rest[..end];
            // The first argument of `GRUB_CMDLINE_LINUX=root=x`.
            if let Some((name, value)) = word.split_once('=')
                && name.starts_with("GRUB_CMDLINE")
            {
                settled.push_str(&word[..=name.len()]);
                word = value;
            }
            settled.push_str(&own(word).unwrap_or_else(|| word.to_owned()));
            rest = &rest[end..];
        }
    }
    settled
}

/// Returns the argument of the slot's own for one that names a root.
fn own_word(word: &str, root: &Root, devices: &[String]) -> Option<String> {
    if word.starts_with("root=") {
        let device = device_mapper::path(root.group, root.volume);
        return Some(format!("root={}", device.display()));
    }
    let (group, volume) = word.strip_prefix("rd.lvm.lv=")?.split_once('/')?;
    let names = [
        device_mapper::path(group, volume).display().to_string(),
        format!("/dev/{group}/{volume}"),
    ];
    let is_slot = group == root.group && root.slots.contains(&volume);
    let is_root = devices.iter().any(|device| names.contains(device));
    (is_slot || is_root).then(|| format!("rd.lvm.lv={}/{}", root.group, root.volume))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_IMAGE: &str = "/dev/mapper/rl-root / xfs defaults 0 0\n";

    const GRUB: &str = "\
# root=old rd.lvm.lv=rl/root
GRUB_TIMEOUT=5
GRUB_CMDLINE_LINUX=\"crashkernel=1G  rd.lvm.lv=rl/root rd.lvm.lv=rl/root2 \\
  root=UUID=1-2 resume=/dev/mapper/rl-swap nfsroot=x\"
GRUB_CMDLINE_LINUX_DEFAULT=root=/dev/sda1
";

    fn root() -> Root<'static> {
        Root {
            group: "VA",
            volume: "back",
            slots: ["root", "back"],
        }
    }

    #[test]
    fn only_the_words_for_the_root_become_the_slots() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("etc/default/grub", GRUB);
        put(
            "etc/kernel/cmdline",
            "root=/dev/rl/other ro rd.lvm.lv=rl/other\n",
        );
        put(
            "etc/default/grub.d/50.cfg",
            "A=\"$A rd.lvm.lv=VA/root quiet\"",
        );
        put("etc/default/grub.d/50.cfg.bak", "root=x");
        settle(dir.path(), &root(), OF_IMAGE).unwrap();
        let get = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        assert_eq!(
            get("etc/default/grub"),
            "\
# root=old rd.lvm.lv=rl/root
GRUB_TIMEOUT=5
GRUB_CMDLINE_LINUX=\"crashkernel=1G  rd.lvm.lv=VA/back rd.lvm.lv=rl/root2 \\
  root=/dev/mapper/VA-back resume=/dev/mapper/rl-swap nfsroot=x\"
GRUB_CMDLINE_LINUX_DEFAULT=root=/dev/mapper/VA-back
"
        );
        assert_eq!(
            get("etc/kernel/cmdline"),
            "root=/dev/mapper/VA-back ro rd.lvm.lv=VA/back\n"
        );
        assert_eq!(
            get("etc/default/grub.d/50.cfg"),
            "A=\"$A rd.lvm.lv=VA/back quiet\""
        );
        assert_eq!(get("etc/default/grub.d/50.cfg.bak"), "root=x");
    }

    #[test]
    fn a_link_out_of_the_tree_and_what_is_no_text_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("grub"));
        fs::create_dir_all(tree.join("etc/default")).unwrap();
        fs::create_dir_all(tree.join("etc/kernel")).unwrap();
        fs::write(&outside, "root=x").unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("etc/default/grub")).unwrap();
        fs::write(tree.join("etc/kernel/cmdline"), b"root=x\xff").unwrap();
        settle(&tree, &root(), "").unwrap();
        assert_eq!(fs::read(&outside).unwrap(), b"root=x");
        assert_eq!(
            fs::read(tree.join("etc/kernel/cmdline")).unwrap(),
            b"root=x\xff"
        );
    }
}
