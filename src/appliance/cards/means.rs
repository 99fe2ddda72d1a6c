//! How a card gets its name in a system that has not run yet.

use super::card::{Card, is_mac, is_plain};
use super::interfaces::Interfaces;

/// How a card gets its name in a system that has not run yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// A file that udev reads.
    Link,
    /// Our service, early in each start: udev does not rename into the kernel's
    /// own names, which may be taken by another card.
    Service,
    /// None: the address is shared, or not one of Ethernet.
    Nothing,
}

/// Returns how `card` is to get its name, beside `all` that the machine has.
pub fn of(card: &Card, all: &Interfaces) -> Means {
    if !is_plain(&card.name) || !is_mac(&card.mac) || !all.is_told_apart(card) {
        Means::Nothing
    } else if is_kernels(&card.name) {
        Means::Service
    } else {
        Means::Link
    }
}

/// Tells whether the kernel itself gives names like `name`.
fn is_kernels(name: &str) -> bool {
    let number = name.strip_prefix("eth").unwrap_or_default();
    !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_names_are_told_from_others() {
        for (name, is_its) in [
            ("eth0", true),
            ("eth12", true),
            ("eth", false),
            ("ethx", false),
            ("eth0.5", false),
            ("ens192", false),
            ("lan0", false),
        ] {
            assert_eq!(is_kernels(name), is_its, "{name}");
        }
    }
}
