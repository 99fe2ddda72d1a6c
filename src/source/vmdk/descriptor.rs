//! The text of a VMDK's descriptor: its lines about extents, and its parent.

/// One line about a part of the disk.
#[derive(Debug, PartialEq, Eq)]
pub struct Extent<'d> {
    /// How many sectors of the disk it is.
    pub sectors: u64,
    /// Its type: `FLAT`, `SPARSE` and the like.
    pub kind: &'d str,
    /// The file it is in; empty where no file is named.
    pub file: &'d str,
    /// The sector of the file it starts at.
    pub offset: u64,
}

impl Extent<'_> {
    /// Tells whether its sectors stand one after the other in the file.
    pub fn is_flat(&self) -> bool {
        ["FLAT", "VMFS"]
            .iter()
            .any(|kind| self.kind.eq_ignore_ascii_case(kind))
    }
}

/// Returns the lines that describe extents in files.
pub fn extents(text: &str) -> impl Iterator<Item = Extent<'_>> {
    text.split('\n').filter_map(parse_extent)
}

/// Tells whether the disk holds only what differs from a parent.
pub fn has_parent(text: &str) -> bool {
    text.contains("parentFileNameHint")
}

fn parse_extent(line: &str) -> Option<Extent<'_>> {
    let (before, quoted) = line.split_once('"')?;
    let mut words = before.split_ascii_whitespace();
    let access = words.next()?;
    let is_extent = ["RW", "RDONLY", "NOACCESS"]
        .iter()
        .any(|word| access.eq_ignore_ascii_case(word));
    if !is_extent {
        return None;
    }
    let (file, rest) = quoted.split_once('"').unwrap_or((quoted, ""));
    // What makes no sense as a number is left to `qemu-img`, which rejects it.
    let sectors = words.next().and_then(|word| word.parse().ok());
    let offset = rest.split_ascii_whitespace().next();
    Some(Extent {
        sectors: sectors.unwrap_or(0),
        kind: words.next().unwrap_or_default(),
        file: file.trim_end_matches('\r'),
        offset: offset.and_then(|word| word.parse().ok()).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_extents_are_told_from_others() {
        let text = "# RW 1 FLAT \"no\" 0\nRW 4192256 FLAT \"a b.vmdk\" 128\r\n\
                    rdonly 5 SPARSE \"s001.vmdk\"\nRW 7 ZERO\nddb.name = \"x\"\n";
        let found: Vec<_> = extents(text)
            .map(|e| (e.sectors, e.is_flat(), e.file, e.offset))
            .collect();
        assert_eq!(
            found,
            [
                (4_192_256, true, "a b.vmdk", 128),
                (5, false, "s001.vmdk", 0)
            ]
        );
        assert!(has_parent("parentFileNameHint=\"x\""));
    }
}
