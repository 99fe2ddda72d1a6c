//! Genuine bundles of any archive, whose index lies about where members begin: of a
//! part of it, nothing is written elsewhere, and the deep proof comes to an end.

#![no_main]

use std::fs;
use std::os::unix::ffi::OsStrExt;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use va_upgrade::bundle::{Bundle, Sealed, Trust, UnpackOptions, unpack_only, verify_deep, visit};
use va_upgrade::progress::Silent;
use va_upgrade_fuzz::bundle::{Notes, forge};
use va_upgrade_fuzz::members::{Piece, assemble};

#[derive(Arbitrary, Debug)]
struct Recipe {
    pieces: Vec<Piece>,
    /// The sizes of chunks, and where their first members are said to begin.
    cuts: Vec<(u16, Option<u16>)>,
}

fuzz_target!(|recipe: Recipe| {
    let mut archive = assemble(&recipe.pieces);
    archive.resize(archive.len() + 1024, 0);
    let Some(bytes) = forge(&archive, &recipe.cuts) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a place for trees");
    let (path, target) = (dir.path().join("lying.vab"), dir.path().join("part"));
    fs::write(&path, bytes).expect("there is room");
    fs::create_dir(&target).expect("nothing is there yet");
    let open = || -> Bundle<'static> {
        let sealed = Sealed::open(&path).expect("made like this");
        sealed
            .authenticate(Trust::Anyone)
            .expect("made like this")
            .0
    };
    let mut notes = Notes::default();
    let _ = visit(&mut open(), &mut notes, &Silent);
    let _ = verify_deep(&mut open(), &Silent);
    let wanted = notes.paths().find(|path| !path.is_empty());
    let wanted = wanted.map_or(&b"a"[..], |path| path.as_bytes());
    let _ = unpack_only(open(), &[wanted], &target, &UnpackOptions::new(1), &Silent);
    let names = fs::read_dir(dir.path()).expect("still there").count();
    assert_eq!(names, 2, "something was written outside");
});
