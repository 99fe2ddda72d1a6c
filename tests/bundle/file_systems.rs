//! Trees that go from one kind of file system to another.

use std::fs;
use std::path::{Path, PathBuf};

use va_upgrade::bundle::{self, Sealed, Trust};
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
            fs::create_dir(&out).unwrap();
            let (bundle, _) = Sealed::open(&bundle)
                .unwrap()
                .authenticate(Trust::Anyone)
                .unwrap();
            bundle::unpack(bundle, &out, &unpack_options(), &Silent).unwrap();
            let digest = digest_tree(&out, 1, &Silent).unwrap();
            assert_eq!(digest, manifest.tree.digest, "{i} to {}", out.display());
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
