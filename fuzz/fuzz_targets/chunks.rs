//! Genuine bundles of any archive, whose manifest lies about where members
//! begin: whatever is unpacked is the tree that is read in order.

#![no_main]

use std::fs;
use std::path::Path;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use va_upgrade::bundle::{Bundle, Devices, Sealed, Trust, UnpackOptions, unpack, visit};
use va_upgrade::progress::Silent;
use va_upgrade::tree::digest::digest_tree;
use va_upgrade_fuzz::bundle::{Notes, forge};
use va_upgrade_fuzz::members::{Piece, assemble};

#[derive(Arbitrary, Debug)]
struct Recipe {
    pieces: Vec<Piece>,
    has_end: bool,
    /// The sizes of chunks, and where their first members are said to begin.
    cuts: Vec<(u16, Option<u16>)>,
    threads: u8,
}

fuzz_target!(|recipe: Recipe| {
    let mut archive = assemble(&recipe.pieces);
    if recipe.has_end {
        archive.resize(archive.len() + 1024, 0);
    }
    let Some(lying) = forge(&archive, &recipe.cuts) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a place for trees");
    let target = dir.path().join("lying");
    let threads = usize::from(recipe.threads % 3) + 1;
    let unpacked = unpacks(&lying, &target, threads);
    let names = fs::read_dir(dir.path()).expect("still there").count();
    assert_eq!(names, 1, "something was written outside");
    if !unpacked {
        return;
    }
    let mut notes = Notes::default();
    let visited = visit(&mut open(&lying), &mut notes, &Silent);
    visited.expect("what is unpacked can be read");
    for path in notes.paths() {
        let found = target.join(path).symlink_metadata();
        found.expect("every name is there");
    }
    if !notes.is_whole_tree() {
        return;
    }
    let cuts: Vec<_> = recipe.cuts.iter().map(|(size, _)| (*size, None)).collect();
    let honest = forge(&archive, &cuts).expect("there is less to refuse");
    let in_order = dir.path().join("in-order");
    assert!(
        unpacks(&honest, &in_order, 1),
        "only the lies were believed"
    );
    let digest = |target: &Path| digest_tree(target, 1, &Silent).expect("a tree");
    assert_eq!(digest(&target), digest(&in_order), "not the same tree");
});

fn open(bundle: &[u8]) -> Bundle<'_> {
    let sealed = Sealed::from_stream("the bundle", bundle).expect("made like this");
    sealed
        .authenticate(Trust::Anyone)
        .expect("made like this")
        .0
}

fn unpacks(bundle: &[u8], target: &Path, threads: usize) -> bool {
    fs::create_dir(target).expect("nothing is there yet");
    let options = UnpackOptions {
        devices: Devices::Make,
        ..UnpackOptions::new(threads)
    };
    unpack(open(bundle), target, &options, &Silent).is_ok()
}
