//! Who comes over, who is gone, and with which password and settings.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};

use super::super::hashes::hash_note;
use super::super::notes::{Notes, Reason};
use super::super::side::{Password, Side};
use super::super::table::{Name, Record, field, list, number};
use super::claims::Claims;
use super::sides::{Sides, show};

/// What becomes of accounts that are not in both systems.
pub struct Users {
    /// The old system's that the target gets, in the order of its file.
    pub carried: Vec<Name>,
    carried_set: HashSet<Name>,
    /// The image's that the target does not get.
    pub removed: HashSet<Name>,
    /// The image's that the target gets locked.
    locked: Vec<Name>,
}

impl Users {
    /// Tells whether an account comes over.
    pub fn is_carried(&self, name: &[u8]) -> bool {
        self.carried_set.contains(name)
    }

    /// Tells whether the target has an account.
    pub fn has(&self, image: &Side, name: &[u8]) -> bool {
        self.is_carried(name) || (image.has(name) && !self.removed.contains(name))
    }
}

/// Shells that let nobody in.
const NO_SHELLS: [&[u8]; 6] = [b"nologin", b"false", b"true", b"sync", b"shutdown", b"halt"];

/// Decides it.
pub fn plan(sides: &Sides, notes: &mut Notes) -> Users {
    let Sides {
        pristine,
        old,
        image,
    } = sides;
    let mine = memberships(old);
    let delivered = pristine.as_ref().map(memberships).unwrap_or_default();
    let mut carried = Vec::new();
    for account in old.passwd.records() {
        let name = &account[field::NAME];
        let is_own = match pristine {
            _ if image.has(name) => continue,
            _ if old.is_person(name) => true,
            Some(pristine) if !pristine.has_or_hides(name) => true,
            Some(pristine) => {
                is_changed(pristine, old, name) || !is_subset(&mine, &delivered, name)
            }
            None => is_login(old, name) || mine.contains_key(name.as_slice()),
        };
        if is_own {
            carried.push(name.clone());
        } else if old.password(name).is_some_and(|p| p.is_set()) {
            let text = "has a password, but is the old release's own and not in the target";
            notes.add(Reason::LeftOut, name, text);
        }
    }
    let mut users = Users {
        carried_set: carried.iter().cloned().collect(),
        carried,
        removed: HashSet::new(),
        locked: Vec::new(),
    };
    for account in image.passwd.records() {
        let name = &account[field::NAME];
        if name == b"root" || old.has_or_hides(name) {
            continue;
        }
        let is_open = image.password(name).is_some_and(|p| p.is_open());
        match pristine {
            Some(pristine) if !pristine.has_or_hides(name) => {}
            Some(pristine) if pristine.is_person(name) && image.is_person(name) => {
                users.removed.insert(name.clone());
                let text = "was deleted in the old system, and is not in the target";
                notes.add(Reason::Revoked, name, text);
            }
            Some(_) if is_open => {
                users.locked.push(name.clone());
                let text = "was deleted in the old system; its password is locked in the target";
                notes.add(Reason::Revoked, name, text);
            }
            None if is_open => {
                let text = "comes with the image, and one can log in with it";
                notes.add(Reason::New, name, text);
            }
            Some(_) | None => {}
        }
    }
    users
}

/// Lists the groups that each name is a member of, but for its own.
fn memberships(side: &Side) -> HashMap<&[u8], HashSet<&[u8]>> {
    let mut groups: HashMap<&[u8], HashSet<&[u8]>> = HashMap::new();
    for group in side.group.records() {
        let name = group[field::NAME].as_slice();
        for member in list(&group[field::MEMBERS]).filter(|member| *member != name) {
            groups.entry(member).or_default().insert(name);
        }
    }
    groups
}

fn is_subset(
    mine: &HashMap<&[u8], HashSet<&[u8]>>,
    delivered: &HashMap<&[u8], HashSet<&[u8]>>,
    name: &Name,
) -> bool {
    let none = HashSet::new();
    let delivered = delivered.get(name.as_slice()).unwrap_or(&none);
    mine.get(name.as_slice())
        .unwrap_or(&none)
        .is_subset(delivered)
}

