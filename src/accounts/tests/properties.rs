//! What holds of every merge, whatever the systems.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::accounts::{AccountFiles, merge, rewrite_owner};

const NAMES: [&str; 8] = ["admin", "joe", "ann", "app", "ntp", "wheel", "ops", "x:y"];
const IDS: [u32; 10] = [0, 5, 38, 997, 999, 1000, 1001, 1002, 65534, 70000];
const HASHES: [&str; 5] = ["$6$a$b", "$y$j9T$a$b", "!", "", "*"];

prop_compose! {
    fn account()(name in 0..NAMES.len(), uid in 0..IDS.len(), gid in 0..IDS.len(),
                 hash in 0..HASHES.len(), has_shadow in prop::bool::weighted(0.9),
                 shell in prop::sample::select(vec!["/bin/sh", "/sbin/nologin", "/bin/sh\r"]))
                -> (String, Option<String>) {
        let (name, uid, gid) = (NAMES[name], IDS[uid], IDS[gid]);
        let shadow = format!("{name}:{}:1:0:9:7:::\n", HASHES[hash]);
        (format!("{name}:x:{uid}:{gid}::/home:{shell}\n"), has_shadow.then_some(shadow))
    }
}

prop_compose! {
    fn group()(name in 0..NAMES.len(), gid in 0..IDS.len(), members in vec(0..NAMES.len(), 0..4),
               has_shadow in any::<bool>()) -> (String, Option<String>) {
        let name = NAMES[name];
        let members: Vec<&str> = members.into_iter().map(|at| NAMES[at]).collect();
        let members = members.join(",");
        let shadow = format!("{name}:!:{members}:{members}\n");
        (format!("{name}:x:{}:{members}\n", IDS[gid]), has_shadow.then_some(shadow))
    }
}

fn ranges() -> impl Strategy<Value = Option<Vec<u8>>> {
    let name = prop::sample::select(vec!["admin", "joe", "ann", "app", "1000", "gone"]);
    let start = prop::sample::select(vec![0u32, 70_000, 100_000, 130_000, 165_536, 4_000_000_000]);
    let count = prop::sample::select(vec![0u32, 10_000, 65_536, 300_000_000]);
    let line =
        (name, start, count).prop_map(|(name, start, count)| format!("{name}:{start}:{count}\n"));
    prop::option::of(vec(line, 0..4).prop_map(|lines| lines.concat().into_bytes()))
}

prop_compose! {
    fn system()(accounts in vec(account(), 0..6), groups in vec(group(), 0..6),
                subuid in ranges(), subgid in ranges(), has_shadow in prop::bool::weighted(0.9),
                has_gshadow in any::<bool>(), is_cut in any::<bool>(), has_directory in any::<bool>()) -> Shown {
        let joined = |first: &str, lines: Vec<String>| [first, &lines.concat()].concat().into_bytes();
        let (accounts, shadow): (Vec<_>, Vec<_>) = accounts.into_iter().unzip();
        let (groups, gshadow): (Vec<_>, Vec<_>) = groups.into_iter().unzip();
        let shadow = joined("root:*:1::::::\n", shadow.into_iter().flatten().collect());
        let gshadow = joined("root:::\n", gshadow.into_iter().flatten().collect());
        let mut files = AccountFiles {
            passwd: joined("root:x:0:0::/root:/bin/sh\n", accounts),
            shadow: has_shadow.then_some(shadow),
            group: Some(joined("root:x:0:\n", groups)),
            gshadow: has_gshadow.then_some(gshadow),
            subuid,
            subgid,
            ..AccountFiles::default()
        };
        if is_cut {
            files.passwd.pop();
            files.group.as_mut().unwrap().pop();
        }
        files.conventions.has_directory = has_directory;
        Shown(files)
    }
}

/// Texts to be read by whoever looks for the fault.
struct Shown(AccountFiles);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&show(&self.0))
    }
}

fn show(files: &AccountFiles) -> String {
    let texts = [
        Some(&files.passwd),
        files.shadow.as_ref(),
        files.group.as_ref(),
        files.gshadow.as_ref(),
        files.subuid.as_ref(),
        files.subgid.as_ref(),
    ];
    let text = |text: Option<&Vec<u8>>| text.map(|t| String::from_utf8_lossy(t).into_owned());
    format!("{:#?}", texts.map(text))
}

/// Name and id of each line that counts, as glibc reads it.
fn named(text: &[u8], width: usize) -> BTreeMap<String, u32> {
    let mut ids = BTreeMap::new();
    for line in String::from_utf8_lossy(text).split('\n') {
        let fields: Vec<&str> = line.split(':').collect();
        let is_sound = fields.len() == width && !line.contains('\r');
        if let Some(id) = fields
            .get(2)
            .filter(|_| is_sound)
            .and_then(|id| id.parse().ok())
        {
            ids.entry(fields[0].to_owned()).or_insert(id);
        }
    }
    ids
}

