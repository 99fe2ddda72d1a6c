//! The x86-64 instruction set levels, and which of them a machine has.
//!
//! Pure: callers read `/proc/cpuinfo` and hand over its text.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// A level of the x86-64 psABI; each includes the ones before it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum CpuLevel {
    /// The baseline that every 64-bit x86 processor has.
    #[default]
    #[serde(rename = "x86-64-v1")]
    V1,
    /// About 2009: SSE4.2 and POPCNT. RHEL 9 and its relatives need it.
    #[serde(rename = "x86-64-v2")]
    V2,
    /// About 2015: AVX2 and BMI. RHEL 10 and its relatives need it.
    #[serde(rename = "x86-64-v3")]
    V3,
    /// AVX-512.
    #[serde(rename = "x86-64-v4")]
    V4,
}

/// The flags each level adds, as the kernel names them in `/proc/cpuinfo`
/// (`pni` is SSE3, `abm` holds LZCNT).
const ADDED_FLAGS: [(CpuLevel, &[&str]); 3] = [
    (
        CpuLevel::V2,
        &[
            "cx16", "lahf_lm", "popcnt", "pni", "ssse3", "sse4_1", "sse4_2",
        ],
    ),
    (
        CpuLevel::V3,
        &[
            "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave",
        ],
    ),
    (
        CpuLevel::V4,
        &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"],
    ),
];

impl CpuLevel {
    /// All levels, lowest first.
    pub const ALL: [CpuLevel; 4] = [CpuLevel::V1, CpuLevel::V2, CpuLevel::V3, CpuLevel::V4];

    /// Returns the level's name, as in `release.yaml` and in messages.
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
        match CpuLevel::ALL.iter().find(|level| level.name() == text) {
            Some(level) => Ok(*level),
            None => bail!("no such CPU level {text:?}; the levels are x86-64-v1 to x86-64-v4"),
        }
    }
}

/// Returns the flags of `wanted` that at least one logical CPU in `cpuinfo` lacks.
pub fn missing_flags(cpuinfo: &str, wanted: CpuLevel) -> Vec<&'static str> {
    let common = common_flags(cpuinfo);
    ADDED_FLAGS
        .iter()
        .filter(|(level, _)| *level <= wanted)
        .flat_map(|(_, flags)| flags.iter().copied())
        .filter(|flag| !common.contains(flag))
        .collect()
}

/// Returns the flags that all logical CPUs share; none when the text lists none.
fn common_flags(cpuinfo: &str) -> HashSet<&str> {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.trim() == "flags")
        .map(|(_, flags)| flags.split_ascii_whitespace().collect::<HashSet<&str>>())
        .reduce(|common, more| &common & &more)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEHALEM: &str = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat \
        clflush mmx fxsr sse sse2 syscall nx lm rep_good nopl pni ssse3 cx16 sse4_1 sse4_2 \
        popcnt hypervisor lahf_lm";
    const CORE2: &str = "fpu cx8 cmov mmx fxsr sse sse2 syscall nx lm pni ssse3 cx16 lahf_lm";

    fn cpuinfo(cpus: &[&str]) -> String {
        cpus.iter()
            .enumerate()
            .map(|(i, flags)| {
                format!("processor\t: {i}\nflags\t\t: {flags}\nvmx flags\t: avx2\nbugs\t\t:\n\n")
            })
            .collect()
    }

    #[test]
    fn the_level_is_what_every_cpu_has() {
        let haswell = format!("{NEHALEM} avx avx2 bmi1 bmi2 f16c fma abm movbe xsave");
        let skylake = format!("{haswell} avx512f avx512bw avx512cd avx512dq avx512vl");
        for (cpus, level) in [
            (vec![CORE2], CpuLevel::V1),
            (vec![NEHALEM], CpuLevel::V2),
            (vec![&haswell], CpuLevel::V3),
            (vec![&skylake], CpuLevel::V4),
            (vec![&skylake, &haswell], CpuLevel::V3),
            (vec![NEHALEM, CORE2], CpuLevel::V1),
            (vec![], CpuLevel::V1),
        ] {
            let text = cpuinfo(&cpus);
            let is_reached = |level: &CpuLevel| missing_flags(&text, *level).is_empty();
            let highest = CpuLevel::ALL.into_iter().rev().find(is_reached);
            assert_eq!(highest.unwrap_or(CpuLevel::V1), level, "{cpus:?}");
        }
    }

    #[test]
    fn missing_flags_are_named_even_when_only_one_cpu_lacks_them() {
        let text = cpuinfo(&[NEHALEM, CORE2]);
        assert_eq!(
            missing_flags(&text, CpuLevel::V2),
            ["popcnt", "sse4_1", "sse4_2"]
        );
        assert!(missing_flags(&text, CpuLevel::V1).is_empty());
        assert_eq!(missing_flags("", CpuLevel::V2).len(), 7);
    }

    #[test]
    fn names_are_read_back_and_ordered() {
        for level in CpuLevel::ALL {
            assert_eq!(level.to_string().parse::<CpuLevel>().unwrap(), level);
            assert_eq!(
                serde_json::to_string(&level).unwrap(),
                format!("{:?}", level.name())
            );
        }
        assert!(CpuLevel::V2 < CpuLevel::V3);
        assert!("v2".parse::<CpuLevel>().is_err());
    }
}
