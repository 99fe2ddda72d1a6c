//! Our GRUB back in the boot area, after another program took its place.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::area::BootArea;
use super::installed::{CORE_FILE, GRUB_DIRS, our_dirs};
use super::switch::start;
use crate::failure::{Class, with_class};
use crate::refuse;
use crate::system::System;

/// Has LBA 0 start the GRUB of ours that it started last, from its files on
/// `/boot`. Until the last write, whatever it starts now starts.
///
/// # Errors
/// Class `Refused` when none of ours is whole; class `Undone` when a write failed
/// and the boot area is as it was, class `Stuck` when it could not be put back.
pub fn reinstall(sys: &dyn System, disk: &Path) -> Result<()> {
    let area = BootArea::change(&sys.at(disk))?;
    let Some((dir, platform)) = last_started(sys)? else {
        refuse!(
            "/boot holds no GRUB of va-upgrade's that is whole; `va-upgrade apply` installs one \
             with a new system"
        );
    };
    let saved = area.save().context("saving the boot area")?;
    let started = start(sys, &area, &dir, &platform);
    started.map_err(|error| match area.restore(&saved) {
        Ok(()) => with_class(Class::Undone, error),
        Err(undo_error) => with_class(
            Class::Stuck,
            error.context(format!(
                "restoring the boot area failed ({undo_error:#}); do not restart this machine, \
                 ask support for help"
            )),
        ),
    })
}

/// Returns the directory of the GRUB of ours that was installed last, with that of
/// its modules; `None` when none is whole.
fn last_started(sys: &dyn System) -> Result<Option<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    for dir in our_dirs(sys)? {
        let installed = dir
            .join(CORE_FILE)
            .metadata()
            .and_then(|meta| meta.modified());
        let grub = GRUB_DIRS.map(|name| dir.join(name));
        let whole = grub.into_iter().find(|grub| is_whole(grub));
        if let (Some(grub), Ok(installed)) = (whole, installed) {
            found.push((installed, dir, grub.join("i386-pc")));
        }
    }
    found.sort();
    Ok(found.pop().map(|(_, dir, platform)| (dir, platform)))
}

/// Tells whether the files that start a menu are there.
fn is_whole(grub: &Path) -> bool {
    [
        "grub.cfg",
        "i386-pc/boot.img",
        "i386-pc/core.img",
        "i386-pc/normal.mod",
    ]
    .iter()
    .all(|name| grub.join(name).is_file())
}
