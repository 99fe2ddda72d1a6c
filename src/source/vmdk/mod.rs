//! What a VMDK says about itself, checked before `qemu-img` believes it.
//!
//! `qemu-img` opens whatever files and devices a [`descriptor`] names, and takes
//! what a file lacks for zeros: each part must be as long as the descriptor says
//! and hold every one of its [`grains`].

mod descriptor;
mod grains;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::refuse;
use descriptor::Extent;
use grains::Flaw;

/// Descriptors are a few hundred bytes; qemu takes at most this.
const MAX_DESCRIPTOR: u64 = 1 << 20;
/// Where qemu looks for a parent in a file with a header.
const EMBEDDED_DESCRIPTOR: std::ops::Range<u64> = 512..512 + 20 * 512;

/// Tells whether a file that starts with `head` is a VMDK.
pub fn is_vmdk(head: &[u8]) -> bool {
    has_header(head) || is_descriptor(head)
}

/// Tells whether a file that starts with `head` is a VMDK with a binary header.
pub fn has_header(head: &[u8]) -> bool {
    head.starts_with(b"KDMV") || head.starts_with(b"COWD")
}

/// Tells whether the first line that says something is one that starts a descriptor.
fn is_descriptor(head: &[u8]) -> bool {
    if head.starts_with(b"# Disk DescriptorFile") {
        return true;
    }
    head.split(|byte| *byte == b'\n')
        .map(|line| line.trim_ascii())
        .find(|line| !line.is_empty() && !line.starts_with(b"#"))
        .is_some_and(|line| line.starts_with(b"version="))
}

/// Checks that the VMDK at `path` needs no files but plain ones beside it.
///
/// # Errors
/// Class `Refused`, naming the file it should not have named.
pub fn check(path: &Path, file: &File) -> Result<()> {
    let size = file.metadata()?.len();
    let mut head = vec![0; usize::try_from(size.min(512))?];
    file.read_exact_at(&mut head, 0)
        .with_context(|| format!("reading {}", path.display()))?;
    if has_header(&head) {
        return check_header(path, file, 0, size);
    }
    if size > MAX_DESCRIPTOR {
        refuse!(
            "{} has a VMDK descriptor of {size} bytes, more than {MAX_DESCRIPTOR}",
            path.display()
        );
    }
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    check_parent(path, &text)?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    for extent in descriptor::extents(&text) {
        check_extent(path, dir, &extent)?;
    }
    Ok(())
}

/// Checks a VMDK with a header that fills `size` bytes of `file` from `offset` on.
///
/// # Errors
/// Class `Refused` when its data are in other files, or not all there.
pub fn check_header(path: &Path, file: &File, offset: u64, size: u64) -> Result<()> {
    check_sparse(path, file, offset, size, 0)
}

/// Checks a file with a header that should hold `sectors` sectors of the disk.
fn check_sparse(path: &Path, file: &File, offset: u64, size: u64, sectors: u64) -> Result<()> {
    let shown = path.display();
    let mut start = vec![0; usize::try_from(size.min(EMBEDDED_DESCRIPTOR.end))?];
    file.read_exact_at(&mut start, offset)
        .with_context(|| format!("reading {shown}"))?;
    let capacity = start.get(12..20);
    // qemu then takes the embedded descriptor for one that names extents.
    if start.starts_with(b"KDMV") && capacity == Some(&[0; 8]) {
        refuse!(
            "{shown} is a VMDK without capacity whose data would be in other files; \
             `qemu-img convert -O vmdk` makes one that stands alone"
        );
    }
    let descriptor = usize::try_from(EMBEDDED_DESCRIPTOR.start)?;
    let descriptor = start.get(descriptor..).unwrap_or_default();
    check_parent(path, &String::from_utf8_lossy(descriptor))?;
    let flaw = grains::check(file, offset, size, sectors);
    match flaw.with_context(|| format!("reading {shown}"))? {
        None => Ok(()),
        Some(Flaw::CutOff) => refuse!(
            "{shown} was cut off: it ends before data that its own tables name; copy it again"
        ),
        Some(Flaw::Short) => refuse!(
            "{shown} is shorter than the {sectors} sectors that the disk's descriptor gives it; \
             copy the disk again"
        ),
    }
}

fn check_parent(path: &Path, text: &str) -> Result<()> {
    if descriptor::has_parent(text) {
        refuse!(
            "{} is a snapshot that needs its parent disk; consolidate the VM's snapshots \
             and export it again",
            path.display()
        );
    }
    Ok(())
}

