//! What `build` made, for the pipeline that called it.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::build::Built;
use crate::bundle::KeyId;
use crate::progress::{Note, Progress, Step};
use crate::sha::Sha;
use crate::signals;
use crate::system::draft::Draft;

/// The content of the file that `build --result` writes, and of the last line of
/// JSON progress. Its shape is docs/schemas/result.json.
#[derive(Debug, Serialize)]
pub struct BuildResult<'a> {
    /// The version of this shape.
    format: u32,
    /// The bundle, as it was named.
    file: String,
    /// Its digest.
    sha256: Sha,
    /// Its size.
    bytes: u64,
    product: &'a str,
    version: &'a str,
    /// The digest of the tree in it.
    tree_digest: Sha,
    /// What of the source is not in it, and why.
    left_out: Vec<&'a str>,
    warnings: Vec<&'a str>,
    /// What else was told on the way.
    notes: Vec<&'a str>,
    /// The source, as it was named.
    source: String,
    /// The digest of the file so named, which of an image in several files is not
    /// all of it; absent of a directory.
    source_sha256: Option<Sha>,
    /// The keys that signed it.
    signers: Vec<KeyId>,
    /// The program that made it.
    tool: &'static str,
}

impl<'a> BuildResult<'a> {
    /// Describes the bundle in `output`, made from `source`; `told` was told
    /// meanwhile.
    ///
    /// # Errors
    /// When one of the files cannot be read.
    pub fn new(
        output: &Path,
        source: &Path,
        built: &'a Built,
        told: &'a [Note],
        progress: &dyn Progress,
    ) -> Result<BuildResult<'a>> {
        let (mut left_out, mut warnings, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        for note in told {
            match note {
                Note::LeftOut(what) => left_out.push(&**what),
                Note::Warning(text) => warnings.push(&**text),
                Note::Remark(text) => notes.push(&**text),
            }
        }
        let manifest = &built.manifest;
        let meta = output.metadata();
        Ok(BuildResult {
            format: 1,
            file: output.display().to_string(),
            sha256: digest(output, progress)?,
            bytes: meta
                .with_context(|| format!("looking at {}", output.display()))?
                .len(),
            product: &manifest.product,
            version: &manifest.version,
            tree_digest: manifest.tree.digest,
            left_out,
            warnings,
            notes,
            source: source.display().to_string(),
            source_sha256: source
                .is_file()
                .then(|| digest(source, progress))
                .transpose()?,
            signers: built.signer.clone().into_iter().collect(),
            tool: concat!("va-upgrade ", env!("CARGO_PKG_VERSION")),
        })
    }

    /// Writes it to the file `path`, whole.
    ///
    /// # Errors
    /// When it cannot be written, which the bundle survives.
    pub fn write(&self, path: &Path) -> Result<()> {
        let write = || -> Result<()> {
            let mut draft = Draft::create(path)?;
            serde_json::to_writer_pretty(draft.file(), self)?;
            draft.file().write_all(b"\n")?;
            draft.commit()
        };
        write().with_context(|| format!("writing {}; the bundle is whole", path.display()))
    }
}

fn digest(path: &Path, progress: &dyn Progress) -> Result<Sha> {
    let read = || -> Result<Sha> {
        let file = File::open(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let total = file.metadata()?.len();
        progress.start(Step::Read(name.into_owned()), Some(total));
        Sha::of_reader(file, &|bytes| {
            progress.advance(bytes);
            signals::check()
        })
    };
    let sha = read().with_context(|| format!("reading {}", path.display()))?;
    progress.finish();
    Ok(sha)
}
