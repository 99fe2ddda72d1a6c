//! The two places a system can live in, and the rules between them.
//!
//! Pure values; nothing here reads or writes.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// One of the two root volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The volume `root`.
    Root,
    /// The volume `back`.
    Back,
}

impl Slot {
    /// Both slots, in the order they are shown.
    pub const ALL: [Slot; 2] = [Slot::Root, Slot::Back];

    /// Returns the slot that is not this one.
    pub fn other(self) -> Slot {
        match self {
            Slot::Root => Slot::Back,
            Slot::Back => Slot::Root,
        }
    }

    /// Returns the slot's name, as in paths and messages.
    pub fn name(self) -> &'static str {
        match self {
            Slot::Root => "root",
            Slot::Back => "back",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Slot {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Slot> {
        match text {
            "root" => Ok(Slot::Root),
            "back" => Ok(Slot::Back),
            _ => bail!("no such slot {text:?}; the slots are root and back"),
        }
    }
}
