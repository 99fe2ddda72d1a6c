//! The order in which a tree is packed: like things beside each other.
//!
//! Paths wait in unnamed files, one per kind, and are sorted in windows, so
//! that memory does not grow with the tree.

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::draft;
use super::likeness::{Likeness, Places};
use super::meta::Kind;
use super::walk::{Found, open_file};

/// How many bytes of paths are sorted at a time.
const WINDOW_BYTES: usize = 4 << 20;

/// The kinds of member, in the order they are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// Directories with a default ACL, which come again among [`Group::Dirs`]:
    /// bsdtar gives one only to directories it makes itself.
    EarlyDirs,
    /// Everything without data.
    Nodes,
    /// Text and whatever else is not named below.
    Rest,
    /// Kernel modules, which no x86 filter helps.
    Modules,
    /// Executables and libraries.
    Programs,
    /// What is packed already.
    Packed,
    /// Further names of files, which are then all there.
    Links,
    /// Directories, each after its content: GNU tar and bsdtar set the time of
    /// one they know and do not look after it again.
    Dirs,
}

impl Group {
    pub(super) const ALL: [Group; 8] = [
        Group::EarlyDirs,
        Group::Nodes,
        Group::Rest,
        Group::Modules,
        Group::Programs,
        Group::Packed,
        Group::Links,
        Group::Dirs,
    ];

    /// Tells where an entry belongs, looking at its name and first bytes.
    pub(super) fn of(found: &Found) -> Result<Group> {
        match found.meta.kind {
            Kind::Dir => return Ok(Group::Dirs),
            Kind::File if found.meta.size_bytes > 0 => {}
            _ => return Ok(Group::Nodes),
        }
        let mut head = [0; 8];
        let file = open_file(found.dir, found.name)?;
        let length = file.read_at(&mut head, 0)?;
        Ok(group_of_file(found.path, &head[..length]))
    }
}

fn group_of_file(path: &[u8], head: &[u8]) -> Group {
    const PACKED: [&[u8]; 11] = [
        b"\x1f\x8b",
        b"BZh",
        b"\xfd7zXZ\0",
        b"\x28\xb5\x2f\xfd",
        b"\x04\x22\x4d\x18",
        b"\x89PNG",
        b"\xff\xd8\xff",
        b"PK\x03\x04",
        b"wOF2",
        b"7z\xbc\xaf",
        b"\x5d\0\0",
    ];
    // An initramfs may start with a plain cpio of microcode.
    const CPIO: [&[u8]; 2] = [b"070701", b"070702"];
    let starts = |magics: &[&[u8]]| magics.iter().any(|magic| head.starts_with(magic));
    let is_in_boot = path.starts_with(b"boot/");
    if starts(&PACKED) || (is_in_boot && (starts(&CPIO) || path.starts_with(b"boot/vmlinuz"))) {
        Group::Packed
    } else if path.ends_with(b".ko") {
        Group::Modules
    } else if head.starts_with(b"\x7fELF") {
        Group::Programs
    } else {
        Group::Rest
    }
}

/// A path, and for a further name of a file the first one.
pub(super) type Listed = (Vec<u8>, Vec<u8>);

/// What is called with each path, and for a further name of a file the first one.
type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<()>;

/// The paths of one group, waiting on disk.
pub(super) struct Spill {
    file: BufWriter<File>,
    group: Group,
}

impl Spill {
    /// Starts an empty one on the file system of `target`.
    pub(super) fn new(target: &Path, group: Group) -> Result<Spill> {
        let file = draft::scratch(target)?;
        Ok(Spill {
            file: BufWriter::new(file),
            group,
        })
    }

    /// Adds a path, and for a further name of a file the first one.
    pub(super) fn push(&mut self, path: &[u8], first_name: &[u8]) -> Result<()> {
        for bytes in [path, first_name] {
            let length = u32::try_from(bytes.len()).context("a path is longer than 4 GiB")?;
            self.file
                .write_all(&length.to_le_bytes())
                .and_then(|()| self.file.write_all(bytes))
                .context("writing the list of files")?;
        }
        Ok(())
    }

