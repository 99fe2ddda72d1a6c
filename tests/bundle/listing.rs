//! Reading a bundle without unpacking it: every name once, all that is kept.

use std::collections::BTreeMap;
use std::fs;

use crate::kit::*;
use va_upgrade::bundle::{Bundle, Contents, Entry, Sealed, Trust, Visitor, visit};
use va_upgrade::progress::Silent;
use va_upgrade::tree::meta::Kind;

/// Notes a line for each name, and how much data came.
#[derive(Default)]
struct Notes {
    lines: BTreeMap<Vec<u8>, String>,
    data_bytes: u64,
}

impl Visitor for Notes {
    fn entry(&mut self, entry: &Entry) -> anyhow::Result<()> {
        let meta = entry.meta;
        let line = format!(
            "{:?} {:o} {}:{} {} {:?} {} {}",
            meta.kind,
            meta.mode,
            meta.uid,
            meta.gid,
            meta.size_bytes,
            meta.device,
            if entry.is_hard_link { "link" } else { "->" },
            entry.link_end.escape_ascii()
        );
        let before = self.lines.insert(entry.path.to_vec(), line);
        assert_eq!(before, None, "{}", entry.path.escape_ascii());
        Ok(())
    }

    fn data(&mut self, _offset: u64, data: &[u8]) -> anyhow::Result<()> {
        self.data_bytes += data.len() as u64;
        Ok(())
    }
}

pub fn open(path: &std::path::Path) -> Bundle<'static> {
    let sealed = Sealed::open(path).unwrap();
    sealed.authenticate(Trust::Anyone).unwrap().0
}

#[test]
fn every_name_of_a_tree_goes_by_once_with_all_there_is_to_know() {
    let dir = temp_dir();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    make_tricky_tree(&tree);
    make_deep_dir(&tree);
    let path = dir.path().join("a.vab");
    let manifest = pack_tree(&tree, &path, 2);
    let mut notes = Notes::default();
    visit(&mut open(&path), &mut notes, &Silent).unwrap();
    assert_eq!(notes.lines.len() as u64, manifest.tree.entries);
    assert!(notes.data_bytes > 2_000_000, "{}", notes.data_bytes);
    for (path, line) in [
        (&b""[..], "Dir 755 0:0 0 (0, 0) -> "),
        (b"srv", "Dir 2775 7:8 0 (0, 0) -> "),
        (b"srv/acl", "Dir 755 0:0 0 (0, 0) -> "),
        (b"srv/disk", "Block 640 0:8 0 (4000, 1000000) -> "),
        (b"srv/fifo", "Fifo 640 0:8 0 (0, 0) -> "),
        (b"srv/only-a-hole", "File 644 0:8 1099511627776 (0, 0) -> "),
        (b"usr/bin/link", "Symlink 777 5:6 0 (0, 0) -> ../etc/passwd"),
        (b"bad \xff\xfe\nname/-rf *", "File 644 0:0 3 (0, 0) -> "),
    ] {
        let shown = path.escape_ascii();
        assert_eq!(notes.lines.get(path).unwrap(), line, "{shown}");
    }
    let big = ["usr/bin/big", "empty/same", "aaa"].map(|path| &notes.lines[path.as_bytes()]);
    let links = big.iter().filter(|line| line.contains(" link ")).count();
    assert_eq!(links, 2, "{big:?}");
}

#[test]
fn the_content_of_a_tree_is_the_same_however_it_is_cut_and_stored() {
    let dir = temp_dir();
    let (tree, copy) = (dir.path().join("tree"), dir.path().join("copy"));
    fs::create_dir(&tree).unwrap();
    make_tricky_tree(&tree);
    fs::create_dir(&copy).unwrap();
    // Holes are filled and links are cut.
    for name in ["srv/many-holes", "usr/bin/big", "aaa"] {
        let (from, to) = (tree.join(name), name.replace('/', "-"));
        sh(&format!(
            "cp --sparse=never '{}' '{}'",
            from.display(),
            copy.join(to).display()
        ));
    }
    let contents = |tree: &std::path::Path| {
        let path = dir.path().join("a.vab");
        pack_tree(tree, &path, 2);
        let mut contents = Contents::default();
        visit(&mut open(&path), &mut contents, &Silent).unwrap();
        contents.finish();
        contents
    };
    let (of_tree, of_copy) = (contents(&tree), contents(&copy));
    let digest = |contents: &Contents, name: &str| {
        let mut all = contents.iter();
        let (_, node) = all.find(|(path, _)| *path == name.as_bytes()).unwrap();
        assert_eq!(node.kind, Kind::File);
        node.content
    };
    for name in ["srv/many-holes", "usr/bin/big", "aaa"] {
        let copied = digest(&of_copy, &name.replace('/', "-"));
        assert_eq!(digest(&of_tree, name), copied, "{name}");
    }
    assert_ne!(digest(&of_tree, "aaa"), digest(&of_tree, "srv/many-holes"));
}
