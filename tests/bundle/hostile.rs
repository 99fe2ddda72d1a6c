//! Archives that try to write elsewhere, or more than they may.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::kit::*;
use tar::{EntryType, Header};
use va_upgrade::bundle::{Devices, UnpackOptions, unpack_tar_xz};
use va_upgrade::failure::{Class, class_of};
use va_upgrade::progress::Silent;

/// A tar made by hand.
#[derive(Default)]
pub struct Archive(Vec<u8>);

impl Archive {
    pub fn add(mut self, kind: EntryType, name: &str, link: &str, data: &[u8]) -> Archive {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str) -> Archive {
        self.add(EntryType::Regular, name, "", b"data")
    }

    pub fn dir(self, name: &str) -> Archive {
        self.add(EntryType::Directory, name, "", b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Archive {
        self.add(EntryType::Symlink, name, target, b"")
    }

    pub fn hard_link(self, name: &str, target: &str) -> Archive {
        self.add(EntryType::Link, name, target, b"")
    }

    pub fn pax(self, records: &[(&str, &str)]) -> Archive {
        let mut body = String::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            body += &format!("{length} {key}={value}\n");
        }
        self.add(EntryType::XHeader, "PaxHeaders", "", body.as_bytes())
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = xz2::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Unpacks into a directory beside one that must stay as it is.
fn attempt(archive: &[u8], options: &UnpackOptions) -> anyhow::Result<()> {
    let dir = temp_dir();
    let (target, outside) = (dir.path().join("target"), dir.path().join("outside"));
    fs::create_dir(&target).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let result = unpack_tar_xz(&*xz(archive), &target, options, &Silent);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
    let secret = fs::metadata(outside.join("secret")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&secret), 1);
    assert!(!Path::new("/va-upgrade-was-here").exists());
    result
}

#[test]
fn archives_that_lead_out_of_the_tree_are_refused_by_name() {
    let a = Archive::default;
    for (archive, name) in [
        (a().file("../evil"), "../evil"),
        (a().file("a/../../evil"), "a/../../evil"),
        (a().file(".."), ".."),
        (a().file("/va-upgrade-was-here"), "/va-upgrade-was-here"),
        (a().pax(&[("path", "../evil")]).file("good"), "../evil"),
        (
            a().pax(&[("path", "/va-upgrade-was-here")]).file("x"),
            "/va-upgrade-was-here",
        ),
        (a().symlink("out", "../outside").file("out/evil"), "out"),
        (
            a().symlink("out", "/tmp").file("out/va-upgrade-evil"),
            "out",
        ),
        (a().symlink("out", "../outside").dir("out"), "out"),
        (a().symlink("out", "../outside").dir("out/dir"), "out"),
        (a().symlink("f", "../outside/secret").file("f"), "f"),
        (a().dir("d").file("d/x").symlink("d", "../outside"), "d"),
        (a().file("f").file("f"), "f"),
        (a().file("f").file("f/x"), "f"),
        (a().file("f").dir("f"), "f"),
        (a().hard_link("h", "../outside/secret"), "../outside/secret"),
        (a().hard_link("h", "/etc/passwd"), "/etc/passwd"),
        (
            a().symlink("out", "../outside")
                .hard_link("h", "out/secret"),
            "out",
        ),
        (a().hard_link("h", "nothing"), "nothing"),
        (a().file("f").hard_link("f", "f"), "f"),
        (
            a().pax(&[("linkpath", "../outside/secret")])
                .hard_link("h", "x"),
            "outside",
        ),
        (a().add(EntryType::Regular, "", "", b"x"), "empty"),
        (a().file("."), "."),
        (a().symlink("s", ""), "s"),
        (a().add(EntryType::new(b'Q'), "odd", "", b""), "odd"),
    ] {
        let error = attempt(&archive.end(), &unpack_options()).expect_err(name);
        let text = format!("{error:#}");
        assert!(text.contains(name), "{name}: {text}");
    }
}

#[test]
fn archives_that_lie_about_sizes_are_refused() {
    let a = Archive::default;
    let sparse = |map: &str, size: &str| {
        a().pax(&[
            ("GNU.sparse.size", size),
            ("GNU.sparse.map", map),
            ("GNU.sparse.name", "holes"),
        ])
        .file("x")
    };
    let cut = |archive: Archive, length: usize| {
        let mut bytes = archive.end();
        bytes.truncate(length);
        bytes
    };
    let huge_header = {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(10 << 30);
        header.set_cksum();
        [&header.as_bytes()[..], &[b'x'; 4096]].concat()
    };
    let mut bad_sum = a().file("f").end();
    bad_sum[0] = b'g';
    for (bytes, word) in [
        (sparse("0,4", "2").end(), "holes"),
        (sparse("0,2,1,2", "100").end(), "holes"),
        (sparse("0,100", "100").end(), "holes"),
        (sparse("0", "100").end(), "holes"),
        (
            sparse("18446744073709551615,4", "18446744073709551615").end(),
            "holes",
        ),
        (
            a().pax(&[("GNU.sparse.map", "0,4")]).file("x").end(),
            "without its size",
        ),
        (a().pax(&[("size", "10000000000")]).file("f").end(), "f"),
        (cut(a().file("f"), 512), "f"),
        (cut(a().file("f"), 700), "f"),
        (cut(a().file("f"), 1024), "f"),
        (
            [a().file("f").end(), a().file("g").end()].concat(),
            "follows",
        ),
        (huge_header, "10737418240"),
        (bad_sum, "checksum"),
        (vec![1; 512], "checksum"),
        (Vec::new(), "too early"),
    ] {
        let error = attempt(&bytes, &unpack_options()).expect_err(word);
        let text = format!("{error:#}");
        assert!(text.contains(word), "{word}: {text}");
        assert_eq!(class_of(&error), Class::BadBundle, "{text}");
    }
}

#[test]
fn device_nodes_are_refused_where_they_are_not_allowed() {
    let archive = Archive::default()
        .add(EntryType::Char, "null", "", b"")
        .end();
    attempt(&archive, &unpack_options()).unwrap();
    let strict = UnpackOptions {
        devices: Devices::Refuse,
        ..unpack_options()
    };
    let error = format!("{:#}", attempt(&archive, &strict).unwrap_err());
    assert!(
        error.contains("null") && error.contains("device node"),
        "{error}"
    );
}

#[test]
fn harmless_oddities_are_accepted() {
    let archive = Archive::default()
        .dir("./")
        .file("a//b/./c")
        .dir("a/")
        .dir("a/b")
        .add(EntryType::Regular, "old-style-dir/", "", b"")
        .symlink("up", "../../../etc")
        .file("..name")
        .end();
    attempt(&archive, &unpack_options()).unwrap();
}
