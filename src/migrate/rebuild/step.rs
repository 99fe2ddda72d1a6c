//! The steps, each with its code on the console and in the log.

use std::fmt;

/// One step. From [`Step::Table`] on, the disk is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The bundle and the settings in RAM are what they were.
    Prove,
    /// The disk is divided on paper.
    Plan,
    /// Table and volumes are made on a sparse file of the disk's size.
    Twin,
    /// Nobody holds the disk; its edges are copied to RAM.
    Hold,
    /// The point of no return: the new table is written.
    Table,
    /// The kernel reads it.
    Nodes,
    /// What older file systems left at the edges of partitions goes.
    Wipe,
    /// The volume group and its volumes are made.
    Group,
    /// `/boot`, the data and the image volume get file systems.
    Format,
    /// The slot is formatted and unpacked into.
    Unpack,
    /// It is read back from the disk and compared with the manifest.
    ReadBack,
    /// It becomes this appliance's system, with what is the customer's.
    Settle,
    /// Its kernel, initramfs and entry go to `/boot`.
    BootFiles,
    /// GRUB is installed, but for the sector that starts it.
    Grub,
    /// The boot state says that the slot is committed.
    Commit,
    /// Everything is read back from the disk.
    Verify,
    /// The write that makes the disk start.
    Start,
}

impl Step {
    /// What goes before the point of no return.
    pub const BEFORE: [Step; 4] = [Step::Prove, Step::Plan, Step::Twin, Step::Hold];

    /// What a restored first and last MiB undoes.
    pub const UNDOABLE: [Step; 2] = [Step::Table, Step::Nodes];

    /// What can only be gone through with.
    pub const FINAL: [Step; 11] = [
        Step::Wipe,
        Step::Group,
        Step::Format,
        Step::Unpack,
        Step::ReadBack,
        Step::Settle,
        Step::BootFiles,
        Step::Grub,
        Step::Commit,
        Step::Verify,
        Step::Start,
    ];

    /// Returns its code, short enough for the corner of a screenshot.
    pub fn code(self) -> &'static str {
        match self {
            Step::Prove => "M11",
            Step::Plan => "M12",
            Step::Twin => "M13",
            Step::Hold => "M14",
            Step::Table => "M20",
            Step::Nodes => "M21",
            Step::Wipe => "M22",
            Step::Group => "M23",
            Step::Format => "M24",
            Step::Unpack => "M25",
            Step::ReadBack => "M26",
            Step::Settle => "M27",
            Step::BootFiles => "M28",
            Step::Grub => "M29",
            Step::Commit => "M30",
            Step::Verify => "M31",
            Step::Start => "M32",
        }
    }

    /// Returns the word that programs know it by.
    pub fn id(self) -> &'static str {
        match self {
            Step::Prove => "prove",
            Step::Plan => "plan",
            Step::Twin => "twin",
            Step::Hold => "hold",
            Step::Table => "table",
            Step::Nodes => "nodes",
            Step::Wipe => "wipe",
            Step::Group => "group",
            Step::Format => "format",
            Step::Unpack => "unpack",
            Step::ReadBack => "read-back",
            Step::Settle => "settle",
            Step::BootFiles => "boot-files",
            Step::Grub => "grub",
            Step::Commit => "commit",
            Step::Verify => "verify",
            Step::Start => "start",
        }
    }

    /// Returns the step to begin with again after this one failed: the nearest one
    /// that makes anew what a half-done step may have spoilt.
    pub fn again_from(self) -> Step {
        match self {
            // A tree that is half settled is no image any more.
            Step::ReadBack | Step::Settle => Step::Unpack,
            Step::Grub | Step::Commit => Step::BootFiles,
            // What does not read back may be any of it.
            Step::Verify => Step::Unpack,
            other => other,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code(), self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_go_up_and_a_step_is_taken_again_from_one_that_is_not_later() {
        let all = [&Step::BEFORE[..], &Step::UNDOABLE, &Step::FINAL].concat();
        assert!(all.is_sorted_by_key(|step| step.code()));
        let place = |list: &[Step], step| list.iter().position(|other| *other == step);
        for list in [&Step::UNDOABLE[..], &Step::FINAL] {
            for (at, step) in list.iter().enumerate() {
                assert!(place(list, step.again_from()).unwrap() <= at, "{step}");
            }
        }
    }
}
