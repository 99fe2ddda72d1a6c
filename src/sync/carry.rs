//! Carrying out a plan.
//!
//! 1. the accounts are merged, which tells whose number becomes which;
//! 2. everything is made [aside](super::aside): copies, merges, what programs of
//!    the new system make of it;
//! 3. the checks of the rules are run on the image's own files;
//! 4. everything is put in place, and programs of the new system make anew what
//!    follows from it;
//! 5. the checks are run again: what passed before must pass now.
//!
//! The image's side is what it was delivered with, so doing it twice is doing it
//! once.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::aside::{Aside, Content};
use super::like::Like;
use super::people;
use super::plan::{Action, Item, Plan, as_text, as_texts};
use super::rules::{OnConflict, Rule, Rules, Way};
use super::source::Source;
use crate::accounts::IdMap;
use crate::appliance::pristine::Pristine;
use crate::merge::{self, Format, Sides};
use crate::refuse;
use crate::signals;
use crate::system::{Chroot, Cmd, System};
use crate::tree::meta::Kind;

/// The most that a program of the new system may make of a file, in bytes.
const MAX_MADE_BYTES: u64 = 64 << 20;

/// How long a program of a rule may take.
const PROGRAM_LIMIT: Duration = Duration::from_secs(60);

/// From where to where, and by what.
pub struct Carry<'a> {
    /// The machine that runs the programs.
    pub sys: &'a dyn System,
    /// The old system's tree.
    pub from: &'a Path,
    /// What that was delivered with.
    pub delivered: &'a Pristine,
    /// The new system's tree.
    pub root: &'a Path,
    /// What that was delivered with.
    pub image: &'a Pristine,
    /// The rules.
    pub rules: &'a Rules,
    /// What an earlier run has carried to the tree.
    pub earlier: &'a BTreeSet<PathBuf>,
}

/// A setting that both sides changed; the customer's counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Clash {
    /// The file, relative to the root.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// The setting in it; `*` for the whole file.
    pub key: String,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
pub struct Carried {
    /// What a person should know.
    pub notes: Vec<String>,
    /// Where the customer's setting stands in the way of the release's.
    pub conflicts: Vec<Clash>,
    /// What was not carried although a rule says so: it is no file, or the new system
    /// has a directory there.
    #[serde(serialize_with = "as_texts")]
    pub left: Vec<PathBuf>,
    /// From the old system's numbers of users and groups to the new one's.
    pub ids: IdMap,
}

