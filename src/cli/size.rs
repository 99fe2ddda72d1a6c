//! Amounts of memory as people write them.

use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// So many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = anyhow::Error;

    /// Reads a number of bytes, or of K, M, G or T times 1024.
    fn from_str(text: &str) -> Result<Size> {
        let text = text.trim();
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let shift = match &text[digits.len()..] {
            "" => 0,
            "K" | "k" | "KiB" => 10,
            "M" | "MiB" => 20,
            "G" | "GiB" => 30,
            "T" | "TiB" => 40,
            other => bail!("{other:?} is no unit; use K, M, G or T"),
        };
        let number: u64 = digits.parse().context("it is not a whole number")?;
        let bytes = number.checked_mul(1 << shift);
        Ok(Size(bytes.context("it is too large")?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("512M", 512 << 20),
            ("2G", 2 << 30),
            ("4096", 4096),
            ("1KiB", 1024),
        ] {
            assert_eq!(text.parse::<Size>().unwrap(), Size(bytes));
        }
        for text in ["", "M", "1.5G", "5 apples", "99999999999T"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
