//! Archives that try to write elsewhere, or more than they may.

use std::fs;
use std::path::Path;

use crate::foreign::unpack_tar;
use crate::forge::{Archive, forge, forge_packed, write_bundle, xz};
use crate::kit::*;
use crate::listing::open;
use crate::lying::{Lab, archive};
use tar::{EntryType, Header};
use va_upgrade::bundle::{Devices, INDEX, Index, Sealed, Trust, UnpackOptions, unpack};
use va_upgrade::failure::{Class, class_of};
use va_upgrade::progress::Silent;
use va_upgrade::system::Host;

/// Unpacks into a directory beside one that must stay as it is.
fn attempt(archive: &[u8], options: &UnpackOptions) -> anyhow::Result<()> {
    let dir = temp_dir();
    let (target, outside) = (dir.path().join("target"), dir.path().join("outside"));
    fs::create_dir(&target).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let result = unpack_tar(archive, &target, options);
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
        (a().dir("d").symlink("d", "../outside").file("d/evil"), "d"),
        (a().symlink("s", "f").file("f").file("s"), "s"),
        (
            a().symlink("out", "..")
                .hard_link("h", "out/outside/secret"),
            "out",
        ),
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
        assert_eq!(class_of(&error), Class::BadBundle, "{text}");
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

#[test]
fn ten_gigabytes_of_zeros_end_where_the_target_is_full() {
    let lab = Lab::new();
    let large = Archive::default()
        .dir("./")
        .add(EntryType::Regular, "zeros", "", b"");
    let mut head = large.bytes();
    let header = head.last_chunk_mut::<512>().unwrap();
    let mut header_of_zeros = tar::Header::from_byte_slice(header).clone();
    header_of_zeros.set_size(10 << 30);
    header_of_zeros.set_cksum();
    *header = *header_of_zeros.as_bytes();
    let (head, zeros, end) = (xz(&head), xz(&vec![0; 64 << 20]), xz(&[0; 1024]));
    let mut chunks = vec![(&zeros[..], 64 << 20, None); 160];
    chunks.insert(0, (&head, 1024, None));
    chunks.push((&end, 1024, None));
    let bundle = lab.path("forged.vab");
    forge_packed(&lab.manifest, &chunks, &bundle);
    assert!(fs::metadata(&bundle).unwrap().len() < 3 << 20);

    let target = lab.path("full");
    fs::create_dir(&target).unwrap();
    Host::new(false).enter_private_mounts().unwrap();
    sh(&format!(
        "mount -t tmpfs -o size=16m none '{}'",
        target.display()
    ));
    let result = unpack(open(&bundle), &target, &unpack_options(), &Silent);
    let names = fs::read_dir(&target).unwrap().count();
    sh(&format!("umount '{}'", target.display()));
    let error = format!("{:#}", result.unwrap_err());
    assert!(
        error.contains("unpacking zeros") && error.contains("No space"),
        "{error}"
    );
    assert_eq!(names, 1);
}

#[test]
fn device_nodes_in_a_bundle_are_refused_where_they_are_not_allowed() {
    let lab = Lab::new();
    let strict = UnpackOptions {
        devices: Devices::Refuse,
        ..unpack_options()
    };
    for kind in [EntryType::Char, EntryType::Block] {
        let archive = Archive::default()
            .dir("./")
            .add(kind, "node", "", b"")
            .end();
        let bundle = lab.path("forged.vab");
        forge(&lab.manifest, &archive, &[(archive.len(), None)], &bundle);
        lab.unpack(&bundle, unpack_options()).unwrap();
        let error = lab.unpack(&bundle, strict).unwrap_err();
        assert_eq!(class_of(&error), Class::BadBundle);
        let error = format!("{error:#}");
        assert!(
            error.contains("node") && error.contains("not allowed"),
            "{error}"
        );
    }
}

#[test]
fn chunk_tables_that_overlap_lie_or_run_past_the_end_are_refused() {
    let lab = Lab::new();
    let archive = archive().end();
    let bundle = lab.path("forged.vab");
    forge(
        &lab.manifest,
        &archive,
        &[(2560, None), (2048, None)],
        &bundle,
    );
    let sealed = Sealed::open(&bundle).unwrap();
    let (opened, _) = sealed.authenticate(Trust::Anyone).unwrap();
    let mut manifest = opened.manifest().clone();
    let [first, second] = opened.chunks() else {
        panic!("two chunks were asked for");
    };
    let index = Index {
        chunks: opened.chunks().to_vec(),
        ..Index::default()
    };
    let body = String::from_utf8(index.render().unwrap()).unwrap();
    let whole = fs::read(&bundle).unwrap();
    let payload_bytes = usize::try_from(manifest.payload.packed_bytes).unwrap();
    let at = whole.len() - 1024 - payload_bytes.next_multiple_of(512);
    let payload = &whole[at..][..payload_bytes];
    let field =
        |name: &str, from: u64, to: u64| (format!("\"{name}\":{from}"), format!("\"{name}\":{to}"));
    let offset = |to| field("offset", second.offset, to);
    let packed = |to| field("packed", second.packed, to);
    let size = |to| field("size", second.size, to);
    for ((old, new), word) in [
        (offset(0), "chunk 1 starts at 0"),
        (offset(second.offset - 1), "the one before it ends at"),
        (offset(second.offset + 1), "the one before it ends at"),
        (offset(u64::MAX), "the one before it ends at"),
        (packed(0), "chunk 1 has 0 packed bytes"),
        (packed(second.packed + 1), "the payload"),
        (packed(u64::MAX), "chunk 1 has 18446744073709551615"),
        (size(0), "chunk 1 unpacks to 0 bytes"),
        (size(second.size + 1), "the payload"),
        (size(1 << 40), "chunk 1 unpacks to"),
        ((first.sha256.to_string(), "0".repeat(63)), "not a SHA-256"),
        (
            (first.sha256.to_string(), second.sha256.to_string()),
            "chunk 1 of 2",
        ),
    ] {
        assert!(body.contains(&old), "{old}");
        // The last place is the second chunk's.
        let (before, after) = body.rsplit_once(&old).unwrap();
        let index = format!("{before}{new}{after}");
        write_bundle(
            &mut manifest,
            &[(INDEX, index.as_bytes())],
            payload,
            &bundle,
        );
        let target = lab.path("target");
        fs::create_dir(&target).unwrap();
        let unpack = || {
            let (bundle, _) = Sealed::open(&bundle)?.authenticate(Trust::Anyone)?;
            unpack(bundle, &target, &unpack_options(), &Silent)
        };
        let error = unpack().expect_err(word);
        assert_eq!(class_of(&error), Class::BadBundle, "{error:#}");
        assert!(format!("{error:#}").contains(word), "{word}: {error:#}");
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "{word}");
        fs::remove_dir(&target).unwrap();
    }
}