impl Carry<'_> {
    /// Does what `plan` says.
    ///
    /// # Errors
    /// When something cannot be carried, a check finds fault with it, or a rule
    /// refuses a conflict.
    pub fn run(&self, plan: &Plan) -> Result<Carried> {
        let mut aside = Aside::new(self.root)?;
        let (from, root) = (self.from, self.root);
        let people = people::merge(&mut aside, from, root, self.delivered, self.image)?;
        let mut carried = Carried {
            notes: people.notes,
            ids: people.ids,
            ..Carried::default()
        };
        let mut used = BTreeSet::new();
        for item in &plan.items {
            signals::check()?;
            let Some(rule) = item.rule.as_deref().and_then(|name| self.rules.named(name)) else {
                continue;
            };
            let made = self.make(&mut aside, item, rule, &mut carried);
            let was_made = made.with_context(|| {
                format!(
                    "carrying over /{} by rule {:?}",
                    item.path.display(),
                    rule.name
                )
            })?;
            if was_made {
                used.insert(&rule.name[..]);
            }
        }
        self.take_back(&mut aside, plan)?;
        let used: Vec<&Rule> = used
            .into_iter()
            .filter_map(|name| self.rules.named(name))
            .collect();
        let mut passing = Vec::new();
        for rule in used.iter().filter(|rule| !rule.check.is_empty()) {
            match self.program(&rule.check) {
                Ok(()) => passing.push(rule),
                Err(error) => carried.notes.push(format!(
                    "rule {:?} is not checked, since the new system's own files do not pass: {error:#}",
                    rule.name
                )),
            }
        }
        let in_the_way = aside.place(from, &carried.ids)?;
        carried.left.extend(in_the_way);
        for rule in used.iter().filter(|rule| !rule.then.is_empty()) {
            if let Err(error) = self.program(&rule.then) {
                let note = format!(
                    "what belongs to rule {:?} was not made anew: {error:#}",
                    rule.name
                );
                carried.notes.push(note);
            }
        }
        for rule in passing {
            self.program(&rule.check).with_context(|| {
                format!(
                    "the new system does not take what rule {:?} carried over; change that here first",
                    rule.name
                )
            })?;
        }
        Ok(carried)
    }

    /// Puts the image's own back where an earlier run has carried what the customer
    /// has taken back since.
    fn take_back(&self, aside: &mut Aside, plan: &Plan) -> Result<()> {
        let now: BTreeSet<&PathBuf> = plan.carried().map(|item| &item.path).collect();
        for path in self.earlier.iter().filter(|path| !now.contains(path)) {
            let delivered = self.image.tree().map(|tree| tree.join(path));
            match delivered.filter(|place| place.symlink_metadata().is_ok()) {
                Some(place) if place.is_symlink() => {
                    let like = Like::of(&place, &IdMap::default())?;
                    aside.link(path, &fs::read_link(&place)?, &like)?;
                }
                Some(place) if place.is_file() => {
                    let like = Like::of(&place, &IdMap::default())?;
                    aside.file(path, &Content::Of(&place), &like)?;
                }
                Some(_) => {}
                // Outside /etc it is not known what the image had there.
                None if !path.starts_with("etc") && self.image.has(path) => {}
                None => aside.removal(path),
            }
        }
        Ok(())
    }

    /// Makes what is to be at an item's path; returns whether there is anything.
    fn make(
        &self,
        aside: &mut Aside,
        item: &Item,
        rule: &Rule,
        carried: &mut Carried,
    ) -> Result<bool> {
        match item.action {
            Action::Delete => aside.removal(&item.path),
            Action::Keep => return self.keep(aside, item, rule, carried),
            Action::Merge => return self.merge(aside, item, rule, carried),
            Action::Transform => return self.transform(aside, item, rule, &carried.ids),
            Action::Accounts | Action::Drop | Action::Unknown => return Ok(false),
        }
        Ok(true)
    }

    fn keep(
        &self,
        aside: &mut Aside,
        item: &Item,
        rule: &Rule,
        carried: &mut Carried,
    ) -> Result<bool> {
        let path = &item.path;
        let Some(found) = Source::find(self.from, path)? else {
            return Ok(false);
        };
        match found.kind {
            Kind::Dir => aside.dir(path, found.like(&carried.ids)?),
            Kind::Symlink => aside.link(path, &found.link_end()?, &found.like(&carried.ids)?)?,
            Kind::File => {
                let file = found.open()?;
                let like = match rule.private {
                    true => Like::private(),
                    false => Like::of_open(&file, &carried.ids)?,
                };
                match self.renewed(path, &file, rule)? {
                    Some(content) => aside.file(path, &Content::Bytes(&content), &like)?,
                    None => aside.file(path, &Content::Open(&file), &like)?,
                }
            }
            Kind::Char | Kind::Block | Kind::Fifo => {
                carried.left.push(path.clone());
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the image's content of a file of which the customer has changed only
    /// who may do what with it.
    fn renewed(&self, path: &Path, mut file: &File, rule: &Rule) -> Result<Option<Vec<u8>>> {
        if rule.way == Way::Pin {
            return Ok(None);
        }
        let Some(delivered) = self.delivered.content(path)? else {
            return Ok(None);
        };
        let mut own = Vec::new();
        file.take(delivered.len() as u64 + 1)
            .read_to_end(&mut own)?;
        file.rewind()?;
        match own == delivered {
            true => self.image.content(path),
            false => Ok(None),
        }
    }

    fn merge(
        &self,
        aside: &mut Aside,
        item: &Item,
        rule: &Rule,
        carried: &mut Carried,
    ) -> Result<bool> {
        let path = &item.path;
        let Some(image) = self.image.content(path)? else {
            return self.keep(aside, item, rule, carried);
        };
        let Some(found) = Source::find(self.from, path)? else {
            return Ok(false);
        };
        if found.kind != Kind::File || found.size_bytes > merge::LARGEST_BYTES as u64 {
            return self.keep(aside, item, rule, carried);
        }
        let pristine = self.delivered.content(path)?;
        let mut customer = Vec::new();
        found.open()?.read_to_end(&mut customer)?;
        let sides = Sides {
            pristine: pristine.as_deref(),
            customer: &customer,
            image: &image,
        };
        let format = rule.format.unwrap_or_else(|| Format::of_path(path));
        let merged = merge::merge(format, &sides, &rule.only)?;
        if let Some(conflict) = merged.conflicts.first()
            && rule.on_conflict == OnConflict::Refuse
        {
            refuse!(
                "both this system and the new release have changed {:?} of it; settle it here first",
                conflict.key
            );
        }
        carried
            .conflicts
            .extend(merged.conflicts.into_iter().map(|conflict| Clash {
                path: path.clone(),
                key: conflict.key,
            }));
        let like = self.permissions(&found, path, &carried.ids)?;
        aside.file(path, &Content::Bytes(&merged.content), &like)?;
        Ok(true)
    }

    /// Returns whose a merged file is: the image's, unless the customer has changed
    /// that.
    fn permissions(&self, found: &Source, path: &Path, ids: &IdMap) -> Result<Like> {
        let nobody = IdMap::default();
        let (own, own_moved) = (found.like(&nobody)?, found.like(ids)?);
        let at_delivery = |pristine: &Pristine| -> Result<Option<Like>> {
            let place = pristine.tree().map(|tree| tree.join(path));
            let place = place.filter(|place| place.exists());
            place.map(|place| Like::of(&place, &nobody)).transpose()
        };
        let is_same = |a: &Like, b: &Like| {
            (a.uid, a.gid, a.mode, &a.attributes) == (b.uid, b.gid, b.mode, &b.attributes)
        };
        let was_changed = at_delivery(self.delivered)?.is_none_or(|then| !is_same(&then, &own));
        match at_delivery(self.image)? {
            Some(of_image) if !was_changed => Ok(of_image),
            _ => Ok(own_moved),
        }
    }

    fn transform(&self, aside: &mut Aside, item: &Item, rule: &Rule, ids: &IdMap) -> Result<bool> {
        const SCRIPT: &str = r#"exec "$1" <"$2" >"$3""#;
        let Some(found) = Source::find(self.from, &item.path)? else {
            return Ok(false);
        };
        let file = found.open()?;
        let like = Like::of_open(&file, ids)?;
        let program = rule.run.as_ref().context("the rule names no program")?;
        let ((old, old_inside), (new, new_inside)) = (aside.name("old"), aside.name("new"));
        super::aside::make_file(&old, &Content::Open(&file), &Like::private())?;
        let chroot = Chroot::enter(self.sys, self.root, &["/dev", "/proc"])?;
        let run = Cmd::new("sh").args(["-c", SCRIPT, "sh"]);
        let run = run.arg(program).arg(old_inside).arg(new_inside);
        chroot.run(run.limit(PROGRAM_LIMIT))?;
        chroot.leave()?;
        if new.metadata()?.len() > MAX_MADE_BYTES {
            bail!(
                "{} wrote more than {MAX_MADE_BYTES} bytes",
                program.display()
            );
        }
        aside.file(&item.path, &Content::Of(&new), &like)?;
        Ok(true)
    }

    /// Runs a program in the new system.
    fn program(&self, words: &[String]) -> Result<()> {
        let Some((program, args)) = words.split_first() else {
            return Ok(());
        };
        let chroot = Chroot::enter(self.sys, self.root, &Chroot::KERNEL_DIRS)?;
        chroot.run(Cmd::new(program).args(args).limit(PROGRAM_LIMIT))?;
        chroot.leave()
    }
}
