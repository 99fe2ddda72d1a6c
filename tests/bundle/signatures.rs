//! Signatures, ours and openssl's, in both directions.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::kit::*;
use va_upgrade::bundle::{
    KeyId, Keyring, PackOptions, Sealed, Trust, attach_signature, export_signed_bytes,
    load_signing_key, pack, sign_bundle,
};
use va_upgrade::failure::{Class, class_of};
use va_upgrade::progress::Silent;

struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Lab {
        let lab = Lab { dir: temp_dir() };
        fs::create_dir(lab.path("tree")).unwrap();
        fs::write(lab.path("tree/file"), "content").unwrap();
        fs::create_dir(lab.path("trusted.d")).unwrap();
        pack_tree(&lab.path("tree"), &lab.path("a.vab"), 1);
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a key pair by openssl.
    fn key(&self, name: &str) -> PathBuf {
        let path = self.path(&format!("{name}.key"));
        openssl(&["genpkey", "-algorithm", "ed25519", "-out"], &[&path]);
        path
    }

    fn public(&self, key: &Path) -> PathBuf {
        let path = key.with_extension("pub");
        openssl(
            &["pkey", "-pubout", "-in"],
            &[key, Path::new("-out"), &path],
        );
        path
    }

    fn trust(&self, key: &Path) {
        let name = key.with_extension("pem");
        let name = name.file_name().unwrap();
        fs::copy(self.public(key), self.path("trusted.d").join(name)).unwrap();
    }

    fn keyring(&self) -> Keyring {
        Keyring::load(&self.path("trusted.d"), &self.path("revoked")).unwrap()
    }

    fn authenticate(&self) -> anyhow::Result<Option<KeyId>> {
        let keyring = self.keyring();
        let sealed = Sealed::open(&self.path("a.vab"))?;
        let (mut bundle, key) = sealed.authenticate(Trust::Signed(&keyring))?;
        bundle.verify(1, &Silent)?;
        Ok(key)
    }

    fn refusal(&self) -> String {
        let error = self.authenticate().unwrap_err();
        assert_eq!(class_of(&error), Class::BadBundle, "{error:#}");
        format!("{error:#}")
    }
}

fn openssl(words: &[&str], paths: &[&Path]) {
    let words = words.iter().map(OsStr::new);
    run("openssl", words.chain(paths.iter().map(|p| p.as_os_str())));
}

#[test]
fn openssl_checks_our_signature_and_we_check_its() {
    let lab = Lab::new();
    let (ours, theirs) = (lab.key("ours"), lab.key("theirs"));
    let id = sign_bundle(&lab.path("a.vab"), &load_signing_key(&ours).unwrap()).unwrap();
    let extracted = lab.path("extracted");
    fs::create_dir(&extracted).unwrap();
    run(
        "tar",
        [
            OsStr::new("-xf"),
            lab.path("a.vab").as_os_str(),
            OsStr::new("-C"),
            extracted.as_os_str(),
        ],
    );
    let manifest = extracted.join("manifest.yaml");
    openssl(
        &["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey"],
        &[
            &lab.public(&ours),
            Path::new("-sigfile"),
            &extracted.join("manifest.sig.1"),
            Path::new("-in"),
            &manifest,
        ],
    );

    let exported = export_signed_bytes(&lab.path("a.vab")).unwrap();
    assert_eq!(exported, fs::read(&manifest).unwrap());
    let signature = lab.path("sig");
    openssl(
        &["pkeyutl", "-sign", "-rawin", "-inkey"],
        &[
            &theirs,
            Path::new("-in"),
            &manifest,
            Path::new("-out"),
            &signature,
        ],
    );
    attach_signature(&lab.path("a.vab"), &signature).unwrap();

    lab.trust(&ours);
    assert_eq!(lab.authenticate().unwrap(), Some(id));
    fs::remove_file(lab.path("trusted.d/ours.pem")).unwrap();
    lab.trust(&theirs);
    assert!(lab.authenticate().unwrap().is_some());
}

