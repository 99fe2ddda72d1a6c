//! What kind of source a path is, told from its content.
//!
//! Nothing is left to the probing of other programs: a file that pretends to be
//! something else would have them open files of its choice.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::archive;
use super::foreign;
use super::magic::compression;
use super::qemu::{QCOW2, RAW, VMDK};
use super::vmdk;
use crate::refuse;

/// What `build` was given.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory with a root file system in it.
    Directory,
    /// A tar of a root file system, packed or not.
    Archive,
    /// A disk image that is used as it is.
    Raw,
    /// A VMDK, with whatever files its descriptor names.
    Vmdk,
    /// A qcow2 image.
    Qcow2,
    /// A tar with the description and the disks of a machine in it.
    Ova,
}

/// Looks at `path` and refuses what could not be opened safely.
///
/// # Errors
/// Class `Refused`, with one sentence on what is wrong.
pub fn detect(path: &Path) -> Result<Kind> {
    let shown = path.display();
    let meta = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            refuse!("there is no file or directory {shown} to build from")
        }
        other => other.with_context(|| format!("looking at {shown}"))?,
    };
    if meta.is_dir() {
        return Ok(Kind::Directory);
    }
    if !meta.is_file() {
        refuse!("{shown} is neither a directory nor an image file");
    }
    let file = File::open(path).with_context(|| format!("opening {shown}"))?;
    let mut head = vec![0; usize::try_from(meta.len().min(512))?];
    file.read_exact_at(&mut head, 0)
        .with_context(|| format!("reading {shown}"))?;
    let extension = path
        .extension()
        .map(|extension| extension.to_ascii_lowercase())
        .unwrap_or_default();
    if vmdk::is_vmdk(&head) {
        return Ok(Kind::Vmdk);
    }
    if head.starts_with(b"QFI\xfb") {
        check_qcow2(path, &file, 0)?;
        return Ok(Kind::Qcow2);
    }
    let is_tar = archive::is_tar(&head);
    if is_tar && (extension == "ova" || archive::is_machine(&head)) {
        return Ok(Kind::Ova);
    }
    if is_tar || (compression(&head).is_some() && archive::is_packed(path)?) {
        return Ok(Kind::Archive);
    }
    if let Some(compression) = compression(&head) {
        refuse!("{shown} is compressed with {compression}; unpack it first");
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if foreign::is_ovf(&head, &name) {
        refuse!(
            "{shown} is only the description of a VM (OVF); give the disk beside it, or make an \
             OVA of all: `tar --format=ustar -cf {}.ova {name} DISKS...`",
            name.rsplit_once('.').map_or(&*name, |(stem, _)| stem)
        );
    }
    let described = foreign::describe(&file, 0, meta.len(), &name);
    if let Some(what) = described.with_context(|| format!("reading {shown}"))? {
        refuse!("{shown} is {what}");
    }
    if extension == "vmdk" {
        refuse!("{shown} is not a VMDK: it has neither a VMDK's header nor a descriptor");
    }
    if extension == "ova" {
        refuse!("{shown} is not an OVA: it is not a tar archive");
    }
    if extension == "qcow2" {
        refuse!("{shown} is not a qcow2 image: it has not a qcow2 image's header");
    }
    Ok(Kind::Raw)
}

