//! Bundles whose sums are right, whatever else is wrong with them.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;

use tar::{EntryType, Header};
use va_upgrade::bundle::{
    BootFiles, Chunk, Codec, Entry, FORMAT, INDEX, Index, IndexMember, Landmarks, Manifest, Names,
    Payload, TreeSummary, Visitor,
};
use va_upgrade::cpu::CpuLevel;
use va_upgrade::sha::Sha;
use va_upgrade::tree::meta::Kind;

use crate::{BLOCK, check_path, mend_manifest, mend_sums};

/// Puts right the sums of headers, the digests of chunks and of index members and
/// the checksum of the manifest, as far as there are any.
pub fn mend(bundle: &mut [u8]) {
    mend_sums(bundle);
    let Some((_, size)) = header(bundle, 0) else {
        return;
    };
    let end = BLOCK.saturating_add(size);
    if end > bundle.len() {
        return;
    }
    mend_manifest(&mut bundle[BLOCK..end]);
    let Ok(manifest) = Manifest::parse(&bundle[BLOCK..end]) else {
        return;
    };
    let mut at = end.next_multiple_of(BLOCK);
    while header(bundle, at).is_some_and(|(name, _)| name.starts_with(b"manifest.sig.")) {
        let (_, size) = header(bundle, at).unwrap_or_default();
        at = (at + BLOCK).saturating_add(size).next_multiple_of(BLOCK);
    }
    let mut members = Vec::new();
    for _ in &manifest.index {
        let Some((_, size)) = header(bundle, at) else {
            return;
        };
        let start = at + BLOCK;
        members.push(start..start.saturating_add(size).min(bundle.len()));
        at = start.saturating_add(size).next_multiple_of(BLOCK);
    }
    if let Some(place) = members.first() {
        mend_index(bundle, place.clone(), at + BLOCK, &manifest);
    }
    for (member, place) in manifest.index.iter().zip(members) {
        let Some(content) = bundle.get(place) else {
            return;
        };
        let digest = Sha::of(content);
        replace(&mut bundle[BLOCK..end], 0, &member.sha256, &digest);
    }
    mend_manifest(&mut bundle[BLOCK..end]);
}

/// Puts right the digests of the chunks in the index at `place`; the payload
/// begins at `payload_at`.
fn mend_index(bundle: &mut [u8], place: Range<usize>, payload_at: usize, manifest: &Manifest) {
    let Some(text) = bundle.get(place.clone()) else {
        return;
    };
    let Ok(index) = Index::parse(text, &manifest.payload) else {
        return;
    };
    let mut from = 0;
    for chunk in &index.chunks {
        let numbers = [chunk.offset, chunk.packed];
        let [offset, packed] = numbers.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let start = payload_at.saturating_add(offset);
        let Some(data) = bundle.get(start..start.saturating_add(packed)) else {
            return;
        };
        let digest = Sha::of(data);
        let text = &mut bundle[place.clone()];
        let Some(at) = replace(text, from, &chunk.sha256, &digest) else {
            return;
        };
        from = at;
    }
}

/// Writes one digest over the first place of another from `from` on.
fn replace(text: &mut [u8], from: usize, old: &Sha, new: &Sha) -> Option<usize> {
    let (old, new) = (old.to_string(), new.to_string());
    let found = text[from..]
        .windows(old.len())
        .position(|window| window == old.as_bytes())?;
    let at = from + found;
    text[at..at + new.len()].copy_from_slice(new.as_bytes());
    Some(at + new.len())
}

fn header(bundle: &[u8], at: usize) -> Option<(Vec<u8>, usize)> {
    let block = bundle.get(at..at.checked_add(BLOCK)?)?;
    let header = Header::from_byte_slice(block);
    let size = usize::try_from(header.entry_size().ok()?).ok()?;
    // Nothing that is tried here comes near it.
    (size < 1 << 30).then(|| (header.path_bytes().into_owned(), size))
}

