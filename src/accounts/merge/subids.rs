//! Ranges of subordinate ids, by name and without overlap.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::notes::{Notes, Reason};
use super::super::side::{Side, id_of};
use super::super::table::{Format, Name, Record, Table, field, number};
use super::claims::Claims;
use super::sides::Sides;
use super::users::Users;

/// useradd(8) gives away none below.
const FIRST: u64 = 100_000;
/// Below are ids of accounts.
const LOWEST: u64 = 65_536;
/// The kernel takes no more for one user namespace.
const MAX_RANGES: usize = 340;
const END: u64 = u32::MAX as u64;

/// Writes subuid and subgid of the target.
pub fn write(
    sides: &Sides,
    users: &Users,
    ids: [&Claims; 2],
    target: &mut Side,
    notes: &mut Notes,
) {
    let [uids, gids] = ids;
    let subuid = |side: &Side| side.subuid.clone();
    let subgid = |side: &Side| side.subgid.clone();
    target.subuid = merged(sides, users, uids, &subuid, notes);
    target.subgid = merged(sides, users, gids, &subgid, notes);
}

type Ranges = Vec<(u64, u64)>;

fn merged(
    sides: &Sides,
    users: &Users,
    ids: &Claims,
    of: &dyn Fn(&Side) -> Option<Table>,
    notes: &mut Notes,
) -> Option<Table> {
    let mut table = of(&sides.image);
    if let Some(table) = &mut table
        && !users.removed.is_empty()
    {
        table.remove(|name| users.removed.contains(name));
    }
    let theirs: HashMap<Name, Ranges> = by_name(None, table.as_ref()).into_iter().collect();
    let mut wanted = wanted(sides, users, &theirs, of);
    if wanted.is_empty() {
        return table;
    }
    let mut table = table.or_else(|| Table::parse(Format::Subids, b"").ok())?;
    let names: BTreeSet<&Name> = wanted.iter().map(|(name, _)| name).collect();
    let others = table.records().filter(|r| !names.contains(&r[field::NAME]));
    let mut map = Map::new(others.map(range), ids.ids());
    place(&mut wanted, &theirs, &mut map, notes);
    let records: Vec<(Name, Vec<Record>)> = wanted
        .into_iter()
        .map(|(name, ranges)| {
            let text = |value: u64| value.to_string().into_bytes();
            let record = |(start, end)| vec![name.clone(), text(start), text(end - start)];
            let records = ranges.into_iter().map(record).collect();
            (name, records)
        })
        .collect();
    table.replace_all(&records);
    Some(table)
}

fn range(record: &Record) -> (u64, u64) {
    let value = |at: usize| u64::from(number(&record[at]).unwrap_or_default());
    let start = value(field::START);
    (start, start + value(field::COUNT))
}

/// Lists ranges by name, in the order of the names. A uid in a name's place is
/// that of the name in `side`; the image's own stay as they are written.
fn by_name(side: Option<&Side>, table: Option<&Table>) -> Vec<(Name, Ranges)> {
    let mut names: HashMap<u32, &Name> = HashMap::new();
    for account in side.into_iter().flat_map(|side| side.passwd.records()) {
        names.entry(id_of(account)).or_insert(&account[field::NAME]);
    }
    let mut places: HashMap<Name, usize> = HashMap::new();
    let mut list: Vec<(Name, Ranges)> = Vec::new();
    for record in table.into_iter().flat_map(Table::records) {
        let written = &record[field::NAME];
        let by_uid = number(written).and_then(|uid| names.get(&uid).copied());
        let is_name = side.is_some_and(|side| side.has(written));
        let name = by_uid.filter(|_| !is_name).unwrap_or(written);
        let place = *places.entry(name.clone()).or_insert_with(|| {
            list.push((name.clone(), Vec::new()));
            list.len() - 1
        });
        let (start, end) = range(record);
        if start < end && list[place].1.len() < MAX_RANGES {
            list[place].1.push((start, end));
        }
    }
    list
}

