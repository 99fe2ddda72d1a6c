//! Genuine bundles of bad content: it costs little, and is the bundle's fault.

use std::fs;
use std::path::Path;

use crate::forge::{Archive, forge};
use crate::kit::*;
use crate::listing::open;
use crate::lying::Lab;
use tar::EntryType;
use va_upgrade::bundle::{Contents, verify_deep, visit};
use va_upgrade::failure::{Class, class_of};
use va_upgrade::progress::Silent;

/// Archives with the root, each with a word of the message that refuses it.
fn bad_archives() -> Vec<(Vec<u8>, &'static str)> {
    let a = || Archive::default().dir("./");
    let long = "n".repeat(256);
    let deep = "d/".repeat(1 << 20);
    let large = "v".repeat((64 << 10) + 1);
    let comment = "c".repeat(64 << 10);
    let end = "e".repeat(5000);
    let attributes: Vec<(String, String)> = (0..17)
        .map(|n| (format!("SCHILY.xattr.user.{n}"), "v".repeat(64 << 10)))
        .collect();
    let attributes: Vec<(&str, &str)> = attributes.iter().map(|(n, v)| (&**n, &**v)).collect();
    [
        (a().pax(&[("path", &long)]).file("x"), "has 256 bytes"),
        (
            a().pax(&[("path", &format!("a/{long}/b"))]).file("x"),
            "has 256 bytes",
        ),
        (a().pax(&[("path", &deep)]).file("x"), "its path has"),
        (
            a().pax(&[("linkpath", &end)]).symlink("x", "y"),
            "its end has 5000",
        ),
        (
            a().pax(&[("SCHILY.xattr.system.posix_acl_access", "junk")])
                .file("x"),
            "malformed",
        ),
        (
            a().pax(&[("SCHILY.xattr.system.posix_acl_default", "junk")])
                .dir("x"),
            "malformed",
        ),
        (
            a().pax(&[("SCHILY.xattr.security.capability", "junk")])
                .file("x"),
            "malformed",
        ),
        (
            a().pax(&[("SCHILY.xattr.user.x", &large)]).file("x"),
            "an attribute has",
        ),
        (a().pax(&attributes).file("x"), "its attributes have more"),
        (
            a().pax(&[
                ("GNU.sparse.size", "9223372036854775808"),
                ("GNU.sparse.map", "0,4"),
            ])
            .file("x"),
            "more than any file",
        ),
        (a().dir("d").hard_link("x", "d"), "director"),
        (
            a().pax(&[("uid", "4294967295")]).file("x"),
            "stands for none",
        ),
        (
            a().global(&[("comment", &comment)]).file("x"),
            "an extended header of",
        ),
        (
            a().global(&[("path", "x")]).file("x"),
            "only a member's own",
        ),
        (
            a().global(&[("SCHILY.xattr.user.x", "v")]).file("x"),
            "only a member's own",
        ),
        (a().pax(&[("size", "1125899906842624")]).file("x"), "x"),
    ]
    .map(|(archive, word)| (archive.end(), word))
    .into()
}

#[test]
fn bad_content_with_a_right_digest_is_the_bundles_fault_whoever_reads_it() {
    let lab = Lab::new();
    let bundle = lab.path("forged.vab");
    for (archive, word) in bad_archives() {
        let cuts = vec![(1 << 20, None); archive.len().div_ceil(1 << 20)];
        forge(&lab.manifest, &archive, &cuts, &bundle);
        let unpacked = lab.unpack(&bundle, unpack_options()).map(drop);
        let proved = verify_deep(&mut open(&bundle), &Silent);
        for (how, result) in [("unpack", unpacked), ("verify", proved)] {
            let error = result.expect_err(word);
            let text = format!("{error:#}");
            let is_by_kernel = how == "verify" && word == "director" && text.contains("no file");
            assert!(text.contains(word) || is_by_kernel, "{how}: {word}: {text}");
            assert_eq!(class_of(&error), Class::BadBundle, "{how}: {text}");
        }
    }
}

#[test]
fn a_size_in_a_header_reserves_nothing_that_the_payload_cannot_fill() {
    let lab = Lab::new();
    let bundle = lab.path("forged.vab");
    let archive = Archive::default()
        .dir("./")
        .pax(&[("size", "1125899906842624")])
        .add(EntryType::Regular, "x", "", &[7; 4096])
        .end();
    forge(&lab.manifest, &archive, &[(archive.len(), None)], &bundle);
    let error = lab.unpack(&bundle, unpack_options()).map(drop).unwrap_err();
    assert!(
        format!("{error:#}").contains("the whole payload"),
        "{error:#}"
    );
    assert_eq!(class_of(&error), Class::BadBundle);
}

/// What a process holds at its height, in KiB (`VmHWM`, proc(5)).
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse().unwrap()
}

#[test]
fn what_a_global_header_says_is_shared_by_all_members() {
    let lab = Lab::new();
    let bundle = lab.path("forged.vab");
    let comment = "c".repeat((64 << 10) - 100);
    let mut archive = Archive::default()
        .global(&[("mtime", "5"), ("comment", &comment)])
        .dir("./");
    for number in 0..10_000 {
        archive = archive.add(EntryType::Regular, &number.to_string(), "", b"");
    }
    let archive = archive.end();
    forge(&lab.manifest, &archive, &[(archive.len(), None)], &bundle);
    let before = peak_kib();
    let mut contents = Contents::default();
    visit(&mut open(&bundle), &mut contents, &Silent).unwrap();
    // Copied, they would be 640 MB.
    let grown = peak_kib() - before;
    assert!(grown < 300 << 10, "{grown} KiB");
}

#[test]
fn a_path_as_deep_as_it_may_be_is_unpacked() {
    let lab = Lab::new();
    let bundle = lab.path("forged.vab");
    let deep = ["d"; 5_000].join("/");
    let archive = Archive::default()
        .dir("./")
        .pax(&[("path", &deep)])
        .file("x")
        .end();
    forge(&lab.manifest, &archive, &[(archive.len(), None)], &bundle);
    let target = lab.unpack(&bundle, unpack_options()).unwrap();
    assert!(Path::new(target.path()).join("d/d/d/d").is_dir());
    sh(&format!("rm -rf '{}'", target.path().display()));
}
