//! Damage of any kind is noticed before anything is believed.

use std::fs;
use std::io::Read;
use std::path::Path;

use crate::kit::*;
use va_upgrade::bundle::{Keyring, Sealed, Trust, unpack};
use va_upgrade::failure::{Class, class_of};
use va_upgrade::progress::Silent;

fn small_bundle() -> (tempfile::TempDir, Vec<u8>) {
    let dir = temp_dir();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("a"), noise(3000, 1)).unwrap();
    fs::write(tree.join("b"), "hello").unwrap();
    pack_tree(&tree, &dir.path().join("a.vab"), 1);
    let bytes = fs::read(dir.path().join("a.vab")).unwrap();
    (dir, bytes)
}

fn verify(path: &Path) -> anyhow::Result<()> {
    let keyring = Keyring::default();
    let trust = Trust::SignedOrUnsigned(&keyring);
    let (mut bundle, _) = Sealed::open(path)?.authenticate(trust)?;
    bundle.verify(2, &Silent)
}

fn unpack_stream(bytes: &[u8], target: &Path) -> anyhow::Result<()> {
    let sealed = Sealed::from_stream("the stream", bytes)?;
    let (bundle, _) = sealed.authenticate(Trust::Anyone)?;
    unpack(bundle, target, &unpack_options(), &Silent)
}

#[test]
fn every_flipped_bit_is_refused() {
    let (dir, bytes) = small_bundle();
    let path = dir.path().join("damaged.vab");
    fs::write(&path, &bytes).unwrap();
    verify(&path).unwrap();
    for bit in 0..bytes.len() * 8 {
        // Every byte is damaged, each in another bit.
        if bit % 8 != (bit / 8) % 8 {
            continue;
        }
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &damaged).unwrap();
        let error = verify(&path).expect_err(&format!("bit {bit} went unnoticed"));
        assert_eq!(class_of(&error), Class::BadBundle, "bit {bit}: {error:#}");
    }
}

#[test]
fn every_truncation_and_anything_appended_is_refused() {
    let (dir, bytes) = small_bundle();
    let path = dir.path().join("damaged.vab");
    let lengths = (0..bytes.len()).filter(|n| n % 97 == 0 || n + 3 > bytes.len());
    for length in lengths {
        fs::write(&path, &bytes[..length]).unwrap();
        let error = verify(&path).expect_err(&format!("{length} bytes were enough"));
        assert_eq!(class_of(&error), Class::BadBundle, "{length}: {error:#}");
        let target = dir.path().join(format!("out{length}"));
        fs::create_dir(&target).unwrap();
        let error = unpack_stream(&bytes[..length], &target).unwrap_err();
        assert_eq!(class_of(&error), Class::BadBundle, "{length}: {error:#}");
    }
    let longer = [&bytes[..], &[0]].concat();
    fs::write(&path, &longer).unwrap();
    assert_eq!(class_of(&verify(&path).unwrap_err()), Class::BadBundle);
}

#[test]
fn a_chunk_is_proved_before_anything_of_it_is_unpacked() {
    let (dir, bytes) = small_bundle();
    let target = dir.path().join("out");
    fs::create_dir(&target).unwrap();
    let mut damaged = bytes.clone();
    // The last byte of the payload: the trailer of its last .xz stream.
    let end = bytes.iter().rposition(|b| *b == b'Z').unwrap();
    damaged[end] ^= 1;
    let error = unpack_stream(&damaged, &target).unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("digest") && text.contains("copy it again"),
        "{text}"
    );
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
}

#[test]
fn what_is_no_bundle_is_called_so() {
    let dir = temp_dir();
    let path = dir.path().join("x");
    for content in [&b""[..], b"hello", &[0; 4096], &noise(5000, 9)] {
        fs::write(&path, content).unwrap();
        let error = Sealed::open(&path).unwrap_err();
        assert_eq!(class_of(&error), Class::BadBundle);
        assert!(error.to_string().contains("not a bundle"), "{error:#}");
    }
    let error = Sealed::open(&dir.path().join("none")).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused);
}

#[test]
fn an_endless_stream_of_one_header_is_not_swallowed() {
    let header = {
        let mut header = tar::Header::new_ustar();
        header.set_path("manifest.yaml").unwrap();
        header.set_size(1 << 40);
        header.set_cksum();
        *header.as_bytes()
    };
    let endless = header.chain(std::io::repeat(b' '));
    let error = Sealed::from_stream("the stream", endless).unwrap_err();
    assert!(format!("{error:#}").contains("more than"), "{error:#}");
}
