//! How a disk is divided that is made anew: what each volume gets of it.

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::size::Size;

/// Sizes of `/boot` and of the logical volumes.
///
/// Each volume gets its `min` first. What is left of the disk is shared out by
/// `share`, up to each one's `max`; what nobody takes stays free in the group.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Layout {
    /// The partition `/boot`.
    pub boot: Size,
    /// Each of the two slots, which are of one size: a release goes into either.
    pub slots: Share,
    /// The volume `data`.
    pub data: Share,
    /// The volume `image`.
    pub image: Share,
}

/// What one volume gets.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The least it has.
    pub min: Size,
    /// The most it gets; `None` is no limit.
    #[serde(default)]
    pub max: Option<Size>,
    /// Its part of what is left, beside the parts of the others.
    #[serde(default)]
    pub share: u32,
}

/// A `/boot` that is smaller does not hold the kernels of two slots.
const MIN_BOOT_BYTES: u64 = 256 << 20;

/// The largest part; the sum of all stays far from what can be counted.
const MAX_SHARE: u32 = 10_000;

impl Default for Layout {
    fn default() -> Layout {
        let share = |min_mib: u64, max_mib: Option<u64>, share| Share {
            min: Size(min_mib << 20),
            max: max_mib.map(|mib| Size(mib << 20)),
            share,
        };
        Layout {
            boot: Size(1 << 30),
            slots: share(2 << 10, Some(32 << 10), 25),
            data: share(512, None, 35),
            image: share(256, None, 15),
        }
    }
}

impl Layout {
    /// Looks whether the sizes make sense.
    ///
    /// # Errors
    /// When one does not, by its name.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.boot.0 >= MIN_BOOT_BYTES,
            "boot is {} bytes, below {MIN_BOOT_BYTES}",
            self.boot.0
        );
        for (name, volume) in [
            ("slots", &self.slots),
            ("data", &self.data),
            ("image", &self.image),
        ] {
            let max = volume.max.map_or(u64::MAX, |max| max.0);
            ensure!(
                volume.min.0 > 0 && volume.min.0 <= max,
                "{name} has min {} and max {max}; min is to be above 0 and not above max",
                volume.min.0
            );
            ensure!(
                volume.share <= MAX_SHARE,
                "{name} has share {}, above {MAX_SHARE}",
                volume.share
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    #[test]
    fn a_layout_is_read_and_what_makes_no_sense_is_refused_by_name() {
        let text = "layout: {boot: 512M, slots: {min: 4G, max: 8G, share: 1}, data: {min: 1G}}";
        let layout = Config::parse(text).unwrap().layout.unwrap();
        assert_eq!(layout.slots.max, Some(Size(8 << 30)));
        assert_eq!(layout.data.share, 0);
        assert_eq!(layout.image, Layout::default().image);
        for (text, word) in [
            ("layout: {boot: 1M}", "boot"),
            ("layout: {slots: {min: 4G, max: 1G}}", "slots"),
            ("layout: {data: {min: 0}}", "data"),
            ("layout: {data: {min: 1X}}", "no unit"),
            ("layout: {image: {min: 1G, share: 99999}}", "image"),
            ("layout: {swap: {min: 1G}}", "swap"),
        ] {
            let error = format!("{:#}", Config::parse(text).unwrap_err());
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
