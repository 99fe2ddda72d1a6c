//! Genuine bundles whose manifest lies about the payload: what is unpacked is
//! the tree that is read in order, or nothing is.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::compare::*;
use crate::forge::{Archive, Cut, forge};
use crate::kit::*;
use crate::listing::open;
use tar::EntryType;
use tempfile::TempDir;
use va_upgrade::bundle::{Manifest, UnpackOptions, unpack, unpack_only};
use va_upgrade::failure::{Class, class_of};
use va_upgrade::progress::Silent;

/// A place for bundles, and a manifest of an empty tree to forge them from.
pub struct Lab {
    dir: TempDir,
    pub manifest: Manifest,
}

impl Lab {
    pub fn new() -> Lab {
        let dir = temp_dir();
        let base = dir.path().join("base");
        fs::create_dir_all(base.join("outside")).unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        let small = dir.path().join("small.vab");
        let manifest = pack_tree(&dir.path().join("tree"), &small, 1);
        Lab { dir, manifest }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Unpacks the bundle beside a directory that must stay as it is.
    pub fn unpack(&self, bundle: &Path, options: UnpackOptions) -> anyhow::Result<TempDir> {
        let target = tempfile::tempdir_in(self.path("base")).unwrap();
        let (sender, receiver) = mpsc::channel();
        let (bundle, to) = (open(bundle), target.path().to_owned());
        thread::spawn(move || sender.send(unpack(bundle, &to, &options, &Silent)));
        let result = receiver.recv_timeout(Duration::from_secs(60));
        assert_eq!(fs::read_dir(self.path("base")).unwrap().count(), 2);
        let outside = fs::read_dir(self.path("base/outside")).unwrap();
        assert_eq!(outside.count(), 0);
        result.expect("it ends").map(|()| target)
    }

    /// Cuts `archive` as told and unpacks it on several numbers of threads,
    /// which all must end alike: with the same tree or in a refusal.
    fn unpack_cut(&self, archive: &[u8], cuts: &[Cut]) -> Option<Tree> {
        let bundle = self.path("forged.vab");
        forge(&self.manifest, archive, cuts, &bundle);
        let mut trees = Vec::new();
        for threads in [1, 2, 3, 4, 2, 4] {
            let tree = match self.unpack(&bundle, UnpackOptions::new(threads)) {
                Ok(target) => Some(snapshot(target.path())),
                Err(error) => {
                    assert_eq!(class_of(&error), Class::BadBundle, "{error:#}");
                    None
                }
            };
            trees.push(tree);
        }
        assert!(trees.windows(2).all(|w| w[0] == w[1]), "{trees:?}");
        trees.swap_remove(0)
    }

    fn unpack_only(&self, path: &str) -> anyhow::Result<TempDir> {
        let target = tempfile::tempdir_in(self.dir.path()).unwrap();
        let bundle = open(&self.path("forged.vab"));
        let paths = [path.as_bytes()];
        unpack_only(bundle, &paths, target.path(), &unpack_options(), &Silent)?;
        Ok(target)
    }
}

/// A root, a file of three blocks that holds an archive of its own, and a
/// small file: with their headers 512, 2048 and 1024 bytes.
pub fn archive() -> Archive {
    let inner = Archive::default().file("inner").end();
    Archive::default()
        .dir("./")
        .add(EntryType::Regular, "large", "", &inner[..1536])
        .file("small")
}

#[test]
fn a_chunk_that_begins_elsewhere_than_said_is_refused_or_does_not_matter() {
    let lab = Lab::new();
    let archive = archive().end();
    let rest = |cuts: &[Cut]| archive.len() - cuts.iter().map(|cut| cut.0).sum::<usize>();
    let right = lab.unpack_cut(&archive, &[(archive.len(), None)]).unwrap();
    assert_eq!(right.len(), 3);
    for (cuts, is_refused) in [
        // True, or nothing but a number that unpacking does not need.
        (
            &[(512, Some(0)), (2048, Some(0)), (1024, Some(0))][..],
            false,
        ),
        (&[(512, None), (700, None), (1348, None)], false),
        (&[(512, Some(512)), (2048, Some(7)), (1024, Some(1))], false),
        (&[(1024, Some(5)), (100, Some(100)), (1, Some(1))], false),
        // The file goes on, and what goes on looks like an archive.
        (&[(1024, None), (1536, Some(0))], true),
        (&[(1025, None), (1535, Some(0))], true),
        (&[(1024, None), (512, Some(512)), (1024, Some(0))], true),
        // Inside a header, and inside of what fills up a block.
        (&[(300, None), (3284, Some(0))], true),
        (&[(2560 + 512, None), (512, Some(0))], true),
        (&[(2560 + 516, None), (508, Some(0))], true),
    ] {
        let cuts = [cuts, &[(rest(cuts), None)]].concat();
        let tree = lab.unpack_cut(&archive, &cuts);
        let expected = if is_refused { None } else { Some(&right) };
        assert_eq!(tree.as_ref(), expected, "{cuts:?}");
    }
}

#[test]
fn a_chunk_may_not_begin_anew_after_what_concerns_its_first_member() {
    let lab = Lab::new();
    let pax = Archive::default().dir("./").pax(&[("path", "long")]);
    let at = pax.clone().bytes().len();
    let archive = pax.file("short").end();
    let second = archive.len() - at;
    assert_eq!(
        lab.unpack_cut(&archive, &[(at, None), (second, Some(0))]),
        None
    );
    let tree = lab.unpack_cut(&archive, &[(at, None), (second, None)]);
    assert!(tree.unwrap().contains_key(Path::new("long")));

    let another = Archive::default().dir("./").file("another").end();
    let two = [&archive[..], &another].concat();
    let cuts = [(archive.len(), None), (another.len(), Some(0))];
    assert_eq!(lab.unpack_cut(&two, &cuts), None);
    let cut = &archive[..archive.len() - 1024];
    assert_eq!(lab.unpack_cut(cut, &[(cut.len(), Some(0))]), None);
}

#[test]
fn global_headers_hold_for_every_chunk() {
    let lab = Lab::new();
    let archive = Archive::default()
        .global(&[("mtime", "5"), ("uid", "77")])
        .dir("./")
        .add(EntryType::Regular, "large", "", &noise(3000, 1))
        .file("small");
    let archive = archive.end();
    let whole = lab.unpack_cut(&archive, &[(archive.len(), None)]).unwrap();
    assert!(
        whole
            .values()
            .all(|entry| entry.mtime == (5, 0) && entry.owner.0 == 77)
    );
    for size in [600, 1024, 1536] {
        let cuts: Vec<Cut> = archive.chunks(size).map(|c| (c.len(), None)).collect();
        assert_eq!(
            lab.unpack_cut(&archive, &cuts).as_ref(),
            Some(&whole),
            "{size}"
        );
    }
}

#[test]
fn names_that_collide_in_different_chunks_are_refused_on_any_threads() {
    let lab = Lab::new();
    let a = || Archive::default().dir("./");
    for (first, second, name) in [
        (a().file("f"), Archive::default().file("f"), "f"),
        (
            a().symlink("d", "../outside"),
            Archive::default().file("d/evil"),
            "d",
        ),
        (a().file("f"), Archive::default().file("f/x"), "f"),
        (a().file("f"), Archive::default().symlink("f", "x"), "f"),
        (
            a().dir("d"),
            Archive::default().symlink("d", "../outside"),
            "d",
        ),
    ] {
        let first = first.bytes();
        let archive = [&first[..], &second.end()].concat();
        let cuts = [
            (first.len(), Some(0)),
            (archive.len() - first.len(), Some(0)),
        ];
        let bundle = lab.path("forged.vab");
        forge(&lab.manifest, &archive, &cuts, &bundle);
        for threads in [1, 2, 2, 4] {
            let result = lab.unpack(&bundle, UnpackOptions::new(threads));
            let error = format!("{:#}", result.expect_err(name));
            assert!(error.contains(name), "{name}: {error}");
        }
    }
}

#[test]
fn a_part_is_whole_or_refused_whatever_is_said_of_the_chunks() {
    let lab = Lab::new();
    let archive = archive().end();
    let forge = |cuts: &[Cut]| forge(&lab.manifest, &archive, cuts, &lab.path("forged.vab"));
    forge(&[(512, None), (2048, None), (2048, None)]);
    let part = lab.unpack_only("large").unwrap();
    let large = fs::metadata(part.path().join("large")).unwrap();
    assert_eq!(large.size(), 1536);
    // The chunk that the file goes on in is said not to hold it.
    for cuts in [
        &[(512, None), (1000, None), (3096, Some(0))][..],
        &[(512, None), (1000, None), (1048, Some(1)), (2048, None)],
        &[(512, None), (1000, None), (1048, Some(1)), (2048, Some(0))],
    ] {
        forge(cuts);
        let error = lab.unpack_only("large").expect_err("it is not whole");
        let text = format!("{error:#}");
        assert_eq!(class_of(&error), Class::BadBundle, "{text}");
        assert!(text.contains("chunk 2 of"), "{text}");
    }
    // What is in the file is taken for members.
    forge(&[(1024, Some(0)), (3584, None)]);
    assert!(lab.unpack_only("small").is_err());
}
