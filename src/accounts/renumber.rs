//! Old ids made new ones among files that already have either.
//!
//! An id may be an old one and a new one (1000 becomes 1001, 1001 becomes 1002), so
//! files go through ids that nobody has: a run that was cut short then knows from the
//! file itself how far it came.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use super::ids::IdMap;

/// The most different ids that files may have.
const MAX_IDS: usize = 1 << 16;

/// systemd's list of ids knows no use for these: files of nobody get one.
const NOBODYS: std::ops::RangeInclusive<u32> = 60_578..=61_183;

/// Likewise, for files on the way.
const ON_THE_WAY: std::ops::RangeInclusive<u32> = 3_000_000_000..=3_000_999_999;

/// The ids that files have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    users: BTreeSet<u32>,
    groups: BTreeSet<u32>,
}

impl Ids {
    /// Adds a user and a group.
    ///
    /// # Errors
    /// When there are too many.
    pub fn add(&mut self, user: Option<u32>, group: Option<u32>) -> Result<()> {
        self.users.extend(user);
        self.groups.extend(group);
        ensure!(
            self.users.len().max(self.groups.len()) <= MAX_IDS,
            "its files have more than {MAX_IDS} different owners"
        );
        Ok(())
    }
}

impl IdMap {
    /// Returns the map for files that have the ids `used`, such that no two of them
    /// become one: whoever has an id that is to be another's gets one of nobody.
    ///
    /// # Errors
    /// When no id is free.
    pub fn completed(&self, used: &Ids) -> Result<IdMap> {
        Ok(IdMap {
            users: completed(&self.users, &used.users)?,
            groups: completed(&self.groups, &used.groups)?,
        })
    }

    /// Returns two maps that make of it two steps: to ids that no file has, and on
    /// from there.
    ///
    /// # Errors
    /// When too few ids are free.
    pub fn in_two_steps(&self, used: &Ids) -> Result<(IdMap, IdMap)> {
        let (to_users, users) = in_two_steps(&self.users, &used.users)?;
        let (to_groups, groups) = in_two_steps(&self.groups, &used.groups)?;
        let away = IdMap {
            users: to_users,
            groups: to_groups,
        };
        Ok((away, IdMap { users, groups }))
    }
}

type Map = BTreeMap<u32, u32>;

fn completed(map: &Map, used: &BTreeSet<u32>) -> Result<Map> {
    let mut all = map.clone();
    let mut free = free(NOBODYS, map, used);
    for id in map.values() {
        if used.contains(id) && !map.contains_key(id) {
            all.insert(*id, free.next().context("no id is free")?);
        }
    }
    Ok(all)
}

fn in_two_steps(map: &Map, used: &BTreeSet<u32>) -> Result<(Map, Map)> {
    let mut free = free(ON_THE_WAY, map, used);
    let (mut away, mut home) = (Map::new(), Map::new());
    for (old, new) in map {
        let between = free.next().context("no id is free")?;
        away.insert(*old, between);
        home.insert(between, *new);
    }
    Ok((away, home))
}

/// Lists the ids of a range that nobody has.
fn free(
    range: std::ops::RangeInclusive<u32>,
    map: &Map,
    used: &BTreeSet<u32>,
) -> impl Iterator<Item = u32> {
    let taken: BTreeSet<u32> = map.values().chain(map.keys()).copied().collect();
    range.filter(move |id| !taken.contains(id) && !used.contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(users: &[u32]) -> Ids {
        Ids {
            users: users.iter().copied().collect(),
            groups: BTreeSet::new(),
        }
    }

    fn map(pairs: &[(u32, u32)]) -> IdMap {
        IdMap {
            users: pairs.iter().copied().collect(),
            groups: BTreeMap::new(),
        }
    }

    #[test]
    fn who_has_an_id_that_is_to_be_anothers_becomes_nobody_and_is_found_again() {
        let chain = map(&[(1000, 1001), (1001, 1002)]);
        let used = ids(&[0, 1000, 1001, 1002, 60_578]);
        let all = chain.completed(&used).unwrap();
        assert_eq!(all, map(&[(1000, 1001), (1001, 1002), (1002, 60_579)]));
        assert_eq!(all.reversed().reversed(), all);
        assert_eq!(chain.completed(&ids(&[1000])).unwrap(), chain);
        let many: Vec<u32> = NOBODYS.chain([1001]).collect();
        assert!(map(&[(1000, 1001)]).completed(&ids(&many)).is_err());
    }

    #[test]
    fn files_of_too_many_owners_are_not_looked_at_any_further() {
        let mut ids = Ids::default();
        for id in 0..=u32::try_from(MAX_IDS).unwrap() {
            if let Err(error) = ids.add(Some(id), None) {
                assert!(error.to_string().contains("65536"), "{error}");
                return;
            }
        }
        panic!("no end");
    }

    proptest! {
        #[test]
        fn two_steps_make_one_and_each_may_be_done_again(
            pairs in proptest::collection::btree_map(0..8u32, 0..8u32, 0..6),
            used in proptest::collection::btree_set(0..10u32, 0..10),
        ) {
            let mut seen = BTreeSet::new();
            let pairs: Map = pairs.into_iter().filter(|(_, new)| seen.insert(*new)).collect();
            let map = IdMap { users: pairs, groups: Map::new() };
            let used = Ids { users: used, groups: BTreeSet::new() };
            let all = map.completed(&used).unwrap();
            let (away, home) = all.in_two_steps(&used).unwrap();
            let mut ends = BTreeSet::new();
            for id in &used.users {
                let between = away.user(*id);
                prop_assert_eq!(away.user(between), between);
                let end = home.user(between);
                prop_assert_eq!(home.user(end), end);
                prop_assert_eq!(end, all.user(*id));
                prop_assert!(ends.insert(end), "two became {}", end);
                prop_assert_eq!(all.reversed().user(end), *id);
            }
        }
    }
}
