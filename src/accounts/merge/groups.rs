//! Which groups come over, and who is a member of which.

use std::collections::HashSet;

use super::super::hashes::Kind;
use super::super::notes::{Notes, Reason};
use super::super::side::Side;
use super::super::table::{Name, Record, field, is_name, list};
use super::claims::Claims;
use super::sides::Sides;
use super::users::Users;

/// What becomes of groups that are not in both systems.
pub struct Groups {
    /// The old system's that the target gets, in the order of its file.
    pub carried: Vec<Name>,
    removed: HashSet<Name>,
}

/// Decides it.
pub fn plan(sides: &Sides, users: &Users) -> Groups {
    let Sides {
        pristine,
        old,
        image,
    } = sides;
    let primary = primary_groups(sides, users);
    let mut carried = Vec::new();
    for group in old.group.records() {
        let name = &group[field::NAME];
        if image.group.get(name).is_some() {
            continue;
        }
        let is_added = pristine.as_ref().is_some_and(|pristine| {
            pristine.gid(name).is_none() && !pristine.group.is_unreadable(name)
        });
        let is_own = old.is_persons_group(name)
            || primary.contains(name)
            || is_added
            || !Change::of(sides, users, name).added.is_empty();
        if is_own {
            carried.push(name.clone());
        }
    }
    Groups {
        carried,
        removed: removed(sides, users),
    }
}

/// Lists the primary groups of who comes over, and those the customer chose.
fn primary_groups(sides: &Sides, users: &Users) -> HashSet<Name> {
    let Sides { pristine, old, .. } = sides;
    let chosen = |name: &Name| {
        let pristine = pristine.as_ref().filter(|pristine| pristine.has(name));
        pristine.is_some_and(|pristine| pristine.primary(name) != old.primary(name))
    };
    let names = old.passwd.records().map(|account| &account[field::NAME]);
    names
        .filter(|name| users.is_carried(name) || chosen(name))
        .filter_map(|name| old.primary(name).cloned())
        .collect()
}

/// Lists the groups of people that the customer deleted and nobody needs.
fn removed(sides: &Sides, users: &Users) -> HashSet<Name> {
    let Sides {
        pristine,
        old,
        image,
    } = sides;
    let Some(pristine) = pristine else {
        return HashSet::new();
    };
    let accounts = image.passwd.all_records();
    let staying = accounts.filter(|account| !users.removed.contains(&account[field::NAME]));
    let needed: HashSet<&[u8]> = staying
        .map(|account| account[field::GID].as_slice())
        .collect();
    let groups = image.group.records().filter(|group| {
        let name = &group[field::NAME];
        pristine.is_persons_group(name)
            && image.is_persons_group(name)
            && old.gid(name).is_none()
            && !old.group.is_unreadable(name)
            && !needed.contains(group[field::ID].as_slice())
            && is_left(
                &group[field::MEMBERS],
                &Change::of(sides, users, name),
                users,
            )
    });
    groups.map(|group| group[field::NAME].clone()).collect()
}

/// Tells whether all members of a group go.
fn is_left(members: &[u8], change: &Change, users: &Users) -> bool {
    let goes = |member| users.removed.contains(member) || change.removed.contains(member);
    list(members).all(goes)
}

/// Takes out of the target what the customer deleted.
pub fn remove(groups: &Groups, target: &mut Side) {
    target.group.remove(|name| groups.removed.contains(name));
    if let Some(gshadow) = &mut target.gshadow {
        gshadow.remove(|name| groups.removed.contains(name));
    }
}

/// Who was added to a list and who was taken out, to be done again.
#[derive(Default)]
struct Change<'a> {
    added: Vec<&'a [u8]>,
    removed: HashSet<&'a [u8]>,
    strangers: Vec<&'a [u8]>,
}

impl<'a> Change<'a> {
    /// Finds it for the members of a group.
    fn of(sides: &'a Sides, users: &Users, group: &[u8]) -> Change<'a> {
        if sides.old.group.is_unreadable(group) {
            return Change::default();
        }
        let delivered = sides.pristine.as_ref().map(|side| side.members(group));
        let mine = sides
            .old
            .group
            .get(group)
            .map(|r| r[field::MEMBERS].as_slice());
        Change::between(sides, users, delivered, mine.unwrap_or_default())
    }

    /// Finds it for the administrators of a group.
    fn of_admins(sides: &'a Sides, users: &Users, group: &[u8]) -> Change<'a> {
        let admins = |side: &'a Side| {
            // What is left in gshadow of a group that is gone counts for nothing.
            side.group.get(group)?;
            let record = side.gshadow.as_ref()?.get(group)?;
            Some(record[field::ADMINS].as_slice())
        };
        let Some(mine) = admins(&sides.old) else {
            return Change::default();
        };
        let delivered = sides
            .pristine
            .as_ref()
            .map(|side| list(admins(side).unwrap_or_default()).collect());
        Change::between(sides, users, delivered, mine)
    }

    fn between(
        sides: &'a Sides,
        users: &Users,
        delivered: Option<HashSet<&'a [u8]>>,
        mine: &'a [u8],
    ) -> Change<'a> {
        let Sides {
            pristine,
            old,
            image,
        } = sides;
        let is_deleted = |name: &[u8]| pristine.as_ref().is_some_and(|side| side.has(name));
        let is_delivered = |name: &[u8]| delivered.as_ref().is_some_and(|d| d.contains(name));
        let mut change = Change::default();
        let mut seen = HashSet::new();
        for name in list(mine).filter(|name| is_name(name) && seen.insert(*name)) {
            let is_known = old.has_or_hides(name);
            if users.has(image, name) {
                // An account that is new with the image is not the one meant.
                if is_known && (users.is_carried(name) || !is_delivered(name)) {
                    change.added.push(name);
                }
            } else if !is_known && !is_deleted(name) && !is_delivered(name) {
                // It may come from elsewhere, such as LDAP.
                let is_from_directory = old.conventions.has_directory;
                let side = if is_from_directory {
                    &mut change.added
                } else {
                    &mut change.strangers
                };
                side.push(name);
            }
        }
        let delivered = delivered.unwrap_or_default();
        let is_taken_out = |name: &&[u8]| !seen.contains(name) && old.has(name);
        change.removed = delivered.into_iter().filter(is_taken_out).collect();
        change
    }

