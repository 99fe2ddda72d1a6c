//! `build`: packs a root file system into a bundle.

use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgGroup, ValueEnum};

use super::output::print;
use super::{Session, threads, title};
use crate::build::{self as build_flow, BuildOptions};
use crate::bundle::{Codec, PackMode, PackPlan, load_signing_key};
use crate::progress::Progress;

/// The one that clap would make is one line, wider than the help.
const USAGE: &str = "\
va-upgrade build [OPTIONS] <SOURCE> --output <FILE.vab> --release <FILE.yaml>
                        <--key <KEY.pem>|--unsigned>";

/// Pack the root file system of an image or directory into a bundle
///
/// The image's partitions and linear logical volumes are found and mounted
/// read-only; /boot and the other file systems of its fstab that belong to the
/// system are packed in place.
#[derive(clap::Args)]
#[command(override_usage = USAGE)]
#[command(group(ArgGroup::new("signature").required(true).args(["key", "unsigned"])))]
pub struct Args {
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
    /// How to pack: xz is smaller, zstd unpacks in a fraction of the time [default: xz]
    #[arg(long, value_name = "CODEC", default_value = "xz")]
    #[arg(hide_default_value = true, hide_possible_values = true)]
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

impl Args {
    fn plan(&self) -> PackPlan {
        let codec = match self.codec {
            CodecArg::Xz => Codec::Xz,
            CodecArg::Zstd => Codec::Zstd,
        };
        let mode = match self.best {
            true => PackMode::Best,
            false => PackMode::Default,
        };
        PackPlan::new(codec, mode)
    }
}

/// Runs `build`.
pub fn run(session: &Session, args: Args) -> Result<()> {
    let threads = threads(args.threads)?;
    session.start_changing("build")?;
    let volumes = &session.config.volumes;
    let options = BuildOptions {
        key: args.key.as_deref().map(load_signing_key).transpose()?,
        plan: args.plan(),
        source: args.source,
        output: args.output,
        release: args.release,
        root: args.root,
        data_volumes: vec![volumes.data.clone(), volumes.image.clone()],
        threads,
    };
    let manifest = build_flow::build(&session.host, &options, &session.ui)?;
    session.ui.finish();
    let size = options.output.metadata().map_or(0, |meta| meta.len());
    print(&format!(
        "{}: {}, {size} bytes\n",
        options.output.display(),
        title(&manifest),
    ))
}
