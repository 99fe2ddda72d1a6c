//! One system's accounts, parsed, and the questions a merge asks about them.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};

use super::conventions::Conventions;
use super::files::AccountFiles;
use super::hashes::Kind;
use super::table::{Format, Name, Record, Table, field, list, number};

/// The overflow id: what stands for owners that have no id here. It means the
/// same in every system, whatever it is called.
pub const OVERFLOW: u32 = 65534;

/// A password as it counts, wherever it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Password {
    /// The hash, or what locks it.
    pub hash: Vec<u8>,
    /// The seven fields behind it in shadow.
    pub ageing: Vec<Vec<u8>>,
}

impl Password {
    /// One that fits nothing and does not age.
    pub fn locked() -> Password {
        Password {
            hash: b"!".to_vec(),
            ageing: vec![Vec::new(); 7],
        }
    }

    /// Tells whether there is a password that fits.
    pub fn is_set(&self) -> bool {
        Kind::of(&self.hash).is_set()
    }

    /// Tells whether somebody gets in, with a password or without one.
    pub fn is_open(&self) -> bool {
        Kind::of(&self.hash).is_open()
    }
}

/// The six tables of a system.
#[derive(Clone, Debug)]
pub struct Side {
    pub passwd: Table,
    pub shadow: Option<Table>,
    pub group: Table,
    pub gshadow: Option<Table>,
    pub subuid: Option<Table>,
    pub subgid: Option<Table>,
    pub conventions: Conventions,
    /// The first group of each gid.
    groups_by_gid: HashMap<u32, Name>,
}

impl Side {
    /// Parses the files of a system.
    pub fn parse(files: &AccountFiles) -> Result<Side> {
        let optional = |format, text: &Option<Vec<u8>>, name: &str| {
            let table = text.as_ref().map(|text| Table::parse(format, text));
            table
                .transpose()
                .with_context(|| format!("reading accounts: /etc/{name}"))
        };
        let passwd =
            Table::parse(Format::Passwd, &files.passwd).context("reading accounts: /etc/passwd")?;
        let group = Table::parse(Format::Group, files.group.as_deref().unwrap_or_default())
            .context("reading accounts: /etc/group")?;
        let mut groups_by_gid = HashMap::new();
        for record in group.records() {
            let name = record[field::NAME].clone();
            groups_by_gid.entry(id_of(record)).or_insert(name);
        }
        Ok(Side {
            passwd,
            shadow: optional(Format::Shadow, &files.shadow, "shadow")?,
            group,
            gshadow: optional(Format::Gshadow, &files.gshadow, "gshadow")?,
            subuid: optional(Format::Subids, &files.subuid, "subuid")?,
            subgid: optional(Format::Subids, &files.subgid, "subgid")?,
            conventions: files.conventions.clone(),
            groups_by_gid,
        })
    }

    /// Tells whether it has an account.
    pub fn has(&self, name: &[u8]) -> bool {
        self.passwd.get(name).is_some()
    }

    /// Tells whether it had an account once that nobody can read now, or has it.
    pub fn has_or_hides(&self, name: &[u8]) -> bool {
        self.has(name) || self.passwd.is_unreadable(name)
    }

    /// Returns the uid of a name.
    pub fn uid(&self, name: &[u8]) -> Option<u32> {
        self.passwd.get(name).map(id_of)
    }

    /// Returns the gid of a group.
    pub fn gid(&self, group: &[u8]) -> Option<u32> {
        self.group.get(group).map(id_of)
    }

    /// Returns the group a gid means here.
    pub fn group_of(&self, gid: u32) -> Option<&Name> {
        self.groups_by_gid.get(&gid)
    }

    /// Returns the name of an account's primary group.
    pub fn primary(&self, name: &[u8]) -> Option<&Name> {
        let gid = number(&self.passwd.get(name)?[field::GID])?;
        self.group_of(gid)
    }

    /// Tells whether an account has the uid of a person.
    pub fn is_person(&self, name: &[u8]) -> bool {
        let is_in_range = |uid| uid >= self.conventions.uid_min && uid != OVERFLOW;
        self.uid(name).is_some_and(is_in_range)
    }

    /// Tells whether a group has a gid of the range for people.
    pub fn is_persons_group(&self, group: &[u8]) -> bool {
        let is_in_range = |gid| gid >= self.conventions.gid_min && gid != OVERFLOW;
        self.gid(group).is_some_and(is_in_range)
    }

    /// Returns the password of an account, wherever it stands; `None` where
    /// that cannot be read.
    pub fn password(&self, name: &[u8]) -> Option<Password> {
        let written = &self.passwd.get(name)?[field::PASSWORD];
        if written != b"x" {
            let hash = written.clone();
            let is_clean = hash.iter().all(u8::is_ascii_graphic);
            return is_clean.then(|| Password {
                hash,
                ..Password::locked()
            });
        }
        let shadow = self.shadow.as_ref()?;
        match shadow.get(name) {
            Some(record) => Some(Password {
                hash: record[field::PASSWORD].clone(),
                ageing: record[2..].to_vec(),
            }),
            None if shadow.is_unreadable(name) => None,
            // Nobody gets in where shadow is silent.
            None => Some(Password::locked()),
        }
    }

    /// Returns the members of a group; none where there is no such group.
    pub fn members(&self, group: &[u8]) -> HashSet<&[u8]> {
        let record = self.group.get(group);
        record.map_or_else(HashSet::new, |r| list(&r[field::MEMBERS]).collect())
    }
}

/// Returns the third field, which every record of passwd and group has as a number.
pub fn id_of(record: &Record) -> u32 {
    number(&record[field::ID]).unwrap_or(OVERFLOW)
}
