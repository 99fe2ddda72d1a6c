//! `guestmount`: opens what needs device-mapper or a driver this kernel lacks.

use std::collections::HashMap;
use std::env;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::raw::RawImage;
use super::words::last_words;
use crate::system::{Cmd, Mount, Mounted, System};
use crate::tree::path::show;
use crate::tree::resolve;
use crate::tree::walk::walk;
use crate::{refuse, signals};

/// The guest boots in this time even without KVM on a busy machine.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// Tells whether `guestmount` is in PATH.
pub fn is_installed() -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|dir| dir.join("guestmount").is_file()))
}

/// Mounts the one system in `disks` on `at`, below a tmpfs of its own.
pub fn mount<'a>(
    sys: &'a dyn System,
    disks: &[RawImage],
    at: &Path,
    mounts: &mut Vec<Mounted<'a>>,
) -> Result<()> {
    // The guard of this mount makes the directory; guestmount covers it.
    let place = Mount::device(Path::new("va-upgrade"), at, "tmpfs", "mode=0700,size=1m");
    mounts.push(Mounted::new(sys, &place)?);
    if let Err(error) = sys.run(&command(disks, at)) {
        signals::check()?;
        let words = last_words(&error);
        refuse!("{words}; mount the system yourself and give the directory");
    }
    mounts.push(Mounted::adopt(sys, at));
    Ok(())
}

/// Refuses a tree in which guestmount shows the names of one file as files apart:
/// the kernel gives each of its names an inode number of its own.
///
/// # Errors
/// Class `Refused`, with the command that makes an archive of the system.
pub fn check_links(tree: &Path, shown: &Path) -> Result<()> {
    let mut lacking: HashMap<(u64, u64), (u64, Vec<u8>)> = HashMap::new();
    walk(tree, &[], &mut |found| {
        let links = found.links();
        if links > 1 {
            let path = || (links, found.path.to_owned());
            let left = &mut lacking.entry(found.inode()).or_insert_with(path).0;
            *left = left.saturating_sub(1);
        }
        Ok(())
    })?;
    let mut split: Vec<_> = lacking
        .into_values()
        .filter(|(left, _)| *left > 0)
        .collect();
    split.sort();
    let Some((_, path)) = split.first() else {
        return Ok(());
    };
    let shown = shown.display();
    refuse!(
        "guestmount shows hard links as copies, such as /{}; make an archive of the system and \
         give that: `guestfish --ro -a {shown} -i tar-out / root.tar numericowner:true \
         xattrs:true acls:true selinux:true`",
        show(path)
    )
}

fn command(disks: &[RawImage], at: &Path) -> Cmd {
    let mut cmd = Cmd::new("guestmount").args(["--ro", "-i", "--format=raw"]);
    for disk in disks {
        cmd = cmd.arg("-a").arg(disk.path());
    }
    cmd.arg(at).limit(LIMIT).interruptible()
}

/// Hides what is mounted on `path` of the tree, as it does not belong to the system.
pub fn cover<'a>(sys: &'a dyn System, tree: &Path, path: &Path) -> Result<Option<Mounted<'a>>> {
    let found = resolve::resolve(tree, path)
        .with_context(|| format!("looking up {} in the image", path.display()))?;
    let Some(point) = found.map(|path| tree.join(path)).filter(|dir| dir.is_dir()) else {
        return Ok(None);
    };
    let empty = Mount::device(
        Path::new("va-upgrade"),
        &point,
        "tmpfs",
        "ro,mode=0755,size=1m",
    );
    Mounted::new(sys, &empty).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_read_only_and_names_every_disk_as_raw() {
        let disks = [0, 0].map(|_| RawImage::temporary(4096, 0).unwrap());
        let [first, second] = disks
            .each_ref()
            .map(|disk| disk.path().display().to_string());
        assert_eq!(
            command(&disks, Path::new("/mnt/tree")).to_string(),
            format!("guestmount --ro -i --format=raw -a {first} -a {second} /mnt/tree")
        );
    }
}
