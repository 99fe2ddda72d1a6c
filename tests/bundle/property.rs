//! Random trees come back as they were, from us and from stock tools; random
//! damage never gets out of the tree.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::compare::*;
use crate::foreign::{unpack_tar, unpack_tar_xz};
use crate::kit::*;
use crate::random::{Names, make, names};
use crate::stock::{as_bsdtar_restores, as_gnu_tar_restores};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use va_upgrade::bundle::{
    Codec, Keyring, Manifest, PackMode, PackOptions, PackPlan, Sealed, Trust, UnpackOptions, pack,
    unpack,
};
use va_upgrade::progress::Silent;
use va_upgrade::tree::digest::digest_tree;

fn pack_with(tree: &Path, out: &Path, codec: Codec, blocks: usize, threads: usize) -> Manifest {
    let options = PackOptions {
        plan: PackPlan {
            chunk_bytes: blocks * 512,
            level: 1,
            ..PackPlan::new(codec, PackMode::Default)
        },
        ..PackOptions::new(threads, 0)
    };
    pack(tree, &release(), &facts(), &options, out, &Silent).unwrap_or_else(|e| panic!("{e:#}"))
}

/// A random tree, and room for what becomes of it.
struct Lab(tempfile::TempDir);

impl Lab {
    fn new(names: &Names) -> Lab {
        let lab = Lab(temp_dir());
        fs::create_dir(lab.at("tree")).unwrap();
        fs::create_dir(lab.at("out")).unwrap();
        make(&lab.at("tree"), names);
        lab
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Packs the tree and unpacks the payload with a stock tar; a failing test
    /// shows what it said.
    fn unpack_by(&self, tar: &str, codec: Codec) {
        let bundle = self.at("a.vab");
        pack_with(&self.at("tree"), &bundle, codec, 200, 2);
        let decode = match codec {
            Codec::Xz => "xz -dc",
            Codec::Zstd => "zstd -dc",
        };
        let said = sh(&format!(
            "tar -xOf '{}' {} | {decode} | {{ {tar} -C '{}' -f - 2>&1 || true; }}",
            bundle.display(),
            codec.member(),
            self.at("out").display()
        ));
        println!("{said}");
    }
}

fn codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(vec![Codec::Xz, Codec::Zstd])
}

/// Runs a property on a few random trees.
macro_rules! cases {
    ($count:literal) => {
        Config {
            cases: $count,
            failure_persistence: None,
            ..Config::default()
        }
    };
}

proptest! {
    #![proptest_config(cases!(24))]

    #[test]
    fn any_tree_comes_back_through_any_chunks_on_any_threads(
        names in names(40),
        // Headers, too, then lie across the ends of chunks.
        blocks in 16_usize..400,
        threads in 1_usize..5,
        codec in codec(),
    ) {
        let lab = Lab::new(&names);
        let (tree, out) = (lab.at("tree"), lab.at("out"));
        let manifest = pack_with(&tree, &lab.at("a.vab"), codec, blocks, threads);
        pack_with(&tree, &lab.at("b.vab"), codec, blocks, 5 - threads);
        prop_assert!(fs::read(lab.at("a.vab")).unwrap() == fs::read(lab.at("b.vab")).unwrap());

        let keyring = Keyring::default();
        let trust = Trust::SignedOrUnsigned(&keyring);
        let sealed = Sealed::open(&lab.at("a.vab")).unwrap();
        let (bundle, _) = sealed.authenticate(trust).unwrap();
        unpack(bundle, &out, &UnpackOptions::new(threads), &Silent)
            .unwrap_or_else(|e| panic!("{e:#}"));
        assert_same(&tree, &out);
        let digest = digest_tree(&out, 2, &Silent).unwrap();
        prop_assert_eq!(digest, manifest.tree.digest);
    }
}

