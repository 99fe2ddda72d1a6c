//! What differs between two trees, name by name.

use std::cmp::Ordering;
use std::iter::Peekable;

use crate::bundle::{Contents, Node};
use crate::tree::meta::Kind;

/// A name that is not the same in two trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// Relative to the root; empty is the root.
    pub path: Vec<u8>,
    /// What happened to it.
    pub what: What,
    /// A package owns it, in one of the trees at least.
    pub is_owned: bool,
}

/// What happened to a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Only the newer tree has it.
    Added,
    /// Only the older tree has it.
    Removed,
    /// Both have it, and these things differ.
    Changed(Vec<&'static str>),
}

/// Lists what differs, sorted by path.
pub fn compare(old: &Contents, new: &Contents) -> Vec<FileChange> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    let mut changes = Vec::new();
    while let Some((path, old, new)) = next_pair(&mut old, &mut new) {
        let what = match (old, new) {
            (Some(old), Some(new)) => match differences(old, new) {
                same if same.is_empty() => continue,
                different => What::Changed(different),
            },
            (None, _) => What::Added,
            (_, None) => What::Removed,
        };
        changes.push(FileChange {
            path: path.to_vec(),
            what,
            is_owned: [old, new].into_iter().flatten().any(|node| node.is_owned),
        });
    }
    changes
}

type Named<'a> = (&'a [u8], &'a Node);
type Pair<'a> = (&'a [u8], Option<&'a Node>, Option<&'a Node>);

/// Takes the next name from whichever side has it, or from both.
fn next_pair<'a>(
    old: &mut Peekable<impl Iterator<Item = Named<'a>>>,
    new: &mut Peekable<impl Iterator<Item = Named<'a>>>,
) -> Option<Pair<'a>> {
    let order = match (old.peek(), new.peek()) {
        (Some((a, _)), Some((b, _))) => a.cmp(b),
        (Some(_), None) => Ordering::Less,
        (None, _) => Ordering::Greater,
    };
    let from_old = if order.is_le() { old.next() } else { None };
    let from_new = if order.is_ge() { new.next() } else { None };
    let (path, _) = from_old.or(from_new)?;
    let node = |named: Option<Named<'a>>| named.map(|(_, node)| node);
    Some((path, node(from_old), node(from_new)))
}

fn differences(old: &Node, new: &Node) -> Vec<&'static str> {
    let content = match new.kind {
        Kind::Symlink => "target",
        Kind::Char | Kind::Block => "device",
        Kind::File | Kind::Dir | Kind::Fifo => "content",
    };
    let is_same_kind = old.kind == new.kind;
    let aspects = [
        ("kind", !is_same_kind),
        (content, is_same_kind && old.content != new.content),
        ("mode", is_same_kind && old.mode != new.mode),
        ("owner", (old.uid, old.gid) != (new.uid, new.gid)),
        ("xattrs", old.xattrs != new.xattrs),
    ];
    let different = aspects.into_iter().filter(|(_, differs)| *differs);
    different.map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{Entry, Visitor};
    use crate::tree::meta::{Meta, Mtime};
    use crate::tree::xattrs::Xattr;

    /// A tree of entries: kind, path, mode, and content, target or attribute.
    fn tree(entries: &[(Kind, &str, u32, &str)]) -> Contents {
        let mut contents = Contents::default();
        for (i, (kind, path, mode, text)) in entries.iter().enumerate() {
            let meta = Meta {
                kind: *kind,
                mode: *mode,
                // Never a change.
                mtime: Mtime {
                    seconds: i64::try_from(i).unwrap(),
                    nanoseconds: 0,
                },
                device: match kind {
                    Kind::Char => (1, text.len() as u64),
                    _ => (0, 0),
                },
                size_bytes: match kind {
                    Kind::File => text.len() as u64,
                    _ => 0,
                },
                ..Meta::default()
            };
            let xattr = Xattr {
                name: b"user.x".to_vec(),
                value: text.as_bytes().to_vec(),
            };
            let entry = Entry {
                path: path.as_bytes(),
                link_end: text.as_bytes(),
                is_hard_link: false,
                meta: &meta,
                xattrs: match kind {
                    Kind::Dir if !text.is_empty() => &[xattr],
                    _ => &[],
                },
            };
            contents.entry(&entry).unwrap();
            if *kind == Kind::File {
                contents.data(0, text.as_bytes()).unwrap();
            }
        }
        contents.finish();
        contents
    }

    fn told(old: &Contents, new: &Contents) -> Vec<String> {
        let tell = |change: FileChange| {
            let path = String::from_utf8(change.path).unwrap();
            match change.what {
                What::Added => format!("+ {path}"),
                What::Removed => format!("- {path}"),
                What::Changed(aspects) => format!("~ {path} {}", aspects.join(" ")),
            }
        };
        compare(old, new).into_iter().map(tell).collect()
    }

    #[test]
    fn every_kind_of_difference_is_named_and_a_time_is_none() {
        let old = tree(&[
            (Kind::File, "same", 0o644, "x"),
            (Kind::File, "content", 0o644, "x"),
            (Kind::File, "both", 0o644, "x"),
            (Kind::File, "kind", 0o644, "x"),
            (Kind::Symlink, "link", 0o777, "x"),
            (Kind::Symlink, "link-mode", 0o777, "x"),
            (Kind::Char, "node", 0o600, "x"),
            (Kind::Dir, "dir", 0o755, "x"),
            (Kind::Dir, "plain", 0o755, ""),
            (Kind::File, "gone", 0o644, "x"),
        ]);
        let new = tree(&[
            (Kind::Dir, "plain", 0o755, "x"),
            (Kind::Dir, "dir", 0o755, "y"),
            (Kind::Char, "node", 0o600, "yy"),
            (Kind::Symlink, "link", 0o777, "y"),
            (Kind::Symlink, "link-mode", 0o755, "x"),
            (Kind::Dir, "kind", 0o755, ""),
            (Kind::File, "both", 0o600, "y"),
            (Kind::File, "content", 0o644, "y"),
            (Kind::File, "same", 0o644, "x"),
            (Kind::File, "added", 0o644, "x"),
        ]);
        assert_eq!(
            told(&old, &new),
            [
                "+ added",
                "~ both content mode",
                "~ content content",
                "~ dir xattrs",
                "- gone",
                "~ kind kind",
                "~ link target",
                "~ node device",
                "~ plain xattrs",
            ]
        );
        assert!(told(&old, &old).is_empty());
        assert_eq!(told(&tree(&[]), &new).len(), 10);
    }

    #[test]
    fn a_file_counts_as_owned_when_either_tree_says_so() {
        let mut old = tree(&[(Kind::File, "a", 0, "x"), (Kind::File, "b", 0, "x")]);
        let new = tree(&[(Kind::File, "a", 0, "y"), (Kind::File, "b", 0, "y")]);
        old.set_owned(b"a");
        let owned: Vec<bool> = compare(&old, &new).iter().map(|c| c.is_owned).collect();
        assert_eq!(owned, [true, false]);
    }
}
