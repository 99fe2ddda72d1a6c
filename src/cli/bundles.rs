//! `build`, `sign`, `verify` and `unpack`.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::{ArgGroup, Args, ValueEnum};

use super::{Session, print, threads};
use crate::build::{self as build_flow, BuildOptions};
use crate::bundle::{
    self, Codec, Keyring, Manifest, PackMode, PackPlan, Sealed, Trust, UnpackOptions,
    load_signing_key,
};
use crate::failure::{Class, Classify, with_class};
use crate::progress::Progress;
use crate::refuse;
use crate::system::files::remove_tree;
use crate::upgrade::apply::{REVOKED_FILE, TRUSTED_DIR};

/// Pack the root file system of an image or directory into a bundle
///
/// The image's partitions and linear logical volumes are found and mounted
/// read-only; /boot and the other file systems of its fstab that belong to the
/// system are packed in place.
#[derive(Args)]
#[command(group(ArgGroup::new("signature").required(true).args(["key", "unsigned"])))]
pub struct BuildArgs {
    /// A directory, .vmdk, .ova, raw or qcow2 image
    source: PathBuf,
    /// The bundle to write
    #[arg(short, long, value_name = "FILE.vab")]
    output: PathBuf,
    /// Product, version and what goes with them
    #[arg(long, value_name = "FILE.yaml")]
    release: PathBuf,
    /// Sign with this Ed25519 key (PEM, as `openssl genpkey` makes)
    #[arg(long, value_name = "KEY.pem")]
    key: Option<PathBuf>,
    /// Leave the bundle unsigned
    #[arg(long)]
    unsigned: bool,
    /// Which root to pack, where an image has several: VG/LV or a partition number
    #[arg(long, value_name = "WHICH")]
    root: Option<String>,
    /// How to pack: xz is smaller, zstd unpacks in a fraction of the time
    #[arg(long, value_name = "CODEC", default_value = "xz")]
    codec: CodecArg,
    /// Pack as small as can be; takes about twice the time and three times the memory
    #[arg(long)]
    best: bool,
    /// Threads that pack [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// The codecs a bundle may have.
#[derive(Clone, Copy, ValueEnum)]
enum CodecArg {
    Xz,
    Zstd,
}

pub fn build(session: &Session, args: BuildArgs) -> Result<()> {
    let threads = threads(args.threads)?;
    session.start_changing("build")?;
    let key = args.key.as_deref().map(load_signing_key).transpose()?;
    let options = BuildOptions {
        source: args.source,
        output: args.output.clone(),
        release: args.release,
        key,
        root: args.root,
        data_volumes: vec![
            session.config.volumes.data.clone(),
            session.config.volumes.image.clone(),
        ],
        plan: PackPlan::new(
            match args.codec {
                CodecArg::Xz => Codec::Xz,
                CodecArg::Zstd => Codec::Zstd,
            },
            match args.best {
                true => PackMode::Best,
                false => PackMode::Default,
            },
        ),
        threads,
    };
    let manifest = build_flow::build(&session.host, &options, &session.ui)?;
    session.ui.finish();
    let size = args.output.metadata().map_or(0, |meta| meta.len());
    print(&format!(
        "{}: {}, {} bytes\n",
        args.output.display(),
        title(&manifest),
        size
    ))
}

/// Add a signature to a bundle
///
/// For a key in an HSM or a signing service: export what is to be signed, sign it
/// there with Ed25519, attach the 64 bytes that come back.
#[derive(Args)]
#[command(group(ArgGroup::new("how").required(true).args(["key", "export_digest", "attach"])))]
pub struct SignArgs {
    /// The bundle
    #[arg(value_name = "FILE.vab")]
    file: PathBuf,
    /// Sign with this Ed25519 key (PEM)
    #[arg(long, value_name = "KEY.pem")]
    key: Option<PathBuf>,
    /// Write the bytes that are to be signed to this file
    #[arg(long, value_name = "FILE")]
    export_digest: Option<PathBuf>,
    /// Attach a signature made elsewhere
    #[arg(long, value_name = "SIG")]
    attach: Option<PathBuf>,
}

pub fn sign(args: &SignArgs) -> Result<()> {
    if let Some(key) = &args.key {
        let id = bundle::sign_bundle(&args.file, &load_signing_key(key)?)?;
        return print(&format!("signed with key {id}\n"));
    }
    if let Some(out) = &args.export_digest {
        let bytes = bundle::export_signed_bytes(&args.file)?;
        return fs::write(out, bytes)
            .with_context(|| format!("writing {}", out.display()))
            .class(Class::Refused);
    }
    if let Some(signature) = &args.attach {
        bundle::attach_signature(&args.file, signature)?;
        return print("signature attached\n");
    }
    Ok(())
}

/// Prove a bundle whole and signed by a trusted key
///
/// Every byte is compared with what was signed. Nothing is decoded or written.
#[derive(Args)]
pub struct VerifyArgs {
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

pub fn verify(session: &Session, args: &VerifyArgs) -> Result<()> {
    let keyring = keyring(session, args.trusted.as_deref())?;
    let sealed = Sealed::open(&args.file)?;
    let (mut bundle, signer) = sealed.authenticate(trust(&keyring, args.allow_unsigned))?;
    match args.deep {
        true => bundle.verify_deep(&session.ui)?,
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

/// Restore a bundle's tree into a directory; for experts
#[derive(Args)]
pub struct UnpackArgs {
    /// The bundle
    #[arg(value_name = "FILE.vab")]
    file: PathBuf,
    /// An empty directory
    dir: PathBuf,
    /// Restore only this file or directory, and read only the chunks that hold it
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

pub fn unpack(session: &Session, args: &UnpackArgs) -> Result<()> {
    let threads = threads(args.threads)?;
    session.start_changing("unpack")?;
    require_empty(&args.dir)?;
    let keyring = keyring(session, args.trusted.as_deref())?;
    let sealed = Sealed::open(&args.file)?;
    let (bundle, _) = sealed.authenticate(trust(&keyring, args.allow_unsigned))?;
    let options = UnpackOptions::new(threads);
    let only = args.only.iter().map(|path| path.as_os_str().as_bytes());
    let only: Vec<&[u8]> = only.collect();
    let unpacked = match only[..] {
        [] => bundle.unpack(&args.dir, &options, &session.ui),
        _ => bundle.unpack_only(&only, &args.dir, &options, &session.ui),
    };
    session.ui.finish();
    let Err(error) = unpacked else { return Ok(()) };
    // Half a tree is of no use, and a bad bundle changes nothing.
    match clear(&args.dir) {
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

/// Loads the keys in the directory `trusted`, or else the appliance's.
pub fn keyring(session: &Session, trusted: Option<&Path>) -> Result<Keyring> {
    if let Some(dir) = trusted
        && !dir.is_dir()
    {
        let message = anyhow!("--trusted {}: there is no such directory", dir.display());
        return Err(message).class(Class::Usage);
    }
    let default = session.config.at(TRUSTED_DIR);
    Keyring::load(
        trusted.unwrap_or(&default),
        &session.config.at(REVOKED_FILE),
    )
}

/// Returns whose bundles are accepted.
pub fn trust(keyring: &Keyring, allow_unsigned: bool) -> Trust<'_> {
    if allow_unsigned {
        Trust::SignedOrUnsigned(keyring)
    } else {
        Trust::Signed(keyring)
    }
}

/// Names a bundle by its product and version.
pub fn title(manifest: &Manifest) -> String {
    format!("{} {}", manifest.product, manifest.version)
}
