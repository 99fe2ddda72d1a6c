//! The script that tells of kernels: what it hands over, and where it is put.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::machine::scratch;
use crate::trial::trial_running;

#[test]
fn the_hook_hands_over_what_each_caller_says_and_never_fails() {
    const ADD: &str = "boot --adopt-kernel=6.1";
    const REMOVE: &str = "boot --adopt-kernel=6.1 --removed";
    let dir = scratch();
    let at = |name: &str| dir.path().join(name);
    let (program, told) = (at("va-upgrade"), at("told"));
    let fake = format!("#!/bin/sh\necho \"$@\" >{}\nexit 1\n", told.display());
    fs::write(&program, fake).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let script = include_str!("../../packaging/kernel-hook")
        .replace("/usr/sbin/va-upgrade", &program.display().to_string())
        .replace("/boot/va ", &format!("{} ", at("boot").display()));
    let call_for = |params: &str, place: &str, args: &[&str]| {
        fs::create_dir_all(at(place)).unwrap();
        let hook = at(place).join("hook");
        fs::write(&hook, &script).unwrap();
        let _ = fs::remove_file(&told);
        let mut command = Command::new("sh");
        command.env("DEB_MAINT_PARAMS", params);
        let output = command.arg(hook).args(args).output().unwrap();
        assert!(
            output.status.success() && output.stdout.is_empty(),
            "{output:?}"
        );
        fs::read_to_string(&told)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let call = |place: &str, args: &[&str]| call_for("", place, args);
    assert_eq!(call("postinst.d", &["6.1"]), "", "no appliance");
    fs::create_dir(at("boot")).unwrap();
    for (place, args, wanted) in [
        ("install.d", &["add", "6.1", "/boot/x", "/i"][..], ADD),
        ("install.d", &["remove", "6.1"], REMOVE),
        ("install.d", &["inspect", "6.1"], ""),
        ("postinst.d", &["6.1", "/boot/vmlinuz-6.1"], ADD),
        ("post-update.d", &["6.1", "/boot/initrd.img-6.1"], ADD),
        ("prerm.d", &["6.1"], REMOVE),
        ("postrm.d", &["6.1"], REMOVE),
        ("postinst.d", &[], ""),
    ] {
        assert_eq!(call(place, args), wanted, "{place} {args:?}");
    }
    // Of Debian's packages, which call the scripts for a new version as well.
    for place in ["prerm.d", "postrm.d"] {
        for (params, wanted) in [
            ("remove", REMOVE),
            ("purge", REMOVE),
            ("'remove' 'in-favour' 'x'", REMOVE),
            ("upgrade 6.1.1-2", ""),
            ("'upgrade' '6.1.1-2'", ""),
            ("failed-upgrade 6.1.1-2", ""),
            ("abort-install", ""),
            ("* remove", ""),
        ] {
            let told = call_for(params, place, &["6.1", "/boot/vmlinuz-6.1"]);
            assert_eq!(told, wanted, "{place} {params}");
        }
    }
    assert_eq!(call_for("configure 6.1", "postinst.d", &["6.1"]), ADD);
}

#[test]
fn a_new_system_and_the_running_one_get_the_hook_in_every_place() {
    let (_dir, machine) = trial_running();
    for root in ["/devices/VA-back", ""] {
        for place in [
            "usr/lib/kernel/install.d/95-va-upgrade.install",
            "etc/kernel/postinst.d/zz-va-upgrade",
            "etc/kernel/prerm.d/zz-va-upgrade",
            "etc/kernel/postrm.d/zz-va-upgrade",
            "etc/initramfs/post-update.d/va-upgrade",
        ] {
            let meta = machine.at(&format!("{root}/{place}")).metadata().unwrap();
            assert_eq!(meta.permissions().mode() & 0o777, 0o755, "{root}/{place}");
        }
    }
}
