//! `sign`: adds a signature to a bundle, with a key here or elsewhere.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ArgGroup;

use super::Session;
use super::output::print;
use super::trust::keyring;
use crate::bundle::{
    Keyring, Signed, attach_signature, export_signed_bytes, load_signing_key, sign_bundle,
};
use crate::signals;
use crate::system::draft::{Draft, check_output};

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
    /// Attach a signature made elsewhere, once it is proved to be one
    #[arg(long, value_name = "SIG")]
    attach: Option<PathBuf>,
    /// The public key that SIG is by [default: those in /etc/va-upgrade/trusted.d]
    #[arg(long = "pub", value_name = "KEY.pem", requires = "attach")]
    public: Option<PathBuf>,
}

/// Runs `sign`.
pub fn run(session: &Session, args: &Args) -> Result<()> {
    if let Some(out) = &args.export {
        return export(&args.file, out);
    }
    signals::watch()?;
    let signed = match (&args.key, &args.attach) {
        (Some(key), _) => sign_bundle(&session.host, &args.file, &load_signing_key(key)?)?,
        (None, Some(signature)) => {
            let keys = match &args.public {
                Some(key) => Keyring::of_key(key)?,
                None => keyring(session, None)?,
            };
            attach_signature(&session.host, &args.file, signature, &keys)?
        }
        (None, None) => return Ok(()),
    };
    print(&match signed {
        Signed::Added(id) => format!("signed with key {id}\n"),
        Signed::Already(id) => format!("signed with key {id} already\n"),
    })
}

/// Writes the bytes that a signature of `bundle` covers to `out`.
fn export(bundle: &Path, out: &Path) -> Result<()> {
    check_output(out, &[("the bundle", bundle)])?;
    let bytes = export_signed_bytes(bundle)?;
    let mut draft = Draft::create(out)?;
    let written = draft.file().write_all(&bytes);
    written.with_context(|| format!("writing {}", out.display()))?;
    draft.commit()
}
