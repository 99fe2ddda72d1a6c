//! What `info` tells of the inside of a bundle, and `verify --deep`.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::Value;

use super::desk::Desk;

const RELEASE: &str = "product: gateway\nversion: ";

/// A desk with two trees, `old` and `new`, alike so far.
fn desk_with_trees() -> Desk {
    let desk = Desk::new();
    for tree in ["old", "new"] {
        desk.make_tree(tree);
        for dir in ["etc", "srv", "var/lib"] {
            fs::create_dir_all(desk.at(tree).join(dir)).unwrap();
        }
        symlink("usr/bin", desk.at(tree).join("bin")).unwrap();
    }
    desk
}

fn build(desk: &Desk) {
    for (tree, version) in [("old", "9.4.0"), ("new", "9.4.1")] {
        let (bundle, release) = (format!("{tree}.vab"), format!("{tree}.yaml"));
        desk.write(&release, format!("{RELEASE}{version}\n"));
        let args = ["build", tree, "-o", &bundle, "--release", &release, "-q"];
        desk.does(&[&args[..], &["--unsigned"]].concat());
    }
}

/// Tells what changed from `old` to `new`.
fn diff(desk: &Desk, more: &[&str]) -> String {
    build(desk);
    desk.does(&[&["info", "new.vab", "--diff", "old.vab"], more].concat())
}

/// Makes a file somewhere below the desk.
fn put(desk: &Desk, path: &str, content: impl AsRef<[u8]>) {
    fs::create_dir_all(desk.at(path).parent().unwrap()).unwrap();
    desk.write(path, content);
}

#[test]
fn every_file_of_a_bundle_is_one_line_for_people_and_for_programs() {
    let desk = desk_with_trees();
    let odd = std::ffi::OsStr::from_bytes(b"odd \xff\n\x1b[2J");
    fs::write(desk.at("new/srv").join(odd), "x").unwrap();
    fs::hard_link(desk.at("new/etc/os-release"), desk.at("new/srv/same")).unwrap();
    let long = "long".repeat(60);
    put(&desk, &format!("new/srv/{long}"), "x");
    xattr::set(desk.at("new/srv"), "user.note", b"x").unwrap();
    build(&desk);

    let list = desk.run(&["info", "new.vab", "--files"]);
    assert_eq!(list.status, 0, "{list:?}");
    assert!(list.stderr.contains("reading new.vab"), "{list:?}");
    let has = |end: &str| {
        let mut lines = list.stdout.lines();
        lines.any(|line| line.ends_with(end))
    };
    for end in [
        "Z /bin -> usr/bin",
        r"Z /srv/odd \xff\n\x1b[2J",
        "Z /srv/same link to /etc/os-release",
        "Z /",
        &format!("Z /srv/{long}"),
    ] {
        assert!(has(end), "{end:?} in {}", list.stdout);
    }
    assert!(list.stdout.contains("drwxr-xr-x "), "{}", list.stdout);
    let info: Value = serde_json::from_str(&desk.does(&["info", "new.vab", "--json"])).unwrap();
    let entries = info["tree"]["entries"].as_u64().unwrap();
    assert_eq!(list.stdout.lines().count() as u64, entries);

    let lines: Vec<Value> = desk
        .does(&["info", "new.vab", "--files", "--json"])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len() as u64, entries);
    let find = |path: &str| {
        let mut found = lines.iter().filter(|line| line["path"] == path);
        found.next().unwrap_or_else(|| panic!("{path}: {lines:?}"))
    };
    assert_eq!(find("/srv")["xattrs"][0], "user.note");
    assert_eq!(find("/srv/same")["type"], "hardlink");
    assert_eq!(find("/bin")["target"], "usr/bin");
    let odd = lines.iter().find(|line| line["path_hex"].is_string());
    assert_eq!(odd.unwrap()["path_hex"], "2f7372762f6f646420ff0a1b5b324a");

    // A reader that goes away early is no error.
    let program = super::desk::PROGRAM;
    let bundle = desk.at("new.vab");
    desk.shell(&format!(
        "set -o pipefail; {program} info {} --files -q | true",
        bundle.display()
    ));
}

