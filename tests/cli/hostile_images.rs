//! What was made to hurt whoever builds from it or writes beside it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::desk::{BUILD, Desk};

#[test]
fn what_is_there_and_no_regular_file_is_never_replaced() {
    let desk = Desk::new();
    desk.make_tree("tree");
    desk.write("victim", "precious");
    symlink("victim", desk.at("link")).unwrap();
    mkfifo(&desk.at("pipe"), Mode::S_IRWXU).unwrap();
    let before = fs::metadata("/dev/null").unwrap();
    for output in ["/dev/null", "link", "pipe"] {
        let mut args = BUILD;
        args[3] = output;
        desk.refuses(3, &[output, "no regular file", "another file"], &args);
    }
    assert_eq!(fs::metadata("/dev/null").unwrap().ino(), before.ino());
    assert_eq!(fs::read(desk.at("victim")).unwrap(), b"precious");
    desk.does(&BUILD);
    desk.refuses(
        3,
        &["/dev/null", "no regular file"],
        &["sign", "x.vab", "--export", "/dev/null"],
    );
}

#[test]
fn signing_keeps_mode_and_owner_and_leaves_nothing_behind() {
    let desk = Desk::new();
    desk.make_tree("tree");
    desk.does(&BUILD);
    let bundle = desk.at("x.vab");
    chown(&bundle, Some(4711), Some(4712)).unwrap();
    fs::set_permissions(&bundle, fs::Permissions::from_mode(0o640)).unwrap();
    let names = || {
        let entries = fs::read_dir(desk.at("")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    desk.does(&["sign", "x.vab", "--key", "key.pem"]);
    let meta = fs::metadata(&bundle).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o640);
    assert_eq!((meta.uid(), meta.gid()), (4711, 4712));
    assert_eq!(names(), before);
}

#[test]
fn a_tree_deeper_than_files_may_be_open_leaves_nothing_behind() {
    let desk = Desk::new();
    fs::create_dir(desk.at("tmp")).unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_mode(0o755);
    let path = ["d"; 2000].join("/");
    archive
        .append_data(&mut header, path, std::io::empty())
        .unwrap();
    desk.write("deep.tar", archive.into_inner().unwrap());
    let mut args = BUILD;
    args[1] = "deep.tar";
    for limit in ["1024", "40"] {
        let script = r#"ulimit -n "$0"; TMPDIR=tmp exec "$@""#;
        desk.refuses_by(&["sh", "-c", script, limit], 3, &["deep.tar"], &args);
        assert_eq!(fs::read_dir(desk.at("tmp")).unwrap().count(), 0, "{limit}");
    }
}

#[test]
fn headers_of_an_ova_are_bounded_before_they_are_read() {
    let desk = Desk::new();
    for kind in [tar::EntryType::XHeader, tar::EntryType::GNULongName] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(8 << 30);
        header.set_path("x").unwrap();
        header.set_cksum();
        desk.write("long.ova", header.as_bytes());
        let file = fs::File::options().write(true).open(desk.at("long.ova"));
        // All zeros, of which none takes room.
        file.unwrap().set_len(9 << 30).unwrap();
        let mut args = BUILD;
        args[1] = "long.ova";
        let script = r#"ulimit -v 1000000; exec "$0" "$@""#;
        desk.refuses_by(
            &["sh", "-c", script],
            3,
            &["long.ova", "more than 65536"],
            &args,
        );
    }
}
