//! Bundles that are no good.

use std::fs;
use std::thread;

use super::desk::{BUILD, Desk, PROGRAM};

/// Every verb that is given a bundle, without the bundle.
const READERS: [&[&str]; 7] = [
    &["info"],
    &["info", "--files"],
    &["verify"],
    &["verify", "--deep"],
    &["check"],
    &["apply"],
    &["unpack", "--allow-unsigned"],
];

/// Sees every verb refuse the bundle `name`.
fn all_refuse(desk: &Desk, name: &str, status: i32, words: &[&str]) {
    for verb in READERS {
        let mut args = [verb, &[name]].concat();
        if verb[0] == "unpack" {
            args.push("empty");
        }
        desk.refuses(status, words, &args);
    }
}

#[test]
fn what_is_not_a_bundle_is_refused_by_every_verb() {
    let desk = Desk::new();
    all_refuse(&desk, "missing.vab", 3, &["missing.vab", "No such file"]);
    all_refuse(&desk, "keys", 4, &["keys is a directory", ".vab"]);
    desk.write("zero.vab", "");
    all_refuse(&desk, "zero.vab", 4, &["zero.vab is not a bundle", "ends"]);
    desk.write("note.vab", "not a bundle\n".repeat(100));
    all_refuse(&desk, "note.vab", 4, &["note.vab is not a bundle"]);
    desk.refuses(4, &["/dev/null is not a bundle"], &["verify", "/dev/null"]);
}

#[test]
fn a_named_pipe_is_read_once() {
    let desk = Desk::with_bundle();
    let good = fs::read(desk.at("good.vab")).unwrap();
    desk.shell(&format!("mkfifo '{}'", desk.at("pipe").display()));
    let given = |work: &dyn Fn()| {
        thread::scope(|scope| {
            // Who reads a part only ends the writing early.
            scope.spawn(|| drop(fs::write(desk.at("pipe"), &good)));
            work();
        });
    };
    for verb in &READERS[..4] {
        let args = [verb, &["pipe", "--trusted", "keys"][..]].concat();
        given(&|| drop(desk.does(&args)));
    }
    let sign = ["sign", "pipe", "--key", "key.pem"];
    desk.refuses(3, &["pipe is no file"], &sign);
    let cut = &good[..good.len() - 1];
    thread::scope(|scope| {
        scope.spawn(|| fs::write(desk.at("pipe"), cut));
        assert_eq!(desk.run(&["verify", "pipe", "--trusted", "keys"]).status, 4);
    });
}

#[test]
fn a_bundle_cut_short_or_with_something_behind_it_is_refused() {
    let desk = Desk::with_bundle();
    let good = fs::read(desk.at("good.vab")).unwrap();
    let length = good.len();
    for cut in [100, 600, 1500, length / 2, length - 1025, length - 1] {
        desk.write("cut.vab", &good[..cut]);
        desk.refuses(
            4,
            &["cut.vab is not a bundle or is damaged", "copy it again"],
            &["verify", "cut.vab"],
        );
        desk.refuses(4, &["cut.vab"], &["unpack", "cut.vab", "empty"]);
    }
    desk.write("long.vab", [&good[..], b"x"].concat());
    desk.refuses(4, &["long.vab", "copy it again"], &["verify", "long.vab"]);
}

#[test]
fn one_flipped_bit_anywhere_is_found() {
    let desk = Desk::with_bundle();
    let good = fs::read(desk.at("good.vab")).unwrap();
    for at in (0..good.len()).step_by(131) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        desk.write("bad.vab", &bad);
        desk.refuses(4, &["bad.vab", "copy it again"], &["verify", "bad.vab"]);
    }
}

#[test]
fn a_bundle_nobody_trusted_has_signed_is_refused() {
    let desk = Desk::with_bundle();
    let build = [
        "build",
        "tree",
        "-o",
        "unsigned.vab",
        "--release",
        "release.yaml",
    ];
    desk.does(&[&build[..], &["--unsigned"]].concat());
    for verb in ["verify", "check", "apply"] {
        let words = [
            "unsigned.vab is not signed",
            "va-upgrade sign",
            "--allow-unsigned",
        ];
        desk.refuses(4, &words, &[verb, "unsigned.vab"]);
    }
    desk.does(&["verify", "unsigned.vab", "--allow-unsigned"]);

    desk.make_key("other.pem", "other.pub");
    desk.does(&["sign", "unsigned.vab", "--key", "other.pem"]);
    for verb in ["verify", "check", "apply"] {
        let words = ["unsigned.vab", "nobody this system trusts", "public key"];
        desk.refuses(4, &words, &[verb, "unsigned.vab"]);
        // A signature by a stranger is worth less than none.
        desk.refuses(4, &words, &[verb, "unsigned.vab", "--allow-unsigned"]);
    }
}

