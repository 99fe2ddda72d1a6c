//! A payload that is genuine byte by byte, and not what it should be.

use std::fs;
use std::path::Path;

use crate::forge::{Archive, forge_packed, xz};
use crate::kit::*;
use crate::listing::open;
use tar::EntryType;
use va_upgrade::bundle::{Contents, Manifest, verify_deep, visit};
use va_upgrade::failure::{Class, class_of};
use va_upgrade::progress::Silent;

/// A manifest that speaks of a tree with `entries` names and `inodes` inodes.
fn manifest(dir: &Path, entries: u64, inodes: u64) -> Manifest {
    let tree = dir.join("tree");
    fs::create_dir_all(&tree).unwrap();
    let mut manifest = pack_tree(&tree, &dir.join("small.vab"), 1);
    manifest.tree.entries = entries;
    manifest.tree.inodes = inodes;
    manifest
}

#[test]
fn a_whole_bundle_is_proved_and_every_kind_of_file_counts() {
    let dir = temp_dir();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    make_tricky_tree(&tree);
    make_deep_dir(&tree);
    let path = dir.path().join("a.vab");
    pack_tree(&tree, &path, 2);
    verify_deep(&mut open(&path), &Silent).unwrap();
}

#[test]
fn what_does_not_decode_is_found_although_its_digest_is_right() {
    let dir = temp_dir();
    let path = dir.path().join("forged.vab");
    let manifest = manifest(dir.path(), 1, 1);
    let archive = Archive::default().dir("./").end();
    let packed = xz(&archive);
    let size = archive.len() as u64;
    let mut broken = packed.clone();
    let middle = broken.len() / 2;
    broken[middle] ^= 0x55;
    let cut = &packed[..packed.len() - 8];
    for (bytes, size, word) in [
        (&broken[..], size, "chunk 1 of 1"),
        (cut, size, "chunk 1 of 1"),
        (b"not xz at all", size, "chunk 1 of 1"),
        (&packed, size - 512, "more than"),
        (&packed, size + 512, "it ends after"),
        (&xz(&[7; 1024]), 1024, "checksum is wrong"),
        (&xz(&archive[..512]), 512, "too early"),
    ] {
        forge_packed(&manifest, &[(bytes, size, None)], &path);
        open(&path).verify(1, &Silent).unwrap();
        let error = verify_deep(&mut open(&path), &Silent).expect_err(word);
        let text = format!("{error:#}");
        assert!(text.contains(word), "{word}: {text}");
        assert!(text.contains("copy it again"), "{text}");
        assert_eq!(class_of(&error), Class::BadBundle, "{text}");
    }
}

#[test]
fn an_archive_that_is_no_tree_or_another_one_is_refused() {
    let dir = temp_dir();
    let path = dir.path().join("forged.vab");
    let root = || Archive::default().dir("./");
    for (archive, entries, inodes, word) in [
        (
            root().file("a"),
            3,
            2,
            "2 names of 2 inodes, the manifest says 3 of 2",
        ),
        (root().file("a"), 2, 1, "2 names of 2 inodes"),
        (root().file("a"), 2, 2, "its digest is not the manifest's"),
        (root().file("a").file("a"), 3, 3, "member a: it comes twice"),
        (
            root().file("a").file("a/b"),
            3,
            3,
            "a/b is in a, which is no directory",
        ),
        (
            root().file("no/b"),
            2,
            2,
            "no/b is in no, which is no directory",
        ),
        (
            root().hard_link("h", "gone"),
            2,
            1,
            "member h: it is a link to gone",
        ),
        (
            root().dir("d").hard_link("h", "d"),
            3,
            2,
            "link to d, which is no file",
        ),
        (
            Archive::default().file("a"),
            1,
            1,
            "a is in ., which is no directory",
        ),
    ] {
        let archive = archive.end();
        let manifest = manifest(dir.path(), entries, inodes);
        forge_packed(
            &manifest,
            &[(&xz(&archive), archive.len() as u64, None)],
            &path,
        );
        let error = verify_deep(&mut open(&path), &Silent).expect_err(word);
        let text = format!("{error:#}");
        assert!(text.contains(word), "{word}: {text}");
        assert_eq!(class_of(&error), Class::BadBundle, "{text}");
    }
}

#[test]
fn a_tree_is_not_compared_when_it_is_none() {
    let dir = temp_dir();
    let path = dir.path().join("forged.vab");
    let a = Archive::default;
    for (archive, word) in [
        (a().hard_link("h", "gone"), "gone, which is not there"),
        (a().file("a").file("a"), "member a: it comes twice"),
        (a().add(EntryType::Regular, "../a", "", b""), "leads out"),
    ] {
        let archive = archive.end();
        let manifest = manifest(dir.path(), 1, 1);
        forge_packed(
            &manifest,
            &[(&xz(&archive), archive.len() as u64, None)],
            &path,
        );
        let error = visit(&mut open(&path), &mut Contents::default(), &Silent).expect_err(word);
        assert!(format!("{error:#}").contains(word), "{word}: {error:#}");
        assert_eq!(class_of(&error), Class::BadBundle, "{error:#}");
    }
}
