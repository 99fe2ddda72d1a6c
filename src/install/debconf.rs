//! What debconf of a Debian system knows of the disks that GRUB is installed on.
//!
//! An update of the package grub-pc runs `grub-install` on the disks that are
//! named there. On an appliance the boot sector is ours, so none may be named.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::system::files;
use crate::tree::resolve;

/// debconf's answers: stanzas with empty lines between them (debconf(7),
/// `Debconf::Format::822`). Passwords stand elsewhere.
const ANSWERS: &str = "/var/cache/debconf/config.dat";

/// The question for the disks, and the one whether none is what is meant; both
/// as the package's postinst asks them.
const DISKS: &str = "grub-pc/install_devices";
const NO_DISKS: &str = "grub-pc/install_devices_empty";

/// Lets grub-pc of the tree at `root` know no disk; nothing is done where the
/// package has never asked.
///
/// # Errors
/// When the answers cannot be read or written.
pub fn name_no_disk(root: &Path) -> Result<()> {
    let path = resolve::place(root, Path::new(ANSWERS))?;
    if !path.is_file() {
        return Ok(());
    }
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let Ok(text) = String::from_utf8(bytes) else {
        return Ok(());
    };
    match without_disks(&text) {
        Some(changed) if changed != text => files::write_atomic(&path, changed.as_bytes(), 0o644),
        _ => Ok(()),
    }
}

/// Returns the answers without a disk for grub-pc; `None` where it has not asked.
fn without_disks(answers: &str) -> Option<String> {
    let mut stanzas: Vec<String> = answers
        .split("\n\n")
        .map(|stanza| stanza.trim_matches('\n').to_owned())
        .filter(|stanza| !stanza.is_empty())
        .collect();
    let find = |stanzas: &[String], name: &str| {
        let line = format!("Name: {name}");
        let named = |stanza: &String| stanza.lines().any(|found| found == line);
        stanzas.iter().position(named)
    };
    let disks = find(&stanzas, DISKS)?;
    stanzas[disks] = answered(&stanzas[disks], "");
    match find(&stanzas, NO_DISKS) {
        Some(at) => stanzas[at] = answered(&stanzas[at], "true"),
        None => {
            let asked = format!("Name: {NO_DISKS}\nTemplate: {NO_DISKS}\nOwners: grub-pc");
            stanzas.push(answered(&asked, "true"));
        }
    }
    Some(stanzas.join("\n\n") + "\n\n")
}

/// Gives the question of `stanza` the answer `value`, as if a person had.
fn answered(stanza: &str, value: &str) -> String {
    let is_kept = |line: &&str| !line.starts_with("Value:") && !line.starts_with("Flags:");
    let mut lines: Vec<String> = stanza.lines().filter(is_kept).map(str::to_owned).collect();
    // Lines that begin with a space belong to the field before them.
    let behind_name = lines.iter().position(|line| line.starts_with("Name:"));
    let at = behind_name.map_or(0, |name| name + 1);
    lines.splice(
        at..at,
        [format!("Value: {value}"), "Flags: seen".to_owned()],
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_AN_INSTALLER: &str = "\
Name: grub-pc/install_devices
Template: grub-pc/install_devices
Value: /dev/disk/by-id/ata-QEMU_HARDDISK_QM00001
Owners: grub-pc
Flags: seen
Variables:
 CHOICES = /dev/sda (8589 MB; QEMU_HARDDISK)
 RAW_CHOICES = /dev/disk/by-id/ata-QEMU_HARDDISK_QM00001

Name: grub-pc/install_devices_empty
Template: grub-pc/install_devices_empty
Value: false
Owners: grub-pc

Name: tzdata/Areas
Template: tzdata/Areas
Value: Europe
Owners: tzdata

";

    #[test]
    fn grub_pc_knows_no_disk_and_the_other_answers_stay() {
        let changed = without_disks(OF_AN_INSTALLER).unwrap();
        assert_eq!(
            changed,
            "\
Name: grub-pc/install_devices
Value: 
Flags: seen
Template: grub-pc/install_devices
Owners: grub-pc
Variables:
 CHOICES = /dev/sda (8589 MB; QEMU_HARDDISK)
 RAW_CHOICES = /dev/disk/by-id/ata-QEMU_HARDDISK_QM00001

Name: grub-pc/install_devices_empty
Value: true
Flags: seen
Template: grub-pc/install_devices_empty
Owners: grub-pc

Name: tzdata/Areas
Template: tzdata/Areas
Value: Europe
Owners: tzdata

"
        );
        assert_eq!(without_disks(&changed), Some(changed.clone()));
    }

    #[test]
    fn a_question_that_was_never_asked_is_answered_where_grub_pc_is() {
        let (disks, rest) = OF_AN_INSTALLER.split_once("\n\n").unwrap();
        let changed = without_disks(&format!("{disks}\n\n")).unwrap();
        assert!(
            changed.ends_with(
                "\n\nName: grub-pc/install_devices_empty\nValue: true\nFlags: seen\n\
                 Template: grub-pc/install_devices_empty\nOwners: grub-pc\n\n"
            ),
            "{changed}"
        );
        assert_eq!(without_disks(rest), None);
        assert_eq!(without_disks(""), None);
    }

    #[test]
    fn a_system_without_debconf_stays_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        name_no_disk(root.path()).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        let answers = root.path().join("var/cache/debconf/config.dat");
        fs::create_dir_all(answers.parent().unwrap()).unwrap();
        fs::write(&answers, OF_AN_INSTALLER).unwrap();
        name_no_disk(root.path()).unwrap();
        let text = fs::read_to_string(&answers).unwrap();
        assert!(!text.contains("Value: /dev/disk"), "{text}");
    }
}
