//! The members of an OVA, which is a tar archive; nothing is unpacked.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sha2::Digest;
use tar::{EntryType, Header, PaxExtensions};

use crate::archive::block::{BLOCK, padding};
use crate::archive::header::check_sum;
use crate::failure::{Class, Classify};
use crate::progress::Progress;
use crate::{refuse, signals};

/// More members than an OVA has, chunks included.
const MAX_MEMBERS: usize = 10_000;
/// A longer name, or extended header, than a member has.
const MAX_EXTENSION: u64 = 64 << 10;
/// The longest path that Linux knows.
const MAX_NAME: usize = 4096;
/// A description or manifest is never longer.
const MAX_TEXT: u64 = 2 << 20;

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
    by_name: HashMap<String, usize>,
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
        let mut headers = Headers {
            file: &file,
            size,
            at: 0,
        };
        let (mut all, mut by_name) = (Vec::new(), HashMap::new());
        loop {
            signals::check()?;
            let next = headers
                .next()
                .with_context(|| format!("{shown} is a damaged OVA; copy it again"))
                .class(Class::Refused)?;
            let Some(member) = next else { break };
            let end = member.offset.checked_add(member.size_bytes);
            if end.is_none_or(|end| end > size) {
                refuse!(
                    "{shown} was cut off: its member {} is not all there; copy it again",
                    member.name
                );
            }
            if all.len() == MAX_MEMBERS {
                refuse!("{shown} has more than {MAX_MEMBERS} members; that is no OVA");
            }
            if by_name.insert(member.name.clone(), all.len()).is_some() {
                refuse!("{shown} holds {} twice; export the VM again", member.name);
            }
            all.push(member);
        }
        Ok(Members {
            path,
            file,
            all,
            by_name,
        })
    }

    /// Returns the archive's name, for messages.
    pub fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// Finds a member by its name.
    pub fn find(&self, name: &str) -> Option<&Member> {
        self.by_name.get(name).map(|index| &self.all[*index])
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

/// The headers of an archive, one after the other; data are skipped, and of what an
/// extension says no more is held than a name.
struct Headers<'f> {
    file: &'f File,
    size: u64,
    at: u64,
}

/// What extensions say of the member that follows.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    size_bytes: Option<u64>,
}

