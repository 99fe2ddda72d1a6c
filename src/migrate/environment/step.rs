//! The steps, by the code that stands on the console.

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The order is found, and can never be started again.
    Order,
    /// The disk it means is found.
    Disk,
    /// There is room in memory.
    Memory,
    /// Bundle and settings are copied there.
    Copy,
    /// Their digests are compared.
    Digest,
    /// The bundle's signature is checked.
    Signature,
    /// Each tool is run once.
    Tools,
    /// Nobody holds the disk.
    Release,
}

impl Step {
    /// Returns the code, which a person can read off a screenshot.
    pub fn code(self) -> &'static str {
        match self {
            Step::Order => "M01",
            Step::Disk => "M02",
            Step::Memory => "M03",
            Step::Copy => "M04",
            Step::Digest => "M05",
            Step::Signature => "M06",
            Step::Tools => "M07",
            Step::Release => "M08",
        }
    }

    /// Returns the word that programs know the step by.
    pub fn name(self) -> &'static str {
        match self {
            Step::Order => "order",
            Step::Disk => "disk",
            Step::Memory => "memory",
            Step::Copy => "copy",
            Step::Digest => "digest",
            Step::Signature => "signature",
            Step::Tools => "tools",
            Step::Release => "release",
        }
    }
}