#[test]
fn a_revoked_key_is_refused_by_its_id() {
    let desk = Desk::with_bundle();
    let told = desk.does(&["verify", "good.vab"]);
    let id = told.trim_end().rsplit(' ').next().unwrap();
    desk.write("etc/va-upgrade/revoked", format!("# stolen\n{id}\n"));
    for verb in ["verify", "check", "apply"] {
        desk.refuses(4, &[id, "revoked", "another key"], &[verb, "good.vab"]);
    }
    desk.write("etc/va-upgrade/revoked", "everything\n");
    desk.refuses(
        2,
        &["revoked line 1", "everything"],
        &["verify", "good.vab"],
    );
}

#[test]
fn nothing_is_excluded_that_the_system_boots_with() {
    let desk = Desk::new();
    desk.make_tree("tree");
    let exclude = |pattern: &str| {
        let text = format!("product: gateway\nversion: 9.4.1\nexclude: ['{pattern}']\n");
        desk.write("release.yaml", text);
    };
    for (pattern, lost) in [
        ("/boot", "boot"),
        ("vmlinuz-*", "boot/vmlinuz-6.1.0-10-amd64"),
        ("/boot/init*", "boot/initrd.img-6.1.0-10-amd64"),
        ("/lib", "lib"),
        ("modules.dep", "usr/lib/modules/6.1.0-10-amd64/modules.dep"),
        ("ext2.mod", "usr/lib/grub/i386-pc/ext2.mod"),
        ("/usr/lib/grub/**", "usr/lib/grub/i386-pc"),
        ("grub-mkimage", "usr/bin/grub-mkimage"),
        ("/usr/lib/systemd", "usr/lib/systemd"),
        ("/sbin/init", "sbin/init"),
        ("os-release", "etc/os-release"),
    ] {
        exclude(pattern);
        let words = [
            format!("{pattern:?}"),
            format!("leaves out {lost},"),
            "narrow".into(),
        ];
        desk.refuses(3, &words.each_ref().map(String::as_str), &BUILD);
    }
    exclude("/usr/share/doc/*");
    let run = desk.run(&BUILD);
    assert_eq!(run.status, 0, "{run:?}");
    let note = "exclude pattern \"/usr/share/doc/*\" of release.yaml leaves out nothing";
    assert!(run.stderr.contains(note), "{run:?}");
    desk.write("tree/usr/lib/notes", "");
    exclude("/usr/lib/notes");
    let run = desk.run(&BUILD);
    assert_eq!(run.status, 0, "{run:?}");
    assert!(!run.stderr.contains("exclude"), "{run:?}");
}

#[test]
fn words_about_a_release_cannot_pass_for_what_info_says() {
    let desk = Desk::new();
    desk.make_tree("tree");
    let words = r#""1\nsignatures     1, trusted (me)""#;
    desk.write(
        "release.yaml",
        format!("product: gateway\nversion: '1'\ndescription: {words}\nmeta: {{note: {words}}}\n"),
    );
    desk.does(&BUILD);
    let info = desk.does(&["info", "x.vab"]);
    let rows: Vec<&str> = info
        .lines()
        .filter(|line| line.starts_with("signatures"))
        .collect();
    assert_eq!(rows, ["signatures     no"], "{info}");
}

#[test]
fn no_output_takes_the_place_of_what_is_read() {
    let desk = Desk::new();
    desk.make_tree("tree");
    let build = |output: &str, result: &str, words: &[&str]| {
        let args = [
            "build",
            "tree",
            "-o",
            output,
            "--release",
            "release.yaml",
            "--key",
            "key.pem",
            "--result",
            result,
        ];
        desk.refuses(3, words, &args);
    };
    build("key.pem", "r.json", &["key.pem is the key"]);
    build(
        "release.yaml",
        "r.json",
        &["release.yaml is the release.yaml"],
    );
    build("x.vab", "key.pem", &["key.pem is the key"]);
    build("x.vab", "x.vab", &["x.vab is the bundle"]);
    build("x.vab", "keys/../x.vab", &["x.vab is the bundle"]);
    // Before the work, not after it.
    build("x.vab", "no/r.json", &["no/r.json", "no directory"]);
}