/// Tells whether the customer changed an account of the old release.
fn is_changed(pristine: &Side, old: &Side, name: &Name) -> bool {
    let (Some(was), Some(is)) = (pristine.passwd.get(name), old.passwd.get(name)) else {
        return false;
    };
    // There is nothing to keep of a password that was locked.
    let password = old.password(name).filter(Password::is_open);
    let is_password_changed = password.is_some() && password != pristine.password(name);
    was[field::GECOS..] != is[field::GECOS..]
        || pristine.uid(name) != old.uid(name)
        || pristine.primary(name) != old.primary(name)
        || is_password_changed
}

/// Tells whether somebody logs in with an account.
fn is_login(side: &Side, name: &Name) -> bool {
    let Some(account) = side.passwd.get(name) else {
        return false;
    };
    let shell = account[field::SHELL].rsplit(|byte| *byte == b'/').next();
    let has_shell = !NO_SHELLS.contains(&shell.unwrap_or_default());
    has_shell
        || side
            .password(name)
            .is_some_and(|password| password.is_set())
}

/// Writes passwd and shadow of the target, and returns the gids with those of
/// groups that were made because a primary group had no name.
pub fn write(
    sides: &Sides,
    users: &Users,
    uids: &Claims,
    gids: Claims,
    target: &mut Side,
    notes: &mut Notes,
) -> Result<Claims> {
    let mut writer = Writer {
        sides,
        gids,
        passwd: Vec::new(),
        shadow: Vec::new(),
        made_groups: Vec::new(),
        homeless: HashMap::new(),
    };
    for name in &users.locked {
        if let Some(mut password) = sides.image.password(name) {
            password.hash.insert(0, b'!');
            writer.set_password(target, name, &password);
        }
    }
    for account in sides.old.passwd.records() {
        let name = &account[field::NAME];
        if target.has(name) {
            writer.update(target, name, notes);
        } else if users.is_carried(name) {
            writer.carry(target, account, uids, notes)?;
        }
    }
    target.passwd.extend(writer.passwd);
    if let Some(shadow) = &mut target.shadow {
        // A line that nobody asked for before would count from now on.
        let fresh: HashSet<Name> = writer.shadow.iter().map(|r| r[0].clone()).collect();
        shadow.remove(|name| fresh.contains(name));
        shadow.extend(writer.shadow);
    }
    if let Some(gshadow) = &mut target.gshadow {
        let made: HashSet<&Name> = writer.made_groups.iter().map(|r| &r[0]).collect();
        gshadow.remove(|name| made.contains(name));
        let entry = |group: &Record| vec![group[0].clone(), b"!".to_vec(), vec![], vec![]];
        gshadow.extend(writer.made_groups.iter().map(entry).collect());
    }
    target.group.extend(writer.made_groups);
    Ok(writer.gids)
}

struct Writer<'a> {
    sides: &'a Sides,
    gids: Claims,
    passwd: Vec<Record>,
    shadow: Vec<Record>,
    made_groups: Vec<Record>,
    /// Old gids without a name, and what they are now.
    homeless: HashMap<u32, u32>,
}

