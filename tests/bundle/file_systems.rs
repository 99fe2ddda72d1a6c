//! Trees that go from one kind of file system to another.

use std::fs;
use std::path::{Path, PathBuf};

use va_upgrade::bundle::{self, Manifest, Sealed, Trust, pack};
use va_upgrade::failure::{Class, class_of};
use va_upgrade::progress::Silent;
use va_upgrade::tree::digest::digest_tree;

use crate::foreign::unpack_tar_xz;
use crate::kit::*;

/// A file system of its own on a loop device, mounted while this lives.
pub struct Volume {
    point: PathBuf,
}

impl Volume {
    /// Makes one in `dir`; `options` are for its mkfs.
    pub fn make(dir: &Path, name: &str, kind: &str, options: &str) -> Volume {
        let (image, point) = (dir.join(format!("{name}.{kind}")), dir.join(name));
        fs::create_dir(&point).unwrap();
        sh(&format!(
            "truncate -s 320M '{0}'; mkfs.{kind} -q {options} '{0}'; mount -o loop '{0}' '{1}'",
            image.display(),
            point.display()
        ));
        Volume { point }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        sh(&format!("umount '{}'", self.point.display()));
    }
}

/// Makes a tree whose ACLs are on a file, a directory and what inherits them.
fn make_tree_with_acls(root: &Path) {
    fs::create_dir_all(root.join("srv/shared")).unwrap();
    fs::write(root.join("srv/file"), "x").unwrap();
    sh(&format!(
        "cd '{}'; setfacl -m u:1234:rw-,g:5678:r-x file; setfacl -m d:u:1234:rwx,u:99:--x shared
         mkdir shared/below; echo y > shared/inherits",
        root.join("srv").display()
    ));
}

/// Unpacks a bundle to a new directory and compares what is there with what was
/// packed.
fn assert_unpacks(bundle: &Path, manifest: &Manifest, out: &Path) {
    fs::create_dir(out).unwrap();
    let sealed = Sealed::open(bundle).unwrap();
    let (bundle, _) = sealed.authenticate(Trust::Anyone).unwrap();
    bundle::unpack(bundle, out, &unpack_options(), &Silent).unwrap_or_else(|e| panic!("{e:#}"));
    let digest = digest_tree(out, 1, &Silent).unwrap();
    assert_eq!(digest, manifest.tree.digest, "{}", out.display());
}

/// Gives a file an ACL with an entry for each of these users.
fn set_acl(path: &Path, users: impl IntoIterator<Item = u32>) {
    const NO_ID: u32 = u32::MAX;
    let named = users.into_iter().map(|id| (2_u16, 4_u16, id));
    let (owner, rest) = (
        (1, 6, NO_ID),
        [(4, 4, NO_ID), (16, 4, NO_ID), (32, 0, NO_ID)],
    );
    let mut blob = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in [owner].into_iter().chain(named).chain(rest) {
        blob.extend(tag.to_le_bytes());
        blob.extend(perm.to_le_bytes());
        blob.extend(id.to_le_bytes());
    }
    xattr::set(path, "system.posix_acl_access", &blob).unwrap();
}

fn names_of_attributes(root: &Path) -> String {
    sh(&format!("getfattr -hRm - '{}' 2>&1", root.display()))
}

#[test]
fn acls_go_between_ext4_and_xfs_and_the_digest_stays() {
    let dir = temp_dir();
    let make = |name: &str, kind| Volume::make(dir.path(), name, kind, "");
    let volumes = [make("a", "ext4"), make("b", "xfs")];
    for (i, source) in volumes.iter().enumerate() {
        let tree = source.path("tree");
        make_tree_with_acls(&tree);
        let bundle = dir.path().join(format!("{i}.vab"));
        let manifest = pack_tree(&tree, &bundle, 1);
        let found = sh(&format!(
            "tar -xOf '{}' rootfs.tar.xz | xz -d | grep -ac SGI_ACL || true",
            bundle.display()
        ));
        assert_eq!(found, "0\n");
        for target in &volumes {
            let out = target.path(&format!("out{i}"));
            assert_unpacks(&bundle, &manifest, &out);
            let names = names_of_attributes(&out);
            assert!(names.contains("system.posix_acl_default"), "{names}");
        }
    }
}

#[test]
fn what_xfs_calls_an_acl_is_not_written_to_ext4() {
    let dir = temp_dir();
    let from = Volume::make(dir.path(), "from", "xfs", "");
    let to = Volume::make(dir.path(), "to", "ext4", "");
    make_tree_with_acls(&from.path("tree"));
    let (archive, out) = (dir.path().join("tree.tar.xz"), to.path("out"));
    fs::create_dir(&out).unwrap();
    sh(&format!(
        "tar --format=pax --xattrs --xattrs-include='*' --acls --numeric-owner -C '{}' -cJf '{}' .",
        from.path("tree").display(),
        archive.display()
    ));
    unpack_tar_xz(fs::File::open(&archive).unwrap(), &out, &unpack_options()).unwrap();
    let names = names_of_attributes(&out);
    assert!(names.contains("system.posix_acl_access"), "{names}");
    assert!(!names.contains("SGI_ACL"), "{names}");
}

#[test]
fn acls_of_any_length_and_order_come_back() {
    let dir = temp_dir();
    let volume = Volume::make(dir.path(), "volume", "xfs", "");
    let (tree, bundle) = (volume.path("tree"), dir.path().join("a.vab"));
    fs::create_dir(&tree).unwrap();
    for name in ["long", "unsorted"] {
        fs::write(tree.join(name), name).unwrap();
    }
    set_acl(&tree.join("long"), 4_000_000_000..4_000_005_000);
    set_acl(&tree.join("unsorted"), [30, 10, 20]);
    let manifest = pack_tree(&tree, &bundle, 1);
    assert_unpacks(&bundle, &manifest, &volume.path("out"));
    let by_gnu = volume.path("gnu");
    fs::create_dir(&by_gnu).unwrap();
    sh(&format!(
        "tar -xOf '{}' rootfs.tar.xz | tar -xJ --numeric-owner --xattrs --xattrs-include='*' \
         --acls -C '{}'",
        bundle.display(),
        by_gnu.display()
    ));
    for name in ["long", "unsorted"] {
        let acl = |dir: &Path| {
            let path = dir.join(name);
            sh(&format!("getfacl -cn '{}' | sort", path.display()))
        };
        assert_eq!(acl(&by_gnu), acl(&tree), "{name}");
    }
}

#[test]
fn attributes_that_cannot_be_unpacked_are_refused_by_name() {
    let dir = temp_dir();
    let volume = Volume::make(dir.path(), "volume", "xfs", "");
    let (tree, bundle) = (volume.path("tree"), dir.path().join("a.vab"));
    fs::create_dir_all(tree.join("srv")).unwrap();
    let file = tree.join("srv/heavy");
    fs::write(&file, "x").unwrap();
    let add = |from: u64, to: u64| {
        for i in from..to {
            xattr::set(&file, format!("user.{i}"), &noise(64 << 10, i)).unwrap();
        }
    };
    add(0, 15);
    let manifest = pack_tree(&tree, &bundle, 1);
    assert_unpacks(&bundle, &manifest, &volume.path("out"));
    add(15, 20);
    let out = dir.path().join("b.vab");
    let error = pack(&tree, &release(), &facts(), &small_chunks(1), &out, &Silent).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused, "{error:#}");
    for word in ["srv/heavy", "its attributes have", "could not be unpacked"] {
        assert!(format!("{error:#}").contains(word), "{error:#}");
    }
    assert!(!out.exists());
}