#[test]
fn without_packages_every_file_that_differs_is_told() {
    let desk = desk_with_trees();
    put(&desk, "old/srv/gone", "x");
    put(&desk, "new/srv/come", "x");
    put(
        &desk,
        "new/etc/os-release",
        "ID=debian\nPRETTY_NAME=\"Debian 13\"\n",
    );
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(desk.at("new/usr/sbin/grub-install"), mode).unwrap();
    std::os::unix::fs::chown(desk.at("new/srv"), Some(7), None).unwrap();
    let kernel = "boot/vmlinuz-6.1.0-10-amd64";
    desk.shell(&format!(
        "touch -d 2001-01-01 {}",
        desk.at("new").join(kernel).display()
    ));
    let expected = "\
~ /etc/os-release (content)
~ /srv (owner)
+ /srv/come
- /srv/gone
~ /usr/sbin/grub-install (mode)
files: 1 added, 1 removed, 3 changed
";
    assert_eq!(diff(&desk, &[]), expected);
    assert_eq!(diff(&desk, &["--files"]), expected);
    let run = desk.run(&["info", "new.vab", "--diff", "old.vab"]);
    for bundle in ["old.vab", "new.vab"] {
        let note = format!("no packages are known of {bundle}");
        assert!(run.stderr.contains(&note), "{run:?}");
    }
    let same = desk.does(&["info", "new.vab", "--diff", "new.vab"]);
    assert_eq!(same, "files: 0 added, 0 removed, 0 changed\n");
}

/// Writes a dpkg database: packages with versions, and what each owns.
fn write_dpkg(desk: &Desk, tree: &str, packages: &[(&str, &str, &str)]) {
    let dir = format!("{tree}/var/lib/dpkg");
    let mut status = String::new();
    for (name, version, owned) in packages {
        status += &format!(
            "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\n\
             Version: {version}\n\n"
        );
        put(desk, &format!("{dir}/info/{name}.list"), owned);
    }
    put(desk, &format!("{dir}/status"), status);
}

#[test]
fn packages_of_dpkg_are_compared_and_the_files_of_none() {
    let desk = desk_with_trees();
    for tree in ["old", "new"] {
        // Reached through the link /bin.
        put(&desk, &format!("{tree}/usr/bin/bash"), tree);
        put(&desk, &format!("{tree}/srv/local"), tree);
    }
    put(&desk, "new/usr/bin/shiny", "x");
    let base = ("base", "12", "/.\n/srv\n/etc\n");
    let bash = "/.\n/bin\n/bin/bash\n";
    write_dpkg(
        &desk,
        "old",
        &[base, ("bash", "5.1", bash), ("gone", "1", "/srv/x\n")],
    );
    write_dpkg(
        &desk,
        "new",
        &[
            base,
            ("bash", "5.2", bash),
            ("shiny", "1", "/usr/bin/shiny\n"),
        ],
    );
    let expected = "\
~ bash 5.1 -> 5.2
- gone 1
+ shiny 1
~ /srv/local (content)
packages: 1 added, 1 removed, 1 changed; files of no package: 0 added, 0 removed, 1 changed; \
files of packages: 5 differ (--files lists them)
";
    assert_eq!(diff(&desk, &[]), expected);

    let report: Value = serde_json::from_str(&diff(&desk, &["--json"])).unwrap();
    assert_eq!(report["old"]["version"], "9.4.0");
    assert_eq!(report["packages"][0]["new"][0], "5.2");
    assert_eq!(report["packages"][1]["change"], "removed");
    assert_eq!(report["files"][0]["path"], "/srv/local");
    assert_eq!(report["files"][0]["differs"][0], "content");
    assert_eq!(report["totals"]["packages"]["added"], 1);
    assert_eq!(report["totals"]["files_of_packages"], 5);

    let files = diff(&desk, &["--files"]);
    assert!(files.contains("~ /usr/bin/bash (content)\n"), "{files}");
    assert!(files.contains("+ /usr/bin/shiny\n"), "{files}");
    assert!(
        files.ends_with("files: 2 added, 1 removed, 3 changed\n"),
        "{files}"
    );
}

