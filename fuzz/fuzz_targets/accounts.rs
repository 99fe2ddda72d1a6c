//! Account files of three systems, in one text: no merge panics, and what
//! comes out is what a second merge leaves alone.

#![no_main]

use libfuzzer_sys::fuzz_target;
use va_upgrade::accounts::{AccountFiles, merge};

/// Parts of the input: three systems of six files, parted by NUL.
const FILES: usize = 6;

fn files(mut texts: impl Iterator<Item = Vec<u8>>) -> AccountFiles {
    let root = b"root:x:0:0::/root:/bin/sh\n".to_vec();
    let mut next = || texts.next().filter(|text| !text.is_empty());
    AccountFiles {
        passwd: [root, next().unwrap_or_default()].concat(),
        shadow: next(),
        group: next(),
        gshadow: next(),
        subuid: next(),
        subgid: next(),
        ..AccountFiles::default()
    }
}

fuzz_target!(|input: &[u8]| {
    let parts: Vec<&[u8]> = input.split(|byte| *byte == 0).collect();
    let system = |at: usize| {
        files(
            parts
                .iter()
                .skip(at * FILES)
                .take(FILES)
                .map(|t| t.to_vec()),
        )
    };
    let (old, image) = (system(0), system(1));
    let pristine = (parts.len() > 2 * FILES).then(|| system(2));
    let Ok(once) = merge(pristine.as_ref(), &old, &image) else {
        return;
    };
    let twice = merge(pristine.as_ref(), &old, &once.files).expect("what is made is read");
    assert!(
        twice.files == once.files,
        "a second merge changes something"
    );
    let same = merge(Some(&image), &image, &image).expect("it was read before");
    assert!(same.files == image, "what nobody changed is changed");
    assert_eq!(once.ids.reversed().reversed(), once.ids);
    for note in &once.notes {
        assert!(!note.to_string().contains(char::is_control), "{note:?}");
    }
});
