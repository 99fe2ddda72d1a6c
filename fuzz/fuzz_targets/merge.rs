//! Three versions of a configuration file: nothing of the customer's is lost, and a
//! second merge of the outcome changes nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use va_upgrade::merge::{Format, Sides, merge};

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
    let again = Sides {
        pristine: Some(image),
        customer: &merged.content,
        image,
    };
    let again = merge(format, &again, &[]).expect("without names nothing is refused");
    assert_eq!(again.content, merged.content);
    let _ = merge(format, &sides, &["a".to_owned(), "s/*".to_owned()]);
});
