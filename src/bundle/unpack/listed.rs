//! What the list of files says of the paths that were asked for: which chunks hold
//! them is only said by the index, and a name that it leaves out would be missed.

use std::collections::HashMap;

use anyhow::{Result, ensure};

use super::wanted::Wanted;
use crate::archive::batch::{Batch, Part};
use crate::bad_bundle;
use crate::bundle::format::files::{FileLine, FilesReader};
use crate::failure::{Class, Classify};
use crate::tree::content::ContentHasher;
use crate::tree::path::show;

/// The most that what is listed of them may take, roughly.
const MAX_LISTED_BYTES: usize = 1 << 30;
/// What a line takes besides its names, roughly.
const LINE_OVERHEAD: usize = 256;

/// The listed names below what was asked for, each to be found once.
pub struct Listed {
    lines: HashMap<Vec<u8>, Line>,
    /// The file whose data go by.
    current: Option<(Vec<u8>, ContentHasher)>,
}

struct Line {
    listed: FileLine,
    is_found: bool,
}

impl Listed {
    /// Reads the list in `member`.
    ///
    /// # Errors
    /// Class `BadBundle` when it is no such list.
    pub fn read(member: &[u8], wanted: &[Wanted]) -> Result<Listed> {
        let read = || -> Result<Listed> {
            let mut lines = HashMap::new();
            let mut bytes = 0;
            let mut reader = FilesReader::new(member)?;
            while let Some(listed) = reader.next_line()? {
                let path = listed.path_bytes()?;
                if !wanted.iter().any(|w| w.covers(&path)) {
                    continue;
                }
                bytes += LINE_OVERHEAD + path.len() + listed.path.len();
                ensure!(
                    bytes <= MAX_LISTED_BYTES,
                    "what is listed of it takes more than {MAX_LISTED_BYTES} bytes"
                );
                let is_found = false;
                lines.insert(path, Line { listed, is_found });
            }
            Ok(Listed {
                lines,
                current: None,
            })
        };
        read().class(Class::BadBundle)
    }

    /// Compares the members of `batch`, all of which were asked for, and takes their
    /// data in `piece`.
    ///
    /// # Errors
    /// Class `BadBundle` when one is not what is listed.
    pub fn compare(&mut self, batch: &Batch, piece: &[u8]) -> Result<()> {
        self.data(batch.carried(), piece);
        for member in &batch.members {
            self.end_file()?;
            let path = batch.path(member);
            let (meta, link_end) = (&member.meta, batch.link_end(member));
            let found = FileLine::new(path, meta, member.is_hard_link, link_end, None);
            let Some(line) = self.lines.get_mut(path) else {
                bad_bundle!("{} is not in the list of files", show(path));
            };
            line.is_found = true;
            let listed = FileLine {
                sha256: None,
                ..line.listed.clone()
            };
            if listed != found {
                bad_bundle!("{} is not what the list of files says of it", show(path));
            }
            if found.size.is_some() {
                self.current = Some((path.to_vec(), ContentHasher::new(meta.size_bytes)));
                self.data(batch.parts(member), piece);
            }
        }
        match batch.is_unfinished {
            true => Ok(()),
            false => self.end_file(),
        }
    }

    /// Checks that every listed name was found.
    ///
    /// # Errors
    /// Class `BadBundle` when one was not.
    pub fn finish(mut self) -> Result<()> {
        self.end_file()?;
        let missed = self.lines.iter().find(|(_, line)| !line.is_found);
        if let Some((path, _)) = missed {
            bad_bundle!(
                "{} is in the list of files, and in no chunk that holds it as the index says",
                show(path)
            );
        }
        Ok(())
    }

    fn data(&mut self, parts: &[Part], piece: &[u8]) {
        if let Some((_, hasher)) = &mut self.current {
            for part in parts {
                hasher.data(part.offset, part.of(piece));
            }
        }
    }

    fn end_file(&mut self) -> Result<()> {
        let Some((path, hasher)) = self.current.take() else {
            return Ok(());
        };
        let line = self.lines.get(&path);
        if line.is_none_or(|line| line.listed.sha256 != hasher.finish()) {
            bad_bundle!("{} has not the content that is listed", show(&path));
        }
        Ok(())
    }
}
