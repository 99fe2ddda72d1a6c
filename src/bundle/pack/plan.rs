//! How hard members are packed, and into chunks of what size.

use super::group::Group;
use crate::bundle::codec::xz::{self, Filter};
use crate::bundle::codec::{Codec, Effort, zstd};

/// Larger chunks make nothing smaller that is packed already, and unpacking
/// holds a chunk as it is packed.
const MAX_PACKED_CHUNK_BYTES: usize = 16 << 20;
/// What is packed already gives way to the second preset as much as to the sixth.
const MAX_PACKED_PRESET: u32 = 1;

/// What packing is to spare: time or bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PackMode {
    /// Smaller than `xz -6` in no more time; up to 170 MiB a thread with xz,
    /// 420 MiB with zstd.
    #[default]
    Default,
    /// No larger than one stream of `xz -9e`; up to 420 MiB a thread.
    Best,
    /// In a fraction of the time, and a fifth larger; up to 60 MiB a thread.
    Fast,
}

/// How the payload is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackPlan {
    /// The codec of all chunks.
    pub codec: Codec,
    /// What packing is to spare.
    pub mode: PackMode,
    /// xz's preset or zstd's level.
    pub level: u32,
    /// How far back a repetition may lie: what decides about memory.
    pub window_bytes: u32,
    /// The most an unpacked chunk has.
    pub chunk_bytes: usize,
}

impl PackPlan {
    /// Gives what belongs to `codec` and `mode`.
    pub fn new(codec: Codec, mode: PackMode) -> PackPlan {
        let (level, window_mib, chunk_mib) = match (codec, mode) {
            (Codec::Xz, PackMode::Default) => (6, 8, 16),
            // Packing takes 11.5 times the window, unpacking once.
            (Codec::Xz, PackMode::Best) => (9, 28, 56),
            // Packing takes 10 times the window, unpacking once.
            (Codec::Zstd, PackMode::Default) => (19, 32, 32),
            (Codec::Zstd, PackMode::Best) => (22, 32, 32),
            (Codec::Xz, PackMode::Fast) => (1, 1, 16),
            (Codec::Zstd, PackMode::Fast) => (3, 2, 16),
        };
        PackPlan {
            codec,
            mode,
            level,
            window_bytes: window_mib << 20,
            chunk_bytes: chunk_mib << 20,
        }
    }

    /// Returns the most memory that one packing thread takes.
    pub fn thread_bytes(&self) -> u64 {
        let mib = match (self.codec, self.mode) {
            (_, PackMode::Fast) => 60,
            (Codec::Xz, PackMode::Default) => 170,
            (Codec::Xz, PackMode::Best) | (Codec::Zstd, _) => 420,
        };
        mib << 20
    }

    /// Returns the most an unpacked chunk of `group` has.
    pub fn chunk_bytes(&self, group: Group) -> usize {
        match group {
            Group::Packed => self.chunk_bytes.min(MAX_PACKED_CHUNK_BYTES),
            _ => self.chunk_bytes,
        }
    }

    /// Returns how hard chunks of `group` are packed.
    pub fn effort(&self, group: Group) -> Effort {
        match self.codec {
            Codec::Xz => Effort::Xz(self.xz(group)),
            Codec::Zstd => Effort::Zstd(zstd::Effort {
                level: i32::try_from(self.level).unwrap_or(i32::MAX),
                window_bytes: self.window_bytes,
            }),
        }
    }

    fn xz(&self, group: Group) -> xz::Effort {
        let preset = match (self.mode, group) {
            (PackMode::Best, _) => self.level | xz::EXTREME,
            (PackMode::Default, Group::Packed) => self.level.min(MAX_PACKED_PRESET),
            (PackMode::Default | PackMode::Fast, _) => self.level,
        };
        let filter = match (self.mode, group) {
            (PackMode::Best, Group::Programs) => Filter::TryX86,
            (PackMode::Default | PackMode::Fast, Group::Programs) => Filter::X86,
            _ => Filter::None,
        };
        xz::Effort {
            preset,
            dict_bytes: self.window_bytes,
            filter,
        }
    }
}
