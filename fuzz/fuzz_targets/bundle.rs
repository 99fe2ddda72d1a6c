//! Bundles byte by byte, their sums put right: headers, manifest, signatures,
//! chunk table, and the payload as far as it decodes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use va_upgrade::bundle::{Sealed, Trust, visit};
use va_upgrade::progress::Silent;
use va_upgrade_fuzz::bundle::{Notes, mend};

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    mend(&mut bytes);
    let Ok(sealed) = Sealed::from_stream("the bundle", &bytes[..]) else {
        return;
    };
    assert!(sealed.signed_bytes().len() <= bytes.len());
    let Ok((mut bundle, key)) = sealed.authenticate(Trust::Anyone) else {
        return;
    };
    assert_eq!(key, None);
    let _ = visit(&mut bundle, &mut Notes::default(), &Silent);
});
