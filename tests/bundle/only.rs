//! Parts of a bundle: what was asked for comes, and nothing else is read.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::compare::*;
use crate::kit::*;
use crate::listing::open;
use va_upgrade::bundle::{self, Keyring, Manifest, Sealed, Trust};
use va_upgrade::failure::{Class, class_of};
use va_upgrade::progress::Silent;

fn lab() -> (tempfile::TempDir, PathBuf, Manifest) {
    let dir = temp_dir();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    make_tricky_tree(&tree);
    let bundle = dir.path().join("a.vab");
    let manifest = pack_tree(&tree, &bundle, 2);
    (dir, bundle, manifest)
}

fn unpack_only(bundle: &Path, target: &Path, paths: &[&str]) -> anyhow::Result<()> {
    let keyring = Keyring::default();
    let trust = Trust::SignedOrUnsigned(&keyring);
    let (bundle, _) = Sealed::open(bundle)?.authenticate(trust)?;
    let paths: Vec<&[u8]> = paths.iter().map(|path| path.as_bytes()).collect();
    bundle::unpack_only(bundle, &paths, target, &unpack_options(), &Silent)
}

#[test]
fn every_kind_of_part_comes_as_it_was() {
    let (dir, bundle, _) = lab();
    let tree = dir.path().join("tree");
    for (i, part) in [
        "etc",
        "/usr/bin/tool199",
        "boot/vmlinuz",
        "srv/acl",
        "./usr/bin/longlink",
        "srv/many-holes",
        "srv/null",
    ]
    .iter()
    .enumerate()
    {
        let target = dir.path().join(i.to_string());
        fs::create_dir(&target).unwrap();
        unpack_only(&bundle, &target, &[part]).unwrap_or_else(|e| panic!("{part}: {e:#}"));
        let part = part.trim_start_matches(['.', '/']);
        assert_same(&tree.join(part), &target.join(part));
        assert_eq!(fs::read_dir(&target).unwrap().count(), 1, "{part}");
    }
}

#[test]
fn a_file_is_read_from_a_bundle_damaged_everywhere_else() {
    let (dir, bundle, manifest) = lab();
    let target = dir.path().join("out");
    fs::create_dir(&target).unwrap();
    unpack_only(&bundle, &target, &["boot/vmlinuz"]).unwrap();
    let payload_at = fs::metadata(&bundle).unwrap().len() / 512 * 512
        - 1024
        - manifest.payload.packed_bytes.next_multiple_of(512);
    let chunks = open(&bundle).chunks().to_vec();
    let mut survivors = 0;
    for chunk in &chunks {
        let copy = dir.path().join("copy.vab");
        fs::copy(&bundle, &copy).unwrap();
        let file = File::options().write(true).open(&copy).unwrap();
        file.write_all_at(b"damaged", payload_at + chunk.offset)
            .unwrap();
        let again = dir.path().join(format!("out{survivors}"));
        fs::create_dir_all(&again).unwrap();
        match unpack_only(&copy, &again, &["boot/vmlinuz"]) {
            Ok(()) => survivors += 1,
            Err(error) => {
                assert_eq!(class_of(&error), Class::BadBundle, "{error:#}");
                // It may have come as far as a part of the file.
                let _ = fs::remove_file(again.join("boot/vmlinuz"));
            }
        }
    }
    // 300,000 bytes that do not repeat lie in five or six chunks of 64 KiB.
    assert!(survivors >= chunks.len() - 7, "{survivors}");
    assert!(survivors <= chunks.len() - 5, "{survivors}");
}

#[test]
fn what_cannot_be_had_alone_is_refused_with_the_way_out() {
    let (dir, bundle, _) = lab();
    let target = dir.path().join("out");
    fs::create_dir(&target).unwrap();
    for (paths, word) in [
        (&["nothing/here"][..], "holds no nothing/here"),
        (&["etc", "etc/passwd2"], "holds no etc/passwd2"),
        (&["../etc"], "leads out"),
        (&["/"], "the whole tree"),
        (&[""], "the whole tree"),
        (&["usr/bin/big"], "another name of aaa"),
    ] {
        let error = unpack_only(&bundle, &target, paths).expect_err(word);
        let text = format!("{error:#}");
        assert!(text.contains(word), "{word}: {text}");
        assert_eq!(class_of(&error), Class::Refused, "{text}");
        sh(&format!("rm -rf '{}'/*", target.display()));
    }
    unpack_only(&bundle, &target, &["usr/bin/big", "aaa"]).unwrap();
}
