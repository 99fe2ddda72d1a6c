//! `build`: packs a root file system into a bundle.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::{ArgGroup, ValueEnum};

use super::output::print;
use super::result::BuildResult;
use super::size::Size;
use super::{Session, threads, title};
use crate::build::{self as build_flow, BuildOptions, Built};
use crate::bundle::{Codec, PackMode, PackPlan};
use crate::failure::{Class, Classify};
use crate::progress::{Note, Progress, Recorder};
use crate::signals;
use crate::source::{self, Reader};

/// The one that clap would make is one line, wider than the help.
const USAGE: &str = "\
va-upgrade build [OPTIONS] <SOURCE> --output <FILE.vab> --release <FILE.yaml>
                        <--key <KEY.pem>|--unsigned>";

/// Pack the root file system of an image, archive or directory into a bundle
///
/// The image's partitions and linear logical volumes are found and mounted
/// read-only; /boot and the other file systems of its fstab that belong to the
/// system are packed in place. This takes root rights.
///
/// An archive of a root is a tar, packed with gzip, xz, zstd or not at all.
/// Owners, modes, device nodes and attributes are what it says they are, and
/// anybody may build from it; it is unpacked below TMPDIR (/var/tmp).
#[derive(clap::Args)]
#[command(override_usage = USAGE)]
#[command(group(ArgGroup::new("signature").required(true).args(["key", "unsigned"])))]
pub struct Args {
    /// A directory, archive of a root (`-` reads one), .vmdk, .ova, raw or qcow2 image
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
    /// Which root to pack: VG/LV, 2, 2:1, /dev/sda2, UUID=, LABEL=, or as a message names it
    #[arg(long, value_name = "WHICH")]
    root: Option<String>,
    /// Let no kernel but guestmount's virtual machine look into an image's file systems
    #[arg(long, conflicts_with = "root")]
    untrusted: bool,
    /// How to pack: xz is smaller, zstd unpacks in a fraction of the time [default: xz]
    #[arg(long, value_name = "CODEC", default_value = "xz")]
    #[arg(hide_default_value = true, hide_possible_values = true)]
    codec: CodecArg,
    /// Pack as small as can be; takes about twice the time and three times the memory
    #[arg(long)]
    best: bool,
    /// Pack fast, for a bundle nobody keeps: a fraction of the time, a fifth larger
    #[arg(long, conflicts_with = "best")]
    fast: bool,
    /// Threads that pack [default: one for each processor]
    #[arg(long, value_name = "N", conflicts_with = "memory")]
    threads: Option<usize>,
    /// As many threads as this much memory is enough for, such as 512M or 2G
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// Set a field of release.yaml, such as version=9.4.1 or meta.commit=1a2b3c
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Make the environment too in which an appliance with one root is moved to two slots
    #[arg(long)]
    environment: bool,
    /// Limit times in the tree to SOURCE_DATE_EPOCH
    #[arg(long)]
    clamp: bool,
    /// Write what was made to this file, as JSON
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,
}

/// Takes `NAME=VALUE` apart.
fn setting(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').context("give it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
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
        let mode = match (self.best, self.fast) {
            (true, _) => PackMode::Best,
            (_, true) => PackMode::Fast,
            _ => PackMode::Default,
        };
        PackPlan::new(codec, mode)
    }

    /// Returns how many threads pack by `plan`.
    fn threads(&self, plan: &PackPlan) -> Result<usize> {
        let Some(Size(memory)) = self.memory else {
            return threads(self.threads);
        };
        let each = plan.thread_bytes();
        if memory < each {
            let error = anyhow!(
                "--memory {} MiB is not enough: one thread takes {} MiB in this mode",
                memory >> 20,
                each >> 20
            );
            return Err(error).class(Class::Usage);
        }
        Ok(usize::try_from(memory / each)?.min(threads(None)?))
    }
}

/// Runs `build`.
pub fn run(session: &Session, args: Args) -> Result<()> {
    let plan = args.plan();
    let threads = args.threads(&plan)?;
    // The rest is read without mounts, and so without root rights.
    match source::needs_mounts(&args.source)? || args.environment {
        true => session.start_changing("build")?,
        false => signals::watch()?,
    }
    let volumes = &session.config.volumes;
    let options = BuildOptions {
        key: args.key,
        result: args.result,
        plan,
        source: args.source,
        output: args.output,
        release: args.release,
        root: args.root,
        reader: match args.untrusted {
            true => Reader::Guest,
            false => Reader::Kernel,
        },
        data_volumes: vec![volumes.data.clone(), volumes.image.clone()],
        threads,
        environment: args.environment,
        settings: args.set,
        clamp: args.clamp,
    };
    let recorder = Recorder::new(&session.ui);
    let built = build_flow::build(&session.host, &options, &recorder)?;
    session.ui.finish();
    tell(session, &options, &built, &recorder.into_notes())
}

/// Tells what was made: a line, and for programs all of it.
fn tell(session: &Session, options: &BuildOptions, built: &Built, notes: &[Note]) -> Result<()> {
    let (output, source) = (&options.output, &options.source);
    if options.result.is_some() || session.ui.is_json() {
        let result = BuildResult::new(output, source, built, notes, &session.ui)?;
        if let Some(path) = &options.result {
            result.write(path)?;
        }
        session.ui.tell_json("result", &result);
    }
    let meta = output.metadata();
    let meta = meta.with_context(|| format!("looking at {}", output.display()))?;
    print(&format!(
        "{}: {}, {} bytes\n",
        output.display(),
        title(&built.manifest),
        meta.len()
    ))
}
