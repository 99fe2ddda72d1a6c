//! Sources that no bundle can be built from.

use std::fs;

use va_upgrade::system::files::remove_tree;

use super::desk::{BUILD, Desk};

fn build<'a>(source: &'a str, release: &'a str) -> Vec<&'a str> {
    vec![
        "build",
        source,
        "-o",
        "out.vab",
        "--release",
        release,
        "--unsigned",
    ]
}

fn refuses(desk: &Desk, source: &str, words: &[&str]) {
    desk.refuses(
        3,
        &[&[source], words].concat(),
        &build(source, "release.yaml"),
    );
}

#[test]
fn a_tree_that_would_not_boot_is_refused_with_what_it_lacks() {
    let desk = Desk::new();
    let lacks = [
        (
            "boot/vmlinuz-6.1.0-10-amd64",
            ["no kernel", "linux-image-amd64"],
        ),
        (
            "boot/initrd.img-6.1.0-10-amd64",
            ["no initramfs", "update-initramfs"],
        ),
        ("usr/lib/grub/i386-pc", ["no GRUB for BIOS", "grub-pc-bin"]),
        (
            "usr/sbin/grub-install",
            ["neither grub-install", "grub2-common"],
        ),
        ("etc/os-release", ["no root file system", "os-release"]),
    ];
    for (number, (path, words)) in lacks.iter().enumerate() {
        let tree = format!("tree{number}");
        desk.make_tree(&tree);
        let path = desk.at(&tree).join(path);
        if path.is_dir() {
            remove_tree(&path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        refuses(&desk, &tree, words);
    }
    refuses(&desk, "empty", &["empty directory"]);
    refuses(&desk, "nowhere", &["no file or directory"]);
}

#[test]
fn an_image_that_cannot_be_read_is_refused() {
    let desk = Desk::new();
    desk.write("bare.vmdk", [&b"KDMV"[..], &[0xa5; 4096]].concat());
    refuses(&desk, "bare.vmdk", &["qemu-img", "export the VM again"]);
    desk.write("junk.vmdk", [0xa5; 4096]);
    refuses(&desk, "junk.vmdk", &["not a VMDK"]);
    let elsewhere = "# Disk DescriptorFile\nversion=1\ncreateType=\"vmfs\"\n\
                     RW 100 FLAT \"/etc/shadow\" 0\n";
    desk.write("sly.vmdk", elsewhere);
    refuses(
        &desk,
        "sly.vmdk",
        &["/etc/shadow", "copy the parts together"],
    );
    desk.write("blank.raw", vec![0; 1 << 20]);
    refuses(
        &desk,
        "blank.raw",
        &["no root file system", "no partitions"],
    );
    refuses(&desk, "/dev/null", &["neither a directory nor an image"]);
}

#[test]
fn an_ova_without_a_disk_is_refused() {
    let desk = Desk::new();
    let mut ova = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(4);
    header.set_mode(0o644);
    ova.append_data(&mut header, "gateway.ovf", &b"<x/>"[..])
        .unwrap();
    desk.write("diskless.ova", ova.into_inner().unwrap());
    refuses(
        &desk,
        "diskless.ova",
        &["holds no disk", "gateway.ovf", "export the VM"],
    );
    desk.write("junk.ova", [0xa5; 4096]);
    refuses(&desk, "junk.ova", &["not an OVA"]);
}

#[test]
fn a_release_or_an_output_that_is_no_good_is_refused() {
    let desk = Desk::new();
    desk.make_tree("tree");
    for (text, words) in [
        ("product: gateway\n", ["release", "version"]),
        (
            "product: gateway\nversion: 9.4.1\ncolour: red\n",
            ["colour", "expected"],
        ),
        ("just words\n", ["no settings", "product: "]),
    ] {
        desk.write("bad.yaml", text);
        desk.refuses(
            2,
            &[&["bad.yaml"], &words[1..]].concat(),
            &build("tree", "bad.yaml"),
        );
    }
    desk.refuses(
        2,
        &["none.yaml", "No such file"],
        &build("tree", "none.yaml"),
    );
    desk.write(
        "small.yaml",
        "product: gateway\nversion: 9.4.1\nsize_limit: 100\n",
    );
    desk.refuses(
        3,
        &["size_limit 100", "raise the limit"],
        &build("tree", "small.yaml"),
    );
    let args = [
        "build",
        "tree",
        "-o",
        "no/x.vab",
        "--release",
        "release.yaml",
        "--unsigned",
    ];
    desk.refuses(3, &["no/x.vab", "no directory"], &args);
}

#[test]
fn an_output_in_the_tree_that_is_packed_is_refused() {
    let desk = Desk::new();
    desk.make_tree("tree");
    let [bundle, result] = ["tree/usr/x.vab", "tree/result.json"];
    let mut args = BUILD;
    args[3] = bundle;
    desk.refuses(3, &[bundle, "is in tree", "elsewhere"], &args);
    let args = [&BUILD[..], &["--result", result]].concat();
    desk.refuses(3, &[result, "is in tree"], &args);
    assert!(!desk.at(bundle).exists() && !desk.at(result).exists());
    let mut args = BUILD;
    fs::create_dir_all(desk.at("tree/tmp")).unwrap();
    args[3] = "tree/tmp/x.vab";
    desk.does(&args);
}
