//! What is the customer's of a system whose disk will be made anew, in one archive.
//!
//! [`collect`], on the old system:
//!
//! 1. what else is mounted of the disk must not hold anything ([`facts`]);
//! 2. [`select`]: the plan of [`sync`](crate::sync) names what the customer changed;
//!    all of it that no rule drops, and all of `/etc`;
//! 3. what is told of the old system, and what its files were delivered with, are
//!    written beside ([`facts`], [`pristine::note`]);
//! 4. [`write`]: one pax tar, with numbers of owners, attributes and labels.
//!
//! [`open`], in RAM, gives a directory that `sync` takes for the old system's root: a
//! plan made of it is the plan that was made of the system.
//!
//! Nothing is left out for its size: where it does not fit, `collect` refuses.

pub mod facts;
mod select;
mod write;

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::appliance::{Appliance, pristine};
use crate::bundle::{Devices, Rights, UnpackOptions, unpack_tar};
use crate::failure::{Class, Classify};
use crate::install::boot_files::write_baseline;
use crate::install::customer;
use crate::paths::MOVED_DIR;
use crate::progress::Silent;
use crate::sha::Sha;
use crate::sync::{Rules, plan};
use crate::system::draft::Draft;
use crate::system::files::{self, ScratchDir};

pub use facts::Facts;
pub use select::MAX_CONTENT_BYTES;

/// The largest archive that is opened: the files, and a header for each.
const MAX_ARCHIVE_BYTES: u64 = MAX_CONTENT_BYTES + (256 << 20);

/// What tells an archive from any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The SHA-256 of it.
    pub sha256: Sha,
}

/// Writes the archive of the running system to `to`, whole or not at all, without the
/// files `left_out`.
///
/// # Errors
/// Class `Refused` when something of the customer's would be lost. Else when
/// something cannot be read or written.
pub fn collect(appliance: &Appliance, to: &Path, left_out: &[&Path]) -> Result<Digest> {
    let facts = Facts::gather(appliance)?;
    let root = appliance.at("/");
    let delivered = pristine::delivered(appliance, &root)?;
    let rules = Rules::load(&root, &delivered, None)?;
    let mount_points = customer::mount_points(appliance)?;
    let plan = plan::plan(&root, &delivered, &rules, &mount_points)?;
    let selected = select::select(&root, &plan, left_out)?;

    let told = ScratchDir::new()?;
    let dir = told.path().join(MOVED_DIR.trim_start_matches('/'));
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    facts.save(&dir)?;
    write_baseline(appliance, &dir)?;
    pristine::note(&delivered, told.path(), &mut |path| selected.is_told(path))?;

    let mut draft = Draft::create(to)?;
    let mut archive = write::Archive::new(draft.file());
    archive.add(&root, &selected.paths)?;
    archive.add(told.path(), &select::all(told.path())?)?;
    archive.finish()?;
    draft.commit()?;
    Ok(Digest {
        size_bytes: to.metadata()?.len(),
        sha256: Sha::of_file(to)?,
    })
}

/// Unpacks the archive, whose SHA-256 is to be `sha256`, to the directory `dir`, which
/// is made anew and root's alone.
///
/// # Errors
/// Class `BadBundle` when the archive is not what was collected.
pub fn open(archive: &Path, sha256: &Sha, dir: &Path) -> Result<()> {
    let open = || -> Result<()> {
        let size = archive.metadata()?.len();
        ensure!(
            size <= MAX_ARCHIVE_BYTES,
            "it has {size} bytes, more than {MAX_ARCHIVE_BYTES}"
        );
        let found = Sha::of_file(archive)?;
        ensure!(found == *sha256, "it has the SHA-256 {found}, not {sha256}");
        Ok(())
    };
    open()
        .with_context(|| format!("opening the settings in {}", archive.display()))
        .class(Class::BadBundle)?;
    files::remove_tree(dir)?;
    let made = DirBuilder::new().mode(0o700).create(dir);
    made.with_context(|| format!("making {}", dir.display()))?;
    let options = UnpackOptions {
        threads: 1,
        devices: Devices::Refuse,
        rights: Rights::All,
    };
    let file = File::open(archive)?;
    let size_bytes = file.metadata()?.len();
    unpack_tar(file, size_bytes, dir, &options, &Silent)
        .with_context(|| format!("unpacking the settings in {}", archive.display()))
}
