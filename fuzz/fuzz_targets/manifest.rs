//! The manifest: what is accepted is written and read again as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use va_upgrade::bundle::Manifest;
use va_upgrade_fuzz::checksum_line;
use va_upgrade_fuzz::held::bounded;

fuzz_target!(|body: &[u8]| bounded(body.len(), || feed(body)));

fn feed(body: &[u8]) {
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
    // It may be shorter than what it is written as.
    let Ok(rendered) = manifest.render() else {
        return;
    };
    let again = Manifest::parse(rendered.as_bytes()).expect("what is written is read");
    assert_eq!(again, manifest);
}
