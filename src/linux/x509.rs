//! From when to when a certificate is valid (RFC 5280), which is all we ask of one.

use serde::{Deserialize, Serialize};

/// The most bytes in which a certificate is looked for.
pub const MAX_BYTES: u64 = 256 << 10;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// A time of validity, in seconds since 1970; before that it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validity {
    /// When it begins.
    pub from: u64,
    /// When it ends.
    pub until: u64,
}

/// Reads the first certificate of a file, PEM or DER; `None` where there is none.
pub fn validity(file: &[u8]) -> Option<Validity> {
    let text = str::from_utf8(file).unwrap_or_default();
    let Some((_, rest)) = text.split_once(BEGIN) else {
        return of_der(file);
    };
    of_der(&base64(rest.split_once(END)?.0)?)
}

fn of_der(mut der: &[u8]) -> Option<Validity> {
    let mut certificate = expect(&mut der, SEQUENCE)?;
    let mut content = expect(&mut certificate, SEQUENCE)?;
    // Certificates of version 1 do not say so.
    let mut rest = content;
    if next(&mut rest)?.0 == VERSION {
        content = rest;
    }
    expect(&mut content, INTEGER)?;
    expect(&mut content, SEQUENCE)?; // how it is signed
    expect(&mut content, SEQUENCE)?; // by whom
    let mut validity = expect(&mut content, SEQUENCE)?;
    let from = time(next(&mut validity)?)?;
    let until = time(next(&mut validity)?)?;
    Some(Validity { from, until })
}

fn expect<'a>(der: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    next(der).filter(|found| found.0 == tag).map(|it| it.1)
}

/// Takes one value with its tag off the front.
fn next<'a>(der: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(*first) {
        short @ 0..=0x7f => (short, rest),
        long @ 0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(long - 0x80)?;
            let length = bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    let (body, rest) = rest.split_at_checked(length)?;
    *der = rest;
    Some((*tag, body))
}

/// Reads `491231235959Z`, whose years are of 1950 to 2049, or `20501231235959Z`.
fn time((tag, body): (u8, &[u8])) -> Option<u64> {
    let text = str::from_utf8(body).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (tag, text.len()) {
        (UTC_TIME, 12) => {
            let (year, rest) = text.split_at(2);
            let year: u64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (GENERALIZED_TIME, 14) => {
            let (year, rest) = text.split_at(4);
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let part = |at: usize| rest[at..at + 2].parse::<u64>().ok();
    let days = days_since_1970(year, part(0)?, part(2)?)?;
    Some(days * 86_400 + part(4)? * 3600 + part(6)? * 60 + part(8)?)
}

/// Counts the days from 1970 to a day of the Gregorian calendar.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let before = BEFORE.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    if year < 1970 {
        return Some(0);
    }
    let is_leap = leap_days(year) != leap_days(year - 1);
    let this_year = before + u64::from(is_leap && month > 2) + day.checked_sub(1)?;
    Some((year - 1970) * 365 + leap_days(year - 1) - leap_days(1969) + this_year)
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0u32, 0u32);
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count).to_le_bytes()[0]);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What `openssl req -x509 -newkey ed25519 -nodes -subj /CN=x -days 36500` made.
    const PEM: &str = include_str!("../../tests/data/certificate.pem");

    #[test]
    fn the_validity_of_a_certificate_is_read() {
        let found = validity(PEM.as_bytes()).unwrap();
        assert_eq!((found.from, found.until), (1_795_901_551, 4_949_501_551));
        let body = PEM.split_once(BEGIN).unwrap().1.split_once(END).unwrap().0;
        let der = base64(body).unwrap();
        assert_eq!(validity(&der), Some(found));
        for length in 0..der.len() {
            let cut = validity(&der[..length]);
            assert!(cut.is_none(), "{length}");
        }
        assert_eq!(validity(b"no certificate"), None);
    }

    #[test]
    fn days_are_counted_with_those_of_leap_years() {
        for (date, days) in [
            ((1970, 1, 1), 0),
            ((1972, 3, 1), 790),
            ((2000, 2, 29), 11_016),
            ((2026, 11, 28), 20_785),
            ((2100, 3, 1), 47_541),
        ] {
            assert_eq!(
                days_since_1970(date.0, date.1, date.2),
                Some(days),
                "{date:?}"
            );
        }
        assert_eq!(days_since_1970(2026, 13, 1), None);
        assert_eq!(days_since_1970(2026, 0, 1), None);
    }

    proptest! {
        #[test]
        fn rubbish_is_no_certificate(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = validity(&bytes);
        }
    }
}
