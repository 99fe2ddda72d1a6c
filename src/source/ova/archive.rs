//! The members of an OVA, which is a tar archive; nothing is unpacked.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::Digest;

use crate::failure::{Class, Classify};
use crate::progress::Progress;
use crate::{refuse, signals};

/// More members than an OVA has, chunks included.
const MAX_MEMBERS: usize = 10_000;
/// A description or manifest is never longer.
const MAX_TEXT: u64 = 8 << 20;

/// A file in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where its data start in the archive.
    pub offset: u64,
    /// How long they are.
    pub size_bytes: u64,
}

/// The files of one archive.
pub struct Members<'p> {
    path: &'p Path,
    /// The archive itself.
    pub file: File,
    /// In its order.
    pub all: Vec<Member>,
}

impl<'p> Members<'p> {
    /// Lists the members of the archive at `path`.
    ///
    /// # Errors
    /// Class `Refused` when the archive is damaged, cut off or ambiguous.
    pub fn list(path: &'p Path) -> Result<Members<'p>> {
        let shown = path.display();
        let file = File::open(path).with_context(|| format!("opening {shown}"))?;
        let size = file.metadata()?.len();
        let mut archive = tar::Archive::new(&file);
        let mut all: Vec<Member> = Vec::new();
        let entries = archive
            .entries_with_seek()
            .with_context(|| format!("reading {shown}"))?;
        for entry in entries {
            let entry = entry
                .with_context(|| format!("{shown} is a damaged OVA; copy it again"))
                .class(Class::Refused)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let member = Member {
                name: name.strip_prefix("./").unwrap_or(&name).to_owned(),
                offset: entry.raw_file_position(),
                size_bytes: entry.size(),
            };
            let end = member.offset.checked_add(member.size_bytes);
            if end.is_none_or(|end| end > size) {
                refuse!(
                    "{shown} was cut off: its member {} is not all there; copy it again",
                    member.name
                );
            }
            if all.iter().any(|other| other.name == member.name) {
                refuse!("{shown} holds {} twice; export the VM again", member.name);
            }
            if all.len() == MAX_MEMBERS {
                refuse!("{shown} has more than {MAX_MEMBERS} members; that is no OVA");
            }
            all.push(member);
        }
        Ok(Members { path, file, all })
    }

    /// Returns the archive's name, for messages.
    pub fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// Finds a member by its name.
    pub fn find(&self, name: &str) -> Option<&Member> {
        self.all.iter().find(|member| member.name == name)
    }

    /// Returns the one member whose name ends like this.
    ///
    /// # Errors
    /// Class `Refused` when there are several.
    pub fn only(&self, extension: &str) -> Result<Option<&Member>> {
        let mut found = self
            .all
            .iter()
            .filter(|member| member.name.to_ascii_lowercase().ends_with(extension));
        let first = found.next();
        if let (Some(first), Some(second)) = (first, found.next()) {
            refuse!(
                "{} holds both {} and {}; an OVA has one {extension}",
                self.shown(),
                first.name,
                second.name
            );
        }
        Ok(first)
    }

    /// Returns the bytes of a member.
    pub fn bytes<'m>(&'m self, member: &'m Member) -> Window<'m> {
        Window {
            file: &self.file,
            member,
            at: 0,
        }
    }

    /// Reads a member that is text.
    ///
    /// # Errors
    /// Class `Refused` when it is too long or no text.
    pub fn text(&self, member: &Member) -> Result<String> {
        let (shown, name) = (self.shown(), &member.name);
        if member.size_bytes > MAX_TEXT {
            refuse!("{name} in {shown} has more than {MAX_TEXT} bytes");
        }
        let mut bytes = Vec::new();
        self.bytes(member)
            .read_to_end(&mut bytes)
            .with_context(|| format!("reading {name} in {shown}"))?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(text.trim_start_matches('\u{feff}').to_owned()),
            Err(_) => refuse!("{name} in {shown} is not text in UTF-8; export the VM again"),
        }
    }

    /// Digests the bytes of a member.
    pub fn digest<D: Digest>(&self, member: &Member, progress: &dyn Progress) -> Result<String> {
        let mut bytes = self.bytes(member);
        let mut hasher = D::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            signals::check()?;
            let count = bytes
                .read(&mut buffer)
                .with_context(|| format!("reading {}", self.shown()))?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            progress.advance(u64::try_from(count)?);
        }
        let digest = hasher.finalize();
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The bytes of one member, read in order.
pub struct Window<'m> {
    file: &'m File,
    member: &'m Member,
    at: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.member.size_bytes - self.at).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let count = self
            .file
            .read_at(&mut buffer[..wanted], self.member.offset + self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
