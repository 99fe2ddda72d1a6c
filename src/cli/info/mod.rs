//! `info`: what a bundle is, what is in it, what changed since another one.

mod changes;
mod listing;
mod name;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use super::Session;
use super::output::{Page, print_json};
use super::trust::keyring;
use crate::bundle::{Bundle, KeyId, Manifest, Sealed, Trust};
use crate::compare::By;

/// Show what a bundle is, what is in it, or what changed since another one
///
/// With --files, prints one line for each name in the bundle, in the bundle's
/// order: type and mode, owner and group, size or device numbers, time in UTC,
/// path. Names that are not text are printed escaped. With --json, each line is
/// an object; a path that is not text also comes as "path_hex".
///
/// With --diff, prints what changed from the older bundle OLD.vab to FILE.vab:
/// "+" what was added, "-" what was removed, "~" what was changed. Where both
/// hold the package database of dpkg or RPM, that is packages, then the files
/// that belong to none; otherwise, and with --files, it is every file. A time
/// alone is no change. RPM's database is read by this machine's rpm.
///
/// Both decode the whole bundle, whoever signed it. Status 4 tells that it is
/// damaged, and what was printed before not all there is.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle
    #[arg(value_name = "FILE.vab")]
    file: PathBuf,
    /// List every file; with --diff, compare every file
    #[arg(long)]
    files: bool,
    /// Show what changed from this bundle to FILE.vab
    #[arg(long, value_name = "OLD.vab")]
    diff: Option<PathBuf>,
    /// Trust the *.pem keys in this directory [default: /etc/va-upgrade/trusted.d]
    #[arg(long, value_name = "DIR")]
    trusted: Option<PathBuf>,
    /// Print JSON; with --files alone, one object a line
    #[arg(long)]
    json: bool,
}

/// What a bundle is, for programs.
#[derive(Serialize)]
struct Info<'a> {
    #[serde(flatten)]
    manifest: &'a Manifest,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    meta: &'a BTreeMap<String, String>,
    chunks: usize,
    signatures: usize,
    /// Whether a trusted key signed it.
    trusted: bool,
    /// The trusted keys that did.
    signers: Vec<KeyId>,
}

/// Runs `info`.
pub fn run(session: &Session, args: &Args) -> Result<()> {
    if let Some(old) = &args.diff {
        let by = if args.files { By::Files } else { By::Packages };
        let (mut old, mut new) = (open(old)?, open(&args.file)?);
        return changes::run(session, &mut old, &mut new, by, args.json);
    }
    if args.files {
        return listing::run(session, &mut open(&args.file)?, args.json);
    }
    describe(session, args)
}

/// Opens a bundle whoever signed it: looking is not installing.
fn open(path: &Path) -> Result<Bundle<'static>> {
    let (bundle, _) = Sealed::open(path)?.authenticate(Trust::Anyone)?;
    Ok(bundle)
}

fn describe(session: &Session, args: &Args) -> Result<()> {
    let keyring = keyring(session, args.trusted.as_deref())?;
    let sealed = Sealed::open(&args.file)?;
    let signatures = sealed.signatures().len();
    let signers = keyring.signers_of(sealed.signed_bytes(), sealed.signatures());
    let (bundle, _) = sealed.authenticate(Trust::Anyone)?;
    let index = bundle.index();
    let info = Info {
        manifest: bundle.manifest(),
        description: index.description.as_deref(),
        meta: &index.meta,
        chunks: index.chunks.len(),
        signatures,
        trusted: !signers.is_empty(),
        signers,
    };
    if args.json {
        print_json(&info)
    } else {
        let mut page = Page::of_stdout();
        info.show(&mut page);
        page.print()
    }
}

impl Info<'_> {
    /// Renders it for people, what comes from outside on one line each.
    fn show(&self, page: &mut Page) {
        let manifest = self.manifest;
        let least = manifest.min_version.as_deref();
        let packed_bytes = manifest.payload.packed_bytes;
        let signed = match (self.signatures, self.trusted) {
            (0, _) => "no".to_owned(),
            (count, true) => {
                let names: Vec<&str> = self.signers.iter().map(KeyId::as_str).collect();
                format!("{count}, trusted ({})", names.join(", "))
            }
            (count, false) => format!("{count}, by nobody this machine trusts"),
        };
        let mib = manifest.tree.data_bytes.div_ceil(1 << 20);
        let chunks = self.chunks;
        let rows = [
            ("product", manifest.product.clone()),
            ("version", manifest.version.clone()),
            ("upgrades from", least.unwrap_or("any version").to_owned()),
            ("processor", manifest.cpu_level.to_string()),
            ("kernel", manifest.boot.kernel_release.clone()),
            ("entries", manifest.tree.entries.to_string()),
            ("needs", format!("{mib} MiB")),
            ("packed", format!("{packed_bytes} bytes in {chunks} chunks")),
            ("signatures", signed),
        ];
        let meta = self
            .meta
            .iter()
            .map(|(name, value)| (&**name, value.clone()));
        let description = self
            .description
            .map(|text| ("description", text.to_owned()));
        for (name, value) in rows.into_iter().chain(description).chain(meta) {
            page.line(&format!("{name:<14} {value}"));
        }
    }
}
