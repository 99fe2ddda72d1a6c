//! What is kept of each carrying-over on the data volume: a numbered set with the
//! report, both sides of conflicts, and the files that no rule knows.
//!
//! The directory is root's alone, since what is in it may be secret.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::aside::{Content, make_file};
use super::carry::Carried;
use super::like::Like;
use super::plan::{Action, Plan, as_texts};
use super::source::Source;
use crate::accounts::IdMap;
use crate::appliance::pristine::{Pristine, What};
use crate::system::files;
use crate::tree::meta::Kind;

/// Where the sets are, on the data volume.
const DIR: &str = "va-upgrade/sync";
/// A set's report.
const REPORT: &str = "report.json";
/// How many sets are kept.
const MAX_SETS: usize = 10;
/// The largest file that is kept, in bytes.
pub const MAX_FILE_BYTES: u64 = 64 << 20;
/// The most that is kept of one, in bytes.
const MAX_SET_BYTES: u64 = 512 << 20;

/// What a set is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// When it was made, in seconds since 1970.
    pub time: u64,
    /// The version that was left.
    pub from: String,
    /// The version that it came to.
    pub to: String,
}

/// A set that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Its number.
    pub number: u32,
    /// What it is about.
    #[serde(flatten)]
    pub about: About,
    /// Where it is.
    pub dir: PathBuf,
}

#[derive(Serialize)]
struct Report<'a> {
    format: u32,
    #[serde(flatten)]
    about: &'a About,
    plan: &'a Plan,
    #[serde(flatten)]
    carried: &'a Carried,
    /// Files that were too many or too large to be kept.
    #[serde(serialize_with = "as_texts")]
    not_kept: Vec<PathBuf>,
}

/// Keeps a set on the data volume `data`: what the system at `from` lost on the way,
/// and what was in the way of it. Returns where.
///
/// # Errors
/// When it cannot be written.
pub fn keep(
    data: &Path,
    about: &About,
    from: &Path,
    image: &Pristine,
    plan: &Plan,
    carried: &Carried,
) -> Result<PathBuf> {
    let sets = list(data)?;
    let number = sets.iter().map(|set| set.number).max().unwrap_or(0) + 1;
    let all = data.join(DIR);
    let dir = all.join(number.to_string());
    make_dir(&all)?;
    files::remove_tree(&dir)?;
    make_dir(&dir)?;
    let mut room = MAX_SET_BYTES;
    let mut not_kept = Vec::new();
    let is_there = |item: &&super::plan::Item| item.change != Some(What::Deleted);
    let unknown = plan.with(Action::Unknown).filter(is_there);
    let merged = plan.with(Action::Merge).map(|item| item.path.as_path());
    let unknown = unknown.map(|item| item.path.as_path());
    for (path, place) in unknown
        .map(|path| (path, "unknown"))
        .chain(merged.map(|path| (path, "customer")))
        .chain(carried.left.iter().map(|path| (path.as_path(), "left")))
    {
        let found = Source::find(from, path)?.filter(|found| {
            found.kind == Kind::File && found.size_bytes <= MAX_FILE_BYTES.min(room)
        });
        let Some(found) = found else {
            not_kept.push(path.to_owned());
            continue;
        };
        room -= found.size_bytes;
        let file = found.open()?;
        let like = Like::of_open(&file, &IdMap::default())?;
        copy(&dir.join(place), path, &Content::Open(&file), &like)?;
    }
    for clash in &carried.conflicts {
        let place = dir.join("image");
        if let Some(content) = image.content(&clash.path)?
            && !place.join(&clash.path).exists()
        {
            let like = match Source::find(from, &clash.path)? {
                Some(found) => found.like(&IdMap::default())?,
                None => Like::private(),
            };
            copy(&place, &clash.path, &Content::Bytes(&content), &like)?;
        }
    }
    let report = Report {
        format: 1,
        about,
        plan,
        carried,
        not_kept,
    };
    let text = serde_json::to_vec_pretty(&report).context("rendering the report")?;
    files::write_atomic(&dir.join(REPORT), &text, 0o600)?;
    let many = sets.len().saturating_sub(MAX_SETS - 1);
    for old in &sets[..many] {
        files::remove_tree(&old.dir)?;
    }
    Ok(dir)
}

fn copy(place: &Path, path: &Path, content: &Content, like: &Like) -> Result<()> {
    let to = place.join(path);
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    make_file(&to, content, like)
}

fn make_dir(dir: &Path) -> Result<()> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    made.with_context(|| format!("making {}", dir.display()))
}

/// Lists the sets on the data volume, the oldest first.
///
/// # Errors
/// When they cannot be read.
pub fn list(data: &Path) -> Result<Vec<Kept>> {
    let all = data.join(DIR);
    if !all.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(&all).with_context(|| format!("listing {}", all.display()))? {
        let dir = entry?.path();
        let name = dir.file_name().and_then(|name| name.to_str());
        let Some(number) = name.and_then(|name| name.parse().ok()) else {
            continue;
        };
        let path = dir.join(REPORT);
        // One whose making was cut short has no report.
        let Ok(text) = fs::read(&path) else { continue };
        let about = serde_json::from_slice(&text);
        let about = about.with_context(|| format!("reading {}", path.display()))?;
        found.push(Kept { number, about, dir });
    }
    found.sort_by_key(|set| set.number);
    Ok(found)
}

/// Lists the files of a set, such as `unknown/etc/app/own.conf`.
///
/// # Errors
/// When it cannot be read.
pub fn files_of(set: &Kept) -> Result<Vec<PathBuf>> {
    let all = files::digests(&set.dir)?;
    Ok(all
        .into_keys()
        .filter(|path| path != Path::new(REPORT))
        .collect())
}

/// Puts the customer's files of a set back into the running system at `root`: all
/// of them, or the one that was at `only`. Returns which.
///
/// # Errors
/// When there is none such, or one cannot be written.
pub fn restore(set: &Kept, root: &Path, only: Option<&Path>) -> Result<Vec<PathBuf>> {
    let mut restored = Vec::new();
    let mut aside = super::aside::Aside::new(root)?;
    for file in files_of(set)? {
        let mut parts = file.components();
        let kind = parts.next();
        let path = parts.as_path();
        let is_customers = kind.is_some_and(|kind| kind.as_os_str() != "image");
        let wanted = only.map(|only| only.strip_prefix("/").unwrap_or(only));
        if is_customers && wanted.is_none_or(|wanted| wanted == path) {
            let source = set.dir.join(&file);
            let like = Like::of(&source, &IdMap::default())?;
            aside.file(path, &Content::Of(&source), &like)?;
            restored.push(path.to_owned());
        }
    }
    ensure!(
        !restored.is_empty(),
        "set {} holds no file of that name; `va-upgrade sync log {}` lists what it holds",
        set.number,
        set.number
    );
    aside.place(&set.dir.join("unknown"), &IdMap::default())?;
    Ok(restored)
}
