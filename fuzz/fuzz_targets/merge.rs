//! Three versions of a configuration file: what one side left alone is the other's,
//! and what cannot be merged is the customer's.

#![no_main]

use libfuzzer_sys::fuzz_target;
use va_upgrade::merge::{Format, Sides, WHOLE_FILE, merge};

const FORMATS: [Format; 8] = [
    Format::KeyValue,
    Format::KeyWord,
    Format::Ini,
    Format::Yaml,
    Format::Json,
    Format::Hosts,
    Format::Sudoers,
    Format::Lines,
];

/// Parts the three versions from each other.
const PART: u8 = 0x1e;

fuzz_target!(|data: &[u8]| {
    let Some((format, rest)) = data.split_first() else {
        return;
    };
    let format = FORMATS[usize::from(*format) % FORMATS.len()];
    let mut parts = rest.splitn(3, |byte| *byte == PART);
    let customer = parts.next().unwrap_or_default();
    let image = parts.next().unwrap_or_default();
    let sides = Sides {
        pristine: parts.next(),
        customer,
        image,
    };
    let merged = merge(format, &sides, &[]).expect("without names nothing is refused");
    if sides.pristine == Some(customer) {
        assert_eq!(merged.content, image);
    } else if sides.pristine == Some(image) {
        assert_eq!(merged.content, customer);
    }
    let whole = merged.conflicts.iter().any(|c| c.key == WHOLE_FILE);
    assert!(!whole || merged.content == customer);
    let lines: usize = merged.content.split(|byte| *byte == b'\n').count();
    let given = rest.split(|byte| [b'\n', PART].contains(byte)).count();
    assert!(lines <= given + 2, "lines are made up");
    let _ = merge(format, &sides, &["a".to_owned(), "s/*".to_owned()]);
});
