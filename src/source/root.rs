//! Which volume of an image is the root file system.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::content::Content;
use super::disks::Disks;
use super::volume::{Name, Volume, list_names};
use crate::tree::resolve;
use crate::{refuse, signals};

/// The volume that is the root when several could be.
const ROOT_VOLUME: &str = "root";

/// What a search for the root ended with.
pub enum Search<'i> {
    /// The root.
    Found(&'i Volume),
    /// No root, and why the volumes that could be one are none.
    NotHere(Vec<String>),
}

impl<'i> Disks<'_, 'i> {
    /// Looks for the root among the volumes, mounting them at `at` for the moment.
    ///
    /// # Errors
    /// Class `Refused` when there are several, or what `--root` names is none.
    pub fn find_root(&self, at: &Path) -> Result<Search<'i>> {
        let volumes = self.volumes;
        if let Some(wanted) = &self.options.root {
            let Some(volume) = volumes.iter().find(|volume| is_called(volume, wanted)) else {
                refuse!(
                    "{} has no volume {wanted:?}; it has {}",
                    self.source.display(),
                    list_names(volumes.iter())
                );
            };
            if let Content::Closed(reason) = &volume.content {
                return Ok(Search::NotHere(vec![format!(
                    "{} is {reason}",
                    volume.name
                )]));
            }
            if !self.is_root(volume, at)? {
                refuse!(
                    "{} in {} is not a root file system (no os-release and init in it)",
                    volume.name,
                    self.source.display()
                );
            }
            return Ok(Search::Found(volume));
        }
        let candidates = volumes.iter().filter(|volume| !self.is_data(volume));
        let (called_root, others): (Vec<&Volume>, Vec<&Volume>) = candidates.partition(
            |volume| matches!(&volume.name, Name::Logical(_, name) if name == ROOT_VOLUME),
        );
        let mut reasons = Vec::new();
        for group in [called_root, others] {
            let roots = self.roots_among(&group, at, &mut reasons)?;
            match roots.as_slice() {
                [] => {}
                [root] => return Ok(Search::Found(root)),
                several => refuse!(
                    "{} holds several root file systems: {}; choose one with --root",
                    self.source.display(),
                    list_names(several.iter().copied())
                ),
            }
            // A root volume that cannot be opened is not replaced by another one.
            if !reasons.is_empty() && group.iter().any(|volume| is_called_root(volume)) {
                break;
            }
        }
        Ok(Search::NotHere(reasons))
    }

    /// Returns those of `volumes` that hold a root file system; `reasons` gets
    /// why others could not be looked at.
    fn roots_among(
        &self,
        volumes: &[&'i Volume],
        at: &Path,
        reasons: &mut Vec<String>,
    ) -> Result<Vec<&'i Volume>> {
        let mut roots = Vec::new();
        for volume in volumes {
            if let Content::Closed(reason) = &volume.content {
                reasons.push(format!("{} is {reason}", volume.name));
                continue;
            }
            match self.is_root(volume, at) {
                Ok(true) => roots.push(*volume),
                Ok(false) => {}
                Err(error) => {
                    signals::check()?;
                    reasons.push(format!("{error:#}"));
                }
            }
        }
        Ok(roots)
    }

    /// Tells whether `volume` holds a root file system, mounting it for the moment.
    fn is_root(&self, volume: &Volume, at: &Path) -> Result<bool> {
        match &volume.content {
            Content::FileSystem(file_system) if file_system.kind != "vfat" => {}
            _ => return Ok(false),
        }
        let mounted = self.mount(volume, at)?;
        let answer = looks_like_root(mounted.path());
        mounted.unmount()?;
        answer
    }
}

fn is_called_root(volume: &Volume) -> bool {
    matches!(&volume.name, Name::Logical(_, name) if name == ROOT_VOLUME)
}

/// Tells whether `volume` is what `--root` names.
fn is_called(volume: &Volume, wanted: &str) -> bool {
    match &volume.name {
        Name::Logical(group, name) => {
            wanted.strip_prefix("/dev/").unwrap_or(wanted) == format!("{group}/{name}")
        }
        Name::Partition(0, number) => wanted == number.to_string(),
        Name::Partition(disk, number) => wanted == format!("{}:{number}", disk + 1),
        Name::Disk(_) => false,
    }
}

/// Tells whether a root file system is in `dir`: it says which system it is, and
/// has an init, or an empty `/usr` for one.
fn looks_like_root(dir: &Path) -> Result<bool> {
    let present = |path: &str| -> Result<bool> {
        let path = Path::new(path);
        let parent = path.parent().unwrap_or(path);
        let found = resolve::resolve(dir, parent)
            .with_context(|| format!("looking up {} in the image", parent.display()))?;
        // The last step may be a link to a part that is not mounted yet.
        Ok(found.is_some_and(|parent| {
            let entry = dir.join(parent).join(path.file_name().unwrap_or_default());
            entry.symlink_metadata().is_ok()
        }))
    };
    let any = |paths: &[&str]| -> Result<bool> {
        for path in paths {
            if present(path)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    if !any(&["etc/os-release", "usr/lib/os-release"])? {
        return Ok(false);
    }
    let has_init = any(&[
        "sbin/init",
        "usr/lib/systemd/systemd",
        "lib/systemd/systemd",
    ])?;
    let usr_is_elsewhere = fs::read_dir(dir.join("usr")).is_ok_and(|mut usr| usr.next().is_none());
    Ok(has_init || (usr_is_elsewhere && present("etc/fstab")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_root_is_known_by_its_os_release_and_init() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert!(!looks_like_root(root).unwrap());
        fs::create_dir_all(root.join("etc")).unwrap();
        symlink("../usr/lib/os-release", root.join("etc/os-release")).unwrap();
        assert!(!looks_like_root(root).unwrap());
        fs::create_dir_all(root.join("usr")).unwrap();
        symlink("usr/sbin", root.join("sbin")).unwrap();
        assert!(!looks_like_root(root).unwrap());
        // A separate /usr: nothing in it yet.
        fs::write(root.join("etc/fstab"), "").unwrap();
        assert!(looks_like_root(root).unwrap());
        fs::create_dir_all(root.join("usr/sbin")).unwrap();
        assert!(!looks_like_root(root).unwrap());
        symlink("/lib/systemd/systemd", root.join("usr/sbin/init")).unwrap();
        assert!(looks_like_root(root).unwrap());
    }
}
