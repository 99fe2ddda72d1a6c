//! The order of version strings.

use std::cmp::Ordering;

/// Compares two versions piece by piece: digits by value, letters by alphabet,
/// digits newer than letters, the longer one newer; as rpm(8) does.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (left, right) = (pieces(a), pieces(b));
    for (x, y) in left.iter().zip(&right) {
        let order = match (number(x), number(y)) {
            (Some(x), Some(y)) => x.len().cmp(&y.len()).then_with(|| x.cmp(y)),
            (Some(_), None) => Ordering::Greater,
            (None, Some(_)) => Ordering::Less,
            (None, None) => x.cmp(y),
        };
        if order.is_ne() {
            return order;
        }
    }
    left.len().cmp(&right.len())
}

/// Returns a piece of digits without its leading zeros.
fn number(piece: &str) -> Option<&str> {
    piece.starts_with(|c: char| c.is_ascii_digit()).then(|| piece.trim_start_matches('0'))
}

/// Splits into runs of digits and runs of letters.
fn pieces(version: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    for word in version.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let mut start = 0;
        let digit_at = |i: usize| word.as_bytes()[i].is_ascii_digit();
        for i in 1..word.len() {
            if digit_at(i) != digit_at(i - 1) {
                pieces.push(&word[start..i]);
                start = i;
            }
        }
        pieces.push(&word[start..]);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_value() {
        for (older, newer) in [
            ("7.9.0", "9.4.1"),
            ("9.4.1", "9.10"),
            ("9.4", "9.4.1"),
            ("1.0rc1", "1.0.1"),
            ("3.10.0-957.el7", "3.10.0-1160.el7"),
            ("9.99999999999999999999", "9.100000000000000000000"),
        ] {
            assert_eq!(compare(older, newer), Ordering::Less, "{older} {newer}");
            assert_eq!(compare(newer, older), Ordering::Greater, "{newer} {older}");
        }
        assert_eq!(compare("9.04", "9.4"), Ordering::Equal);
    }
}