/// Returns qemu's name of the format of an image that fills `size` bytes of
/// `file` from `offset` on.
///
/// # Errors
/// Class `Refused` when it could not be read safely or is not all there.
pub fn driver(shown: &Path, file: &File, offset: u64, size: u64) -> Result<&'static str> {
    let mut head = vec![0; usize::try_from(size.min(512))?];
    file.read_exact_at(&mut head, offset)
        .with_context(|| format!("reading {}", shown.display()))?;
    if vmdk::has_header(&head) {
        vmdk::check_header(shown, file, offset, size)?;
        return Ok(VMDK);
    }
    let shown_name = shown.display();
    if vmdk::is_vmdk(&head) {
        refuse!("{shown_name} is a VMDK in several files; unpack the OVA and give this file");
    }
    if head.starts_with(b"QFI\xfb") {
        check_qcow2(shown, file, offset)?;
        return Ok(QCOW2);
    }
    if let Some(compression) = compression(&head) {
        refuse!(
            "{shown_name} is compressed with {compression}, of which the description (OVF) does \
             not speak; unpack the OVA and the disk, and give the disk"
        );
    }
    let described = foreign::describe(file, offset, size, "DISK");
    if let Some(what) = described.with_context(|| format!("reading {shown_name}"))? {
        refuse!("{shown_name} is {what}; unpack the OVA for that");
    }
    Ok(RAW)
}

/// Refuses a qcow2 image whose data are not all in the one file.
fn check_qcow2(path: &Path, file: &File, offset: u64) -> Result<()> {
    const EXTERNAL_DATA: u64 = 1 << 2;
    let shown = path.display();
    let mut header = [0; 80];
    if file.read_exact_at(&mut header, offset).is_err() {
        refuse!("{shown} is a qcow2 image that was cut off; copy it again");
    }
    let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| header[at + i]));
    let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
    if long(8) != 0 {
        refuse!(
            "{shown} needs another image (its backing file); \
             `qemu-img convert -O qcow2` makes one that stands alone"
        );
    }
    if word(32) != 0 {
        refuse!("{shown} is an encrypted qcow2 image; `qemu-img convert` can decrypt it");
    }
    if word(4) >= 3 && long(72) & EXTERNAL_DATA != 0 {
        refuse!(
            "{shown} keeps its data in another file; \
             `qemu-img convert -O qcow2` makes one that stands alone"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Class, class_of};

    fn detected(name: &str, content: &[u8]) -> Result<Kind> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        detect(&path)
    }

    fn refusal(name: &str, content: &[u8]) -> String {
        let error = detected(name, content).unwrap_err();
        assert_eq!(class_of(&error), Class::Refused, "{error:#}");
        format!("{error:#}")
    }

    fn qcow2(version: u8, backing: u8, encrypted: u8, features: u8) -> Vec<u8> {
        let mut header = vec![0; 512];
        header[..4].copy_from_slice(b"QFI\xfb");
        (header[7], header[15], header[35], header[79]) = (version, backing, encrypted, features);
        header
    }

    #[test]
    fn the_content_decides_not_the_name() {
        assert_eq!(detected("x.img", &qcow2(3, 0, 0, 0)).unwrap(), Kind::Qcow2);
        assert_eq!(detected("x.img", &[0; 512]).unwrap(), Kind::Raw);
        assert_eq!(detect(Path::new("/")).unwrap(), Kind::Directory);
    }

    #[test]
    fn a_qcow2_image_that_needs_other_files_is_refused() {
        assert!(refusal("x", &qcow2(3, 9, 0, 0)).contains("backing file"));
        assert!(refusal("x", &qcow2(3, 0, 0, 4)).contains("another file"));
        assert!(refusal("x", &qcow2(2, 0, 1, 0)).contains("encrypted"));
        assert!(refusal("x", b"QFI\xfb").contains("cut off"));
    }

    #[test]
    fn what_is_no_image_is_refused_by_name() {
        assert!(refusal("a.vmdk", b"hello").contains("a.vmdk is not a VMDK"));
        assert!(refusal("a.ova", b"hello").contains("a.ova is not an OVA"));
        assert!(refusal("a.qcow2", b"hello").contains("a.qcow2 is not a qcow2"));
        assert!(refusal("a.vmdk.gz", b"\x1f\x8b...").contains("compressed with gzip"));
        let missing = detect(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(class_of(&missing), Class::Refused);
        let device = detect(Path::new("/dev/null")).unwrap_err();
        assert_eq!(class_of(&device), Class::Refused);
    }
}