/// Makes a bundle of `archive` in chunks of the sizes in `cuts`, which say
/// where their first members begin; what is left over is the last chunk.
pub fn forge(archive: &[u8], cuts: &[(u16, Option<u16>)]) -> Option<Vec<u8>> {
    let (mut chunks, mut payload) = (Vec::new(), Vec::new());
    let mut rest = archive;
    let mut cuts = cuts.iter();
    while !rest.is_empty() {
        let (size, first) = *cuts.next().unwrap_or(&(u16::MAX, None));
        let size = usize::from(size).clamp(1, rest.len());
        let (chunk, after) = rest.split_at(size);
        let packed = zstd::bulk::compress(chunk, 1).expect("zstd packs anything");
        chunks.push(Chunk {
            offset: payload.len() as u64,
            packed: packed.len() as u64,
            size: size as u64,
            sha256: Sha::of(&packed),
            landmarks: first.map(|first| Landmarks {
                first: first.into(),
                names: Names::default(),
            }),
        });
        payload.extend(packed);
        rest = after;
    }
    let index = Index {
        chunks,
        ..Index::default()
    }
    .render()
    .ok()?;
    let manifest = describe(&index, payload.len() as u64, archive.len() as u64);
    let text = manifest.render().ok()?;
    let mut bundle = Vec::new();
    for (name, content) in [
        ("manifest.yaml", text.as_bytes()),
        (INDEX, &index),
        (Codec::Zstd.member(), &payload),
    ] {
        let mut header = Header::new_ustar();
        header.set_path(name).expect("a short name");
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        header.set_mtime(0);
        header.set_entry_type(EntryType::Regular);
        header.set_cksum();
        bundle.extend(header.as_bytes());
        bundle.extend(content);
        bundle.resize(bundle.len().next_multiple_of(BLOCK), 0);
    }
    bundle.resize(bundle.len() + 2 * BLOCK, 0);
    Some(bundle)
}

fn describe(index: &[u8], packed_bytes: u64, size_bytes: u64) -> Manifest {
    Manifest {
        format: FORMAT,
        product: "Fuzz".into(),
        version: "1".into(),
        min_version: None,
        architecture: "x86_64".into(),
        cpu_level: CpuLevel::V1,
        created: 0,
        clamped: false,
        boot: BootFiles {
            kernel_release: "6".into(),
            kernel: "k".into(),
            initramfs: "i".into(),
            kernel_bytes: 0,
            initramfs_bytes: 0,
        },
        tree: TreeSummary {
            entries: 0,
            inodes: 0,
            data_bytes: 0,
            digest: Sha::of(b""),
        },
        payload: Payload {
            member: Codec::Zstd.member().into(),
            codec: Codec::Zstd,
            packed_bytes,
            size_bytes,
        },
        index: vec![IndexMember {
            name: INDEX.into(),
            bytes: index.len() as u64,
            sha256: Sha::of(index),
        }],
    }
}

/// Notes the names that go by.
#[derive(Default)]
pub struct Notes {
    dirs: HashSet<Vec<u8>>,
    others: HashSet<Vec<u8>>,
    has_twins: bool,
}

impl Notes {
    /// Lists the names.
    pub fn paths(&self) -> impl Iterator<Item = &OsStr> {
        let all = self.dirs.iter().chain(&self.others);
        all.map(|path| OsStr::from_bytes(path))
    }

    /// Tells whether each name came once and all directories came.
    pub fn is_whole_tree(&self) -> bool {
        let has_parent = |path: &Vec<u8>| {
            let slash = path.iter().rposition(|byte| *byte == b'/');
            self.dirs.contains(&path[..slash.unwrap_or(0)])
        };
        let is_whole = self.dirs.contains(&b""[..]) && !self.has_twins;
        is_whole && self.dirs.iter().chain(&self.others).all(has_parent)
    }
}

impl Visitor for Notes {
    fn entry(&mut self, entry: &Entry) -> anyhow::Result<()> {
        check_path(entry.path);
        let paths = match entry.meta.kind {
            Kind::Dir => &mut self.dirs,
            _ => &mut self.others,
        };
        self.has_twins |= !paths.insert(entry.path.to_vec());
        Ok(())
    }

    fn data(&mut self, _offset: u64, _data: &[u8]) -> anyhow::Result<()> {
        Ok(())
    }
}
