//! Which id each name gets: its old one if no other name has it, else a free one.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result};

use super::super::notes::{Notes, Reason};
use super::super::side::id_of;
use super::super::table::{Name, Table, field};
use super::sides::is_fixed;

/// The last uid useradd(8) gives away.
const PERSON_MAX: u32 = 60_000;
/// Ids below are given away by distributions, not on systems.
const SYSTEM_MIN: u32 = 201;
/// systemd's list of ids knows no use for these; nobody gets one by itself.
const PARKED: std::ops::RangeInclusive<u32> = 60_578..=61_183;

/// Names and ids of the old system and of the target, of users or of groups.
pub struct Claims {
    /// The old system's, in the order of its file.
    old: Vec<(Name, u32)>,
    old_ids: HashMap<Name, u32>,
    target: HashMap<Name, u32>,
    used: HashSet<u32>,
    /// The name the old system shows for an id.
    first: HashMap<u32, Name>,
    /// Ids that one name has in both.
    unmoved: HashSet<u32>,
    /// Where the first name of an old id went, if it came over.
    moved: HashMap<u32, u32>,
    /// Ids that mean somebody on any side; files may still have them.
    avoided: HashSet<u32>,
    minimum: u32,
    next_person: u32,
    next_system: u32,
}

/// What a name got.
pub struct Claim {
    was: u32,
    /// The id in the target.
    pub id: u32,
    shares: bool,
}

impl Claim {
    /// Notes what is not as it was, or not as it should be.
    pub fn tell(&self, what: &str, name: &[u8], notes: &mut Notes) {
        if self.id != self.was {
            let text = format!(
                "{what} id {} is {} in the target, where another name has it",
                self.was, self.id
            );
            notes.add(Reason::Renumbered, name, text);
        }
        if self.shares {
            let text = format!("shares {what} id {} with another name, as before", self.id);
            notes.add(Reason::Shared, name, text);
        }
    }
}

impl Claims {
    /// Starts with the names that the target has without the old system's.
    pub fn new(pristine: Option<&Table>, old: &Table, target: &Table, minimum: u32) -> Claims {
        let named = |table: &Table| -> Vec<(Name, u32)> {
            let pair = |record: &Vec<Vec<u8>>| (record[field::NAME].clone(), id_of(record));
            table.records().map(pair).collect()
        };
        let old_list = named(old);
        let old_ids: HashMap<Name, u32> = old_list.iter().cloned().collect();
        let target_ids: HashMap<Name, u32> = named(target).into_iter().collect();
        let mut first = HashMap::new();
        for (name, id) in &old_list {
            first.entry(*id).or_insert_with(|| name.clone());
        }
        let unmoved = target_ids
            .iter()
            .filter(|(name, id)| old_ids.get(*name) == Some(id))
            .map(|(_, id)| *id)
            .collect();
        let used = target.all_records().map(id_of);
        let used: HashSet<u32> = used.chain(target.hidden_ids()).collect();
        let tables = [pristine, Some(old), Some(target)].into_iter().flatten();
        let avoided = tables.flat_map(Table::all_records).map(id_of).collect();
        Claims {
            old: old_list,
            old_ids,
            target: target_ids,
            used,
            first,
            unmoved,
            moved: HashMap::new(),
            avoided,
            minimum,
            next_person: minimum,
            next_system: minimum,
        }
    }

    /// Keeps more ids from being given away.
    pub fn avoid(&mut self, ids: impl Iterator<Item = u32>) {
        self.avoided.extend(ids);
    }

    /// Returns the id of a name in the target.
    pub fn get(&self, name: &[u8]) -> Option<u32> {
        self.target.get(name).copied()
    }