    /// Visits all paths in packing order.
    pub(super) fn drain(self, likeness: &mut Likeness, visit: Visit) -> Result<()> {
        let mut file = self
            .file
            .into_inner()
            .context("writing the list of files")?;
        file.seek(SeekFrom::Start(0))?;
        let mut input = BufReader::new(file);
        let mut window = Vec::new();
        let mut bytes = 0;
        while let Some(path) = read_bytes(&mut input)? {
            let first_name = read_bytes(&mut input)?.context("reading the list of files")?;
            bytes += path.len() + first_name.len();
            window.push((path, first_name));
            if bytes >= WINDOW_BYTES {
                self.group.arrange(&mut window, likeness)?;
                visit_all(&mut window, visit)?;
                bytes = 0;
            }
        }
        self.group.arrange(&mut window, likeness)?;
        visit_all(&mut window, visit)
    }
}

impl Group {
    fn arrange(self, window: &mut Vec<Listed>, likeness: &mut Likeness) -> Result<()> {
        match self {
            Group::Dirs | Group::Nodes | Group::Links => {}
            // Parents first.
            Group::EarlyDirs => window.sort(),
            _ => window.sort_by(|(a, _), (b, _)| ending_key(a).cmp(&ending_key(b))),
        }
        match self {
            Group::Rest => likeness.arrange(window, Places::All),
            Group::Programs => likeness.arrange(window, Places::Functions),
            _ => Ok(()),
        }
    }
}

fn visit_all(window: &mut Vec<Listed>, visit: Visit) -> Result<()> {
    for (path, first_name) in window.drain(..) {
        visit(&path, &first_name)?;
    }
    Ok(())
}

/// Sorts by ending, then by path, but translations of one program, which repeat
/// its messages, before others into the same language.
fn ending_key(path: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    let ending = match name.iter().rposition(|b| *b == b'.') {
        Some(dot) if dot > 0 => &name[dot..],
        _ => b"",
    };
    match ending {
        b".mo" => (ending, name, path),
        _ => (ending, b"", path),
    }
}

fn read_bytes(input: &mut impl Read) -> Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match input.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other.context("reading the list of files")?,
    }
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    input
        .read_exact(&mut bytes)
        .context("reading the list of files")?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_grouped_by_what_they_are() {
        for (path, head, group) in [
            ("usr/bin/ls", &b"\x7fELF\x02\x01\x01\0"[..], Group::Programs),
            (
                "lib/modules/6.1/a.ko",
                b"\x7fELF\x02\x01\x01\0",
                Group::Modules,
            ),
            (
                "lib/modules/6.1/a.ko.xz",
                b"\xfd7zXZ\0\0\x04",
                Group::Packed,
            ),
            (
                "boot/vmlinuz-6.1",
                b"MZ\xea\x07\0\xc0\x07\x8c",
                Group::Packed,
            ),
            ("boot/initrd.img-6.1", b"07070100", Group::Packed),
            ("usr/share/x.cpio", b"07070100", Group::Rest),
            ("etc/passwd", b"root:x:0", Group::Rest),
            ("etc/short", b"a", Group::Rest),
        ] {
            assert_eq!(group_of_file(path.as_bytes(), head), group, "{path}");
        }
    }

    #[test]
    fn paths_come_back_sorted_by_ending() {
        let dir = tempfile::tempdir().unwrap();
        let out = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(&out.path().join("out"), Group::Rest).unwrap();
        for path in [
            "b/x.py", "a/README", "fr/a.mo", "a/x.c", "de/b.mo", "a/y.py", "de/a.mo", ".py",
        ] {
            let file = dir.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, path).unwrap();
            spill.push(path.as_bytes(), b"").unwrap();
        }
        let mut seen = Vec::new();
        let mut likeness = Likeness::new(dir.path(), 1 << 20).unwrap();
        spill
            .drain(&mut likeness, &mut |path, _| {
                seen.push(String::from_utf8(path.to_vec()).unwrap());
                Ok(())
            })
            .unwrap();
        let sorted = [
            ".py", "a/README", "a/x.c", "de/a.mo", "fr/a.mo", "de/b.mo", "a/y.py", "b/x.py",
        ];
        assert_eq!(seen, sorted);
        assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
    }
}
