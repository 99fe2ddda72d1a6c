//! What is in a tree, small enough to be held for every name of it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::visit::{Entry, NAME_OVERHEAD, Visitor};
use crate::failure::{Class, Classify};
use crate::sha::Sha;
use crate::tree::file_hasher::FileHasher;
use crate::tree::meta::Kind;
use crate::tree::path::{clean_path, show, split};
use crate::tree::xattrs::Xattr;

/// The most that the names of one tree may take.
pub const MAX_NAME_BYTES: usize = 1 << 30;
/// The kernel's own limit on links in one lookup.
const MAX_LINKS: u32 = 40;
/// What a package owns has no longer path (`PATH_MAX`) and lies no deeper: each
/// name of it is looked up with all that stand before it.
const MAX_OWNED_BYTES: usize = 4096;
const MAX_OWNED_DEPTH: usize = 256;
/// The most names that are looked up on the way, those in the ends of links too.
const MAX_LOOKUPS: usize = 2048;

/// What is known of one name; the time does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is; a further name of a file is what the file is.
    pub kind: Kind,
    /// Permissions with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The digest of a file's size and data, a link's end or a device's numbers.
    pub content: Sha,
    /// The digest of the extended attributes, where there are any.
    pub xattrs: Option<Box<Sha>>,
    /// A package of the tree owns it.
    pub is_owned: bool,
}

/// The names of a tree, sorted, each with its [`Node`].
#[derive(Default)]
pub struct Contents {
    nodes: BTreeMap<Box<[u8]>, Node>,
    /// Where the symbolic links point.
    links: HashMap<Box<[u8]>, Box<[u8]>>,
    /// The file whose data go by.
    current: Option<(Box<[u8]>, Node, FileHasher)>,
    name_bytes: usize,
}

impl Contents {
    /// Returns the names in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        self.nodes.iter().map(|(path, node)| (&path[..], node))
    }

    /// Ends the reading of a tree; call it after the last data.
    pub fn finish(&mut self) {
        if let Some((path, mut node, hasher)) = self.current.take() {
            node.content = hasher.finish();
            self.nodes.insert(path, node);
        }
    }

    /// Notes that a package owns `path`, which may lead through symbolic
    /// links; a path that is not there is passed over.
    pub fn set_owned(&mut self, path: &[u8]) {
        let depth = path.iter().filter(|byte| **byte == b'/').count();
        if path.len() > MAX_OWNED_BYTES || depth > MAX_OWNED_DEPTH {
            return;
        }
        let Ok(path) = clean_path(path) else { return };
        let found = match self.nodes.contains_key(&path[..]) {
            true => Some(path),
            false => self.resolve_parent(path),
        };
        if let Some(node) = found.and_then(|path| self.nodes.get_mut(&path[..])) {
            node.is_owned = true;
        }
    }

    /// Notes that packages own everything below `dir`, and `dir`.
    pub fn set_owned_below(&mut self, dir: &[u8]) {
        for (path, node) in self
            .nodes
            .range_mut::<[u8], _>((Bound::Included(dir), Bound::Unbounded))
        {
            match path.strip_prefix(dir) {
                Some([] | [b'/', ..]) => node.is_owned = true,
                Some(_) => {}
                None => break,
            }
        }
    }

    /// Follows the symbolic links on the way to `path`, not the last name.
    fn resolve_parent(&self, path: Vec<u8>) -> Option<Vec<u8>> {
        let mut todo = path;
        let mut at = 0;
        let mut done: Vec<u8> = Vec::new();
        let mut links = 0;
        // The ends of links may be as long and as deep as the paths.
        for _ in 0..MAX_LOOKUPS {
            let slash = todo[at..].iter().position(|byte| *byte == b'/');
            let end = slash.map_or(todo.len(), |slash| at + slash);
            let name = &todo[at..end];
            match name {
                b"" | b"." => {}
                b".." => done.truncate(split(&done).0.len()),
                name => {
                    if !done.is_empty() {
                        done.push(b'/');
                    }
                    done.extend_from_slice(name);
                }
            }
            if slash.is_none() {
                return Some(done);
            }
            at = end + 1;
            if let Some(link_end) = self.links.get(&done[..]) {
                links += 1;
                if links > MAX_LINKS {
                    return None;
                }
                match link_end.starts_with(b"/") {
                    true => done.clear(),
                    false => done.truncate(split(&done).0.len()),
                }
                todo = [link_end, &b"/"[..], &todo[at..]].concat();
                at = 0;
            }
        }
        None
    }

    fn add(&mut self, entry: &Entry) -> Result<()> {
        self.name_bytes += NAME_OVERHEAD + entry.path.len() + entry.link_end.len();
        ensure!(
            self.name_bytes <= MAX_NAME_BYTES,
            "its names take more than {MAX_NAME_BYTES} bytes"
        );
        let before = self.nodes.get(entry.path);
        let is_new =
            before.is_none_or(|node| (node.kind, entry.meta.kind) == (Kind::Dir, Kind::Dir));
        ensure!(is_new, "it comes twice");
        let path: Box<[u8]> = entry.path.into();
        if entry.is_hard_link {
            let first = self.nodes.get(entry.link_end);
            let node = first.with_context(|| {
                format!(
                    "it is a link to {}, which is not there",
                    show(entry.link_end)
                )
            })?;
            let node = node.clone();
            self.nodes.insert(path, node);
            return Ok(());
        }
        let meta = entry.meta;
        let node = Node {
            kind: meta.kind,
            // Links have no permissions of their own.
            mode: if meta.kind == Kind::Symlink {
                0
            } else {
                meta.mode
            },
            uid: meta.uid,
            gid: meta.gid,
            content: match meta.kind {
                Kind::Symlink => Sha::of(entry.link_end),
                _ => Sha::of(format!("{:?}", meta.device).as_bytes()),
            },
            xattrs: digest_xattrs(entry.xattrs),
            is_owned: false,
        };
        match meta.kind {
            Kind::File => {
                let hasher = FileHasher::of_content(meta.size_bytes);
                self.current = Some((path, node, hasher));
                return Ok(());
            }
            Kind::Symlink => {
                self.links.insert(path.clone(), entry.link_end.into());
            }
            _ => {}
        }
        self.nodes.insert(path, node);
        Ok(())
    }
}

