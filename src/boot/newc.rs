//! A minimal cpio archive for the kernel's initramfs.
//!
//! Format: Linux, "initramfs buffer format" (newc, uncompressed).

/// One file or directory of an archive.
pub struct Entry<'a> {
    /// Its path, without a leading slash.
    pub path: &'a str,
    /// Type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Its content; empty for a directory.
    pub content: &'a [u8],
}

/// Renders an archive of `entries`, owned by root.
pub fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for (inode, entry) in entries.iter().enumerate() {
        append(&mut out, inode + 1, entry);
    }
    append(
        &mut out,
        0,
        &Entry {
            path: "TRAILER!!!",
            mode: 0,
            content: &[],
        },
    );
    out
}

fn append(out: &mut Vec<u8>, inode: usize, entry: &Entry) {
    let name_bytes = entry.path.len() + 1;
    out.extend_from_slice(b"070701");
    let mode = entry.mode as usize;
    let fields = [
        inode,
        mode,
        0,
        0,
        1,
        0,
        entry.content.len(),
        0,
        0,
        0,
        0,
        name_bytes,
        0,
    ];
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(entry.path.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(entry.content);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_110_bytes_and_everything_is_aligned() {
        let bytes = archive(&[Entry {
            path: "a/b",
            mode: 0o100_755,
            content: b"hello",
        }]);
        assert!(bytes.starts_with(b"070701"));
        assert_eq!(&bytes[110..114], b"a/b\0");
        assert_eq!(&bytes[116..121], b"hello");
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[124..130], b"070701");
    }
}
