//! The x86-64 micro-architecture levels of the psABI, as values.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// What a system demands of the CPU; a higher level includes the lower ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CpuLevel {
    /// Every x86-64 CPU.
    #[serde(rename = "x86-64-v1")]
    V1,
    /// SSE4.2 and older; RHEL 9 asks for it.
    #[serde(rename = "x86-64-v2")]
    V2,
    /// AVX2 and older; RHEL 10 asks for it.
    #[serde(rename = "x86-64-v3")]
    V3,
    /// AVX-512 and older.
    #[serde(rename = "x86-64-v4")]
    V4,
}

impl CpuLevel {
    /// All levels, lowest first.
    pub const ALL: [CpuLevel; 4] = [CpuLevel::V1, CpuLevel::V2, CpuLevel::V3, CpuLevel::V4];

    /// Returns the level's name in the psABI.
    pub fn name(self) -> &'static str {
        match self {
            CpuLevel::V1 => "x86-64-v1",
            CpuLevel::V2 => "x86-64-v2",
            CpuLevel::V3 => "x86-64-v3",
            CpuLevel::V4 => "x86-64-v4",
        }
    }
}

impl fmt::Display for CpuLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for CpuLevel {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<CpuLevel> {
        match CpuLevel::ALL.into_iter().find(|l| l.name() == text) {
            Some(level) => Ok(level),
            None => bail!("no such CPU level {text:?}; the levels are x86-64-v1 to x86-64-v4"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_and_their_names_are_read_back() {
        assert!(CpuLevel::ALL.is_sorted());
        for level in CpuLevel::ALL {
            assert_eq!(level.to_string().parse::<CpuLevel>().unwrap(), level);
            let yaml = serde_yaml::to_string(&level).unwrap();
            assert_eq!(yaml.trim(), level.name());
        }
        assert!("x86-64-v5".parse::<CpuLevel>().is_err());
    }
}