fn pairs(ids: &BTreeMap<String, u32>) -> BTreeSet<(&str, &str)> {
    let all = ids.iter().flat_map(|a| ids.iter().map(move |b| (a, b)));
    all.filter(|(a, b)| a.0 < b.0 && a.1 == b.1)
        .map(|(a, b)| (a.0.as_str(), b.0.as_str()))
        .collect()
}

/// No two names share an id that shared none before: in the image, in the old
/// system, or by way of a name that shared one with each.
fn check_shared(
    width: usize,
    old: &[u8],
    image: &[u8],
    target: &[u8],
) -> Result<(), TestCaseError> {
    let (old, image, target) = (named(old, width), named(image, width), named(target, width));
    let before = &pairs(&old) | &pairs(&image);
    for (a, b) in pairs(&target) {
        let mut reached = BTreeSet::from([a]);
        let mut size = 0;
        while reached.len() > size {
            size = reached.len();
            let steps = before
                .iter()
                .filter(|(x, y)| reached.contains(x) || reached.contains(y));
            let steps: Vec<&str> = steps.flat_map(|(x, y)| [*x, *y]).collect();
            reached.extend(steps);
        }
        prop_assert!(reached.contains(b), "{a} and {b} share an id");
    }
    Ok(())
}

/// Ranges that count, apart from each other where the image's are.
fn overlaps(text: &Option<Vec<u8>>) -> usize {
    let text = String::from_utf8_lossy(text.as_deref().unwrap_or_default()).into_owned();
    let mut ranges: Vec<(u64, u64)> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':').skip(1);
            let start: u64 = fields.next()?.parse().ok()?;
            Some((start, start + fields.next()?.parse::<u64>().ok()?))
        })
        .filter(|(start, end)| start < end)
        .collect();
    ranges.sort_unstable();
    ranges.windows(2).filter(|two| two[0].1 > two[1].0).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_merge_keeps_names_apart_and_every_account_whole(
        pristine in prop::option::of(system()), old in system(), image in system()
    ) {
        let (pristine, old, image) = (pristine.map(|s| s.0), old.0, image.0);
        let merged = merge(pristine.as_ref(), &old, &image).unwrap();
        let target = &merged.files;
        check_shared(7, &old.passwd, &image.passwd, &target.passwd)?;
        let groups = |files: &AccountFiles| files.group.clone().unwrap_or_default();
        check_shared(4, &groups(&old), &groups(&image), &groups(target))?;

        let known = named(&image.passwd, 7);
        let gids: BTreeSet<u32> = named(&groups(target), 4).into_values().collect();
        let text = String::from_utf8_lossy(&target.passwd).into_owned();
        for line in text.split('\n') {
            let fields: Vec<&str> = line.split(':').collect();
            if !known.contains_key(fields[0]) && fields.len() == 7 && !line.contains('\r') {
                let gid: u32 = fields[3].parse().unwrap();
                prop_assert!(gids.contains(&gid), "{line} has no group");
            }
        }
        // Files follow their name, or stay nobody's; and back again.
        let back = merged.ids.reversed();
        for id in IDS {
            let there = rewrite_owner(id, id, &merged.ids);
            if merged.ids.users.contains_key(&id) {
                prop_assert_eq!(rewrite_owner(there.0, 0, &back).0, id);
            }
        }
        prop_assert_eq!(merged.ids.users.len(), back.users.len());
        prop_assert!(!merged.ids.users.contains_key(&0) && !back.users.contains_key(&0));
        if overlaps(&image.subuid) == 0 {
            prop_assert_eq!(overlaps(&target.subuid), 0);
        }
    }

    #[test]
    fn what_nobody_changed_is_the_images(
        image in system(), more in system()
    ) {
        let (image, more) = (image.0, more.0);
        let same = merge(Some(&image), &image, &image).unwrap();
        prop_assert_eq!(&same.files, &image);
        prop_assert!(same.ids.is_empty());
        // A release with other system accounts, passwords and memberships.
        let less = AccountFiles {
            passwd: b"root:x:0:0::/:/bin/sh\nntp:x:38:38::/:/bin/sh\n".to_vec(),
            group: Some(b"root:x:0:\nwheel:x:10:ntp\n".to_vec()),
            ..AccountFiles::default()
        };
        let same = merge(Some(&less), &less, &more).unwrap();
        prop_assert_eq!(&same.files, &more);
    }

    #[test]
    fn a_second_merge_changes_nothing(
        pristine in prop::option::of(system()), old in system(), image in system()
    ) {
        let (pristine, old, image) = (pristine.map(|s| s.0), old.0, image.0);
        let once = merge(pristine.as_ref(), &old, &image).unwrap();
        let twice = merge(pristine.as_ref(), &old, &once.files).unwrap();
        prop_assert_eq!(show(&twice.files), show(&once.files));
    }
}
