//! The disks in an OVA: a tar with an OVF description and VMDKs in it.
//!
//! Members are used in place; nothing is unpacked, so their names do not matter.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::{magic, vmdk};
use crate::failure::{Class, Classify};
use crate::refuse;

/// More members than an OVA has.
const MAX_MEMBERS: usize = 1000;
/// More disks than a VM has.
const MAX_DISKS: usize = 16;

/// A VMDK in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedDisk {
    /// Its name, for messages.
    pub name: String,
    /// Where its data start in the archive.
    pub offset: u64,
    /// How long they are.
    pub size_bytes: u64,
}

/// Lists the disks in the OVA at `path`.
///
/// # Errors
/// Class `Refused` when there is none, or one that cannot be used in place.
pub fn list_disks(path: &Path, file: File) -> Result<Vec<PackedDisk>> {
    let shown = path.display();
    let size = file.metadata()?.len();
    let data = file
        .try_clone()
        .with_context(|| format!("opening {shown}"))?;
    let mut archive = tar::Archive::new(file);
    let mut disks = Vec::new();
    let mut names = Vec::new();
    let entries = archive
        .entries_with_seek()
        .with_context(|| format!("reading {shown}"))?;
    for entry in entries {
        let entry = entry
            .with_context(|| format!("{shown} is a damaged OVA"))
            .class(Class::Refused)?;
        if names.len() == MAX_MEMBERS {
            refuse!("{shown} has more than {MAX_MEMBERS} members; that is no OVA");
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        names.push(name.clone());
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let member = PackedDisk {
            name,
            offset: entry.raw_file_position(),
            size_bytes: entry.size(),
        };
        if member
            .offset
            .checked_add(member.size_bytes)
            .is_none_or(|end| end > size)
        {
            refuse!(
                "{shown} was cut off: its member {} is not all there",
                member.name
            );
        }
        if check_disk(path, &data, &member)? {
            disks.push(member);
        }
    }
    if disks.is_empty() {
        refuse!(
            "{shown} holds no disk: none of its members ({}) is a VMDK; \
             export the VM with its disks",
            names.iter().take(8).cloned().collect::<Vec<_>>().join(", ")
        );
    }
    if disks.len() > MAX_DISKS {
        refuse!("{shown} holds {} disks, more than {MAX_DISKS}", disks.len());
    }
    Ok(disks)
}

/// Tells whether a member is a disk that can be used in place.
fn check_disk(path: &Path, file: &File, member: &PackedDisk) -> Result<bool> {
    let name = member.name.to_ascii_lowercase();
    let mut head = Vec::new();
    let mut window = Window {
        file,
        member,
        at: 0,
    };
    (&mut window).take(512).read_to_end(&mut head)?;
    if head.starts_with(b"KDMV") || head.starts_with(b"COWD") {
        vmdk::check_header(path, file, member.offset, member.size_bytes)
            .with_context(|| format!("checking {}", member.name))?;
        return Ok(true);
    }
    let shown = path.display();
    let named_as_disk = name.contains(".vmdk");
    if named_as_disk && let Some(compression) = magic::compression(&head) {
        refuse!(
            "{shown} holds {} compressed with {compression}; unpack the OVA and the disk, \
             and give the disk",
            member.name
        );
    }
    if name.ends_with(".vmdk") && vmdk::is_vmdk(&head) {
        refuse!(
            "{shown} holds {}, a VMDK in several files; unpack the OVA and give this file",
            member.name
        );
    }
    if named_as_disk {
        refuse!(
            "{shown} holds {}, which has not a VMDK's header (a disk split into chunks must be \
             joined first)",
            member.name
        );
    }
    Ok(false)
}

/// The bytes of one member.
struct Window<'a> {
    file: &'a File,
    member: &'a PackedDisk,
    at: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
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
    use std::fs;

    type Members<'a> = &'a [(&'a str, &'a [u8])];

    fn disks(members: Members<'_>) -> Result<Vec<PackedDisk>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.ova");
        let mut builder = tar::Builder::new(File::create(&path).unwrap());
        for (name, content) in members {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *content).unwrap();
        }
        builder.finish().unwrap();
        list_disks(&path, File::open(&path).unwrap())
    }

    fn vmdk() -> Vec<u8> {
        let mut bytes = vec![0; 1000];
        bytes[..4].copy_from_slice(b"KDMV");
        bytes[12] = 1;
        bytes
    }

    #[test]
    fn disks_are_found_where_they_lie() {
        let found = disks(&[
            ("a.ovf", b"<Envelope/>"),
            ("a-disk1.vmdk", &vmdk()),
            ("a-disk2.vmdk", &vmdk()),
            ("notes.txt", b"text"),
        ])
        .unwrap();
        let places: Vec<(&str, u64, u64)> = found
            .iter()
            .map(|m| (m.name.as_str(), m.offset, m.size_bytes))
            .collect();
        assert_eq!(
            places,
            [("a-disk1.vmdk", 1536, 1000), ("a-disk2.vmdk", 3072, 1000)]
        );
    }

    #[test]
    fn an_ova_without_a_usable_disk_is_refused_with_the_reason() {
        let cases: [(Members<'_>, &str); 5] = [
            (&[("a.ovf", b"<Envelope/>")], "holds no disk"),
            (&[], "holds no disk"),
            (&[("a.vmdk.gz", b"\x1f\x8b\x08")], "compressed with gzip"),
            (&[("a.vmdk.000000001", b"more")], "chunks"),
            (
                &[("a.vmdk", b"# Disk DescriptorFile\n")],
                "in several files",
            ),
        ];
        for (members, word) in cases {
            let error = disks(members).unwrap_err();
            assert_eq!(class_of(&error), Class::Refused, "{error:#}");
            assert!(format!("{error:#}").contains(word), "{error:#}");
        }
    }

    #[test]
    fn an_ova_that_was_cut_off_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.ova");
        let mut header = tar::Header::new_ustar();
        header.set_path("a.vmdk").unwrap();
        header.set_size(1 << 40);
        header.set_cksum();
        fs::write(&path, header.as_bytes()).unwrap();
        let error = list_disks(&path, File::open(&path).unwrap()).unwrap_err();
        assert_eq!(class_of(&error), Class::Refused, "{error:#}");
        assert!(format!("{error:#}").contains("cut off"), "{error:#}");
    }
}
