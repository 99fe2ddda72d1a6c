//! Reads a bundle for a comparison: its tree, and the files of its package
//! databases on the way.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

use crate::bundle::{Bundle, Contents, Entry, Visitor, visit};
use crate::packages::dpkg::{self, Role};
use crate::packages::{Packages, rpm};
use crate::progress::Progress;
use crate::refuse;
use crate::system::System;
use crate::system::files::ScratchDir;
use crate::tree::meta::Kind;

/// The most that is copied of the RPM databases of one tree.
const MAX_RPM_BYTES: u64 = 256 << 20;

/// A tree and what its package databases say.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) contents: Contents,
    with_packages: bool,
    dpkg: dpkg::Database,
    rpm: Option<RpmCopy>,
    sink: Sink,
}

/// Where the data of the current file go as well.
#[derive(Default)]
enum Sink {
    #[default]
    Nowhere,
    Dpkg(Role),
    Rpm(File),
}

/// The RPM databases of a tree, copied for rpm to read.
struct RpmCopy {
    scratch: ScratchDir,
    bytes: u64,
}

impl Reading {
    /// Reads `bundle`, and its package databases when they are wanted.
    pub(super) fn of(
        bundle: &mut Bundle,
        with_packages: bool,
        progress: &dyn Progress,
    ) -> Result<Reading> {
        let mut reading = Reading {
            with_packages,
            ..Reading::default()
        };
        let label = bundle.label().to_owned();
        visit(bundle, &mut reading, progress).with_context(|| format!("looking into {label}"))?;
        reading.contents.finish();
        Ok(reading)
    }

    /// Returns the packages of the tree and marks what they own; `None` where
    /// there is no database, or none that this machine can read.
    pub(super) fn packages(
        &mut self,
        sys: &dyn System,
        progress: &dyn Progress,
    ) -> Result<Option<Packages>> {
        let list = self.dpkg.packages();
        let contents = &mut self.contents;
        if !list.is_empty() {
            self.dpkg.each_owned(&mut |path| contents.set_owned(path));
            contents.set_owned_below(dpkg::DIR);
            return Ok(Some(Packages::new(list)));
        }
        let Some(copy) = &self.rpm else {
            return Ok(None);
        };
        match copy.read(sys) {
            Ok(Some((packages, owned))) => {
                owned
                    .iter()
                    .for_each(|path| contents.set_owned(path.as_bytes()));
                rpm::DIRS
                    .iter()
                    .for_each(|dir| contents.set_owned_below(dir));
                Ok(Some(packages))
            }
            Ok(None) => Ok(None),
            Err(error) if rpm::is_missing(&error) => {
                progress.note("this machine has no rpm to read the package database with");
                Ok(None)
            }
            Err(error) => {
                progress.note(&format!("rpm cannot read the package database: {error:#}"));
                Ok(None)
            }
        }
    }

    fn sink_of(&mut self, entry: &Entry) -> Result<Sink> {
        if !self.with_packages || entry.meta.kind != Kind::File || entry.is_hard_link {
            return Ok(Sink::Nowhere);
        }
        if let Some(role) = Role::of(entry.path) {
            self.dpkg.begin(role);
            return Ok(Sink::Dpkg(role));
        }
        let Some((number, name)) = rpm::place_of(entry.path) else {
            return Ok(Sink::Nowhere);
        };
        let copy = match &mut self.rpm {
            Some(copy) => copy,
            none => none.insert(RpmCopy {
                scratch: ScratchDir::new()?,
                bytes: 0,
            }),
        };
        Ok(Sink::Rpm(copy.begin(
            number,
            name,
            entry.meta.size_bytes,
        )?))
    }
}

impl RpmCopy {
    /// Makes an empty copy of a file of the `number`th database.
    fn begin(&mut self, number: usize, name: &[u8], size_bytes: u64) -> Result<File> {
        self.bytes = self.bytes.saturating_add(size_bytes);
        if self.bytes > MAX_RPM_BYTES {
            refuse!(
                "its RPM database has more than {MAX_RPM_BYTES} bytes; \
                 compare file by file with --files"
            );
        }
        let dir = self.scratch.path().join(number.to_string());
        let path = dir.join(OsStr::from_bytes(name));
        let make = || {
            fs::create_dir_all(&dir)?;
            let file = File::create_new(&path)?;
            file.set_len(size_bytes)?;
            Ok::<File, std::io::Error>(file)
        };
        make().with_context(|| format!("copying the RPM database to {}", path.display()))
    }

    /// Reads the first database that holds any package.
    fn read(&self, sys: &dyn System) -> Result<Option<(Packages, Vec<String>)>> {
        for number in 0..rpm::DIRS.len() {
            let dir = self.scratch.path().join(number.to_string());
            if !dir.exists() {
                continue;
            }
            let packages = Packages::new(rpm::packages(sys, &dir)?);
            if !packages.is_empty() {
                return Ok(Some((packages, rpm::owned(sys, &dir)?)));
            }
        }
        Ok(None)
    }
}

impl Visitor for Reading {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.contents.entry(entry)?;
        self.sink = self.sink_of(entry)?;
        Ok(())
    }

    fn data(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.contents.data(offset, data)?;
        match &self.sink {
            Sink::Nowhere => Ok(()),
            Sink::Dpkg(role) => self.dpkg.add(*role, data),
            Sink::Rpm(file) => file
                .write_all_at(data, offset)
                .context("copying the RPM database"),
        }
    }
}
