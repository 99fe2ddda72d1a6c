//! Formats that are not read, told by their content, with the way to one that is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A format: what it is called, and `qemu-img`'s name of it.
struct Format {
    name: &'static str,
    driver: Option<&'static str>,
}

/// Where ISO 9660 has its first volume descriptor.
const ISO_AT: u64 = 32_769;
/// The length of a VHD's footer.
const VHD_FOOTER: u64 = 512;

/// Says what `name` is, in a sentence that goes on after it, if it has one of
/// these formats. It fills `size` bytes of `file` from `offset` on.
///
/// # Errors
/// When the file cannot be read.
pub fn describe(file: &File, offset: u64, size: u64, name: &str) -> io::Result<Option<String>> {
    let has = |at: u64, magic: &[u8]| -> io::Result<bool> {
        let mut bytes = [0; 9];
        let bytes = &mut bytes[..magic.len()];
        let is_there = at.saturating_add(magic.len() as u64) <= size;
        if is_there {
            file.read_exact_at(bytes, offset + at)?;
        }
        Ok(is_there && bytes == magic)
    };
    let format = |name, driver| Format { name, driver };
    let found = if has(0, b"vhdxfile")? {
        format("a VHDX image", Some("vhdx"))
    } else if has(0, b"conectix")? || has(size.saturating_sub(VHD_FOOTER), b"conectix")? {
        format("a VHD image", Some("vpc"))
    } else if has(64, &[0x7f, 0x10, 0xda, 0xbe])? {
        format("a VDI image", Some("vdi"))
    } else if has(0, b"QED\0")? {
        format("a QED image", Some("qed"))
    } else if has(ISO_AT, b"CD001")? {
        format("an ISO image of a CD", None)
    } else {
        return Ok(None);
    };
    let way_out = match found.driver {
        Some(driver) => format!(
            "`qemu-img convert -f {driver} -O qcow2 {name} {}.qcow2` makes one that is read",
            name.rsplit_once('.').map_or(name, |(stem, _)| stem)
        ),
        None => "install a VM from it and give the VM's disk".to_owned(),
    };
    Ok(Some(format!("{}; {way_out}", found.name)))
}

/// Tells whether a file that starts with `head` is a description of a machine
/// (OVF) on its own.
pub fn is_ovf(head: &[u8], name: &str) -> bool {
    let text = String::from_utf8_lossy(head);
    name.to_ascii_lowercase().ends_with(".ovf")
        || (text.trim_start_matches('\u{feff}').starts_with("<?xml") && text.contains("Envelope"))
}