#[test]
fn the_key_id_is_what_openssl_would_say() {
    let lab = Lab::new();
    let key = lab.key("k");
    let expected = sh(&format!(
        "openssl pkey -in '{}' -pubout -outform DER | sha256sum | head -c 16",
        key.display()
    ));
    let id = load_signing_key(&key).unwrap().id().unwrap();
    assert_eq!(id.to_string(), expected);
}

#[test]
fn signing_while_packing_and_afterwards_give_the_same_bytes() {
    let lab = Lab::new();
    let key = lab.key("k");
    let options = PackOptions {
        key: Some(load_signing_key(&key).unwrap()),
        ..small_chunks(1)
    };
    let (tree, at_once) = (lab.path("tree"), lab.path("b.vab"));
    pack(&tree, &release(), &facts(), &options, &at_once, &Silent).unwrap();
    sign_bundle(&lab.path("a.vab"), &load_signing_key(&key).unwrap()).unwrap();
    assert_eq!(
        fs::read(lab.path("a.vab")).unwrap(),
        fs::read(at_once).unwrap()
    );
}

#[test]
fn unsigned_unknown_and_revoked_are_each_refused_in_their_own_words() {
    let lab = Lab::new();
    let key = lab.key("k");
    assert!(lab.refusal().contains("not signed"));
    let keyring = lab.keyring();
    let lenient = Trust::SignedOrUnsigned(&keyring);
    let sealed = Sealed::open(&lab.path("a.vab")).unwrap();
    assert_eq!(sealed.authenticate(lenient).unwrap().1, None);

    let id = sign_bundle(&lab.path("a.vab"), &load_signing_key(&key).unwrap()).unwrap();
    assert!(lab.refusal().contains("trusted keys: none"));
    let sealed = Sealed::open(&lab.path("a.vab")).unwrap();
    assert!(sealed.authenticate(lenient).is_err());
    lab.trust(&lab.key("other"));
    assert!(lab.refusal().contains("nobody this system trusts"));
    lab.trust(&key);
    assert_eq!(lab.authenticate().unwrap(), Some(id.clone()));
    fs::write(lab.path("revoked"), format!("{id}\n")).unwrap();
    let text = lab.refusal();
    assert!(
        text.contains("revoked") && text.contains(id.as_str()),
        "{text}"
    );
}

#[test]
fn a_signature_over_another_manifest_does_not_count() {
    let lab = Lab::new();
    let key = lab.key("k");
    lab.trust(&key);
    let signature = load_signing_key(&key).unwrap().sign(b"something else");
    fs::write(lab.path("sig"), signature).unwrap();
    attach_signature(&lab.path("a.vab"), &lab.path("sig")).unwrap();
    assert!(lab.refusal().contains("nobody"));
}

#[test]
fn what_is_no_signature_or_key_is_refused_and_the_bundle_stays() {
    let lab = Lab::new();
    let before = fs::read(lab.path("a.vab")).unwrap();
    for length in [0, 63, 65] {
        fs::write(lab.path("sig"), vec![1; length]).unwrap();
        let error = attach_signature(&lab.path("a.vab"), &lab.path("sig")).unwrap_err();
        assert_eq!(class_of(&error), Class::Usage);
    }
    let rsa = lab.path("rsa.key");
    openssl(&["genpkey", "-algorithm", "rsa", "-out"], &[&rsa]);
    let error = load_signing_key(&rsa).err().unwrap();
    assert_eq!(class_of(&error), Class::Usage);
    assert!(format!("{error:#}").contains("ed25519"), "{error:#}");
    assert_eq!(fs::read(lab.path("a.vab")).unwrap(), before);
    let key = lab.key("k");
    sign_bundle(&lab.path("a.vab"), &load_signing_key(&key).unwrap()).unwrap();
    let again = sign_bundle(&lab.path("a.vab"), &load_signing_key(&key).unwrap());
    assert_eq!(class_of(&again.unwrap_err()), Class::Usage);
}
