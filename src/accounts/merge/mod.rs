//! Three systems' accounts made one: the old release's own, where they are
//! known, the customer's, and the image's.
//!
//! | name | in the image | not in the image |
//! |---|---|---|
//! | account in the old system | the image's ids; the customer's password and ageing; with the old release's own files also changed shell, home, description and primary group | comes over, if it is a person's; a system account if the customer added or changed it; without the old release's own files if somebody can log in with it or it is a member of other groups |
//! | account deleted in the old system | a person's is gone, a system account is locked | |
//! | group in the old system | the image's gid; members are added and taken out as the customer did | comes over, if it is a person's, the primary group of who comes over, the customer's own, or has members who come over |
//!
//! What the customer did not change is the image's, where the old release's own
//! files tell so. Without them the customer's passwords and memberships count.

mod claims;
mod groups;
mod sides;
mod subids;
mod users;

use std::collections::HashSet;

use anyhow::{Context, Result};

use self::claims::Claims;
use self::sides::{Sides, show};
use super::files::AccountFiles;
use super::ids::IdMap;
use super::notes::{Note, Notes, Reason};
use super::side::Side;
use super::table::{Table, field, number};
use crate::refuse;

/// The accounts of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// The texts for the target.
    pub files: AccountFiles,
    /// From ids of the old system to the target's.
    pub ids: IdMap,
    /// What a person should know.
    pub notes: Vec<Note>,
}

/// Makes the target's accounts from those of the old release as it was
/// delivered, of the running system, and of the image.
///
/// # Errors
/// When there is no id left for an account; of class `Refused` when the running
/// system or the image has no root, or a file has too many lines.
pub fn merge(
    pristine: Option<&AccountFiles>,
    old: &AccountFiles,
    image: &AccountFiles,
) -> Result<Merge> {
    let pristine = pristine.map(Side::parse).transpose();
    let sides = Sides {
        pristine: pristine.context("looking at the old release's own accounts")?,
        old: Side::parse(old).context("looking at the running system's accounts")?,
        image: Side::parse(image).context("looking at the image's accounts")?,
    };
    for (side, whose) in [(&sides.old, "running system"), (&sides.image, "image")] {
        if side.uid(b"root") != Some(0) {
            refuse!("/etc/passwd of the {whose} has no root with uid 0; mend it first");
        }
    }
    let mut notes = Notes::default();
    tell_unreadable(&sides.old, &mut notes);
    let mut target = sides.image.clone();

    let users = users::plan(&sides, &mut notes);
    let groups = groups::plan(&sides, &users);
    target.passwd.remove(|name| users.removed.contains(name));
    if let Some(shadow) = &mut target.shadow {
        shadow.remove(|name| users.removed.contains(name));
    }
    groups::remove(&groups, &mut target);

    let uids = claim_users(&sides, &target, &users, &mut notes)?;
    let gids = claim_groups(&sides, &target, &groups, &uids, &mut notes)?;
    let gids = users::write(&sides, &users, &uids, gids, &mut target, &mut notes)?;
    groups::write(&sides, &users, &groups, &gids, &mut target, &mut notes);
    subids::write(&sides, &users, [&uids, &gids], &mut target, &mut notes);
    merge_nis(&sides, &mut target);

    let ids = IdMap {
        users: uids.map("user", &mut notes),
        groups: gids.map("group", &mut notes),
    };
    let has_group = image.group.is_some() || target.group.all_records().next().is_some();
    let render = |table: &Option<Table>| table.as_ref().map(Table::render);
    let files = AccountFiles {
        passwd: target.passwd.render(),
        shadow: render(&target.shadow),
        group: has_group.then(|| target.group.render()),
        gshadow: render(&target.gshadow),
        subuid: render(&target.subuid),
        subgid: render(&target.subgid),
        conventions: image.conventions.clone(),
    };
    Ok(Merge {
        files,
        ids,
        notes: notes.finish(),
    })
}

