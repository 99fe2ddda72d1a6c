//! What is the customer's after two upgrades, there and back, on the fake machine; and
//! what of it a hostile user cannot have read.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::apply::run;
use crate::machine::scratch;
use crate::release::make_bundle;
use crate::sync::{SHIPPED, delivered, live_in, newer, put};

/// Files below `etc`, `root` and `home` of the tree at `root`, and links as where they
/// lead.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut todo = vec![root.join("etc"), root.join("root"), root.join("home")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            let relative = path.strip_prefix(root).unwrap().to_owned();
            if path.is_symlink() {
                let end = fs::read_link(path).unwrap();
                all.insert(relative, end.into_os_string().into_encoded_bytes());
            } else if path.is_dir() {
                todo.push(path);
            } else {
                all.insert(relative, fs::read(path).unwrap());
            }
        }
    }
    all
}

#[test]
fn an_upgrade_there_and_back_leaves_the_customers_own_byte_for_byte() {
    let dir = scratch();
    let machine = delivered();
    live_in(&machine);
    put(&machine.at("/"), "home/admin/.profile", "own\n");
    let before = tree(&machine.at("/"));
    run(&machine, &newer(dir.path())).unwrap();
    machine.swap_slots();
    machine.boot("back", "trial");
    machine.confirm().unwrap();

    let back = dir.path().join("tree-9.5.0");
    for (path, text) in SHIPPED {
        put(&back, path, text);
    }
    run(&machine, &make_bundle(dir.path(), "9.5.0")).unwrap();
    let after = tree(&machine.at("/devices/VA-root"));
    // What each system has of its own, and what no rule carries.
    let is_systems = |path: &&PathBuf| {
        let own = [
            "etc/fstab",
            "etc/os-release",
            "etc/pam.d/login",
            "etc/strange/own.conf",
            "etc/va-upgrade/release.yaml",
        ];
        own.iter().any(|own| path.as_path() == Path::new(own))
    };
    let differing: Vec<&PathBuf> = before
        .keys()
        .filter(|path| !is_systems(path) && before.get(*path) != after.get(*path))
        .collect();
    assert!(differing.is_empty(), "{differing:?}");
    let is_carried = |path: &Path| before.contains_key(path) || path.ends_with("va-upgrade");
    let new: Vec<&PathBuf> = after
        .keys()
        .filter(|path| !is_carried(path) && path.starts_with("home"))
        .collect();
    assert!(new.is_empty(), "{new:?}");
    assert!(!after.contains_key(Path::new("etc/cron.d/shipped")));
}

#[test]
fn a_link_in_place_of_a_directory_lets_nobody_read_what_is_behind_it() {
    let dir = scratch();
    let machine = delivered();
    let root = machine.at("/");
    let secret = dir.path().join("secret");
    put(&secret, "own.conf", "root's alone\n");
    put(&root, "etc/app/sub/own.conf", "a=1\n");
    let rule = "- {name: app, way: transform, run: /usr/bin/convert, paths: [/etc/app/**]}\n";
    put(&root, "etc/va-upgrade/sync.d/app.yaml", rule);
    fs::remove_dir_all(root.join("etc/app/sub")).unwrap();
    symlink(&secret, root.join("etc/app/sub")).unwrap();
    run(&machine, &newer(dir.path())).unwrap();
    let slot = machine.at("/devices/VA-back");
    assert!(slot.join("etc/app/sub").is_symlink());
    for (path, content) in tree(&slot) {
        let text = String::from_utf8_lossy(&content).to_lowercase();
        assert!(!text.contains("alone"), "{path:?}");
    }
}