impl Writer<'_> {
    /// Gives an account of both what the customer changed of it.
    fn update(&mut self, target: &mut Side, name: &Name, notes: &mut Notes) {
        let Sides {
            pristine,
            old,
            image,
        } = self.sides;
        let (mine, theirs) = (old.password(name), image.password(name));
        let delivered = pristine.as_ref().and_then(|side| side.password(name));
        if let Some(mine) = mine.filter(|mine| delivered.as_ref() != Some(mine))
            && theirs.as_ref() != Some(&mine)
        {
            if !mine.is_open() && theirs.is_some_and(|theirs| theirs.is_open()) {
                let text = "its password is locked in the old system, and so in the target";
                notes.add(Reason::Revoked, name, text);
            }
            self.tell_hash(name, &mine, notes);
            self.set_password(target, name, &mine);
        }
        let (Some(is), Some(account)) = (old.passwd.get(name), target.passwd.get_mut(name)) else {
            return;
        };
        let Some(pristine) = pristine else {
            let differs = is[field::HOME..] != account[field::HOME..];
            if differs && old.is_person(name) {
                let text = "has the image's home and shell, not those of the old system";
                notes.add(Reason::Differs, name, text);
            }
            return;
        };
        let Some(was) = pristine.passwd.get(name) else {
            return;
        };
        for at in [field::GECOS, field::HOME, field::SHELL] {
            if was[at] != is[at] {
                account[at].clone_from(&is[at]);
            }
        }
        let group = old.primary(name);
        let gid = group.and_then(|group| self.gids.get(group));
        if let Some(gid) = gid.filter(|_| group != pristine.primary(name)) {
            account[field::GID] = gid.to_string().into_bytes();
        }
    }

    /// Takes an account over.
    fn carry(
        &mut self,
        target: &Side,
        account: &Record,
        uids: &Claims,
        notes: &mut Notes,
    ) -> Result<()> {
        let name = &account[field::NAME];
        let uid = uids
            .get(name)
            .context("an account that comes over has no uid")?;
        let gid = self.primary_gid(account)?;
        let password = self
            .sides
            .old
            .password(name)
            .unwrap_or_else(Password::locked);
        self.tell_hash(name, &password, notes);
        let mut record = account.clone();
        record[field::ID] = uid.to_string().into_bytes();
        record[field::GID] = gid.to_string().into_bytes();
        if target.shadow.is_some() {
            record[field::PASSWORD] = b"x".to_vec();
            self.shadow.push(shadow_record(name, &password));
        } else {
            record[field::PASSWORD] = password.hash;
        }
        self.passwd.push(record);
        Ok(())
    }

    /// Returns the gid that an account's primary group has in the target. One
    /// that has no name gets one, or the id might be another's.
    fn primary_gid(&mut self, account: &Record) -> Result<u32> {
        let old = &self.sides.old;
        let was = number(&account[field::GID]).context("an account has no gid")?;
        let named = old.group_of(was).and_then(|group| self.gids.get(group));
        if let Some(gid) = named.or_else(|| self.homeless.get(&was).copied()) {
            return Ok(gid);
        }
        let name = &account[field::NAME];
        let is_taken = |group: &Name| self.gids.get(group).is_some() || old.gid(group).is_some();
        let others = (0u32..).map(|n| match n {
            0 => format!("gid{was}").into_bytes(),
            _ => format!("gid{was}_{n}").into_bytes(),
        });
        let mut names = std::iter::once(name.clone()).chain(others);
        let group = names.find(|group| !is_taken(group));
        let group = group.context("no name is left for a group")?;
        let gid = self.gids.take_new(&group, was, old.is_person(name));
        let gid = gid.with_context(|| format!("finding a gid for {}", show(name)))?;
        let number = gid.to_string().into_bytes();
        let record = vec![group, b"x".to_vec(), number, Vec::new()];
        self.made_groups.push(record);
        self.homeless.insert(was, gid);
        Ok(gid)
    }

    fn tell_hash(&self, name: &Name, password: &Password, notes: &mut Notes) {
        let checker = &self.sides.image.conventions.checker;
        if let Some(note) = hash_note(name, &password.hash, checker) {
            notes.push(note);
        }
    }

    /// Puts a password where the target keeps them.
    fn set_password(&mut self, target: &mut Side, name: &Name, password: &Password) {
        let Some(shadow) = &mut target.shadow else {
            if let Some(account) = target.passwd.get_mut(name) {
                account[field::PASSWORD].clone_from(&password.hash);
            }
            return;
        };
        match shadow.get_mut(name) {
            Some(record) => *record = shadow_record(name, password),
            None => self.shadow.push(shadow_record(name, password)),
        }
        if let Some(account) = target.passwd.get_mut(name) {
            account[field::PASSWORD] = b"x".to_vec();
        }
    }
}

fn shadow_record(name: &Name, password: &Password) -> Record {
    let mut record = vec![name.clone(), password.hash.clone()];
    record.extend(password.ageing.iter().cloned());
    record
}
