//! The manifest: what is accepted is written and read again as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use va_upgrade::bundle::Manifest;
use va_upgrade_fuzz::checksum_line;

fuzz_target!(|body: &[u8]| {
    // As it is, it has the wrong checksum or none.
    let _ = Manifest::parse(body);
    let mut text = body.to_vec();
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    let line = checksum_line(&text);
    text.extend(line);
    let Ok(manifest) = Manifest::parse(&text) else {
        return;
    };
    let mut end = 0;
    for chunk in &manifest.chunks {
        assert_eq!(chunk.offset, end);
        end += chunk.packed;
    }
    assert_eq!(manifest.payload.packed_bytes, end);
    let rendered = manifest.render().expect("what was accepted is legal");
    let again = Manifest::parse(rendered.as_bytes()).expect("what is written is read");
    assert_eq!(again, manifest);
});
