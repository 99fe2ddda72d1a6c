//! How much room a setting asks for: bytes, or a share of what is free.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, ensure};
use serde::{Deserialize, Deserializer, de};

/// An amount of room, such as `512M`, `20G` or `50%`; `0` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of what is free, 1 to 100.
    Percent(u8),
}

impl Amount {
    /// Returns how many of `free` units of `unit_bytes` each it is at most. A size
    /// is rounded up to whole units.
    pub fn units(self, free: u64, unit_bytes: u64) -> u64 {
        match self {
            Amount::Bytes(bytes) => bytes.div_ceil(unit_bytes.max(1)).min(free),
            Amount::Percent(percent) => {
                let share = u128::from(free) * u128::from(percent) / 100;
                u64::try_from(share).unwrap_or(free)
            }
        }
    }
}

impl FromStr for Amount {
    type Err = Error;

    fn from_str(text: &str) -> Result<Amount> {
        let context =
            || format!("{text:?} is no size such as 512M or 20G, and no share such as 50%");
        if let Some(number) = text.strip_suffix('%') {
            let percent: u8 = number.parse().with_context(context)?;
            ensure!((1..=100).contains(&percent), "{text:?} is not 1% to 100%");
            return Ok(Amount::Percent(percent));
        }
        let (number, shift) = match text.char_indices().next_back() {
            Some((at, 'M')) => (&text[..at], 20),
            Some((at, 'G')) => (&text[..at], 30),
            Some((at, 'T')) => (&text[..at], 40),
            _ => (text, 0),
        };
        ensure!(number.bytes().all(|b| b.is_ascii_digit()), "{}", context());
        let number: u64 = number.parse().with_context(context)?;
        ensure!(
            shift > 0 || number == 0,
            "{text:?} has no unit; write {text}M or {text}G"
        );
        let bytes = number.checked_mul(1 << shift).with_context(context)?;
        Ok(Amount::Bytes(bytes))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Bytes(0) => f.write_str("0"),
            Amount::Bytes(bytes) => write!(f, "{}M", bytes >> 20),
            Amount::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Amount, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        let text = match Written::deserialize(from)? {
            Written::Number(number) => number.to_string(),
            Written::Text(text) => text,
        };
        text.parse()
            .map_err(|error| de::Error::custom(format!("{error:#}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares_are_read_and_anything_else_is_refused() {
        for (text, wanted) in [
            ("512M", Amount::Bytes(512 << 20)),
            ("20G", Amount::Bytes(20 << 30)),
            ("1T", Amount::Bytes(1 << 40)),
            ("0", Amount::Bytes(0)),
            ("50%", Amount::Percent(50)),
        ] {
            let read: Amount = text.parse().unwrap();
            assert_eq!(read, wanted, "{text}");
            assert_eq!(read.to_string().parse::<Amount>().unwrap(), wanted);
        }
        for text in [
            "",
            "M",
            "5",
            "-1G",
            "+1G",
            "1.5G",
            "0%",
            "101%",
            "%",
            "1K",
            "99999999999T",
            "é",
        ] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_amount_is_never_more_than_what_is_free() {
        let mib = 1 << 20;
        assert_eq!(Amount::Bytes(10 << 20).units(100, 4 * mib), 3);
        assert_eq!(Amount::Bytes(1 << 40).units(100, 4 * mib), 100);
        assert_eq!(Amount::Percent(50).units(101, mib), 50);
        assert_eq!(Amount::Percent(100).units(u64::MAX, mib), u64::MAX);
    }
}
