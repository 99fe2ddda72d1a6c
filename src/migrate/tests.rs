//! The ladder, on machines in words.

use super::facts::{Area, BootPlace, Facts, Group, Root, SwapArea};
use super::in_place::plan::Plan;
use super::ladder::{Fit, Rung, choose};
use crate::config::Config;
use crate::config::amount::Amount;
use crate::disk::lvm::LogicalVolume;
use crate::disk::swap;
use crate::disk::volumes::Room;

const MIB: u64 = 1 << 20;

fn volume(name: &str, mib: u64) -> LogicalVolume {
    LogicalVolume {
        name: name.to_owned(),
        size_bytes: mib * MIB,
        segment_type: "linear".to_owned(),
    }
}

/// A root of 1500 MiB in vg0 with so many MiB free, for a system of 1000 MiB.
fn machine(free_mib: u64) -> Facts {
    Facts {
        root: Root::Volume {
            group: "vg0".into(),
            volume: volume("root", 1500),
        },
        boot: BootPlace::Partition("/dev/vda2".into()),
        area: Area::Free(1900),
        group: Some(Group {
            count: 1,
            system_id: None,
            room: Room {
                extent_bytes: 4 * MIB,
                free_extents: free_mib / 4,
            },
            volumes: vec![volume("root", 1500), volume("swap", 512)],
        }),
        swap: None,
        occupied: Vec::new(),
        need_bytes: 1000 * MIB,
    }
}

fn with_swap(free_mib: u64, used_mib: u64, available_mib: Option<u64>) -> Facts {
    Facts {
        swap: Some(SwapArea {
            volume: volume("swap", 512),
            name: swap::Name::default(),
            used_bytes: used_mib * MIB,
            available_bytes: available_mib.map(|mib| mib * MIB),
        }),
        ..machine(free_mib)
    }
}

fn planned(facts: &Facts) -> Plan {
    let choice = choose(facts, &Config::default());
    match choice.rung {
        Rung::InPlace(plan) => *plan,
        Rung::InRam | Rung::Neither => panic!("{choice}"),
    }
}

fn refused(facts: &Facts) -> String {
    let choice = choose(facts, &Config::default());
    assert_eq!(choice.rung, Rung::InRam, "{choice}");
    choice.obstacles()
}

#[test]
fn a_second_root_is_as_large_as_the_first_where_there_is_room() {
    let plan = planned(&machine(4000));
    assert_eq!((plan.group.as_str(), plan.root.as_str()), ("vg0", "root"));
    assert_eq!((plan.back.name.as_str(), plan.back.extents), ("back", 375));
    assert_eq!(plan.swap, None);
    let [data] = &plan.shared[..] else {
        panic!("{plan}")
    };
    assert_eq!(
        (data.volume.name.as_str(), data.volume.extents),
        ("data", 128)
    );
    assert_eq!(data.mount_point, std::path::Path::new("/data"));
    // With less it is as large as there is room, if the system fits.
    assert_eq!(planned(&machine(1200)).back.extents, 300);
    assert_eq!(planned(&machine(1000)).back.extents, 250);
    assert!(refused(&machine(996)).contains("takes 1000 MiB, 996 MiB are free"));
}

#[test]
fn swap_gives_just_the_room_that_is_missing_unless_the_memory_needs_it() {
    let plan = planned(&with_swap(800, 10, Some(300)));
    let swap = plan.swap.as_ref().unwrap();
    assert_eq!((swap.from_extents, swap.to_extents), (128, 78));
    assert_eq!(plan.back.extents, 250);
    assert_eq!(plan.left_out, ["data is not made: 0 MiB are left for it"]);
    assert_eq!(planned(&with_swap(4000, 10, Some(300))).swap, None);
    for (free, used, available, word) in [
        (800, 100, Some(300), "the memory needs its swap"),
        (800, 0, None, "the memory needs its swap"),
        (500, 0, Some(4000), "too small to help"),
        // Something of it stays.
        (540, 0, Some(4000), "too small to help"),
    ] {
        let words = refused(&with_swap(free, used, available));
        assert!(words.contains(word), "{words}");
    }
}

#[test]
fn everything_that_is_in_the_way_is_told_at_once() {
    let mut facts = machine(100);
    facts.boot = BootPlace::OnRoot;
    facts.area = Area::Missing("reading the partition table of /dev/vda".into());
    if let Some(group) = &mut facts.group {
        group.count = 2;
        group.volumes.push(volume("back", 10));
    }
    let choice = choose(&facts, &Config::default());
    // Two of it are mended more easily than a disk is made anew.
    assert_eq!(choice.rung, Rung::Neither);
    let mut found = choice.findings.iter();
    assert!(found.all(|it| it.subject == "root" || it.fit != Fit::Fits));
    assert_eq!(choice.findings.len(), 6, "{choice}");
    let text = choice.to_string();
    for words in [
        "in place: does not fit",
        "no /boot",
        "bios_grub",
        "2 volume groups",
        "vg0/back already",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn a_system_with_two_roots_is_sent_to_apply() {
    let mut facts = machine(4000);
    if let Some(group) = &mut facts.group {
        group.volumes.push(volume("back", 1500));
    }
    let config = Config {
        vg: "vg0".into(),
        ..Config::default()
    };
    let choice = choose(&facts, &config);
    assert_eq!(choice.rung, Rung::Neither, "nothing is made anew");
    let words = choice.obstacles();
    assert!(words.contains("use `va-upgrade apply`"), "{words}");
}

#[test]
fn roots_that_are_no_plain_volume_are_for_the_second_rung() {
    let mut facts = machine(4000);
    facts.group = None;
    facts.root = Root::Other("/dev/vda1".into());
    assert!(refused(&facts).contains("/dev/vda1, which is no logical volume"));
    let mut facts = machine(4000);
    let thin = LogicalVolume {
        segment_type: "thin".into(),
        ..volume("root", 1500)
    };
    facts.root = Root::Volume {
        group: "vg0".into(),
        volume: thin,
    };
    assert!(refused(&facts).contains("thin, not linear"));
    let mut facts = machine(4000);
    facts.boot = BootPlace::Mapped("vg0-boot".into());
    facts.area = Area::Free(100);
    let words = refused(&facts);
    assert!(
        words.contains("vg0-boot") && words.contains("100 sectors"),
        "{words}"
    );
}

#[test]
fn the_layout_of_the_settings_is_made_as_far_as_there_is_room_and_nothing_is_hidden() {
    let mut config = Config::default();
    config.layout.data = Amount::Percent(50);
    config.layout.image = Amount::Bytes(1 << 30);
    let facts = machine(2500);
    let Rung::InPlace(plan) = choose(&facts, &config).rung else {
        panic!()
    };
    let made: Vec<(&str, u64)> = plan.made().map(|v| (v.name.as_str(), v.extents)).collect();
    assert_eq!(made, [("back", 375), ("data", 125), ("image", 125)]);
    let mut facts = machine(2500);
    facts.occupied = vec!["/data".into()];
    facts
        .group
        .as_mut()
        .unwrap()
        .volumes
        .push(volume("image", 10));
    let choice = choose(&facts, &config);
    let Rung::InPlace(plan) = &choice.rung else {
        panic!("{choice}")
    };
    assert_eq!(plan.shared, []);
    assert_eq!(
        plan.left_out,
        ["data is not made: /data holds something already"]
    );
}
