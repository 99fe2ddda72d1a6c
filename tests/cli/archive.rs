//! Bundles built from an archive of a root, by root and by others.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::desk::{Desk, PROGRAM, Run};

/// Adds to the tree in `$PWD` what only root can make, and what is odd.
const ODD_THINGS: &str = r#"
mkdir -p srv/acl dev proc etc usr/bin
mknod srv/null c 1 3; mknod srv/disk b 4000 1000000; mkfifo srv/fifo; mknod dev/console c 5 1
cp /bin/true usr/bin/su; chown 4000000000:3000000 usr/bin/su; chmod 6755 usr/bin/su
cp /bin/true usr/bin/ping; setcap cap_net_raw+ep usr/bin/ping
echo x > srv/acl/file; setfacl -m u:1234:rw-,g:5678:r-x srv/acl/file
setfacl -m d:u:1234:rwx,u:99:--x srv/acl; mkdir srv/acl/inherits
setfattr -n user.note -v hello srv/acl/file
setfattr -n trusted.secret -v 0xfffe srv/acl/file
setfattr -n security.selinux -v system_u:object_r:etc_t:s0 srv/acl/file
setfattr -h -n trusted.on.link -v 1 lib
ln usr/bin/su aaa; ln usr/bin/su zzz; ln -P lib srv/same-link
truncate -s 5G srv/holes
printf data | dd of=srv/holes bs=1 seek=3000000000 conv=notrunc status=none
truncate -s 1T srv/only-a-hole
mkdir "$(printf 'bad \377\376\nname')"; echo odd > "$(printf 'bad \377\376\nname/-rf *')"
mkdir -p "$(printf 'd%.0s' $(seq 200))/$(printf 'e%.0s' $(seq 200))/etage"
echo secret > etc/shadow; chmod 000 etc/shadow; touch -d @-2 etc/shadow
"#;

/// Keeps all that there is.
const GNU: &str = "tar --xattrs --xattrs-include='*' --acls --numeric-owner --sparse --format=pax";

/// A user without any rights.
const NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs";

struct Place(Desk);

impl Place {
    fn new() -> Place {
        let desk = Desk::new();
        desk.make_tree("tree");
        for name in ["tmp", "out"] {
            fs::create_dir(desk.at(name)).unwrap();
            fs::set_permissions(desk.at(name), fs::Permissions::from_mode(0o777)).unwrap();
        }
        // The program under test may lie where nobody else gets.
        fs::copy(PROGRAM, desk.at("va-upgrade")).unwrap();
        Place(desk)
    }

    /// Runs a script in the tree's parent.
    fn shell(&self, script: &str) -> String {
        let dir = self.0.at("");
        self.0.shell(&format!(
            "set -euo pipefail; cd {}; {script}",
            dir.display()
        ))
    }

    /// Runs a script in which `$BUILD` builds a bundle in `out`.
    fn run(&self, script: &str) -> Run {
        let script = format!(
            "export TMPDIR=$PWD/tmp SOURCE_DATE_EPOCH=1700000000 \
             BUILD=\"$PWD/va-upgrade build --release release.yaml --unsigned\"\n{script}"
        );
        let run = self.0.run_by(&["bash", "-euc", &script], &[]);
        let left = fs::read_dir(self.0.at("tmp")).unwrap().count();
        assert_eq!(left, 0, "{run:?}");
        run
    }

    fn does(&self, script: &str) -> Run {
        let run = self.run(script);
        assert_eq!(run.status, 0, "{script}: {run:?}");
        run
    }

    fn refuses(&self, script: &str, words: &[&str]) {
        let run = self.run(script);
        assert_eq!(run.status, 3, "{script}: {run:?}");
        for word in words {
            assert!(
                run.stderr.contains(word),
                "{script}: {word:?} in {}",
                run.stderr
            );
        }
        assert_eq!(fs::read_dir(self.0.at("out")).unwrap().count(), 0);
    }

    fn bundle(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.at("out").join(name)).unwrap()
    }
}

#[test]
fn an_archive_gives_the_bytes_of_the_directory_whoever_builds_from_it() {
    let place = Place::new();
    place.shell(&format!("cd tree; {ODD_THINGS}"));
    place.does("$BUILD tree -o out/tree.vab -q");
    let expected = place.bundle("tree.vab");
    place.shell(&format!(
        "{GNU} -C tree -cf gnu.tar .; gzip -k gnu.tar; xz -1k gnu.tar; zstd -q gnu.tar
         LC_ALL=C.UTF-8 bsdtar --format=pax --acls --xattrs -C tree -cf bsd.tar . 2> /dev/null"
    ));
    for archive in [
        "gnu.tar",
        "gnu.tar.gz",
        "gnu.tar.xz",
        "gnu.tar.zst",
        "bsd.tar",
    ] {
        for user in ["", NOBODY] {
            place.does(&format!("{user} $BUILD {archive} -o out/x.vab -q"));
            assert!(
                place.bundle("x.vab") == expected,
                "{archive} as {user:?} is another bundle"
            );
            fs::remove_file(place.0.at("out/x.vab")).unwrap();
        }
    }
    place.does(&format!(
        "cat gnu.tar.xz | {NOBODY} $BUILD - -o out/x.vab -q"
    ));
    assert!(place.bundle("x.vab") == expected);
}