/// Makes an RPM package that owns `/usr/bin/shiny`, and notes it in `tree`.
fn install_rpm(desk: &Desk, tree: &str, version: &str, database: &str) {
    desk.write(
        "shiny.spec",
        "Name: shiny\nVersion: %{v}\nRelease: 1.el9\nEpoch: 2\nSummary: x\nLicense: x\n\
         BuildArch: noarch\n%description\nx\n%install\nmkdir -p %{buildroot}/usr/bin\n\
         echo %{v} > %{buildroot}/usr/bin/shiny\n%files\n/usr/bin/shiny\n",
    );
    fs::create_dir_all(desk.at(tree).join(database)).unwrap();
    let script = format!(
        "cd '{}' && rpmbuild -bb --quiet -D 'v {version}' -D \"_topdir $PWD/top\" \
         -D \"_rpmdir $PWD/rpms\" shiny.spec && rpm -i --force-debian --justdb --nodeps \
         --dbpath \"$PWD/{tree}/{database}\" rpms/noarch/shiny-{version}-1.el9.noarch.rpm \
         && install -D /dev/null {tree}/usr/bin/shiny && echo {version} > {tree}/usr/bin/shiny",
        desk.at("").display()
    );
    desk.shell(&script);
}

#[test]
fn packages_of_rpm_are_compared_where_this_machine_can_read_them() {
    let desk = desk_with_trees();
    install_rpm(&desk, "old", "1.0", "var/lib/rpm");
    install_rpm(&desk, "new", "1.1", "usr/lib/sysimage/rpm");
    put(&desk, "new/srv/come", "x");
    let told = diff(&desk, &[]);
    let (changes, total) = told.split_once("packages: ").unwrap();
    assert_eq!(
        changes,
        // The place of the database itself is nobody's.
        "~ shiny 2:1.0-1.el9 -> 2:1.1-1.el9\n+ /srv/come\n+ /usr/lib/sysimage\n"
    );
    assert!(
        total.starts_with("0 added, 0 removed, 1 changed; "),
        "{total}"
    );

    let args = ["info", "new.vab", "--diff", "old.vab"];
    let bare = desk.run_by(&["env", "PATH=/nowhere"], &args);
    assert_eq!(bare.status, 0, "{bare:?}");
    assert!(bare.stderr.contains("this machine has no rpm"), "{bare:?}");
    assert!(
        bare.stdout.contains("~ /usr/bin/shiny (content)"),
        "{bare:?}"
    );
    assert!(bare.stdout.contains("\nfiles: "), "{bare:?}");

    // What rpm cannot read is no reason to fail, and nothing is left behind.
    put(
        &desk,
        "new/usr/lib/sysimage/rpm/rpmdb.sqlite",
        "junk".repeat(2000),
    );
    build(&desk);
    let junk = desk.run_by(
        &["env", &format!("TMPDIR={}", desk.at("empty").display())],
        &args,
    );
    assert_eq!(junk.status, 0, "{junk:?}");
    assert!(junk.stderr.contains("comparing by file"), "{junk:?}");
    assert_eq!(fs::read_dir(desk.at("empty")).unwrap().count(), 0);
}

#[test]
fn a_damaged_bundle_is_looked_into_in_vain() {
    let desk = Desk::with_bundle();
    let told = desk.does(&["verify", "good.vab", "--deep"]);
    assert!(
        told.starts_with("good.vab: gateway 9.4.1, whole, every file read, signed by key "),
        "{told}"
    );
    let mut bad = fs::read(desk.at("good.vab")).unwrap();
    let end = bad.iter().rposition(|byte| *byte == b'Z').unwrap();
    bad[end] ^= 1;
    desk.write("bad.vab", bad);
    for args in [
        &["info", "bad.vab", "--files"][..],
        &["info", "bad.vab", "--diff", "good.vab"],
        &["info", "good.vab", "--diff", "bad.vab", "--json"],
        &["info", "good.vab", "--diff", "bad.vab", "--files"],
        &["verify", "bad.vab", "--deep"],
    ] {
        desk.refuses(4, &["bad.vab", "digest", "copy it again"], args);
    }
}
