//! An OVA: a tar archive with a description (OVF) of a machine, its disks, and a
//! manifest of digests.
//!
//! 1. [`archive`] lists the members.
//! 2. [`envelope`] reads the description, which is [`xml`].
//! 3. [`files`] finds each file that it refers to, with the size it should have.
//! 4. [`manifest`] checks every digest.
//!
//! Disks are used in place, unless they are compressed or in chunks. Signatures
//! (`.cert`) are not checked.

mod archive;
pub(super) mod envelope;
mod files;
mod manifest;
mod xml;

use std::collections::HashSet;
use std::path::Path;

use anyhow::Result;

use super::raw::RawImage;
use crate::progress::{Progress, Step};
use crate::refuse;
use archive::Members;
use envelope::{DiskRef, Envelope};

/// More disks than a VM has.
const MAX_DISKS: usize = 64;

/// A disk of the machine.
pub struct Disk {
    /// Its name, for messages.
    pub name: String,
    /// Where its bytes are.
    pub place: Place,
}

/// Where the bytes of a disk are.
pub enum Place {
    /// Nowhere: it is empty.
    Nowhere,
    /// In the archive, as they are: the offset and the length.
    InArchive(u64, u64),
    /// In a temporary file.
    Unpacked(RawImage),
}

/// Lists the disks of the machine in the OVA at `path`, in the order in which
/// Linux names them, once all of it has been checked.
///
/// # Errors
/// Class `Refused` when anything is missing or not what it should be.
pub fn open(path: &Path, progress: &dyn Progress) -> Result<Vec<Disk>> {
    let members = Members::list(path)?;
    let shown = members.shown();
    let Some(description) = members.only(".ovf")? else {
        refuse!("{shown} is not an OVA: it is a tar archive without a description (.ovf)");
    };
    let envelope = match Envelope::parse(&members.text(description)?) {
        Ok(envelope) => envelope,
        Err(error) => refuse!(
            "{} in {shown} cannot be read: {error:#}; export the VM again",
            description.name
        ),
    };
    check_disks(&members, &envelope)?;
    let mut needed = vec![description.name.as_str()];
    for file in &envelope.files {
        needed.extend(
            members
                .parts_of(file)?
                .iter()
                .map(|part| part.name.as_str()),
        );
    }
    match members.only(".mf")? {
        Some(manifest) => {
            let text = members.text(manifest)?;
            let total = needed.iter().filter_map(|name| members.find(name));
            let total = total.map(|member| member.size_bytes).sum();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            progress.start(Step::Read(name.into_owned()), Some(total));
            manifest::check(&text, &members, &needed, progress)?;
            progress.finish();
        }
        None => progress.warn(&format!(
            "{shown} has no manifest (.mf), so its digests cannot be checked"
        )),
    }
    for disk in &envelope.loose {
        progress.leave_out(&format!(
            "{}: no controller of the machine has it",
            disk.name()
        ));
    }
    envelope
        .disks
        .iter()
        .map(|disk| place(&members, disk, progress))
        .collect()
}

/// Lists the members of the archive at `path` and reads its description.
///
/// # Errors
/// Class `Refused` when either is not as it should be.
#[cfg(fuzzing)]
pub fn examine(path: &Path) -> Result<()> {
    let members = Members::list(path)?;
    if let Some(description) = members.only(".ovf")? {
        let envelope = Envelope::parse(&members.text(description)?)?;
        check_disks(&members, &envelope)?;
    }
    Ok(())
}

/// Refuses disks that cannot be read, whatever is in them.
fn check_disks(members: &Members<'_>, envelope: &Envelope) -> Result<()> {
    let shown = members.shown();
    if !envelope.disks.iter().any(|disk| disk.file.is_some()) {
        let names = members.all.iter().map(|member| member.name.clone());
        refuse!(
            "{shown} holds no disk: its description (OVF) names none (it holds {}); \
             export the VM with its disks",
            names.take(8).collect::<Vec<_>>().join(", ")
        );
    }
    if envelope.disks.len() > MAX_DISKS {
        refuse!(
            "{shown} has {} disks, more than {MAX_DISKS}",
            envelope.disks.len()
        );
    }
    let mut files = HashSet::new();
    let named = envelope.disks.iter().filter_map(|disk| disk.file.as_ref());
    for file in named {
        if !files.insert(&file.href) {
            refuse!(
                "{shown} has two disks in the one file {}; export the VM again",
                file.href
            );
        }
    }
    if let Some(disk) = envelope.disks.iter().find(|disk| disk.is_delta) {
        refuse!(
            "{} in {shown} holds only what differs from another disk (ovf:parentRef); \
             consolidate the VM's snapshots and export it again",
            disk.name()
        );
    }
    Ok(())
}

fn place(members: &Members<'_>, disk: &DiskRef, progress: &dyn Progress) -> Result<Disk> {
    let place = match &disk.file {
        None => Place::Nowhere,
        Some(file) => match members.parts_of(file)?.as_slice() {
            [whole] if file.compression.is_none() => {
                Place::InArchive(whole.offset, whole.size_bytes)
            }
            parts => Place::Unpacked(members.assemble(file, parts, progress)?),
        },
    };
    Ok(Disk {
        name: disk.name().to_owned(),
        place,
    })
}
