//! A bundle that lies at the beginning of a block device larger than it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use va_upgrade::bundle::{self, BootFiles, PackOptions, Release, TreeFacts};
use va_upgrade::bundle::{Sealed, Trust, UnpackOptions};
use va_upgrade::cpu::CpuLevel;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::progress::Silent;

use super::disk::{run, text};

/// A loop device over a file, detached at the end.
struct Loop(String);

impl Loop {
    fn over(file: &Path) -> Loop {
        Loop(
            run("losetup", &["--find", "--show", text(file)])
                .trim()
                .to_owned(),
        )
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["--detach", &self.0]);
    }
}

/// Packs a small tree into `out`.
fn pack(dir: &Path, out: &Path) {
    let tree = dir.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "content").unwrap();
    let release = Release::parse("{product: gateway, version: '1', cpu_level: x86-64-v2}").unwrap();
    let facts = TreeFacts {
        boot: BootFiles {
            kernel_release: "6".into(),
            kernel: "boot/vmlinuz".into(),
            initramfs: "boot/initrd".into(),
            kernel_bytes: 1,
            initramfs_bytes: 1,
        },
        cpu_level: CpuLevel::V2,
        architecture: "x86_64".into(),
    };
    let options = PackOptions::new(1, 0);
    bundle::pack(&tree, &release, &facts, &options, out, &Silent).unwrap();
}

fn verify(path: &str) -> anyhow::Result<()> {
    let (mut bundle, _) = Sealed::open(Path::new(path))?.authenticate(Trust::Anyone)?;
    assert!(!bundle.is_stream());
    bundle.verify(1, &Silent)
}

#[test]
fn a_device_that_begins_with_a_bundle_is_as_good_as_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    pack(dir.path(), &image);
    let file = OpenOptions::new().write(true).open(&image).unwrap();
    let length = file.metadata().unwrap().len();
    file.write_all_at(&[7; 4096], length).unwrap();
    let error = verify(text(&image)).unwrap_err();
    assert_eq!(class_of(&error), Class::BadBundle, "{error:#}");
    {
        let device = Loop::over(&image);
        verify(&device.0).unwrap();
        let sealed = Sealed::open(Path::new(&device.0)).unwrap();
        let (bundle, _) = sealed.authenticate(Trust::Anyone).unwrap();
        let to = dir.path().join("to");
        fs::create_dir(&to).unwrap();
        bundle::unpack(bundle, &to, &UnpackOptions::new(1), &Silent).unwrap();
        assert_eq!(fs::read_to_string(to.join("file")).unwrap(), "content");
    }
    for damage in [length - 1, length - 1025] {
        let byte = &mut [0];
        let reader = fs::File::open(&image).unwrap();
        reader.read_exact_at(byte, damage).unwrap();
        file.write_all_at(&[byte[0] ^ 1], damage).unwrap();
        let device = Loop::over(&image);
        let error = verify(&device.0).unwrap_err();
        assert_eq!(class_of(&error), Class::BadBundle, "{error:#}");
        drop(device);
        file.write_all_at(byte, damage).unwrap();
    }
    file.set_len(length - 512).unwrap();
    let device = Loop::over(&image);
    let error = verify(&device.0).unwrap_err();
    assert!(format!("{error:#}").contains("cut short"), "{error:#}");
}