fn tell_unreadable(old: &Side, notes: &mut Notes) {
    let tables = [
        ("/etc/passwd", Some(&old.passwd)),
        ("/etc/shadow", old.shadow.as_ref()),
        ("/etc/group", Some(&old.group)),
        ("/etc/gshadow", old.gshadow.as_ref()),
        ("/etc/subuid", old.subuid.as_ref()),
        ("/etc/subgid", old.subgid.as_ref()),
    ];
    for (file, table) in tables {
        for line in table.map(Table::dropped).unwrap_or_default() {
            let text = format!("line {line} is left out: damaged, or its name came before");
            notes.add(Reason::Unreadable, file.as_bytes(), text);
        }
    }
}

/// Gives each account that comes over its uid.
fn claim_users(
    sides: &Sides,
    target: &Side,
    users: &users::Users,
    notes: &mut Notes,
) -> Result<Claims> {
    let pristine = sides.pristine.as_ref().map(|side| &side.passwd);
    let minimum = sides.image.conventions.uid_min;
    let mut uids = Claims::new(pristine, &sides.old.passwd, &target.passwd, minimum);
    for name in &users.carried {
        let is_person = sides.old.is_person(name);
        let claim = uids.take(name, is_person, None);
        let claim = claim.with_context(|| format!("finding a uid for {}", show(name)))?;
        claim.tell("user", name, notes);
    }
    for (name, was, is) in uids.persons_moved(|name| sides.old.is_person(name)) {
        if !users.is_carried(&name) {
            let text = format!("user id {was} is {is} in the target");
            notes.add(Reason::Renumbered, &name, text);
        }
    }
    Ok(uids)
}

/// Gives each group that comes over its gid.
fn claim_groups(
    sides: &Sides,
    target: &Side,
    groups: &groups::Groups,
    uids: &Claims,
    notes: &mut Notes,
) -> Result<Claims> {
    let pristine = sides.pristine.as_ref().map(|side| &side.group);
    let minimum = sides.image.conventions.gid_min;
    let mut gids = Claims::new(pristine, &sides.old.group, &target.group, minimum);
    // A primary group without a name is still somebody's: its gid is not free.
    let nameless = [&sides.old, &sides.image].into_iter().flat_map(|side| {
        let gids = side.passwd.all_records();
        gids.filter_map(|account| number(&account[field::GID]))
    });
    gids.avoid(nameless);
    for name in &groups.carried {
        let is_person = sides.old.is_persons_group(name);
        // People expect their own group's gid to be their uid.
        let claim = gids.take(name, is_person, uids.get(name));
        let claim = claim.with_context(|| format!("finding a gid for {}", show(name)))?;
        claim.tell("group", name, notes);
    }
    Ok(gids)
}

/// Orders to ask NIS are the customer's to add and to take out.
fn merge_nis(sides: &Sides, target: &mut Side) {
    let change = |pristine: Option<&Table>, old: Option<&Table>, target: Option<&mut Table>| {
        let (Some(old), Some(target)) = (old, target) else {
            return;
        };
        let delivered: HashSet<&[u8]> = pristine.into_iter().flat_map(Table::nis).collect();
        let mine: HashSet<&[u8]> = old.nis().collect();
        let mut known: HashSet<Vec<u8>> = target.nis().map(<[u8]>::to_vec).collect();
        let is_added = |line: &&[u8]| !delivered.contains(line) && known.insert(line.to_vec());
        let added: Vec<&[u8]> = old.nis().filter(is_added).collect();
        let removed = delivered.difference(&mine).copied().collect();
        target.change_nis(&added, &removed);
    };
    let Sides { pristine, old, .. } = sides;
    let pristine = pristine.as_ref();
    let passwd = pristine.map(|side| &side.passwd);
    change(passwd, Some(&old.passwd), Some(&mut target.passwd));
    let group = pristine.map(|side| &side.group);
    change(group, Some(&old.group), Some(&mut target.group));
    let shadow = pristine.and_then(|side| side.shadow.as_ref());
    change(shadow, old.shadow.as_ref(), target.shadow.as_mut());
    let gshadow = pristine.and_then(|side| side.gshadow.as_ref());
    change(gshadow, old.gshadow.as_ref(), target.gshadow.as_mut());
}
