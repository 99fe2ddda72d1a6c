//! What goes in comes out: ours to ours, and both ways with stock tools.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::compare::*;
use crate::foreign::unpack_tar_xz;
use crate::kit::*;
use crate::listing::open;
use crate::stock::{as_bsdtar_restores, as_bsdtar_writes_times};
use va_upgrade::bundle::{
    self, Codec, Keyring, PackMode, PackOptions, PackPlan, Sealed, Trust, UnpackOptions, pack,
};
use va_upgrade::failure::{Class, class_of};
use va_upgrade::progress::Silent;
use va_upgrade::tree::digest::digest_tree;

struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Lab {
        let lab = Lab { dir: temp_dir() };
        for name in ["tree", "out"] {
            fs::create_dir(lab.path(name)).unwrap();
        }
        make_tricky_tree(&lab.path("tree"));
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn unpack(bundle: &Path, target: &Path, threads: usize) {
    let keyring = Keyring::default();
    let trust = Trust::SignedOrUnsigned(&keyring);
    let (bundle, _) = Sealed::open(bundle).unwrap().authenticate(trust).unwrap();
    bundle::unpack(bundle, target, &UnpackOptions::new(threads), &Silent)
        .unwrap_or_else(|e| panic!("{e:#}"));
}

/// What was in /tmp is not packed, and it is the one thing the tree holds too much.
fn empty_tmp(tree: &Path) {
    let time = fs::metadata(tree.join("tmp")).unwrap().modified().unwrap();
    fs::remove_dir(tree.join("tmp/gone")).unwrap();
    File::open(tree.join("tmp"))
        .unwrap()
        .set_modified(time)
        .unwrap();
}

#[test]
fn a_tree_comes_back_as_it_was_and_the_digest_says_so() {
    let lab = Lab::new();
    make_deep_dir(&lab.path("tree"));
    let manifest = pack_tree(&lab.path("tree"), &lab.path("a.vab"), 2);
    assert!(open(&lab.path("a.vab")).chunks().len() > 10);
    assert_eq!(
        digest_tree(&lab.path("tree"), 2, &Silent).unwrap(),
        manifest.tree.digest
    );
    for threads in [1, 4] {
        let target = lab.path(&format!("out/{threads}"));
        fs::create_dir(&target).unwrap();
        unpack(&lab.path("a.vab"), &target, threads);
        let digest = digest_tree(&target, 3, &Silent).unwrap();
        assert_eq!(digest, manifest.tree.digest);
        let leaf = sh(&format!(
            "cd '{}'; while cd deepdeep* 2>/dev/null; do :; done; cat leaf",
            target.display()
        ));
        assert_eq!(leaf, "far\n");
        // The comparison by full path cannot enter what is too deep.
        sh(&format!("rm -r '{}'/deepdeep*", target.display()));
    }
    let time = fs::metadata(lab.path("tree")).unwrap().modified().unwrap();
    sh(&format!("rm -r '{}'/deepdeep*", lab.path("tree").display()));
    for dir in ["tree", "out/1", "out/4"] {
        File::open(lab.path(dir))
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
    empty_tmp(&lab.path("tree"));
    assert_same(&lab.path("tree"), &lab.path("out/1"));
    assert_same(&lab.path("tree"), &lab.path("out/4"));
}

#[test]
fn a_stream_unpacks_like_a_file() {
    let lab = Lab::new();
    let manifest = pack_tree(&lab.path("tree"), &lab.path("a.vab"), 2);
    let file = File::open(lab.path("a.vab")).unwrap();
    let sealed = Sealed::from_stream("the stream", file).unwrap();
    let (bundle, _) = sealed.authenticate(Trust::Anyone).unwrap();
    let target = lab.path("out");
    bundle::unpack(bundle, &target, &unpack_options(), &Silent).unwrap();
    let digest = digest_tree(&target, 1, &Silent).unwrap();
    assert_eq!(digest, manifest.tree.digest);
}

#[test]
fn the_same_tree_gives_the_same_bytes_on_any_number_of_threads() {
    let lab = Lab::new();
    let mut bundles = Vec::new();
    for threads in [1, 2, 5] {
        let path = lab.path(&format!("{threads}.vab"));
        pack_tree(&lab.path("tree"), &path, threads);
        bundles.push(fs::read(path).unwrap());
    }
    assert!(bundles[0] == bundles[1] && bundles[1] == bundles[2]);
}

#[test]
fn the_best_mode_packs_the_same_tree_smaller() {
    let lab = Lab::new();
    let options = PackOptions {
        plan: PackPlan::new(Codec::Xz, PackMode::Best),
        ..PackOptions::new(2, 0)
    };
    let (tree, bundle, target) = (lab.path("tree"), lab.path("best.vab"), lab.path("out/best"));
    let best = pack(&tree, &release(), &facts(), &options, &bundle, &Silent).unwrap();
    let small = pack_tree(&tree, &lab.path("a.vab"), 2);
    assert_eq!(best.tree, small.tree);
    assert!(best.payload.packed_bytes < small.payload.packed_bytes);
    fs::create_dir(&target).unwrap();
    unpack(&bundle, &target, 2);
    let digest = digest_tree(&target, 2, &Silent).unwrap();
    assert_eq!(digest, best.tree.digest);
}

#[test]
fn stock_tools_restore_what_we_pack() {
    let lab = Lab::new();
    pack_tree(&lab.path("tree"), &lab.path("a.vab"), 2);
    let (bundle, tree) = (lab.path("a.vab"), lab.path("tree"));
    empty_tmp(&tree);
    let by_gnu = lab.path("out/gnu");
    let by_bsd = lab.path("out/bsd");
    fs::create_dir(&by_gnu).unwrap();
    fs::create_dir(&by_bsd).unwrap();
    let warnings = sh(&format!(
        "tar -xOf '{}' rootfs.tar.xz | tar -xJ --numeric-owner --xattrs --xattrs-include='*' \
         --acls -C '{}' 2>&1",
        bundle.display(),
        by_gnu.display()
    ));
    let unexpected: Vec<&str> = warnings
        .lines()
        .filter(|line| !line.contains("hdrcharset") && !line.contains("implausibly old"))
        .filter(|line| !line.contains("in the future"))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    assert_same(&tree, &by_gnu);
    sh(&format!(
        "tar -xOf '{}' rootfs.tar.xz | bsdtar -xp --acls --xattrs --numeric-owner -f - -C '{}'",
        bundle.display(),
        by_bsd.display()
    ));
    assert_same_but(&tree, &by_bsd, as_bsdtar_restores);
}

/// Unpacks a bundle of the tree with bsdtar and compares.
fn assert_bsdtar_restores(tree: &Path) {
    let (bundle, out) = (tree.with_extension("vab"), tree.with_extension("out"));
    fs::create_dir(&out).unwrap();
    pack_tree(tree, &bundle, 1);
    sh(&format!(
        "tar -xOf '{}' rootfs.tar.xz | bsdtar -xpf - -C '{}'",
        bundle.display(),
        out.display()
    ));
    assert_same(tree, &out);
}

#[test]
fn bsdtar_makes_a_link_of_a_link_with_a_long_target() {
    let dir = temp_dir();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    symlink(OsStr::from_bytes(&[0xe9; 150]), tree.join("link")).unwrap();
    assert_bsdtar_restores(&tree);
}

#[test]
fn bsdtar_takes_no_name_for_a_windows_path() {
    let dir = temp_dir();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("c:/sub")).unwrap();
    for name in ["c:/sub/file", "\\\\.\\file", "x:"] {
        fs::write(tree.join(name), name).unwrap();
    }
    let sparse = File::create(tree.join("C:sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    fs::hard_link(tree.join("x:"), tree.join("zz")).unwrap();
    symlink("\\target", tree.join("link")).unwrap();
    assert_bsdtar_restores(&tree);
}

#[test]
fn what_gnu_tar_packs_is_restored_in_every_sparse_format() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    empty_tmp(&tree);
    for (name, options) in [
        (
            "pax10",
            "--format=pax --sparse --sparse-version=1.0 --selinux",
        ),
        ("pax01", "--format=pax --sparse --sparse-version=0.1"),
        ("pax00", "--format=pax --sparse --sparse-version=0.0"),
    ] {
        let (archive, target) = (lab.path(name), lab.path(&format!("out/{name}")));
        fs::create_dir(&target).unwrap();
        sh(&format!(
            "tar {options} --xattrs --xattrs-include='*' --acls --numeric-owner -C '{}' -c . \
             | xz -0 -T2 > '{}'",
            tree.display(),
            archive.display()
        ));
        let input = File::open(&archive).unwrap();
        unpack_tar_xz(input, &target, &unpack_options())
            .unwrap_or_else(|e| panic!("{name}: {e:#}"));
        assert_same(&tree, &target);
    }
}

#[test]
fn old_gnu_archives_are_restored_as_far_as_they_can_say() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    empty_tmp(&tree);
    let (archive, target) = (lab.path("gnu"), lab.path("out/gnu"));
    fs::create_dir(&target).unwrap();
    sh(&format!(
        "tar --format=gnu --sparse --numeric-owner -C '{}' -c . | xz -0 > '{}'",
        tree.display(),
        archive.display()
    ));
    let input = File::open(&archive).unwrap();
    unpack_tar_xz(input, &target, &unpack_options()).unwrap();
    // The old format has whole seconds and no attributes; an ACL's mask stays
    // behind in the mode.
    assert_same_but(&tree, &target, |tree, _| {
        for entry in tree.values_mut() {
            entry.mtime.1 = 0;
            entry.xattrs.clear();
        }
    });
}

#[test]
fn bsdtar_archives_are_restored() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    empty_tmp(&tree);
    let (archive, target) = (lab.path("bsd"), lab.path("out/bsd"));
    fs::create_dir(&target).unwrap();
    sh(&format!(
        "bsdtar --format=pax --acls --xattrs --numeric-owner --options hdrcharset=BINARY \
         --exclude ./srv/only-a-hole -cJf '{}' -C '{}' .",
        archive.display(),
        tree.display()
    ));
    let time = fs::metadata(tree.join("srv")).unwrap().modified().unwrap();
    fs::remove_file(tree.join("srv/only-a-hole")).unwrap();
    File::open(tree.join("srv"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    let input = File::open(&archive).unwrap();
    unpack_tar_xz(input, &target, &unpack_options()).unwrap();
    assert_same_but(&tree, &target, as_bsdtar_writes_times);
}

#[test]
fn a_bundle_above_its_size_limit_is_refused_and_leaves_nothing() {
    let lab = Lab::new();
    let mut release = release();
    release.size_limit = Some(100_000);
    let error = pack(
        &lab.path("tree"),
        &release,
        &facts(),
        &PackOptions::new(2, 0),
        &lab.path("a.vab"),
        &Silent,
    )
    .unwrap_err();
    assert_eq!(class_of(&error), Class::Refused);
    assert!(error.to_string().contains("size_limit"), "{error}");
    let names: Vec<_> = fs::read_dir(lab.dir.path()).unwrap().collect();
    assert_eq!(names.len(), 2, "{names:?}");
}
