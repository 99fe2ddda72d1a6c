//! The names of network cards, pinned in a system that has not run yet.
//!
//! Its kernel may find the cards in another order, and its udev make other names
//! of where they are. A name that udev may give is pinned by a file of
//! systemd.link(5); `eth0` and its like, which udev does not swap, by our early
//! service. Bonds, bridges and VLANs are the configuration's; their cards are pinned.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::appliance::cards::{self, Card, Interfaces, Means, Record, means};
use crate::paths::SETTINGS_DIR;
use crate::system::files;
use crate::tree::resolve;

/// Where systemd.link(5) files of a system's own are.
pub const LINKS_DIR: &str = "/etc/systemd/network";

/// What the names of ours begin with: before all that a system brings.
const PREFIX: &str = "10-va-";

/// The first line of ours.
const MARK: &str = "# Written by va-upgrade, which replaces it at the next upgrade.\n";

/// The first systemd that knows `PermanentMACAddress=`.
const KNOWS_PERMANENT: u32 = 245;

/// Pins the names of the cards in `now` in the tree at `root`, and takes back what
/// was pinned there earlier; returns what was not possible, in words.
///
/// # Errors
/// When something cannot be read or written.
pub fn pin(now: &Interfaces, root: &Path) -> Result<Vec<String>> {
    remove_earlier(root)?;
    let version = systemd_version(root)?;
    let mut notes = Vec::new();
    let mut by_service = Record::default();
    for card in &now.cards {
        match means::of(card, now) {
            Means::Link => {
                let path = Path::new(LINKS_DIR).join(format!("{PREFIX}{}.link", card.name));
                let place = resolve::place(root, &path)?;
                if let Some(dir) = place.parent() {
                    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
                }
                let text = link(card, now.has_twin(card), version);
                files::write_atomic(&place, text.as_bytes(), 0o644)?;
            }
            Means::Service => by_service.cards.push(card.clone()),
            Means::Nothing => notes.push(not_pinned(card)),
        }
    }
    let names = resolve::place(root, &Path::new(SETTINGS_DIR).join(cards::FILE))?;
    if !by_service.cards.is_empty() {
        let text = serde_yaml::to_string(&by_service).context("rendering the cards' names")?;
        files::write_atomic(&names, text.as_bytes(), 0o644)?;
    } else if names.exists() {
        fs::remove_file(&names).with_context(|| format!("removing {}", names.display()))?;
    }
    Ok(notes)
}

/// Says that the name of `card` cannot be pinned, and why.
pub fn not_pinned(card: &Card) -> String {
    format!(
        "the name {} is not pinned to its network card: {} is not an address of that card alone",
        card.name.escape_debug(),
        card.mac.escape_debug()
    )
}

/// Returns the files that [`pin`] has written into the tree at `root` for udev, by
/// their names.
///
/// # Errors
/// When one cannot be read.
pub fn links(root: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for path in own_links(root)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        found.push((name.into_owned(), text));
    }
    found.sort();
    Ok(found)
}

/// Writes the settings of one card, as systemd.link(5) describes.
fn link(card: &Card, has_twin: bool, systemd: Option<u32>) -> String {
    let key = match systemd {
        Some(version) if version >= KNOWS_PERMANENT => "PermanentMACAddress",
        _ => "MACAddress",
    };
    let mut text = format!("{MARK}[Match]\n{key}={}\n", card.mac);
    // By its current address alone, a VLAN on it is taken for the card; the two
    // halves of a card on Azure are, by either.
    let needs_driver = has_twin || key == "MACAddress";
    if let Some(driver) = card.driver.as_ref().filter(|_| needs_driver) {
        text.push_str(&format!("Driver={driver}\n"));
    }
    text.push_str(&format!("\n[Link]\nName={}\n", card.name));
    text
}

fn remove_earlier(root: &Path) -> Result<()> {
    for path in own_links(root)? {
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

/// Lists our files; a customer's may have a name like ours, but not our first line.
fn own_links(root: &Path) -> Result<Vec<PathBuf>> {
    let dir = resolve::place(root, Path::new(LINKS_DIR))?;
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let may_be = name.starts_with(PREFIX) && name.ends_with(".link");
        if may_be
            && entry.file_type()?.is_file()
            && fs::read(entry.path())?.starts_with(MARK.as_bytes())
        {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Tells the version of systemd in a tree by the name of its library, which it has
/// since 231: `libsystemd-shared-252.so`, `libsystemd-shared-252-46.el9.so`.
fn systemd_version(root: &Path) -> Result<Option<u32>> {
    const DIRS: [&str; 5] = [
        "/usr/lib/systemd",
        "/usr/lib64/systemd",
        "/usr/lib/x86_64-linux-gnu/systemd",
        "/lib/systemd",
        "/usr/lib/x86_64-linux-gnu",
    ];
    let mut newest = None;
    for dir in DIRS {
        let dir = resolve::place(root, Path::new(dir))?;
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            newest = newest.max(version_in(&name));
        }
    }
    Ok(newest)
}

fn version_in(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("libsystemd-shared-")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    rest.contains(".so").then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Card {
        Card {
            name: "ens192".into(),
            mac: "00:50:56:00:00:01".into(),
            driver: Some("vmxnet3".into()),
            ..Card::default()
        }
    }

    #[test]
    fn a_link_is_written_for_the_udev_that_reads_it() {
        let text = |twin, version| link(&card(), twin, version).replace(MARK, "");
        let permanent = "[Match]\nPermanentMACAddress=00:50:56:00:00:01\n";
        let current = "[Match]\nMACAddress=00:50:56:00:00:01\nDriver=vmxnet3\n";
        let name = "\n[Link]\nName=ens192\n";
        assert_eq!(text(false, Some(252)), [permanent, name].concat());
        let with_driver = [permanent, "Driver=vmxnet3\n", name].concat();
        assert_eq!(text(true, Some(245)), with_driver);
        for version in [None, Some(239), Some(244)] {
            assert_eq!(text(false, version), [current, name].concat());
        }
    }

    #[test]
    fn systemds_version_is_read_from_its_library() {
        for (name, version) in [
            ("libsystemd-shared-252.so", Some(252)),
            ("libsystemd-shared-252-46.el9_5.2.so", Some(252)),
            ("libsystemd-shared-255.so", Some(255)),
            ("libsystemd-shared-.so", None),
            ("libsystemd-shared-99999999999.so", None),
            ("libsystemd.so.0", None),
        ] {
            assert_eq!(version_in(name), version, "{name}");
        }
        let root = tempfile::tempdir().unwrap();
        assert_eq!(systemd_version(root.path()).unwrap(), None);
        let dir = root.path().join("usr/lib/x86_64-linux-gnu/systemd");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("libsystemd-shared-247.so"), "").unwrap();
        assert_eq!(systemd_version(root.path()).unwrap(), Some(247));
    }

    #[test]
    fn only_files_of_ours_are_replaced() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("etc/systemd/network");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("10-va-old.link"), MARK).unwrap();
        fs::write(dir.join("10-va-theirs.link"), "[Match]\n").unwrap();
        fs::write(dir.join("70-lan.link"), MARK).unwrap();
        assert_eq!(pin(&Interfaces::default(), root.path()).unwrap(), [""; 0]);
        let mut left: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|it| it.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["10-va-theirs.link", "70-lan.link"]);
        assert_eq!(links(root.path()).unwrap(), []);
    }
}
