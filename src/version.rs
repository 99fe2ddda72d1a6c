//! Which of two version strings is newer.

use std::cmp::Ordering;

/// Compares two versions as rpm and dpkg do: runs of digits by value,
/// runs of letters by letter, digits above letters, `~` below everything.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        a = skip_separators(a);
        b = skip_separators(b);
        match (a.first() == Some(&b'~'), b.first() == Some(&b'~')) {
            (true, true) => {
                (a, b) = (&a[1..], &b[1..]);
                continue;
            }
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
        if a.is_empty() || b.is_empty() {
            return a.len().cmp(&b.len());
        }
        let (run_a, rest_a) = take_run(a);
        let (run_b, rest_b) = take_run(b);
        let order = match (run_a[0].is_ascii_digit(), run_b[0].is_ascii_digit()) {
            (true, true) => {
                let (x, y) = (without_zeros(run_a), without_zeros(run_b));
                x.len().cmp(&y.len()).then(x.cmp(y))
            }
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => run_a.cmp(run_b),
        };
        if order.is_ne() {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

fn skip_separators(text: &[u8]) -> &[u8] {
    let start = text
        .iter()
        .position(|c| c.is_ascii_alphanumeric() || *c == b'~')
        .unwrap_or(text.len());
    &text[start..]
}

/// Splits off the longest start of digits only or letters only.
fn take_run(text: &[u8]) -> (&[u8], &[u8]) {
    let digits = text[0].is_ascii_digit();
    let end = text
        .iter()
        .position(|c| !c.is_ascii_alphanumeric() || c.is_ascii_digit() != digits)
        .unwrap_or(text.len());
    text.split_at(end)
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    let start = digits.iter().position(|c| *c != b'0');
    &digits[start.unwrap_or(digits.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_their_package_managers_order_them() {
        for (older, newer) in [
            ("5.14.0-427.el9.x86_64", "5.14.0-427.13.1.el9.x86_64"),
            ("5.14.0-70.el9.x86_64", "5.14.0-427.el9.x86_64"),
            ("6.1.0-9-amd64", "6.1.0-10-amd64"),
            ("6.1.0-10-amd64", "6.12.0-1-amd64"),
            ("3.10.0-1160.el7.x86_64", "3.10.0-1160.119.1.el7.x86_64"),
            ("6.1.0~rc1-1-amd64", "6.1.0-1-amd64"),
            ("6.1.0", "6.1.0-1"),
            ("7.9.0", "9.4.1"),
            ("9.4.1", "9.10"),
            ("9.99999999999999999999", "9.100000000000000000000"),
        ] {
            assert_eq!(compare(older, newer), Ordering::Less, "{older} {newer}");
            assert_eq!(compare(newer, older), Ordering::Greater, "{newer} {older}");
            assert_eq!(compare(newer, newer), Ordering::Equal, "{newer}");
        }
        assert_eq!(compare("6.01", "6.1"), Ordering::Equal);
    }
}