    /// Does it again; what is not touched stays in its order.
    fn apply(&self, members: &mut Vec<u8>, is_gone: impl Fn(&[u8]) -> bool) {
        let known: HashSet<&[u8]> = list(members).collect();
        let added = self.added.iter().filter(|name| !known.contains(*name));
        let is_kept = |name: &&[u8]| !self.removed.contains(name) && !is_gone(name);
        let kept: Vec<&[u8]> = list(members).filter(is_kept).collect();
        let is_same = kept.len() == list(members).count();
        let wanted: Vec<&[u8]> = kept.iter().copied().chain(added.copied()).collect();
        if !is_same || wanted.len() != kept.len() {
            *members = wanted.join(&b',');
        }
    }
}

/// Writes group and gshadow of the target.
pub fn write(
    sides: &Sides,
    users: &Users,
    groups: &Groups,
    gids: &Claims,
    target: &mut Side,
    notes: &mut Notes,
) {
    let names: Vec<Name> = sides
        .image
        .group
        .records()
        .map(|group| group[field::NAME].clone())
        .filter(|name| !groups.removed.contains(name))
        .collect();
    let is_gone = |name: &[u8]| users.removed.contains(name);
    for name in &names {
        let members = Change::of(sides, users, name);
        members.tell(name, notes);
        if let Some(group) = target.group.get_mut(name) {
            members.apply(&mut group[field::MEMBERS], is_gone);
        }
        let password = changed_password(sides, name);
        let shadowed = target
            .gshadow
            .as_mut()
            .and_then(|table| table.get_mut(name));
        if let Some(entry) = shadowed {
            members.apply(&mut entry[field::MEMBERS], is_gone);
            Change::of_admins(sides, users, name).apply(&mut entry[field::ADMINS], is_gone);
            if let Some(password) = password {
                entry[field::PASSWORD] = password;
            }
        }
    }
    let mut records = Vec::new();
    let mut shadowed = Vec::new();
    for name in &groups.carried {
        let Some(gid) = gids.get(name) else {
            continue;
        };
        let members = Change::of(sides, users, name);
        members.tell(name, notes);
        let list = members.added.join(&b',');
        let admins = Change::of_admins(sides, users, name).added.join(&b',');
        let password = password(&sides.old, name);
        let gid = gid.to_string().into_bytes();
        let has_gshadow = target.gshadow.is_some();
        let shown = password.clone().filter(|_| !has_gshadow);
        let shown = shown.unwrap_or_else(|| b"x".to_vec());
        records.push(vec![name.clone(), shown, gid, list.clone()]);
        let hash = password.unwrap_or_else(|| b"!".to_vec());
        shadowed.push(vec![name.clone(), hash, admins, list]);
    }
    add(target, records, shadowed);
}

fn add(target: &mut Side, records: Vec<Record>, shadowed: Vec<Record>) {
    let fresh: HashSet<Name> = records.iter().map(|record| record[0].clone()).collect();
    target.group.extend(records);
    if let Some(gshadow) = &mut target.gshadow {
        // What is left of a group that the image does not have would count again.
        gshadow.remove(|name| fresh.contains(name));
        gshadow.extend(shadowed);
    }
}

impl Change<'_> {
    fn tell(&self, group: &Name, notes: &mut Notes) {
        for name in &self.strangers {
            let name = crate::tree::path::show(name);
            let text = format!("its member {name} is no account, and is left out");
            notes.add(Reason::LeftOut, group, text);
        }
    }
}

/// Returns the hash of a group's password, if it has one that fits. Without one
/// only members may use the group, whatever stands there.
fn password(side: &Side, group: &[u8]) -> Option<Vec<u8>> {
    let shown = &side.group.get(group)?[field::PASSWORD];
    let hash = if shown == b"x" {
        let record = side.gshadow.as_ref()?.get(group)?;
        &record[field::PASSWORD]
    } else {
        shown
    };
    let is_clean = hash.iter().all(u8::is_ascii_graphic);
    (is_clean && Kind::of(hash).is_set()).then(|| hash.clone())
}

/// Returns the password of a group in both, if the customer set another or took
/// it away. Without the old release's own only one that is set is known to be
/// the customer's.
fn changed_password(sides: &Sides, group: &[u8]) -> Option<Vec<u8>> {
    sides.old.group.get(group)?;
    let mine = password(&sides.old, group);
    let was = sides
        .pristine
        .as_ref()
        .and_then(|side| password(side, group));
    (mine != was).then(|| mine.unwrap_or_else(|| b"!".to_vec()))
}