#[test]
fn old_formats_do_where_they_can_say_all_that_is_there() {
    let place = Place::new();
    place.shell(
        "cd tree; mkdir -p \"$(printf 'd%.0s' $(seq 200))/$(printf 'e%.0s' $(seq 200))\"
         chown 4000000000:7 etc; ln -s \"$(printf 'x/%.0s' $(seq 200))\" long
         ln boot/vmlinuz* kernel; find . -exec touch -hd @1000000000 {} +",
    );
    place.does("$BUILD tree -o out/tree.vab -q");
    place.shell("tar --format=gnu --numeric-owner -C tree -cf old.tar ./");
    place.does(&format!("{NOBODY} $BUILD old.tar -o out/old.vab -q"));
    assert!(place.bundle("old.vab") == place.bundle("tree.vab"));
}

fn new_header() -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header.set_mode(0o644);
    header
}

#[test]
fn what_comes_twice_is_what_came_last_and_links_may_come_first() {
    let place = Place::new();
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(false);
    let mut header = new_header();
    let mut add = |kind, name: &str, mode, content: &str| {
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content.as_bytes())
            .unwrap();
    };
    add(tar::EntryType::Regular, "twice", 0o600, "first");
    add(tar::EntryType::Regular, "implied/deep/file", 0o640, "x");
    add(tar::EntryType::Regular, "twice", 0o644, "second!");
    add(tar::EntryType::Fifo, "later-a-file", 0o777, "");
    let mut link = new_header();
    link.set_entry_type(tar::EntryType::Link);
    tar.append_link(&mut link, "early", "target").unwrap();
    let mut header = new_header();
    let mut add = |name: &str, content: &str| {
        header.set_mode(0o4711);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content.as_bytes())
            .unwrap();
    };
    add("target", "the file");
    add("later-a-file", "now");
    tar.append_dir_all("", place.0.at("tree")).unwrap();
    place.0.write("odd.tar", tar.into_inner().unwrap());
    place.does(&format!("{NOBODY} $BUILD odd.tar -o out/odd.vab -q"));
    let lines = place.0.does(&["info", "out/odd.vab", "--files", "--json"]);
    let has = |path: &str, part: &str| {
        let start = format!("{{\"path\":\"{path}\"");
        let mut found = lines.lines().filter(|line| line.starts_with(&start));
        let line = found.next().unwrap_or_else(|| panic!("no {path}"));
        assert!(line.contains(part), "{part} in {line}");
        assert!(found.next().is_none(), "{path} twice");
    };
    has("/twice", "\"mode\":\"0644\",\"uid\":0,\"gid\":0,\"size\":7");
    has("/later-a-file", "\"type\":\"file\",\"mode\":\"4711\"");
    has("/target", "\"type\":\"hardlink\"");
    has(
        "/early",
        "\"type\":\"file\",\"mode\":\"4711\",\"uid\":0,\"gid\":0,\"size\":8",
    );
    has("/implied/deep", "\"type\":\"dir\",\"mode\":\"0755\"");
    has("/implied/deep", "1970-01-01T00:00:00");
}

#[test]
fn an_archive_that_leaves_its_tree_contradicts_itself_or_ends_early_is_refused() {
    let place = Place::new();
    place.shell(
        "cd tree; tar -P --transform 's,^etc$,../etc,' -cf ../up.tar etc boot
         tar -P --transform 's,^etc$,/etc,' -cf ../absolute.tar etc
         tar -cf ../through.tar lib; tar -P --transform 's,^boot,lib/boot,' -rf ../through.tar boot
         tar -cf ../both.tar boot; touch ../boot; tar -C .. -rf ../both.tar boot
         ln etc/os-release x; tar -cf ../nowhere.tar etc/os-release x
         tar --delete -f ../nowhere.tar etc/os-release
         tar -C .. -cf ../no-system.tar release.yaml
         tar -cf ../whole.tar . ; tar --format=ustar -C .. -cf ../x.tar release.yaml
         cd ..; head -c 20000 whole.tar > cut.tar; gzip -c whole.tar | head -c 2000 > cut.tar.gz
         mv release.yaml x.ovf; tar -cf machine.tar x.ovf; gzip -k machine.tar; mv x.ovf release.yaml
         head -c 100000 /dev/zero > zeros; gzip -k zeros",
    );
    for (archive, words) in [
        ("up.tar", &["../etc", "leads out of the tree"][..]),
        ("absolute.tar", &["/etc", "absolute"]),
        ("through.tar", &["lib/boot", "not a directory"]),
        ("both.tar", &["boot", "again as something else"]),
        ("nowhere.tar", &["os-release", "not in the archive"]),
        ("no-system.tar", &["no root file system", "no-system.tar"]),
        ("cut.tar", &["ends too early"]),
        ("cut.tar.gz", &["cut off"]),
        ("machine.tar", &["x.ovf", "cannot be read"]),
        ("machine.tar.gz", &["compressed with gzip", "unpack it"]),
        ("zeros.gz", &["compressed with gzip", "unpack it"]),
        ("- < zeros", &["standard input", "no tar archive"]),
        ("- < machine.tar.gz", &["standard input", "OVA"]),
    ] {
        place.refuses(&format!("$BUILD {archive} -o out/x.vab -q"), words);
    }
}

