//! Keys and the list of revoked ones, as the first byte says: nothing panics, what is
//! refused has the class for it, and what is taken signs and proves.

#![no_main]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use va_upgrade::bundle::{Keyring, Signedness, load_signing_key};
use va_upgrade::failure::{Class, class_of};
use va_upgrade_fuzz::held::bounded;

fn private(path: &Path, content: &[u8]) {
    fs::write(path, content).expect("writing to memory");
    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("its own file");
}

fuzz_target!(|bytes: &[u8]| bounded(bytes.len(), || feed(bytes)));

fn feed(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else {
        return;
    };
    let dir = TempDir::new().expect("a directory in memory");
    let at = |name: &str| dir.path().join(name);
    let refused = match which % 3 {
        0 => {
            private(&at("key"), rest);
            match load_signing_key(&at("key")) {
                Ok(key) => {
                    assert_eq!(key.sign(b"x"), key.sign(b"x"));
                    return;
                }
                Err(error) => error,
            }
        }
        1 => {
            fs::create_dir(at("trusted.d")).expect("in memory");
            private(&at("trusted.d/a.pem"), rest);
            match Keyring::load(&at("trusted.d"), &at("revoked")) {
                Ok(ring) => {
                    let nobody = ring.signer_of(b"x", &[vec![0; 64], rest.to_vec()]);
                    assert_eq!(nobody, Signedness::Unknown);
                    return;
                }
                Err(error) => error,
            }
        }
        _ => {
            private(&at("revoked"), rest);
            match Keyring::load(&at("trusted.d"), &at("revoked")) {
                Ok(_) => return,
                Err(error) => error,
            }
        }
    };
    assert_eq!(class_of(&refused), Class::Usage, "{refused:#}");
}
