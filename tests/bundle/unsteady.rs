//! Trees that change while they are packed.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use va_upgrade::bundle::pack;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::progress::{Note, Progress, Step};

use crate::kit::*;

/// Does something to the tree, once, when packing has come to a point.
struct Meddler<'a> {
    point: Point,
    meddle: Mutex<Option<Box<dyn FnOnce() + Send + 'a>>>,
}

#[derive(PartialEq, Eq)]
enum Point {
    /// All files are listed and none is packed.
    Listed,
    /// A chunk is packed. More than two chunks of a file are then unread.
    Packing,
}

impl Meddler<'_> {
    fn come_to(&self, point: Point) {
        if point == self.point
            && let Some(meddle) = self.meddle.lock().unwrap().take()
        {
            meddle();
        }
    }
}

impl Progress for Meddler<'_> {
    fn start(&self, step: Step, _: Option<u64>) {
        if step == Step::Pack {
            self.come_to(Point::Listed);
        }
    }
    fn advance(&self, _: u64) {
        self.come_to(Point::Packing);
    }
    fn finish(&self) {}
    fn tell(&self, _: Note) {}
}

/// Packs a tree that is meddled with, which must be refused with these words.
fn assert_refused(point: Point, words: &[&str], meddle: impl Fn(&Path) + Send + Sync) {
    let dir = temp_dir();
    let (tree, out) = (dir.path().join("tree"), dir.path().join("out"));
    fs::create_dir_all(tree.join("srv/dir")).unwrap();
    fs::create_dir(&out).unwrap();
    fs::write(tree.join("srv/database"), noise(1 << 20, 1)).unwrap();
    fs::write(tree.join("srv/dir/file"), "x").unwrap();
    symlink("nowhere", tree.join("srv/link")).unwrap();
    // Older kernels tell times apart by their tick alone.
    thread::sleep(Duration::from_millis(20));
    let meddler = Meddler {
        point,
        meddle: Mutex::new(Some(Box::new(|| meddle(&tree)))),
    };
    let (options, file) = (small_chunks(1), out.join("a.vab"));
    let packed = pack(&tree, &release(), &facts(), &options, &file, &meddler).map(drop);
    assert!(meddler.meddle.lock().unwrap().is_none(), "it had no chance");
    let error = packed.unwrap_err();
    assert_eq!(class_of(&error), Class::Refused, "{error:#}");
    for word in words {
        assert!(format!("{error:#}").contains(word), "{word}: {error:#}");
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
}

#[test]
fn what_vanishes_after_it_was_listed_is_named() {
    let of = |word| [word, "has vanished", "snapshot"];
    let refused = |words: &[&str], meddle: fn(&Path)| {
        assert_refused(Point::Listed, words, meddle);
    };
    refused(&of("srv/database"), |tree| {
        fs::remove_file(tree.join("srv/database")).unwrap();
    });
    refused(&of("srv/link"), |tree| {
        fs::remove_file(tree.join("srv/link")).unwrap();
    });
    refused(&of("srv/dir"), |tree| {
        fs::remove_file(tree.join("srv/dir/file")).unwrap();
        fs::remove_dir(tree.join("srv/dir")).unwrap();
    });
}

#[test]
fn a_file_that_changes_while_it_is_packed_is_named() {
    let refused = |words: &[&str], meddle: fn(&File)| {
        let words = [words, &["srv/database", "snapshot"]].concat();
        assert_refused(Point::Packing, &words, |tree| {
            let path = tree.join("srv/database");
            meddle(&File::options().write(true).open(path).unwrap());
        });
    };
    refused(&["has changed"], |file| file.write_all_at(b"x", 5).unwrap());
    refused(&["has changed"], |file| {
        file.write_all_at(b"more", 1 << 20).unwrap();
    });
    refused(&["has changed"], |file| file.set_len(200_000).unwrap());
    refused(&["has changed"], |file| {
        let time = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(b"x", 5).unwrap();
        file.set_modified(time).unwrap();
    });
}
