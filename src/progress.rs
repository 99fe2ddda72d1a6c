//! How long work tells how far it is; never prints by itself.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::slot::Slot;

/// What is being done. Programs know a step by its [`id`](Step::id), people by
/// its sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A disk of the image is turned into plain bytes.
    Convert(String),
    /// A logical volume of several segments is put together.
    Join(String),
    /// The files of a tree are listed.
    ListFiles,
    /// The initramfs of the migration environment is made.
    MakeEnvironment,
    /// A tree is packed.
    Pack,
    /// The bundle of this name is decoded to be looked at.
    Read(String),
    /// Every byte of a bundle is compared with its digest.
    Verify,
    /// A bundle is unpacked.
    Unpack,
    /// The running system gets boot files and a boot state of its own.
    Adopt(Slot),
    /// The slot is declared invalid and what it booted from is removed.
    Invalidate(Slot),
    /// Every block of the slot is read, before any is written.
    ReadTest(Slot),
    /// A file system is made in the slot.
    Format(Slot),
    /// What was unpacked is read again and compared.
    ReadBack,
    /// The unpacked tree becomes this appliance's system.
    Settle,
    /// Kernel, initramfs and entry of the slot are written.
    WriteBootFiles,
    /// GRUB is installed from the new system.
    InstallGrub,
    /// The new system is put on trial.
    Arm,
    /// Everything is put back.
    Undo,
    /// The slot is looked at, whether it would boot.
    CheckSlot(Slot),
    /// The slot's system, which runs, is checked.
    CheckHealth(Slot),
    /// What is there before a migration is kept.
    Keep,
    /// The swap area in the volume of this name is made smaller.
    ShrinkSwap(String),
    /// The volume of this name is made.
    MakeVolume(String),
    /// The volume of this name, which both systems share, gets a file system.
    FormatShared(String),
    /// The settings name the volumes.
    NameVolumes,
    /// The partition table takes what the disk has grown by.
    GrowPartition,
    /// The volume of this name takes free space.
    GrowVolume(String),
}

impl Step {
    /// Returns the word that programs know the step by.
    pub fn id(&self) -> &'static str {
        match self {
            Step::Convert(_) => "convert",
            Step::Join(_) => "join",
            Step::ListFiles => "list",
            Step::MakeEnvironment => "environment",
            Step::Pack => "pack",
            Step::Read(_) => "read",
            Step::Verify => "verify",
            Step::Unpack => "unpack",
            Step::Adopt(_) => "adopt",
            Step::Invalidate(_) => "invalidate",
            Step::ReadTest(_) => "read-test",
            Step::Format(_) => "format",
            Step::ReadBack => "read-back",
            Step::Settle => "settle",
            Step::WriteBootFiles => "boot-files",
            Step::InstallGrub => "grub",
            Step::Arm => "arm",
            Step::Undo => "undo",
            Step::CheckSlot(_) => "check-slot",
            Step::CheckHealth(_) => "check-health",
            Step::Keep => "keep",
            Step::ShrinkSwap(_) => "swap",
            Step::MakeVolume(_) => "volume",
            Step::FormatShared(_) => "data",
            Step::NameVolumes => "names",
            Step::GrowPartition => "grow-partition",
            Step::GrowVolume(_) => "grow-volume",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Convert(disk) => write!(f, "reading {disk}"),
            Step::Join(volume) => write!(f, "joining {volume}"),
            Step::ListFiles => f.write_str("listing files"),
            Step::MakeEnvironment => f.write_str("making the migration environment"),
            Step::Pack => f.write_str("packing"),
            Step::Read(bundle) => write!(f, "reading {bundle}"),
            Step::Verify => f.write_str("verifying"),
            Step::Unpack => f.write_str("unpacking"),
            Step::Adopt(slot) => write!(f, "adopting slot {slot}"),
            Step::Invalidate(slot) => write!(f, "declaring slot {slot} invalid"),
            Step::ReadTest(slot) => write!(f, "reading the blocks of slot {slot}"),
            Step::Format(slot) => write!(f, "formatting slot {slot}"),
            Step::ReadBack => f.write_str("reading back"),
            Step::Settle => f.write_str("preparing the new system"),
            Step::WriteBootFiles => f.write_str("writing boot files"),
            Step::InstallGrub => f.write_str("installing GRUB"),
            Step::Arm => f.write_str("arming the trial"),
            Step::Undo => f.write_str("undoing"),
            Step::CheckSlot(slot) => write!(f, "checking slot {slot}"),
            Step::CheckHealth(slot) => write!(f, "checking the health of slot {slot}"),
            Step::Keep => f.write_str("keeping what is there"),
            Step::ShrinkSwap(name) => write!(f, "making the swap {name} smaller"),
            Step::MakeVolume(name) => write!(f, "making the volume {name}"),
            Step::FormatShared(name) => write!(f, "formatting the volume {name}"),
            Step::NameVolumes => f.write_str("naming the volumes in the settings"),
            Step::GrowPartition => f.write_str("enlarging the partition"),
            Step::GrowVolume(name) => write!(f, "enlarging the volume {name}"),
        }
    }
}

/// Receives the progress of one command. Calls may come from several threads.
pub trait Progress: Sync {
    /// Starts a step, of so many bytes where that is known; ends the one before it.
    fn start(&self, step: Step, total_bytes: Option<u64>);
    /// Adds bytes done in the current step.
    fn advance(&self, bytes: u64);
    /// Ends the last step.
    fn finish(&self);
    /// Tells the user something worth a line of its own.
    fn tell(&self, note: Note);

    /// Tells something that is neither of the following.
    fn note(&self, text: &str) {
        self.tell(Note::Remark(text.to_owned()));
    }

    /// Tells what of a source is not packed, and why.
    fn leave_out(&self, what: &str) {
        self.tell(Note::LeftOut(what.to_owned()));
    }

    /// Tells what is probably not as it should be.
    fn warn(&self, text: &str) {
        self.tell(Note::Warning(text.to_owned()));
    }
}

/// Something worth a line of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// What of a source is not packed, and why.
    LeftOut(String),
    /// What is probably not as it should be.
    Warning(String),
    /// Anything else.
    Remark(String),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::LeftOut(what) => write!(f, "left out {what}"),
            Note::Warning(text) => write!(f, "warning: {text}"),
            Note::Remark(text) => f.write_str(text),
        }
    }
}

/// Passes everything on, and keeps what was told in lines of their own.
pub struct Recorder<'a> {
    to: &'a dyn Progress,
    notes: Mutex<Vec<Note>>,
}

impl<'a> Recorder<'a> {
    /// Passes on to `to`.
    pub fn new(to: &'a dyn Progress) -> Recorder<'a> {
        Recorder {
            to,
            notes: Mutex::default(),
        }
    }

    /// Returns what was told.
    pub fn into_notes(self) -> Vec<Note> {
        self.notes
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Recorder<'_> {
    fn start(&self, step: Step, total_bytes: Option<u64>) {
        self.to.start(step, total_bytes);
    }

    fn advance(&self, bytes: u64) {
        self.to.advance(bytes);
    }

    fn finish(&self) {
        self.to.finish();
    }

    fn tell(&self, note: Note) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push(note.clone());
        self.to.tell(note);
    }
}

/// Reports nothing.
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _step: Step, _total_bytes: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn finish(&self) {}
    fn tell(&self, _note: Note) {}
}
