//! Files that follow their accounts from one id to another, on a real file system.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use va_upgrade::accounts::{IdMap, Ids};
use va_upgrade::sync::owners::{Owned, Pass, Privileges};
use va_upgrade::sync::rules::DataRule;
use va_upgrade::system::{Host, System};
use va_upgrade::tree::acl;

fn rules(text: &str) -> Vec<DataRule> {
    serde_json::from_str(text).unwrap()
}

fn map() -> IdMap {
    IdMap {
        users: [(1000, 1001), (1001, 1002)].into(),
        groups: [(1000, 1001)].into(),
    }
}

fn put(path: &Path, uid: u32, gid: u32, mode: u32) {
    File::create(path).unwrap();
    chown(path, Some(uid), Some(gid)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn owner(path: &Path) -> (u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid())
}

/// Makes both passes; in the first one only what is older than `since`.
fn follow(owned: &Owned, map: &IdMap, since: Option<u64>) {
    follow_from(owned, map, &owned.ids().unwrap(), since);
}

/// Likewise, where files had the ids `used`.
fn follow_from(owned: &Owned, map: &IdMap, used: &Ids, since: Option<u64>) {
    let all = map.completed(used).unwrap();
    let (away, home) = all.in_two_steps(used).unwrap();
    for (map, since) in [(&away, since), (&away, since), (&home, None), (&home, None)] {
        let passed = owned.pass(&mut Pass {
            map,
            since,
            keep: &mut |_| Ok(()),
        });
        assert_eq!(passed.unwrap().failed, 0);
    }
}

#[test]
fn files_change_owner_once_and_keep_all_else_and_go_back() {
    let data = tempfile::tempdir().unwrap();
    let at = |path: &str| data.path().join(path);
    for dir in ["app/tmp/deep", "app/left", "other"] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    put(&at("app/own"), 1000, 1000, 0o640);
    put(&at("app/next"), 1001, 5, 0o600);
    put(&at("app/nobodys"), 1002, 0, 0o600);
    put(&at("app/tmp/deep/tool"), 1000, 1000, 0o4755);
    put(&at("app/left/x"), 1000, 1000, 0o600);
    put(&at("app/zz"), 1000, 1000, 0o4711);
    put(&at("other/x"), 1000, 1000, 0o600);
    chown(at("app/tmp/deep"), Some(1000), Some(1000)).unwrap();
    fs::hard_link(at("app/own"), at("app/tmp/again")).unwrap();
    symlink("/etc/passwd", at("app/link")).unwrap();
    lchown(at("app/link"), Some(1000), Some(1000)).unwrap();
    symlink("../other", at("app/out")).unwrap();
    let text = "user::rw-,user:1000:rw-,user:1001:r--,group::r--,mask::rw-,other::---";
    let list = acl::from_text(text.as_bytes()).unwrap();
    xattr::set(at("app/next"), "system.posix_acl_access", &list).unwrap();
    xattr::set(at("app/tmp/deep"), "system.posix_acl_default", &list).unwrap();
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    xattr::set(at("app/tmp/deep/tool"), "security.capability", capability).unwrap();

    let rules = rules(
        r#"[{"data": ["/app/left"], "ids": "keep"}, {"data": ["/app", "/none"], "ids": "follow"}]"#,
    );
    let owned = Owned {
        data: data.path(),
        rules: &rules,
    };
    // A first run is cut short in the middle.
    let used = owned.ids().unwrap();
    let (away, _) = map().completed(&used).unwrap().in_two_steps(&used).unwrap();
    let mut count = 0;
    let cut = owned.pass(&mut Pass {
        map: &away,
        since: None,
        keep: &mut |_| {
            count += 1;
            anyhow::ensure!(count < 3, "the power is cut");
            Ok(())
        },
    });
    assert!(cut.is_err() && owner(&at("app/own")).0 != owner(&at("app/zz")).0);
    let outside = fs::metadata("/etc/passwd").unwrap().uid();
    follow_from(&owned, &map(), &used, None);
    assert_eq!(owner(&at("app/own")), (1001, 1001));
    assert_eq!(owner(&at("app/zz")), (1001, 1001));
    assert_eq!(owner(&at("app/tmp/again")), (1001, 1001));
    assert_eq!(owner(&at("app/next")), (1002, 5));
    assert_eq!(owner(&at("app/nobodys")), (60_578, 0));
    assert_eq!(owner(&at("app/link")), (1001, 1001));
    assert_eq!(owner(&at("app/tmp/deep")), (1001, 1001));
    assert_eq!(owner(&at("app/left/x")), (1000, 1000));
    assert_eq!(owner(&at("other/x")), (1000, 1000));
    assert_eq!(fs::metadata("/etc/passwd").unwrap().uid(), outside);
    let tool = fs::metadata(at("app/tmp/deep/tool")).unwrap();
    assert_eq!(
        (tool.uid(), tool.permissions().mode() & 0o7777),
        (1001, 0o4755)
    );
    let kept = xattr::get(at("app/tmp/deep/tool"), "security.capability").unwrap();
    assert_eq!(kept.unwrap(), capability);
    for (path, name) in [
        ("app/next", "system.posix_acl_access"),
        ("app/tmp/deep", "system.posix_acl_default"),
    ] {
        let value = xattr::get(at(path), name).unwrap().unwrap();
        let now = acl::to_text(&value).unwrap();
        assert!(now.contains("user:1001:rw-,user:1002:r--"), "{path}: {now}");
    }

    let used = owned.ids().unwrap();
    let there = map().users;
    assert_eq!(there.len(), 2);
    let back = IdMap {
        users: [(1001, 1000), (1002, 1001), (60_578, 1002)].into(),
        groups: [(1001, 1000)].into(),
    };
    assert_eq!(back.completed(&used).unwrap(), back);
    follow(&owned, &back, None);
    assert_eq!(owner(&at("app/own")), (1000, 1000));
    assert_eq!(owner(&at("app/next")), (1001, 5));
    assert_eq!(owner(&at("app/nobodys")), (1002, 0));
}

#[test]
fn what_the_running_system_has_made_is_its_own_already() {
    let data = tempfile::tempdir().unwrap();
    let at = |path: &str| data.path().join(path);
    fs::create_dir(at("app")).unwrap();
    put(&at("app/before"), 1000, 0, 0o600);
    std::thread::sleep(std::time::Duration::from_millis(50));
    let now = Host::new(false).now().duration_since(std::time::UNIX_EPOCH);
    let now = u64::try_from(now.unwrap().as_nanos()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    put(&at("app/since"), 1001, 0, 0o600);
    let rules = rules(r#"[{"data": ["/app"], "ids": "follow"}]"#);
    let owned = Owned {
        data: data.path(),
        rules: &rules,
    };
    follow(&owned, &map(), Some(now));
    assert_eq!(owner(&at("app/before")).0, 1001);
    assert_eq!(owner(&at("app/since")).0, 1001);
}

#[test]
fn a_file_whose_change_was_cut_short_has_its_privileges_back() {
    let data = tempfile::tempdir().unwrap();
    let at = |path: &str| data.path().join(path);
    fs::create_dir(at("app")).unwrap();
    put(&at("app/tool"), 1000, 0, 0o4755);
    let rules = rules(r#"[{"data": ["/app"], "ids": "follow"}]"#);
    let owned = Owned {
        data: data.path(),
        rules: &rules,
    };
    let map = IdMap {
        users: [(1000, 3_000_000_000)].into(),
        ..IdMap::default()
    };
    let mut kept: Option<Privileges> = None;
    let mut pass = Pass {
        map: &map,
        since: None,
        keep: &mut |lost| {
            kept = lost.cloned().or(kept.take());
            Ok(())
        },
    };
    owned.pass(&mut pass).unwrap();
    fs::set_permissions(at("app/tool"), Permissions::from_mode(0o755)).unwrap();
    let kept = kept.unwrap();
    owned.give_back(&kept).unwrap();
    let mode = || fs::metadata(at("app/tool")).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(), 0o4755);

    // Nobody else's file gets them.
    fs::remove_file(at("app/tool")).unwrap();
    owned.give_back(&kept).unwrap();
    symlink("/etc/passwd", at("app/tool")).unwrap();
    owned.give_back(&kept).unwrap();
    assert_eq!(fs::metadata("/etc/passwd").unwrap().mode() & 0o4000, 0);
}