#[test]
fn an_archive_that_fills_the_disk_is_stopped_before_that() {
    let place = Place::new();
    place.shell("truncate -s 300M tree/zeros; tar -C tree -czf bomb.tar.gz .");
    let script = "mount -t tmpfs -o size=200m small tmp; mkdir -m 1777 tmp/t
        TMPDIR=$PWD/tmp/t; status=0; ls -d tmp/t >&2
        NOBODY $BUILD bomb.tar.gz -o out/x.vab -q || status=$?
        df --output=used tmp >&2; rmdir tmp/t; exit $status";
    place.refuses(
        &script.replace("NOBODY", NOBODY),
        &[
            "member zeros",
            "tmp/t would have less",
            "set TMPDIR",
            " Used\n    0\n",
        ],
    );
    place.refuses(
        "TMPDIR=$PWD/none; $BUILD bomb.tar.gz -o out/x.vab -q",
        &["none", "TMPDIR"],
    );
}

#[test]
fn a_signal_ends_the_build_and_nothing_stays() {
    let place = Place::new();
    place.shell("head -c 5M /dev/urandom > tree/noise; tar -C tree -cf root.tar .");
    for signal in ["INT", "TERM"] {
        // The input stays open, so that the program waits for more of it.
        let script = format!(
            "mkfifo out/pipe; exec 9<>out/pipe; rm out/pipe
             $BUILD - -o out/x.vab -q <&9 & head -c 3M root.tar >&9
             until [ -s tmp/*/tree/noise ]; do sleep 0.05; done
             kill -{signal} $!; wait $!"
        );
        let run = place.run(&script);
        assert_eq!(run.status, 1, "{run:?}");
        assert!(run.stderr.contains("interrupted"), "{run:?}");
        assert_eq!(fs::read_dir(place.0.at("out")).unwrap().count(), 0);
    }
}

#[test]
fn a_bundle_is_made_and_signed_with_nothing_of_the_machine() {
    let place = Place::new();
    place.shell(&format!(
        "cp -a tree plain; chmod 644 key.pem; cd tree; {ODD_THINGS} cd ..
         {GNU} -C tree -cf root.tar ."
    ));
    place.does(
        "$BUILD tree -o out/tree.vab -q; $BUILD plain -o out/plain.vab -q
         for name in tree plain; do ./va-upgrade sign out/$name.vab --key key.pem -q; done",
    );
    let sandbox = format!(
        "mount --bind $PWD $PWD; cd $PWD
         mount -t tmpfs -o size=100m,mode=1777 small tmp
         mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9
         mount -o remount,bind,ro /; touch /x 2> /dev/null && exit 9
         umask 077; unset HOME; export LC_ALL=tr_TR.UTF-8
         {NOBODY} $BUILD root.tar -o out/x.vab -q < /dev/null
         {NOBODY} $BUILD plain -o out/y.vab -q < /dev/null
         for name in x y; do
             {NOBODY} ./va-upgrade sign out/$name.vab --key key.pem -q < /dev/null
         done
         rmdir tmp/* 2> /dev/null && exit 9; umount tmp"
    );
    place.does(&sandbox);
    for (made, same) in [("x.vab", "tree.vab"), ("y.vab", "plain.vab")] {
        assert!(place.bundle(made) == place.bundle(same), "{made}");
    }
    place.does("./va-upgrade verify out/x.vab --trusted keys --deep -q");
}

#[test]
fn a_directory_is_built_from_by_whoever_may_read_all_of_it() {
    let place = Place::new();
    let run = place.does(&format!("{NOBODY} $BUILD tree -o out/x.vab"));
    assert!(run.stderr.contains("trusted.*"), "{run:?}");
    place.does("$BUILD tree -o out/tree.vab -q");
    assert!(place.bundle("x.vab") == place.bundle("tree.vab"));
    place.shell("rm out/*; echo x > tree/etc/shadow; chmod 600 tree/etc/shadow");
    let as_nobody = format!("{NOBODY} $BUILD tree -o out/x.vab -q");
    place.refuses(&as_nobody, &["etc/shadow", "build as root"]);
    place.shell("rm tree/etc/shadow; mkdir -m 700 tree/root");
    place.refuses(&as_nobody, &["root", "build as root"]);
    place.shell("rmdir tree/root; truncate -s 1M disk.raw");
    let of_image = as_nobody.replace("tree", "disk.raw");
    place.refuses(&of_image, &["needs root rights"]);
    symlink("/", place.0.at("everything")).unwrap();
    place.refuses(&as_nobody.replace("tree", "everything"), &["needs root"]);
}
