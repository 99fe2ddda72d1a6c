//! While a tree is unpacked nobody else looks into it, and what fails leaves the
//! directory its owner.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::forge::{Archive, forge, write_bundle};
use crate::kit::*;
use crate::listing::open;
use crate::lying::Lab;
use tar::EntryType;
use va_upgrade::bundle::{FILES, INDEX, Index, Manifest, Names, unpack, unpack_only, verify_deep};
use va_upgrade::failure::{Class, class_of};
use va_upgrade::progress::{Note, Progress, Silent, Step};

/// Notes the modes the target has on the way.
struct Watch {
    target: PathBuf,
    modes: Mutex<BTreeSet<u32>>,
}

impl Progress for Watch {
    fn start(&self, _step: Step, _total_bytes: Option<u64>) {}

    fn advance(&self, _bytes: u64) {
        self.modes.lock().unwrap().insert(mode(&self.target));
    }

    fn finish(&self) {}

    fn tell(&self, _note: Note) {}
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn tree() -> Archive {
    Archive::default()
        .dir("./")
        .with(0o2755, 5)
        .add(EntryType::Fifo, "pipe", "", b"")
        .with(0o6666, 5)
        .add(EntryType::Char, "node", "", b"")
        .with(0o666, 5)
}

#[test]
fn the_target_is_shut_until_the_tree_is_whole() {
    let lab = Lab::new();
    let (bundle, target) = (lab.path("forged.vab"), lab.path("shut"));
    let archive = tree().file("x").end();
    forge(&lab.manifest, &archive, &[(archive.len(), None)], &bundle);
    fs::create_dir(&target).unwrap();
    fs::set_permissions(&target, Permissions::from_mode(0o755)).unwrap();
    let watch = Watch {
        target: target.clone(),
        modes: Mutex::default(),
    };
    unpack(open(&bundle), &target, &unpack_options(), &watch).unwrap();
    let modes = watch.modes.into_inner().unwrap();
    assert_eq!(modes.into_iter().collect::<Vec<_>>(), [0o700]);
    let meta = fs::metadata(&target).unwrap();
    assert_eq!((mode(&target), meta.uid(), meta.mtime()), (0o2755, 5, 0));
    assert_eq!(mode(&target.join("pipe")), 0o6666);
    assert_eq!(mode(&target.join("node")), 0o666);
}

#[test]
fn what_fails_leaves_the_directory_its_owner_and_shut() {
    let lab = Lab::new();
    let (bundle, target) = (lab.path("forged.vab"), lab.path("shut"));
    let archive = tree().file("x").file("x").end();
    forge(&lab.manifest, &archive, &[(archive.len(), None)], &bundle);
    fs::create_dir(&target).unwrap();
    unpack(open(&bundle), &target, &unpack_options(), &Silent).unwrap_err();
    let meta = fs::metadata(&target).unwrap();
    assert_eq!((mode(&target), meta.uid()), (0o700, 0));
}

#[test]
fn a_part_leaves_the_directory_the_mode_it_had() {
    let lab = Lab::new();
    let (bundle, target) = (lab.path("forged.vab"), lab.path("shut"));
    let archive = tree().file("x").end();
    forge(&lab.manifest, &archive, &[(archive.len(), None)], &bundle);
    fs::create_dir(&target).unwrap();
    fs::set_permissions(&target, Permissions::from_mode(0o1777)).unwrap();
    unpack_only(open(&bundle), &[b"x"], &target, &unpack_options(), &Silent).unwrap();
    assert_eq!(mode(&target), 0o1777);
}

/// A bundle with a list of files, whose index and list can be made to lie.
struct Told {
    lab: Lab,
    manifest: Manifest,
    index: Index,
    list: Vec<u8>,
    payload: Vec<u8>,
}

impl Told {
    fn new() -> Told {
        let lab = Lab::new();
        let (tree, path) = (lab.path("told"), lab.path("told.vab"));
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::write(tree.join("etc/a"), noise(100_000, 1)).unwrap();
        fs::write(tree.join("etc/b"), noise(100_000, 2)).unwrap();
        let manifest = pack_tree(&tree, &path, 1);
        let bundle = open(&path);
        let whole = fs::read(&path).unwrap();
        let bytes = usize::try_from(manifest.payload.packed_bytes).unwrap();
        let at = whole.len() - 1024 - bytes.next_multiple_of(512);
        Told {
            index: bundle.index().clone(),
            list: bundle.files().unwrap().unwrap(),
            payload: whole[at..][..bytes].to_vec(),
            manifest,
            lab,
        }
    }

    fn write(&mut self) -> PathBuf {
        let path = self.lab.path("lying.vab");
        let index = self.index.render().unwrap();
        let members = [(INDEX, &index[..]), (FILES, &self.list[..])];
        write_bundle(&mut self.manifest, &members, &self.payload, &path);
        path
    }

    fn take(&mut self, path: &str) -> anyhow::Result<()> {
        let bundle = self.write();
        let target = self.lab.path("part");
        fs::create_dir_all(&target).unwrap();
        let taken = unpack_only(
            open(&bundle),
            &[path.as_bytes()],
            &target,
            &unpack_options(),
            &Silent,
        );
        sh(&format!("rm -rf '{}'", target.display()));
        taken
    }
}

#[test]
fn an_index_that_leaves_out_a_name_is_found_out() {
    let mut told = Told::new();
    told.take("etc/a").unwrap();
    verify_deep(&mut open(&told.write()), &Silent).unwrap();
    let honest = told.index.clone();
    assert!(honest.chunks.len() > 2);
    for chunk in &mut told.index.chunks {
        chunk.landmarks.as_mut().unwrap().names = Names::default();
    }
    let error = told.take("etc/a").unwrap_err();
    assert_eq!(class_of(&error), Class::BadBundle, "{error:#}");
    assert!(format!("{error:#}").contains("in no chunk"), "{error:#}");
    let error = verify_deep(&mut open(&told.write()), &Silent).unwrap_err();
    assert_eq!(class_of(&error), Class::BadBundle, "{error:#}");
    assert!(
        format!("{error:#}").contains("index does not say"),
        "{error:#}"
    );

    for number in 0..honest.chunks.len() {
        told.index = honest.clone();
        let landmarks = told.index.chunks[number].landmarks.as_mut().unwrap();
        landmarks.first = 512 - landmarks.first.min(1);
        let error = verify_deep(&mut open(&told.write()), &Silent).unwrap_err();
        assert_eq!(class_of(&error), Class::BadBundle, "{error:#}");
        assert!(
            format!("{error:#}").contains("the index says at"),
            "{error:#}"
        );
    }
}

#[test]
fn a_part_is_what_the_list_of_files_says() {
    let mut told = Told::new();
    // The list of another tree: the same names, not the same content.
    let (tree, path) = (told.lab.path("other"), told.lab.path("other.vab"));
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/a"), noise(100_000, 3)).unwrap();
    fs::write(tree.join("etc/b"), noise(100_001, 2)).unwrap();
    pack_tree(&tree, &path, 1);
    told.list = open(&path).files().unwrap().unwrap();
    for (path, word) in [
        ("etc/a", "not the content that is listed"),
        ("etc/b", "not what the list of files says"),
    ] {
        let error = told.take(path).unwrap_err();
        assert_eq!(class_of(&error), Class::BadBundle, "{error:#}");
        assert!(format!("{error:#}").contains(word), "{error:#}");
    }
}
