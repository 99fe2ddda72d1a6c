//! The accounts of a merge as the system's own tools see them: `pwck` and
//! `grpck` have nothing to say, before and after.

#![expect(
    clippy::disallowed_methods,
    reason = "asks stock tools, not the program's own"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use va_upgrade::accounts::{AccountFiles, merge, missing_shells};

/// Writes the files where the tools look for them, with the homes and shells
/// that the accounts have.
fn write(root: &Path, files: &AccountFiles) {
    fs::create_dir_all(root.join("etc")).unwrap();
    let texts = [
        ("passwd", Some(&files.passwd)),
        ("shadow", files.shadow.as_ref()),
        ("group", files.group.as_ref()),
        ("gshadow", files.gshadow.as_ref()),
        ("subuid", files.subuid.as_ref()),
        ("subgid", files.subgid.as_ref()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            fs::write(root.join("etc").join(name), text).unwrap();
        }
    }
    let text = String::from_utf8(files.passwd.clone()).unwrap();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        fs::create_dir_all(root.join(fields[5].trim_start_matches('/'))).unwrap();
        let shell = root.join(fields[6].trim_start_matches('/'));
        fs::create_dir_all(shell.parent().unwrap()).unwrap();
        fs::copy("/bin/true", shell).unwrap();
    }
}

/// What a tool says of the files in `root`, and whether it is content.
fn ask(tool: &str, root: &Path) -> (bool, String) {
    let out = Command::new(tool)
        .args(["-r", "-R"])
        .arg(root)
        .output()
        .unwrap();
    let text = [out.stdout, out.stderr].concat();
    (
        out.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn files(accounts: &[(&str, u32, &str)], groups: &[(&str, u32, &str)]) -> AccountFiles {
    let mut passwd = "root:x:0:0:root:/root:/bin/sh\n".to_owned();
    let mut shadow = "root:*:19000:0:99999:7:::\n".to_owned();
    let mut group = "root:x:0:\nwheel:x:10:\n".to_owned();
    let mut gshadow = "root:*::\nwheel:*::\n".to_owned();
    for (name, id, hash) in accounts {
        passwd += &format!("{name}:x:{id}:{id}::/home/{name}:/bin/sh\n");
        shadow += &format!("{name}:{hash}:19000:0:99999:7:::\n");
        group += &format!("{name}:x:{id}:\n");
        gshadow += &format!("{name}:!::\n");
    }
    for (name, gid, members) in groups {
        group += &format!("{name}:x:{gid}:{members}\n");
        gshadow += &format!("{name}:!::{members}\n");
    }
    AccountFiles {
        passwd: passwd.into_bytes(),
        shadow: Some(shadow.into_bytes()),
        group: Some(group.into_bytes()),
        gshadow: Some(gshadow.into_bytes()),
        ..AccountFiles::default()
    }
}

#[test]
fn the_systems_own_tools_find_nothing_to_mend_in_a_merge() {
    let pristine = files(&[("admin", 1000, "$6$a$b"), ("demo", 1001, "!")], &[]);
    let mut old = files(
        &[("admin", 1000, "$6$c$d"), ("joe", 1002, "$6$e$f")],
        &[("ops", 1003, "admin,joe"), ("audit", 990, "joe")],
    );
    old.passwd
        .extend(b"lost:x:1004:4444::/home/lost:/bin/sh\nbroken:x:::\n");
    let image = files(
        &[
            ("app", 1000, "!"),
            ("admin", 1001, "$6$g$h"),
            ("demo", 1002, "$6$i$j"),
            ("chrony", 990, "!"),
        ],
        &[("adm", 4, "admin,demo")],
    );
    let blind = merge(None, &old, &image).unwrap();
    let whole = merge(Some(&pristine), &old, &image).unwrap();
    for merged in [blind, whole] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &merged.files);
        for tool in ["pwck", "grpck"] {
            let (is_content, said) = ask(tool, dir.path());
            assert!(is_content, "{tool}: {said}");
        }
        let read = AccountFiles::read(dir.path()).unwrap();
        assert_eq!(read.passwd, merged.files.passwd);
        assert_eq!(read.gshadow, merged.files.gshadow);
        assert!(missing_shells(&read, dir.path()).unwrap().is_empty());
        let passwd = String::from_utf8(read.passwd).unwrap();
        assert!(passwd.contains("lost:x:1004:1004:") || passwd.contains("lost:x:1004:4444:"));
        assert!(!passwd.contains("broken"));
    }
}

#[test]
fn the_systems_own_tools_would_find_what_is_wrong() {
    let mut files = files(&[("joe", 1000, "!")], &[("ops", 1001, "nobody-here")]);
    files.passwd.extend(b"ann:x:1005:1005::/home/ann:/bin/sh\n");
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &files);
    for tool in ["pwck", "grpck"] {
        let (is_content, said) = ask(tool, dir.path());
        assert!(!is_content, "{tool}: {said}");
    }
}