/// Lists the names whose ranges are the customer's, with these.
fn wanted(
    sides: &Sides,
    users: &Users,
    theirs: &HashMap<Name, Ranges>,
    of: &dyn Fn(&Side) -> Option<Table>,
) -> Vec<(Name, Ranges)> {
    let Sides {
        pristine,
        old,
        image,
    } = sides;
    let mine = by_name(Some(old), of(old).as_ref());
    let delivered: HashMap<Name, Ranges> = pristine
        .as_ref()
        .map(|side| by_name(Some(side), of(side).as_ref()).into_iter().collect())
        .unwrap_or_default();
    let known: BTreeSet<Name> = mine.iter().map(|(name, _)| name.clone()).collect();
    let is_wanted = |(name, ranges): &(Name, Ranges)| {
        let is_somebody =
            users.has(image, name) || (!old.has_or_hides(name) && old.conventions.has_directory);
        let is_own = users.is_carried(name) || delivered.get(name) != Some(ranges);
        is_somebody && is_own && theirs.get(name) != Some(ranges)
    };
    let mut wanted: Vec<_> = mine.into_iter().filter(is_wanted).collect();
    // Who had some and has none now gets none.
    let mut taken: Vec<&Name> = delivered.keys().collect();
    taken.retain(|name| theirs.contains_key(*name) && !known.contains(*name) && old.has(name));
    taken.sort_unstable();
    wanted.extend(taken.into_iter().map(|name| (name.clone(), Vec::new())));
    wanted
}

/// Leaves each range where it is, if it is free there, and moves it else.
fn place(
    wanted: &mut [(Name, Ranges)],
    theirs: &HashMap<Name, Ranges>,
    map: &mut Map,
    notes: &mut Notes,
) {
    let mut homeless = Vec::new();
    for (who, (_, ranges)) in wanted.iter().enumerate() {
        for (at, range) in ranges.iter().enumerate() {
            if !map.take(*range) {
                homeless.push((who, at));
            }
        }
    }
    let mut lost: BTreeSet<(usize, usize)> = BTreeSet::new();
    for (who, at) in homeless {
        let (name, ranges) = &mut wanted[who];
        let (start, end) = ranges[at];
        // The image may have given the name as many already.
        let given = theirs.get(name).into_iter().flatten();
        let mut same = given.filter(|(from, to)| to - from == end - start);
        let given = same.find(|given| map.take(**given)).map(|(from, _)| *from);
        let text = match given.or_else(|| map.take_behind(end - start)) {
            Some(free) => {
                ranges[at] = (free, free + end - start);
                format!("its subordinate ids from {start} begin at {free}: {start} is taken")
            }
            None => {
                lost.insert((who, at));
                format!("its subordinate ids from {start} are left out: no room for as many")
            }
        };
        notes.add(Reason::Renumbered, name, text);
    }
    for (who, at) in lost.into_iter().rev() {
        wanted[who].1.remove(at);
    }
}

/// Ranges that are taken, apart from each other.
struct Map {
    taken: BTreeMap<u64, u64>,
    accounts: BTreeSet<u32>,
}

impl Map {
    fn new(ranges: impl Iterator<Item = (u64, u64)>, accounts: impl Iterator<Item = u32>) -> Map {
        let mut ranges: Vec<(u64, u64)> = ranges.filter(|(start, end)| start < end).collect();
        ranges.sort_unstable();
        let mut taken: BTreeMap<u64, u64> = BTreeMap::new();
        for (start, end) in ranges {
            match taken.last_entry() {
                Some(mut last) if *last.get() >= start => {
                    let end = end.max(*last.get());
                    last.insert(end);
                }
                _ => {
                    taken.insert(start, end);
                }
            }
        }
        Map {
            taken,
            accounts: accounts.collect(),
        }
    }

    /// Takes a range if all of it is free.
    fn take(&mut self, (start, end): (u64, u64)) -> bool {
        let before = self.taken.range(..end).next_back();
        let is_free = before.is_none_or(|(_, taken_to)| *taken_to <= start);
        let next = u32::try_from(start).ok();
        let next = next.and_then(|start| self.accounts.range(start..).next());
        let is_account = next.is_some_and(|id| u64::from(*id) < end);
        if !is_free || is_account || start < LOWEST || end > END {
            return false;
        }
        self.taken.insert(start, end);
        true
    }

    /// Takes `count` ids behind all that are taken.
    fn take_behind(&mut self, count: u64) -> Option<u64> {
        let last = self.taken.last_key_value().map_or(0, |(_, end)| *end);
        // Old systems have one account at the very end.
        let account = self.accounts.range(..=u32::MAX / 2).next_back();
        let account = account.map_or(0, |id| u64::from(*id) + 1);
        let start = FIRST.max(last).max(account);
        self.take((start, start + count)).then_some(start)
    }
}
