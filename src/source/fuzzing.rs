//! Shows the fuzz targets what is made of an image; no part of any other build.
//! Each function panics where what was accepted breaks a promise.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Result;

use super::content::{self, Content};
use super::lvm::{self, PhysicalVolume};
use super::ova;
use super::table;
use super::vmdk::descriptor;

/// Reads the descriptor of a VMDK, and again what is written from it.
///
/// # Errors
/// When it is refused.
pub fn vmdk_descriptor(text: &[u8]) -> Result<()> {
    let descriptor = descriptor::parse(text)?;
    let paths: Vec<String> = (0..descriptor.extents.len())
        .map(|number| format!("/proc/self/fd/{number}"))
        .collect();
    let rendered = descriptor.render(&paths);
    let again = descriptor::parse(rendered.as_bytes()).expect("what is written is read");
    assert_eq!(again.render(&paths), rendered);
    assert_eq!(again.extents.len(), descriptor.extents.len());
    for ((extent, original), path) in again.extents.iter().zip(&descriptor.extents).zip(&paths) {
        assert_eq!(extent.file.as_encoded_bytes(), path.as_bytes());
        assert_eq!(
            (extent.sectors, extent.kind),
            (original.sectors, original.kind)
        );
    }
    Ok(())
}

/// Lists the members of the OVA at `path` and reads its description.
///
/// # Errors
/// When it is refused.
pub fn ova(path: &Path) -> Result<()> {
    ova::examine(path)
}

/// Reads the description of a machine.
///
/// # Errors
/// When it is refused.
pub fn description(text: &str) -> Result<()> {
    ova::envelope::Envelope::parse(text).map(drop)
}

/// Reads the partition table of a disk.
///
/// # Errors
/// When it is refused.
pub fn table(disk: &File) -> Result<()> {
    let size_bytes = disk.metadata()?.len();
    for partition in table::read(disk, size_bytes)?.unwrap_or_default() {
        assert!(partition.offset + partition.size_bytes <= size_bytes);
    }
    Ok(())
}

/// Looks for a superblock at the beginning of `volume`, which goes on with zeros up to
/// `size_bytes`.
pub fn superblock(volume: &File, size_bytes: u64) {
    let read = |buffer: &mut [u8], offset: u64| volume.read_exact_at(buffer, offset);
    if let Ok(Content::PhysicalVolume) = content::probe(&read, size_bytes) {
        let _ = PhysicalVolume::read(&read, size_bytes, "here".into());
    }
}

/// Reads the metadata of a volume group, whose physical volumes have these UUIDs and
/// size.
///
/// # Errors
/// When they are refused.
pub fn volume_group(text: &str, uuids: &[&str], size_bytes: u64) -> Result<()> {
    let pvs: Vec<PhysicalVolume> = uuids
        .iter()
        .map(|uuid| PhysicalVolume::of_text(uuid, size_bytes, text))
        .collect();
    let mut total = 0;
    for volume in lvm::logical_volumes(&pvs)? {
        for stretch in volume.layout.iter().flatten() {
            assert!(stretch.offset + stretch.size_bytes <= size_bytes);
            total += stretch.size_bytes;
        }
    }
    assert!(
        total <= size_bytes * uuids.len() as u64,
        "bytes in two places"
    );
    Ok(())
}