fn check_extent(path: &Path, dir: &Path, extent: &Extent<'_>) -> Result<()> {
    let (shown, name) = (path.display(), extent.file);
    // A colon would make it one of qemu's protocols.
    if name.is_empty() || name.contains(['/', ':']) || name == ".." || name == "." {
        refuse!(
            "{shown} names {name:?} as a part of the disk; only files beside it are opened: \
             copy the parts together and correct the descriptor"
        );
    }
    let part = dir.join(name);
    let Some(meta) = fs::symlink_metadata(&part).ok().filter(|m| m.is_file()) else {
        refuse!("{shown} names {name:?} as a part of the disk, and beside it is no such file");
    };
    let file = File::open(&part).with_context(|| format!("opening {}", part.display()))?;
    if extent.is_flat() {
        let end = extent.offset.saturating_add(extent.sectors);
        let wanted = end.saturating_mul(512);
        if meta.len() < wanted {
            refuse!(
                "{} was cut off: it has {} bytes, and {shown} gives it {wanted}; copy it again",
                part.display(),
                meta.len()
            );
        }
    }
    let mut head = [0; 4];
    if file.read_exact_at(&mut head, 0).is_ok() && has_header(&head) {
        let sectors = if extent.is_flat() { 0 } else { extent.sectors };
        check_sparse(&part, &file, 0, meta.len(), sectors)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Class, class_of};
    use std::os::unix::fs::symlink;

    fn refusal(dir: &Path, content: &[u8]) -> String {
        let path = dir.join("disk.vmdk");
        fs::write(&path, content).unwrap();
        let error = check(&path, &File::open(&path).unwrap()).unwrap_err();
        assert_eq!(class_of(&error), Class::Refused, "{error:#}");
        format!("{error:#}")
    }

    #[test]
    fn a_descriptor_may_name_plain_files_beside_it_only() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/etc/shadow", dir.path().join("link")).unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        for extent in [
            r#"RW 4192256 FLAT "/dev/sda" 0"#,
            r#"RW 4192256 FLAT "../secret" 0"#,
            r#"  RW 1 SPARSE "sub/x.vmdk""#,
            r#"RDONLY 1 FLAT "link" 0"#,
            r#"RW 1 FLAT "sub" 0"#,
            r#"RW 1 FLAT "missing.vmdk" 0"#,
            r#"RW 1 FLAT "nbd:localhost:10809" 0"#,
            r#"RW 1 FLAT "" 0"#,
        ] {
            let text = format!("# Disk DescriptorFile\nversion=1\n{extent}\n");
            let error = refusal(dir.path(), text.as_bytes());
            let name = extent.split('"').nth(1).unwrap();
            assert!(error.contains(&format!("{name:?}")), "{extent}: {error}");
        }
        fs::write(dir.path().join("x-flat.vmdk"), [0; 512]).unwrap();
        let good = "# Disk DescriptorFile\nversion=1\r\nRW 1 FLAT \"x-flat.vmdk\" 0\r\n\
                    ddb.adapterType = \"/dev/sda\"\n";
        let path = dir.path().join("disk.vmdk");
        fs::write(&path, good).unwrap();
        check(&path, &File::open(&path).unwrap()).unwrap();
    }

    #[test]
    fn a_header_without_capacity_is_refused_also_in_an_extent() {
        let dir = tempfile::tempdir().unwrap();
        let mut header = vec![0; 1024];
        header[..4].copy_from_slice(b"KDMV");
        assert!(refusal(dir.path(), &header).contains("without capacity"));
        fs::write(dir.path().join("s001.vmdk"), &header).unwrap();
        let text = "# Disk DescriptorFile\nRW 1 SPARSE \"s001.vmdk\"\n";
        assert!(refusal(dir.path(), text.as_bytes()).contains("without capacity"));
    }

    #[test]
    fn a_snapshot_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let hint = "parentFileNameHint=\"/etc/shadow\"\n";
        let text = format!("# Disk DescriptorFile\n{hint}");
        assert!(refusal(dir.path(), text.as_bytes()).contains("snapshot"));
        let mut header = vec![0; 512];
        header[..4].copy_from_slice(b"KDMV");
        header[12] = 1;
        header.extend(hint.as_bytes());
        assert!(refusal(dir.path(), &header).contains("snapshot"));
    }

    #[test]
    fn descriptors_are_recognised_with_comments_before_them() {
        assert!(is_vmdk(b"# Disk DescriptorFile\n"));
        assert!(is_vmdk(b"\n# made by hand\nversion=1\n"));
        assert!(!is_vmdk(b"#!/bin/sh\n"));
        assert!(!is_vmdk(b""));
    }
}