    /// Lists all ids of the target.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.used.iter().copied()
    }

    /// Gives a name of the old system an id of the target: its own, that of the
    /// name it shared one with, `preferred`, or a free one.
    ///
    /// # Errors
    /// When there is none left.
    pub fn take(&mut self, name: &Name, is_person: bool, preferred: Option<u32>) -> Result<Claim> {
        let was = *self.old_ids.get(name).context("it has none")?;
        let partner = self.first.get(&was).filter(|first| *first != name);
        let partner = partner.and_then(|first| self.get(first));
        let shared = if self.unmoved.contains(&was) {
            Some(was)
        } else {
            self.moved.get(&was).copied().or(partner)
        };
        let id = match shared {
            Some(id) => id,
            None if !self.used.contains(&was) => was,
            None => self.free(is_person, preferred)?,
        };
        self.moved.entry(was).or_insert(id);
        self.insert(name.clone(), id);
        Ok(Claim {
            was,
            id,
            shares: shared.is_some(),
        })
    }

    /// Gives a name that the old system lacks an id: `wanted`, or a free one.
    ///
    /// # Errors
    /// When there is none left.
    pub fn take_new(&mut self, name: &Name, wanted: u32, is_person: bool) -> Result<u32> {
        let id = if self.used.contains(&wanted) {
            self.free(is_person, None)?
        } else {
            wanted
        };
        self.insert(name.clone(), id);
        Ok(id)
    }

    fn insert(&mut self, name: Name, id: u32) {
        self.used.insert(id);
        self.target.insert(name, id);
    }

    fn is_free(&self, id: u32) -> bool {
        !is_fixed(id) && !self.used.contains(&id) && !self.avoided.contains(&id)
    }

    fn free(&mut self, is_person: bool, preferred: Option<u32>) -> Result<u32> {
        if let Some(id) = preferred.filter(|id| self.is_free(*id)) {
            return Ok(id);
        }
        // Systems give their own accounts ids downwards from the highest one.
        while !is_person && self.next_system > SYSTEM_MIN {
            self.next_system -= 1;
            if self.is_free(self.next_system) {
                return Ok(self.next_system);
            }
        }
        while self.next_person <= PERSON_MAX {
            self.next_person += 1;
            if self.is_free(self.next_person - 1) {
                return Ok(self.next_person - 1);
            }
        }
        anyhow::bail!(
            "none is free between {} and {PERSON_MAX}; delete accounts that are not needed",
            self.minimum
        )
    }

    /// Lists the people of both whose id is another now.
    pub fn persons_moved(&self, is_person: impl Fn(&[u8]) -> bool) -> Vec<(Name, u32, u32)> {
        let both = self
            .old
            .iter()
            .filter_map(|(name, was)| Some((name.clone(), *was, self.get(name)?)));
        both.filter(|(name, was, is)| was != is && is_person(name))
            .collect()
    }

    /// Returns where files of each old id go.
    pub fn map(&self, what: &str, notes: &mut Notes) -> BTreeMap<u32, u32> {
        let mut ends: BTreeMap<u32, Option<u32>> = BTreeMap::new();
        for (name, was) in &self.old {
            let end = ends.entry(*was).or_default();
            *end = end.or_else(|| self.get(name));
        }
        let stay = |(was, end): (&u32, &Option<u32>)| (Some(*was) == *end).then_some(*was);
        let mut taken: HashSet<u32> = ends.iter().filter_map(stay).collect();
        let mut parked = PARKED;
        let mut map = BTreeMap::new();
        for (was, end) in ends {
            if is_fixed(was) || end == Some(was) {
                continue;
            }
            let end = match end {
                Some(end) => (!is_fixed(end)).then_some(end),
                None if self.used.contains(&was) => {
                    let place = parked.find(|id| self.is_free(*id));
                    self.tell_parked(what, was, place, notes);
                    place
                }
                None => None,
            };
            if let Some(end) = end.filter(|end| taken.insert(*end)) {
                map.insert(was, end);
            }
        }
        map
    }

    fn tell_parked(&self, what: &str, was: u32, place: Option<u32>, notes: &mut Notes) {
        let name = self.first.get(&was).map(Vec::as_slice).unwrap_or_default();
        let text = match place {
            Some(place) => format!(
                "is not in the target, where {what} id {was} is another's; its files get {place}, \
                 which is nobody's"
            ),
            None => format!("is not in the target, where {what} id {was} is another's"),
        };
        notes.add(Reason::LeftOut, name, text);
    }
}
