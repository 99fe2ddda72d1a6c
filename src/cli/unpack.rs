//! `unpack`: restores a bundle's tree, or a part of it, into a directory.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use super::trust::{keyring, trust};
use super::{Session, threads};
use crate::bundle::{self, Rights, Sealed, UnpackOptions};
use crate::failure::{Class, Classify, with_class};
use crate::progress::Progress;
use crate::refuse;
use crate::signals;
use crate::system::files::remove_tree;

/// Restore a bundle's tree into a directory; for experts
#[derive(clap::Args)]
pub struct Args {
    /// The bundle
    #[arg(value_name = "FILE.vab")]
    file: PathBuf,
    /// An empty directory
    dir: PathBuf,
    /// Restore only this file or directory, and read only the chunks that hold it; needs
    /// no root rights, and without them the files are yours
    #[arg(long, value_name = "PATH")]
    only: Vec<PathBuf>,
    /// Trust the *.pem keys in this directory [default: /etc/va-upgrade/trusted.d]
    #[arg(long, value_name = "DIR")]
    trusted: Option<PathBuf>,
    /// Accept a bundle without a signature
    #[arg(long)]
    allow_unsigned: bool,
    /// Threads that unpack [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// Runs `unpack`.
pub fn run(session: &Session, args: &Args) -> Result<()> {
    let threads = threads(args.threads)?;
    let rights = if args.only.is_empty() || session.is_root() {
        session.start_changing("unpack")?;
        Rights::All
    } else {
        signals::watch()?;
        Rights::OfCaller
    };
    require_empty(&args.dir)?;
    let before = fs::metadata(&args.dir)?.permissions();
    let keyring = keyring(session, args.trusted.as_deref())?;
    let sealed = Sealed::open(&args.file)?;
    let (bundle, _) = sealed.authenticate(trust(&keyring, args.allow_unsigned))?;
    let options = UnpackOptions {
        rights,
        ..UnpackOptions::new(threads)
    };
    let only = args.only.iter().map(|path| path.as_os_str().as_bytes());
    let only: Vec<&[u8]> = only.collect();
    let unpacked = match only[..] {
        [] => bundle::unpack(bundle, &args.dir, &options, &session.ui),
        _ => bundle::unpack_only(bundle, &only, &args.dir, &options, &session.ui),
    };
    session.ui.finish();
    let Err(error) = unpacked else { return Ok(()) };
    // Half a tree is of no use, and a bad bundle changes nothing.
    let cleared = clear(&args.dir).and_then(|()| open_again(&args.dir, before));
    match cleared {
        Ok(()) => Err(error),
        Err(left) => Err(with_class(
            Class::Unexpected,
            anyhow!("{error:#}; and what was unpacked is still there: {left:#}"),
        )),
    }
}

/// Lists what is in the directory, except what mkfs put there.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name() != "lost+found" {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

fn require_empty(dir: &Path) -> Result<()> {
    let entries = entries(dir)
        .with_context(|| format!("{}: make this directory first", dir.display()))
        .class(Class::Refused)?;
    if !entries.is_empty() {
        refuse!(
            "{} is not empty; unpack into an empty directory",
            dir.display()
        );
    }
    Ok(())
}

/// Gives the directory the mode it had, which an ordinary user may not own.
fn open_again(dir: &Path, before: Permissions) -> Result<()> {
    match fs::set_permissions(dir, before) {
        Err(error) if error.kind() != ErrorKind::PermissionDenied => Err(error.into()),
        _ => Ok(()),
    }
}

fn clear(dir: &Path) -> Result<()> {
    for path in entries(dir)? {
        if path.symlink_metadata()?.is_dir() {
            remove_tree(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
