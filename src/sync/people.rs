//! The accounts of the new system: who comes over, and under which numbers.

use std::path::Path;

use anyhow::{Context, Result};

use super::aside::{Aside, Content};
use super::like::Like;
use crate::accounts::{self, AccountFiles, IdMap};
use crate::appliance::pristine::Pristine;
use crate::tree::resolve;

/// What became of the accounts.
#[derive(Default)]
pub struct People {
    /// From the old system's numbers to the new one's.
    pub ids: IdMap,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Makes the files of accounts for the tree at `root`; nothing where the old system
/// has none.
///
/// # Errors
/// When they cannot be merged.
pub fn merge(
    aside: &mut Aside,
    from: &Path,
    root: &Path,
    delivered: &Pristine,
    image: &Pristine,
) -> Result<People> {
    if resolve::resolve(from, Path::new("etc/passwd"))?.is_none()
        || resolve::resolve(root, Path::new("etc/passwd"))?.is_none()
    {
        return Ok(People::default());
    }
    let old = AccountFiles::read(from).context("reading the accounts of this system")?;
    let of_image = with_texts(root, image).context("reading the accounts of the new system")?;
    let before = match delivered.tree() {
        Some(_) => Some(with_texts(from, delivered).context("reading the accounts as delivered")?),
        None => None,
    };
    let merge = accounts::merge(before.as_ref(), &old, &of_image).context("merging accounts")?;
    let files = &merge.files;
    let mut notes = merge.notes;
    notes.extend(accounts::missing_shells(files, root)?);
    notes.extend(accounts::unverifiable(
        files,
        &of_image.conventions.checker,
    )?);
    for (name, text, mode) in [
        ("passwd", Some(&files.passwd), 0o644),
        ("shadow", files.shadow.as_ref(), 0o600),
        ("group", files.group.as_ref(), 0o644),
        ("gshadow", files.gshadow.as_ref(), 0o600),
        ("subuid", files.subuid.as_ref(), 0o644),
        ("subgid", files.subgid.as_ref(), 0o644),
    ] {
        let Some(text) = text else { continue };
        let path = Path::new("etc").join(name);
        let there = root.join(&path);
        let like = match there.exists() {
            true => Like::of(&there, &IdMap::default())?,
            false => Like::of_root(mode),
        };
        aside.file(&path, &Content::Bytes(text), &like)?;
    }
    Ok(People {
        notes: notes.iter().map(ToString::to_string).collect(),
        ids: merge.ids,
    })
}

/// Reads the accounts of the tree at `root` as it was delivered.
fn with_texts(root: &Path, delivered: &Pristine) -> Result<AccountFiles> {
    let text = |name: &str| delivered.content(&Path::new("etc").join(name));
    let mut files = AccountFiles::read(root)?;
    if let Some(passwd) = text("passwd")? {
        files.passwd = passwd;
        files.shadow = text("shadow")?;
        files.group = text("group")?;
        files.gshadow = text("gshadow")?;
        files.subuid = text("subuid")?;
        files.subgid = text("subgid")?;
    }
    Ok(files)
}