#[test]
fn owners_that_a_user_namespace_hides_are_not_packed() {
    let desk = Desk::new();
    desk.make_tree("tree");
    let namespace = ["unshare", "--user", "--map-root-user"];
    let made = desk.run_by(&namespace, &BUILD);
    assert_eq!(made.status, 0, "{made:?}");
    assert!(made.stderr.contains("trusted.* attributes"), "{made:?}");
    let kernel = desk.at("tree/boot/vmlinuz-6.1.0-10-amd64");
    desk.shell(&format!("setfacl -m u:7:r '{}'", kernel.display()));
    let words = ["boot/vmlinuz-6.1.0-10-amd64", "ACL", "user namespace"];
    desk.refuses_by(&namespace, 3, &words, &BUILD);
    std::os::unix::fs::chown(desk.at("tree/etc/os-release"), Some(0), Some(7)).unwrap();
    let words = ["etc/os-release", "group 65534", "user namespace", "as root"];
    desk.refuses_by(&namespace, 3, &words, &BUILD);
    std::os::unix::fs::chown(desk.at("tree/boot"), Some(5), None).unwrap();
    let words = ["reading boot:", "user 65534"];
    desk.refuses_by(&namespace, 3, &words, &BUILD);
    // Whoever sees all ids takes that one for what it is.
    std::os::unix::fs::chown(desk.at("tree/boot"), Some(65534), None).unwrap();
    let made = desk.run(&BUILD);
    assert_eq!(made.status, 0, "{made:?}");
    assert!(!made.stderr.contains("trusted.*"), "{made:?}");
}

#[test]
fn keys_that_are_none_are_refused_and_never_shown() {
    let desk = Desk::with_bundle();
    desk.refuses(
        2,
        &["--trusted nowhere"],
        &["verify", "good.vab", "--trusted", "nowhere"],
    );
    fs::copy(desk.at("key.pem"), desk.at("keys/secret.pem")).unwrap();
    desk.refuses(
        2,
        &["secret.pem", "private key"],
        &["verify", "good.vab", "--trusted", "keys"],
    );
    desk.refuses(
        2,
        &["release.yaml", "openssl genpkey"],
        &["sign", "good.vab", "--key", "release.yaml"],
    );
    desk.refuses(
        2,
        &["release.yaml", "64 bytes"],
        &["sign", "good.vab", "--attach", "release.yaml"],
    );
    desk.refuses(3, &["none.vab"], &["sign", "none.vab", "--key", "key.pem"]);

    let build = [
        "build",
        "tree",
        "-o",
        "x.vab",
        "--release",
        "key.pem",
        "--unsigned",
    ];
    desk.refuses(2, &["key.pem", "private key"], &build);
    let secret = fs::read_to_string(desk.at("key.pem")).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    assert!(!desk.run(&build).stderr.contains(secret));
}

#[test]
fn an_ordinary_user_looks_into_a_bundle_and_takes_single_files_out() {
    let desk = Desk::with_bundle();
    desk.shell(&format!(
        "install -d -o 1000 '{}'",
        desk.at("out").display()
    ));
    for args in [
        &["info", "good.vab"][..],
        &["verify", "good.vab", "--deep"],
        &["unpack", "good.vab", "out", "--only", "etc/os-release"],
    ] {
        let run = desk.run_as(1000, args);
        assert_eq!(run.status, 0, "{args:?}: {run:?}");
    }
    let restored = desk.at("out/etc/os-release");
    let text = std::fs::read_to_string(&restored).unwrap();
    assert!(text.contains("Debian 12"), "{text}");
    let owner = desk.shell(&format!("stat -c %u '{}'", restored.display()));
    assert_eq!(owner.trim(), "1000");
    let whole = desk.run_as(1000, &["unpack", "good.vab", "empty"]);
    assert_eq!(whole.status, 3, "{whole:?}");
    assert!(whole.stderr.contains("root rights"), "{whole:?}");
}

#[test]
fn a_machine_with_little_memory_proves_and_unpacks() {
    let desk = Desk::new();
    desk.make_tree("tree");
    // Nothing may grow with what is unpacked: no two pieces of it are alike.
    let noise = "for n in 1 2; do openssl rand 41943040 >\"$0/noise-$n\" || exit; done";
    let tree = desk.at("tree").display().to_string();
    desk.shell(&format!("bash -c '{noise}' '{tree}'"));
    // Half of the 256 MiB that an appliance has to spare.
    let limit = format!("prlimit --data={}", 128 << 20);
    desk.does(&BUILD);
    for verb in [
        "verify x.vab --allow-unsigned --trusted keys",
        "unpack x.vab empty --allow-unsigned --trusted keys",
    ] {
        let dir = desk.at("").display().to_string();
        desk.shell(&format!("cd '{dir}' && {limit} '{PROGRAM}' {verb} 2>&1"));
    }
    desk.shell(&format!(
        "cmp '{}' '{}'",
        desk.at("tree/noise-2").display(),
        desk.at("empty/noise-2").display()
    ));
}
