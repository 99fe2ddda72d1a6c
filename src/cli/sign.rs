//! `sign`: adds a signature to a bundle, with a key here or elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ArgGroup;

use super::output::print;
use crate::bundle::{attach_signature, export_signed_bytes, load_signing_key, sign_bundle};
use crate::failure::{Class, Classify};

/// Add a signature to a bundle
///
/// For a key in an HSM or a signing service: write the bytes to sign with
/// --export, sign them there with Ed25519, and attach the 64 bytes that come back
/// with --attach.
#[derive(clap::Args)]
#[command(group(ArgGroup::new("how").required(true).args(["key", "export", "attach"])))]
pub struct Args {
    /// The bundle
    #[arg(value_name = "FILE.vab")]
    file: PathBuf,
    /// Sign with this Ed25519 key (PEM)
    #[arg(long, value_name = "KEY.pem")]
    key: Option<PathBuf>,
    /// Write the bytes to sign to this file
    #[arg(long, value_name = "FILE", alias = "export-digest")]
    export: Option<PathBuf>,
    /// Attach a signature made elsewhere
    #[arg(long, value_name = "SIG")]
    attach: Option<PathBuf>,
}

/// Runs `sign`.
pub fn run(args: &Args) -> Result<()> {
    if let Some(key) = &args.key {
        let id = sign_bundle(&args.file, &load_signing_key(key)?)?;
        print(&format!("signed with key {id}\n"))?;
    }
    if let Some(out) = &args.export {
        export(&args.file, out)?;
    }
    if let Some(signature) = &args.attach {
        attach_signature(&args.file, signature)?;
        print("signature attached\n")?;
    }
    Ok(())
}

/// Writes the bytes that a signature of `bundle` covers to `out`.
fn export(bundle: &Path, out: &Path) -> Result<()> {
    let bytes = export_signed_bytes(bundle)?;
    fs::write(out, bytes)
        .with_context(|| format!("writing {}", out.display()))
        .class(Class::Refused)
}
