//! `verify`: proves a bundle whole and genuine.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::output::{print, print_json};
use super::trust::{keyring, trust};
use super::{Session, threads, title};
use crate::bundle::{KeyId, Sealed, verify_deep};
use crate::progress::Progress;
use crate::sha::Sha;

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
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was proved, for programs. Its shape is docs/schemas/verify.json.
#[derive(Serialize)]
struct Verified<'a> {
    /// The version of this shape.
    format: u32,
    file: String,
    product: &'a str,
    version: &'a str,
    /// Whether every file was read as well.
    deep: bool,
    tree_digest: Sha,
    signatures: usize,
    /// The trusted keys that signed it.
    signers: Vec<KeyId>,
}

/// Runs `verify`.
pub fn run(session: &Session, args: &Args) -> Result<()> {
    let keyring = keyring(session, args.trusted.as_deref())?;
    let sealed = Sealed::open(&args.file)?;
    let signatures = sealed.signatures().len();
    let signers = keyring.signers_of(sealed.signed_bytes(), sealed.signatures());
    let (mut bundle, _) = sealed.authenticate(trust(&keyring, args.allow_unsigned))?;
    match args.deep {
        true => verify_deep(&mut bundle, &session.ui)?,
        false => bundle.verify(threads(None)?, &session.ui)?,
    }
    session.ui.finish();
    let manifest = bundle.manifest();
    if args.json {
        return print_json(&Verified {
            format: 1,
            file: args.file.display().to_string(),
            product: &manifest.product,
            version: &manifest.version,
            deep: args.deep,
            tree_digest: manifest.tree.digest,
            signatures,
            signers,
        });
    }
    let names: Vec<&str> = signers.iter().map(KeyId::as_str).collect();
    let by = match names[..] {
        [] => "not signed".to_owned(),
        [key] => format!("signed by key {key}"),
        _ => format!("signed by keys {}", names.join(", ")),
    };
    print(&format!(
        "{}: {}, whole{}, {by}\n",
        args.file.display(),
        title(manifest),
        if args.deep { ", every file read" } else { "" }
    ))
}