impl Visitor for Contents {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.finish();
        self.add(entry)
            .with_context(|| format!("member {}", show(entry.path)))
            .class(Class::BadBundle)
    }

    fn data(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        if let Some((_, _, hasher)) = &mut self.current {
            hasher.data(offset, data);
        }
        Ok(())
    }
}

fn digest_xattrs(xattrs: &[Xattr]) -> Option<Box<Sha>> {
    if xattrs.is_empty() {
        return None;
    }
    let mut sorted: Vec<&Xattr> = xattrs.iter().collect();
    sorted.sort_unstable();
    let mut hasher = Sha256::new();
    for bytes in sorted.iter().flat_map(|x| [&x.name, &x.value]) {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    Some(Box::new(Sha(hasher.finalize().into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::meta::Meta;

    fn add(contents: &mut Contents, kind: Kind, path: &str, link_end: &str, is_hard_link: bool) {
        let entry = Entry {
            path: path.as_bytes(),
            link_end: link_end.as_bytes(),
            is_hard_link,
            meta: &Meta {
                kind,
                ..Meta::default()
            },
            xattrs: &[],
        };
        contents.entry(&entry).unwrap();
    }

    fn owned(contents: &Contents) -> Vec<&str> {
        let owned = contents.iter().filter(|(_, node)| node.is_owned);
        owned
            .map(|(path, _)| str::from_utf8(path).unwrap())
            .collect()
    }

    #[test]
    fn a_package_owns_what_its_paths_lead_to() {
        let mut contents = Contents::default();
        for (path, link_end) in [
            ("bin", "usr/bin"),
            ("usr/lib64", "lib"),
            ("usr/lib", "/usr/libs/../libs"),
            ("a", "b"),
            ("b", "a"),
        ] {
            add(&mut contents, Kind::Symlink, path, link_end, false);
        }
        for path in ["usr/bin/ls", "usr/libs/x.so", "usr/bin/other", "usr/binary"] {
            add(&mut contents, Kind::File, path, "", false);
        }
        contents.finish();
        let deep = "x/".repeat(2_000_000);
        for path in [
            &deep,
            "bin/ls",
            "./bin",
            "usr/lib64/x.so",
            "a/x",
            "gone",
            "../x",
            "/x",
        ] {
            contents.set_owned(path.as_bytes());
        }
        assert_eq!(owned(&contents), ["bin", "usr/bin/ls", "usr/libs/x.so"]);
        contents.set_owned_below(b"usr/bin");
        assert!(owned(&contents).contains(&"usr/bin/other"));
        assert!(!owned(&contents).contains(&"usr/binary"));
    }

    #[test]
    fn a_hard_link_has_the_content_of_its_first_name() {
        let mut contents = Contents::default();
        add(&mut contents, Kind::File, "a", "", false);
        contents.data(0, b"data").unwrap();
        add(&mut contents, Kind::File, "b", "a", true);
        add(&mut contents, Kind::File, "c", "", false);
        contents.finish();
        let nodes: Vec<&Node> = contents.iter().map(|(_, node)| node).collect();
        assert_eq!(nodes[0], nodes[1]);
        assert_ne!(nodes[0], nodes[2]);
    }
}
