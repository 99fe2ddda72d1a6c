//! Times that are limited, so that a tree made again gives the same bundle.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use va_upgrade::bundle::{PackOptions, Sealed, Trust, pack, unpack};
use va_upgrade::progress::Silent;
use va_upgrade::tree::digest::digest_tree;

use crate::compare::assert_same_but;
use crate::kit::*;

#[test]
fn times_after_the_clamp_become_it_and_earlier_ones_stay() {
    let dir = temp_dir();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    make_tricky_tree(&tree);
    fs::remove_dir(tree.join("tmp/gone")).unwrap();
    fs::create_dir(tree.join("new")).unwrap();
    fs::write(tree.join("new/file"), "x").unwrap();
    symlink("file", tree.join("new/link")).unwrap();
    fs::hard_link(tree.join("new/file"), tree.join("new/same")).unwrap();
    sh(&format!(
        "setfacl -m d:u:9:r '{}'",
        tree.join("new").display()
    ));
    let clamp = 1_500_000_000;
    for (name, time) in [("at", "@1500000000"), ("past", "@1500000000.000000001")] {
        fs::write(tree.join(name), name).unwrap();
        run(
            "touch",
            [OsStr::new("-d"), time.as_ref(), tree.join(name).as_os_str()],
        );
    }
    let packed = |name: &str| {
        let options = PackOptions {
            clamp: Some(clamp),
            ..small_chunks(2)
        };
        let manifest = pack(
            &tree,
            &release(),
            &facts(),
            &options,
            &dir.path().join(name),
            &Silent,
        );
        (manifest.unwrap(), fs::read(dir.path().join(name)).unwrap())
    };
    let (manifest, bytes) = packed("a.vab");
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    let sealed = Sealed::open(&dir.path().join("a.vab")).unwrap();
    let (bundle, _) = sealed.authenticate(Trust::Anyone).unwrap();
    unpack(bundle, &out, &unpack_options(), &Silent).unwrap();
    let digest = digest_tree(&out, 2, &Silent).unwrap();
    assert_eq!(digest, manifest.tree.digest);
    assert_same_but(&tree, &out, |tree, _| {
        assert_eq!(tree[Path::new("past")].mtime, (clamp, 1));
        for entry in tree.values_mut() {
            entry.mtime = entry.mtime.min((clamp, 0));
        }
    });
    // Made again later, it is the same.
    for name in ["new/file", "new"] {
        run("touch", [tree.join(name)]);
    }
    assert!(packed("b.vab").1 == bytes);
}
