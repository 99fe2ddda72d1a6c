//! `verify`: proves a bundle whole and genuine.

use std::path::PathBuf;

use anyhow::Result;

use super::output::print;
use super::trust::{keyring, trust};
use super::{Session, threads, title};
use crate::bundle::{Sealed, verify_deep};
use crate::progress::Progress;

/// Prove a bundle whole and signed by a trusted key
///
/// Every byte is compared with what was signed. Nothing is decoded or written.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle
    #[arg(value_name = "FILE.vab")]
    file: PathBuf,
    /// Trust the *.pem keys in this directory [default: /etc/va-upgrade/trusted.d]
    #[arg(long, value_name = "DIR")]
    trusted: Option<PathBuf>,
    /// Accept a bundle without a signature
    #[arg(long)]
    allow_unsigned: bool,
    /// Decode everything too, and compare the tree inside with what the manifest says of it
    #[arg(long)]
    deep: bool,
}

/// Runs `verify`.
pub fn run(session: &Session, args: &Args) -> Result<()> {
    let keyring = keyring(session, args.trusted.as_deref())?;
    let sealed = Sealed::open(&args.file)?;
    let (mut bundle, signer) = sealed.authenticate(trust(&keyring, args.allow_unsigned))?;
    match args.deep {
        true => verify_deep(&mut bundle, &session.ui)?,
        false => bundle.verify(threads(None)?, &session.ui)?,
    }
    session.ui.finish();
    let by = signer.map_or("not signed".to_owned(), |id| format!("signed by key {id}"));
    print(&format!(
        "{}: {}, whole{}, {by}\n",
        args.file.display(),
        title(bundle.manifest()),
        if args.deep { ", every file read" } else { "" }
    ))
}