impl Headers<'_> {
    /// Returns the next file; `None` at the end.
    fn next(&mut self) -> Result<Option<Member>> {
        let mut extension = Extension::default();
        while let Some(header) = self.header()? {
            let kind = header.entry_type();
            let is_member = !matches!(
                kind,
                EntryType::XHeader
                    | EntryType::XGlobalHeader
                    | EntryType::GNULongName
                    | EntryType::GNULongLink
            );
            let size_bytes = match extension.size_bytes {
                Some(size_bytes) if is_member => size_bytes,
                _ => header.entry_size().context("a size")?,
            };
            let offset = self.at;
            let end = offset.checked_add(size_bytes);
            let padding = u64::try_from(padding(size_bytes))?;
            let next = end.and_then(|end| end.checked_add(padding));
            self.at = next.context("a member of impossible size")?;
            match kind {
                EntryType::XHeader => extension.read_records(&self.body(offset, size_bytes)?)?,
                EntryType::GNULongName => {
                    let mut name = self.body(offset, size_bytes)?;
                    let end = name.iter().position(|byte| *byte == 0);
                    name.truncate(end.unwrap_or(name.len()));
                    extension.name = Some(name);
                }
                EntryType::GNUSparse => {
                    refuse!("a member is a sparse file; make the archive without -S")
                }
                EntryType::Regular => {
                    let found = std::mem::take(&mut extension);
                    let name = found
                        .name
                        .unwrap_or_else(|| header.path_bytes().into_owned());
                    ensure!(name.len() <= MAX_NAME, "a name of {} bytes", name.len());
                    if !name.ends_with(b"/") {
                        return Ok(Some(member(&name, offset, size_bytes)));
                    }
                }
                _ if is_member => extension = Extension::default(),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Reads a header; `None` at the end.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut block = [0; BLOCK];
        if self.at == self.size {
            return Ok(None);
        }
        let read = self.file.read_exact_at(&mut block, self.at);
        read.context("it ends within a header")?;
        if block == [0; BLOCK] {
            return Ok(None);
        }
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(&block);
        check_sum(&header, &block)?;
        self.at += BLOCK as u64;
        Ok(Some(header))
    }

    /// Reads the body of an extension.
    fn body(&self, offset: u64, size_bytes: u64) -> Result<Vec<u8>> {
        ensure!(
            size_bytes <= MAX_EXTENSION,
            "an extended header of {size_bytes} bytes, more than {MAX_EXTENSION}"
        );
        let mut body = vec![0; usize::try_from(size_bytes)?];
        let read = self.file.read_exact_at(&mut body, offset);
        read.context("it ends within an extended header")?;
        Ok(body)
    }
}

impl Extension {
    fn read_records(&mut self, body: &[u8]) -> Result<()> {
        for record in PaxExtensions::new(body) {
            let record = record.context("an extended header")?;
            match record.key_bytes() {
                b"path" => self.name = Some(record.value_bytes().to_owned()),
                b"size" => {
                    let size = record.value().context("an extended header's size")?;
                    let size = size.parse().context("an extended header's size")?;
                    self.size_bytes = Some(size);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn member(name: &[u8], offset: u64, size_bytes: u64) -> Member {
    let name = String::from_utf8_lossy(name);
    Member {
        name: name.strip_prefix("./").unwrap_or(&name).to_owned(),
        offset,
        size_bytes,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::class_of;

    fn listed(archive: &[u8]) -> Result<Vec<Member>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.ova");
        std::fs::write(&path, archive).unwrap();
        Members::list(&path).map(|members| members.all)
    }

    fn put(archive: &mut Vec<u8>, kind: EntryType, name: &str, size: u64, body: &[u8]) {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_path(name).unwrap();
        header.set_cksum();
        archive.extend(header.as_bytes());
        archive.extend(body);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }

    #[test]
    fn long_names_and_sizes_are_read_in_every_dialect() {
        let long = format!("{}/disk.vmdk", "d".repeat(300));
        let mut archive = Vec::new();
        let name = [long.as_bytes(), b"\0"].concat();
        let size = name.len() as u64;
        put(&mut archive, EntryType::GNULongName, "long", size, &name);
        put(&mut archive, EntryType::Regular, "cut", 3, b"one");
        put(
            &mut archive,
            EntryType::XGlobalHeader,
            "g",
            9,
            b"9 path=x\n",
        );
        let records = b"15 path=a/b.mf\n9 size=3\n";
        let size = records.len() as u64;
        put(&mut archive, EntryType::XHeader, "pax", size, records);
        put(&mut archive, EntryType::Regular, "b", 0, b"two");
        put(&mut archive, EntryType::Directory, "dir", 0, b"");
        put(&mut archive, EntryType::Regular, "./c.ovf", 5, b"three");
        archive.extend([0; BLOCK]);
        let found = listed(&archive).unwrap();
        let seen: Vec<_> = found
            .iter()
            .map(|member| {
                let at = usize::try_from(member.offset).unwrap();
                (
                    member.name.as_str(),
                    &archive[at..at + 3],
                    member.size_bytes,
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                (long.as_str(), &b"one"[..], 3),
                ("a/b.mf", b"two", 3),
                ("c.ovf", b"thr", 5)
            ]
        );
    }

    #[test]
    fn an_extension_is_not_read_whatever_its_length() {
        for kind in [EntryType::XHeader, EntryType::GNULongName] {
            let mut archive = Vec::new();
            put(&mut archive, kind, "x", 1 << 40, b"");
            let error = listed(&archive).unwrap_err();
            assert_eq!(class_of(&error), Class::Refused, "{error:#}");
            assert!(format!("{error:#}").contains("more than"), "{error:#}");
        }
        let mut archive = Vec::new();
        let name = vec![b'n'; MAX_NAME + 1];
        put(
            &mut archive,
            EntryType::GNULongName,
            "x",
            name.len() as u64,
            &name,
        );
        put(&mut archive, EntryType::Regular, "x", 0, b"");
        assert!(listed(&archive).is_err());
    }

    #[test]
    fn a_damaged_or_short_archive_is_refused() {
        let mut archive = Vec::new();
        put(&mut archive, EntryType::Regular, "a", 600, &[7; 600]);
        assert_eq!(listed(&archive).unwrap().len(), 1);
        for length in [1000, 100] {
            let error = listed(&archive[..length]).unwrap_err();
            assert_eq!(class_of(&error), Class::Refused, "{error:#}");
        }
        let mut huge = archive.clone();
        put(&mut huge, EntryType::Regular, "b", (1 << 33) - 1, b"");
        assert!(format!("{:#}", listed(&huge).unwrap_err()).contains("cut off"));
        archive[0] = b'b';
        let error = listed(&archive).unwrap_err();
        assert!(format!("{error:#}").contains("checksum"), "{error:#}");
    }
}
