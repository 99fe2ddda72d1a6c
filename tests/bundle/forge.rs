//! Archives and bundles made by hand, genuine byte by byte.

use std::fs;
use std::io::Write;
use std::path::Path;

use tar::{EntryType, Header};
use va_upgrade::bundle::{Chunk, Codec, INDEX, Index, IndexMember, Landmarks, Manifest, Names};
use va_upgrade::sha::Sha;

/// A tar made by hand.
#[derive(Clone, Default)]
pub struct Archive(Vec<u8>);

impl Archive {
    pub fn add(mut self, kind: EntryType, name: &str, link: &str, data: &[u8]) -> Archive {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str) -> Archive {
        self.add(EntryType::Regular, name, "", b"data")
    }

    pub fn dir(self, name: &str) -> Archive {
        self.add(EntryType::Directory, name, "", b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Archive {
        self.add(EntryType::Symlink, name, target, b"")
    }

    pub fn hard_link(self, name: &str, target: &str) -> Archive {
        self.add(EntryType::Link, name, target, b"")
    }

    pub fn pax(self, records: &[(&str, &str)]) -> Archive {
        self.records(EntryType::XHeader, records)
    }

    pub fn global(self, records: &[(&str, &str)]) -> Archive {
        self.records(EntryType::XGlobalHeader, records)
    }

    fn records(self, kind: EntryType, records: &[(&str, &str)]) -> Archive {
        let mut body = String::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            body += &format!("{length} {key}={value}\n");
        }
        self.add(kind, "PaxHeaders", "", body.as_bytes())
    }

    /// Gives the last member, which has no data, another mode and owner.
    pub fn with(mut self, mode: u32, uid: u64) -> Archive {
        let block = self.0.last_chunk_mut::<512>().unwrap();
        let mut header = Header::from_byte_slice(block).clone();
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_cksum();
        *block = *header.as_bytes();
        self
    }

    /// Returns the members without the end.
    pub fn bytes(self) -> Vec<u8> {
        self.0
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = xz2::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What an index says of a chunk: its size, and where its first member
/// begins if it says anything.
pub type Cut = (usize, Option<u64>);

/// Makes a bundle of `archive` in chunks as `cuts` says, which must cover it.
/// No chunk is said to hold any names.
pub fn forge(manifest: &Manifest, archive: &[u8], cuts: &[Cut], path: &Path) {
    let mut chunks = Vec::new();
    let mut rest = archive;
    for (size, first) in cuts {
        let (chunk, after) = rest.split_at((*size).min(rest.len()));
        rest = after;
        chunks.push((xz(chunk), chunk.len() as u64, *first));
    }
    let chunks: Vec<_> = chunks.iter().map(|(p, s, f)| (&p[..], *s, *f)).collect();
    forge_packed(manifest, &chunks, path);
}

/// Makes a bundle of packed chunks, which become as large as it is told.
pub fn forge_packed(manifest: &Manifest, chunks: &[(&[u8], u64, Option<u64>)], path: &Path) {
    let mut index = Index::default();
    let mut payload = Vec::new();
    for (packed, size, first) in chunks {
        let names = Names::default();
        index.chunks.push(Chunk {
            offset: payload.len() as u64,
            packed: packed.len() as u64,
            size: *size,
            sha256: Sha::of(packed),
            landmarks: first.map(|first| Landmarks { first, names }),
        });
        payload.extend_from_slice(packed);
    }
    let mut forged = manifest.clone();
    forged.payload.packed_bytes = payload.len() as u64;
    forged.payload.size_bytes = chunks.iter().map(|(_, size, _)| size).sum();
    let index = index.render().unwrap();
    write_bundle(&mut forged, &[(INDEX, &index)], &payload, path);
}

/// Writes a bundle around index members, which the manifest gets right, and a
/// payload that may not fit it.
pub fn write_bundle(
    manifest: &mut Manifest,
    members: &[(&str, &[u8])],
    payload: &[u8],
    path: &Path,
) {
    manifest.index = members
        .iter()
        .map(|(name, content)| IndexMember {
            name: (*name).to_owned(),
            bytes: content.len() as u64,
            sha256: Sha::of(content),
        })
        .collect();
    let text = manifest.render().unwrap();
    let mut bundle = tar::Builder::new(Vec::new());
    let first = [("manifest.yaml", text.as_bytes())];
    let last = [(Codec::Xz.member(), payload)];
    for (name, content) in first.iter().chain(members).chain(&last) {
        let mut header = Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        header.set_mtime(manifest.created);
        header.set_entry_type(EntryType::Regular);
        header.set_cksum();
        bundle.append(&header, *content).unwrap();
    }
    fs::write(path, bundle.into_inner().unwrap()).unwrap();
}
