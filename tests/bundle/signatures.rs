//! Signatures, ours and openssl's, in both directions.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use crate::kit::*;
use va_upgrade::bundle::{
    KeyId, Keyring, PackOptions, Sealed, Signed, Trust, attach_signature, export_signed_bytes,
    load_signing_key, pack, sign_bundle,
};
use va_upgrade::failure::{Class, class_of};
use va_upgrade::progress::Silent;
use va_upgrade::system::Host;

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

impl Lab {
    fn sign(&self, key: &Path) -> KeyId {
        let key = load_signing_key(key).unwrap();
        match sign_bundle(&Host::new(false), &self.path("a.vab"), &key).unwrap() {
            Signed::Added(id) => id,
            Signed::Already(id) => panic!("{id} has signed it before"),
        }
    }

    fn attach(&self, signature: &Path, public: &Path) -> anyhow::Result<Signed> {
        let keyring = Keyring::of_key(public).unwrap();
        attach_signature(&Host::new(false), &self.path("a.vab"), signature, &keyring)
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
    let id = lab.sign(&ours);
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
    let unknown = lab.attach(&signature, &lab.public(&ours)).unwrap_err();
    assert_eq!(class_of(&unknown), Class::Usage);
    lab.attach(&signature, &lab.public(&theirs)).unwrap();

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
    lab.sign(&key);
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

    let id = lab.sign(&key);
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
fn a_signature_over_another_manifest_is_not_attached() {
    let lab = Lab::new();
    let key = lab.key("k");
    let before = fs::read(lab.path("a.vab")).unwrap();
    let signature = load_signing_key(&key).unwrap().sign(b"something else");
    fs::write(lab.path("sig"), signature).unwrap();
    let error = lab.attach(&lab.path("sig"), &lab.public(&key)).unwrap_err();
    assert_eq!(class_of(&error), Class::Usage);
    assert!(format!("{error:#}").contains("--pub"), "{error:#}");
    assert_eq!(fs::read(lab.path("a.vab")).unwrap(), before);
}

#[test]
fn everybody_who_signs_at_once_is_in_the_bundle() {
    let lab = Lab::new();
    let keys: Vec<_> = (0..6).map(|n| lab.key(&format!("k{n}"))).collect();
    thread::scope(|scope| {
        for key in &keys {
            scope.spawn(|| lab.sign(key));
        }
    });
    let sealed = Sealed::open(&lab.path("a.vab")).unwrap();
    assert_eq!(sealed.signatures().len(), keys.len());
    let left = fs::read_dir(lab.dir.path()).unwrap();
    let is_draft = |name: &OsString| name.to_string_lossy().ends_with(".part");
    assert_eq!(
        left.filter(|e| is_draft(&e.as_ref().unwrap().file_name()))
            .count(),
        0
    );
}

#[test]
fn what_is_no_signature_or_key_is_refused_and_the_bundle_stays() {
    let lab = Lab::new();
    let before = fs::read(lab.path("a.vab")).unwrap();
    for length in [0, 63, 65] {
        fs::write(lab.path("sig"), vec![1; length]).unwrap();
        let public = lab.public(&lab.key("any"));
        let error = lab.attach(&lab.path("sig"), &public).unwrap_err();
        assert_eq!(class_of(&error), Class::Usage);
    }
    let rsa = lab.path("rsa.key");
    openssl(&["genpkey", "-algorithm", "rsa", "-out"], &[&rsa]);
    let error = load_signing_key(&rsa).err().unwrap();
    assert_eq!(class_of(&error), Class::Usage);
    assert!(format!("{error:#}").contains("ed25519"), "{error:#}");
    assert_eq!(fs::read(lab.path("a.vab")).unwrap(), before);
    let key = lab.key("k");
    let id = lab.sign(&key);
    let signed = fs::read(lab.path("a.vab")).unwrap();
    let key = load_signing_key(&key).unwrap();
    let again = sign_bundle(&Host::new(false), &lab.path("a.vab"), &key).unwrap();
    assert_eq!(again, Signed::Already(id));
    assert_eq!(fs::read(lab.path("a.vab")).unwrap(), signed);
}