proptest! {
    #![proptest_config(cases!(12))]

    #[test]
    fn any_tree_that_gnu_tar_packs_comes_back(names in names(40)) {
        let lab = Lab::new(&names);
        sh(&format!(
            "tar --format=pax --sparse --xattrs --xattrs-include='*' --acls --numeric-owner \
             -C '{}' -c . | xz -0 > '{}'",
            lab.at("tree").display(),
            lab.at("a.tar.xz").display()
        ));
        let input = File::open(lab.at("a.tar.xz")).unwrap();
        unpack_tar_xz(input, &lab.at("out"), &unpack_options())
            .unwrap_or_else(|e| panic!("{e:#}"));
        assert_same(&lab.at("tree"), &lab.at("out"));
    }

    #[test]
    fn gnu_tar_restores_any_tree_we_pack(names in names(40), codec in codec()) {
        let lab = Lab::new(&names);
        let tar = "tar -x --numeric-owner --xattrs --xattrs-include='*' --acls";
        lab.unpack_by(tar, codec);
        assert_same_but(&lab.at("tree"), &lab.at("out"), as_gnu_tar_restores);
    }

    #[test]
    fn bsdtar_restores_any_tree_we_pack(names in names(40), codec in codec()) {
        let lab = Lab::new(&names);
        lab.unpack_by("bsdtar -xp --acls --xattrs --numeric-owner", codec);
        assert_same_but(&lab.at("tree"), &lab.at("out"), as_bsdtar_restores);
    }
}

/// An archive with one of everything that a header can say.
fn archive(dir: &Path) -> Vec<u8> {
    let (tree, archive) = (dir.join("tree"), dir.join("archive"));
    fs::create_dir(&tree).unwrap();
    make_tricky_tree(&tree);
    for large in ["boot", "usr", "srv/many-holes", "srv/holes"] {
        sh(&format!("rm -r '{}/{large}'", tree.display()));
    }
    sh(&format!(
        "tar --format=pax --sparse --xattrs --xattrs-include='*' --acls --numeric-owner \
         -C '{}' -cf '{}' .",
        tree.display(),
        archive.display()
    ));
    fs::read(archive).unwrap()
}

#[derive(Clone, Debug)]
struct Damage {
    at: prop::sample::Index,
    bytes: Vec<u8>,
}

fn damage() -> impl Strategy<Value = Damage> {
    let text = prop::sample::select(vec![
        "../",
        "/",
        "0",
        "9999999999",
        "\0",
        "-",
        "=",
        "\n",
        " ",
        "12 path=../x\n",
        "1",
        "2",
        "5",
        "L",
        "S",
    ]);
    let bytes = prop_oneof![
        3 => text.prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 1..4),
    ];
    (any::<prop::sample::Index>(), bytes).prop_map(|(at, bytes)| Damage { at, bytes })
}

/// Puts right the sums of what still looks like headers, or no damage to one
/// would be seen by anything but the check of the sum.
fn mend_sums(archive: &mut [u8]) {
    for block in archive.as_chunks_mut::<512>().0 {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

#[test]
fn a_hundred_damaged_archives_neither_panic_nor_write_outside() {
    let dir = temp_dir();
    let whole = archive(dir.path());
    let base = dir.path().join("base");
    let target = base.join("target");
    let mut runner = TestRunner::new(Config {
        cases: 100,
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(&vec(damage(), 1..4), |damages| {
        let mut bytes = whole.clone();
        for damage in &damages {
            let at = damage.at.index(bytes.len() - damage.bytes.len());
            bytes[at..at + damage.bytes.len()].copy_from_slice(&damage.bytes);
        }
        mend_sums(&mut bytes);
        fs::create_dir_all(&target).unwrap();
        // Most are refused, some damage only data: both are right.
        let _ = unpack_tar(&bytes, &target, &unpack_options());
        prop_assert_eq!(fs::read_dir(&base).unwrap().count(), 1);
        sh(&format!("rm -rf '{}'", target.display()));
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
}
