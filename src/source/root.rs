//! Which volume of an image is the root file system.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::content::Content;
use super::disks::Disks;
use super::naming;
use super::volume::{Name, Volume, list_names};
use crate::tree::resolve;
use crate::{refuse, signals};

/// The logical volume that is the root when several could be.
const ROOT_VOLUME: &str = "root";

/// What a search for the root ended with.
pub enum Search<'i> {
    /// A root.
    Found(Found<'i>),
    /// No root, and why the volumes that could be one are none.
    NotHere(Vec<String>),
}

/// The root, and what else was seen on the way.
pub struct Found<'i> {
    /// The root.
    pub root: &'i Volume,
    /// Other volumes with a root file system, which were not chosen.
    pub others: Vec<&'i Volume>,
    /// Volumes that could not be looked at, and why.
    pub unopened: Vec<(&'i Volume, String)>,
}

impl<'i> Disks<'_, 'i> {
    /// Looks for the root among the volumes, mounting them at `at` for the moment.
    ///
    /// # Errors
    /// Class `Refused` when there are several, or what `--root` names is none.
    pub fn find_root(&self, at: &Path) -> Result<Search<'i>> {
        if let Some(wanted) = &self.options.root {
            return self.chosen_root(wanted, at);
        }
        let mut unopened = Vec::new();
        let mut roots = self.roots(at, &mut unopened)?;
        let called_root = roots.iter().position(|volume| is_called_root(volume));
        let root = match (roots.len(), called_root) {
            (0, _) => {
                let reasons = unopened
                    .iter()
                    .map(|(volume, reason)| format!("{} cannot be opened: {reason}", volume.name));
                return Ok(Search::NotHere(reasons.collect()));
            }
            (1, _) => roots.remove(0),
            (_, Some(index)) => roots.remove(index),
            (_, None) => refuse!(
                "{} holds several root file systems: {}; choose one with --root",
                self.source.display(),
                list_names(roots.into_iter())
            ),
        };
        Ok(Search::Found(Found {
            root,
            others: roots,
            unopened,
        }))
    }

    /// Finds the root that `--root` names.
    fn chosen_root(&self, wanted: &str, at: &Path) -> Result<Search<'i>> {
        let shown = self.source.display();
        let count = self.disks.len();
        let is_chosen = |volume: &&Volume| naming::is_chosen(volume, wanted, count);
        let named: Vec<&'i Volume> = self.volumes.iter().filter(is_chosen).collect();
        let root = match named.as_slice() {
            [root] => *root,
            [] => refuse!(
                "{shown} has no volume {wanted:?}; it has {}",
                list_names(self.volumes.iter())
            ),
            several => refuse!(
                "{shown} has several volumes {wanted:?}: {}",
                list_names(several.iter().copied())
            ),
        };
        if let Content::Closed(closed) = &root.content {
            let reason = format!("{} is {}", root.name, closed.reason);
            return Ok(Search::NotHere(vec![reason]));
        }
        if !self.is_root(root, at)? {
            refuse!(
                "{} in {shown} is not a root file system (no os-release and init in it)",
                root.name
            );
        }
        Ok(Search::Found(Found {
            root,
            others: Vec::new(),
            unopened: Vec::new(),
        }))
    }

    /// Returns the volumes that hold a root file system; `unopened` gets those
    /// that could not be looked at, and why.
    fn roots(
        &self,
        at: &Path,
        unopened: &mut Vec<(&'i Volume, String)>,
    ) -> Result<Vec<&'i Volume>> {
        let mut roots = Vec::new();
        for volume in self.volumes.iter().filter(|volume| !self.is_data(volume)) {
            if let Content::Closed(closed) = &volume.content {
                unopened.push((volume, format!("it is {}", closed.reason)));
                continue;
            }
            match self.is_root(volume, at) {
                Ok(true) => roots.push(volume),
                Ok(false) => {}
                Err(error) => {
                    signals::check()?;
                    unopened.push((volume, error.root_cause().to_string()));
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
