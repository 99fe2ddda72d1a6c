//! What a VMDK says about itself, checked before `qemu-img` believes it.
//!
//! `qemu-img` opens whatever files and devices a [`descriptor`] names, and takes
//! what a file lacks for zeros: so it gets one of our own that names files which are
//! open already, and each part must be as long as the descriptor says and hold every
//! one of its [`grains`].

pub(super) mod descriptor;
mod grains;

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;

use super::lent::{self, Lent};
use crate::refuse;
use crate::system::files;
use descriptor::{Descriptor, Extent};
use grains::Flaw;

/// Descriptors are a few hundred bytes, or a line for every two gigabytes.
const MAX_DESCRIPTOR: u64 = 64 << 10;
/// Where qemu looks for a parent in a file with a header.
const EMBEDDED_DESCRIPTOR: std::ops::Range<u64> = 512..512 + 20 * 512;

/// A VMDK, all files of which are open.
pub enum Vmdk {
    /// All in one file, with a header.
    Single(File),
    /// In the files that a descriptor names.
    Split(Split),
}

/// A disk in several files.
pub struct Split {
    descriptor: Descriptor,
    /// One for each of its extents.
    files: Vec<File>,
}

impl Split {
    /// Returns its files.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// Lends the files and a descriptor of them, which comes first.
    ///
    /// # Errors
    /// When there is no room for one.
    pub fn lend(&self) -> Result<Vec<Lent>> {
        let parts: Vec<Lent> = self.files.iter().map(Lent::new).collect::<Result<_>>()?;
        let paths: Vec<String> = parts.iter().map(Lent::path).collect();
        let mut file = files::unnamed_file(&files::temp_dir())?;
        file.write_all(self.descriptor.render(&paths).as_bytes())
            .context("writing a temporary file")?;
        lent::let_read(&file)?;
        let mut lent = vec![Lent::new(&file)?];
        lent.extend(parts);
        Ok(lent)
    }
}

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

/// Opens the VMDK at `path` and whatever files it needs, which are plain ones beside it.
///
/// # Errors
/// Class `Refused`, naming the line or file that is not as it should be.
pub fn open(path: &Path) -> Result<Vmdk> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("opening {shown}"))?;
    let size = file.metadata()?.len();
    let mut head = vec![0; usize::try_from(size.min(512))?];
    file.read_exact_at(&mut head, 0)
        .with_context(|| format!("reading {shown}"))?;
    if has_header(&head) {
        check_header(path, &file, 0, size)?;
        return Ok(Vmdk::Single(file));
    }
    if size > MAX_DESCRIPTOR {
        refuse!("{shown} has a VMDK descriptor of {size} bytes, more than {MAX_DESCRIPTOR}");
    }
    let mut text = vec![0; usize::try_from(size)?];
    file.read_exact_at(&mut text, 0)
        .with_context(|| format!("reading {shown}"))?;
    check_parent(path, &text)?;
    let descriptor = match descriptor::parse(&text) {
        Ok(descriptor) => descriptor,
        Err(error) => refuse!(
            "the descriptor of {shown} cannot be followed: {error:#}; export the VM again, or \
             make one file of it with `qemu-img convert -O qcow2` if you trust it"
        ),
    };
    let dir = path.parent().unwrap_or(Path::new("/"));
    let extents = descriptor.extents.iter();
    let files = extents
        .map(|extent| open_extent(path, dir, extent))
        .collect::<Result<Vec<_>>>()?;
    let split = Split { descriptor, files };
    check_shared(path, &split)?;
    Ok(Vmdk::Split(split))
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
    check_parent(path, descriptor)?;
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

fn check_parent(path: &Path, text: &[u8]) -> Result<()> {
    if descriptor::has_parent(text) {
        refuse!(
            "{} is a snapshot that needs its parent disk; consolidate the VM's snapshots \
             and export it again",
            path.display()
        );
    }
    Ok(())
}

fn open_extent(path: &Path, dir: &Path, extent: &Extent) -> Result<File> {
    let (shown, name) = (path.display(), &extent.file);
    let is_path = name.as_encoded_bytes().contains(&b'/');
    if name.is_empty() || is_path || name == ".." || name == "." {
        refuse!(
            "{shown} names {name:?} as a part of the disk; only files beside it are opened: \
             copy the parts together and correct the descriptor"
        );
    }
    let part = dir.join(name);
    // A named pipe would be waited for, and a link may lead anywhere.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(&part);
    let file = opened.ok().and_then(|file| {
        let meta = file.metadata().ok()?;
        meta.is_file().then_some((file, meta))
    });
    let Some((file, meta)) = file else {
        refuse!("{shown} names {name:?} as a part of the disk, and beside it is no such file");
    };
    if extent.kind.is_flat() {
        let wanted = (extent.offset + extent.sectors) * 512;
        if meta.len() < wanted {
            refuse!(
                "{} was cut off: it has {} bytes, and {shown} gives it {wanted}; copy it again",
                part.display(),
                meta.len()
            );
        }
        return Ok(file);
    }
    let mut head = [0; 4];
    if file.read_exact_at(&mut head, 0).is_ok() && has_header(&head) {
        check_sparse(&part, &file, 0, meta.len(), extent.sectors)?;
    }
    Ok(file)
}

/// Refuses a disk that has the same bytes in several places: a small file would make
/// a large one.
fn check_shared(path: &Path, split: &Split) -> Result<()> {
    let mut taken: HashMap<(u64, u64), Vec<(u64, u64)>> = HashMap::new();
    for (extent, file) in split.descriptor.extents.iter().zip(&split.files) {
        let meta = file.metadata()?;
        let range = match extent.kind.is_flat() {
            true => (extent.offset, extent.offset + extent.sectors),
            false => (0, u64::MAX),
        };
        let ranges = taken.entry((meta.dev(), meta.ino())).or_default();
        if ranges
            .iter()
            .any(|other| range.0 < other.1 && other.0 < range.1)
        {
            refuse!(
                "{} takes the same bytes of {:?} twice; export the VM again",
                path.display(),
                extent.file
            );
        }
        ranges.push(range);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Class, class_of};
    use crate::system::{Cmd, Host, System};
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use std::fs;
    use std::os::unix::fs::symlink;

    const HEAD: &str = "# Disk DescriptorFile\nversion=1\ncreateType=\"monolithicFlat\"\n";

    fn refusal(dir: &Path, content: &[u8]) -> String {
        let path = dir.join("disk.vmdk");
        fs::write(&path, content).unwrap();
        let error = open(&path).err().unwrap();
        assert_eq!(class_of(&error), Class::Refused, "{error:#}");
        format!("{error:#}")
    }

    #[test]
    fn a_descriptor_may_name_plain_files_beside_it_only() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/etc/shadow", dir.path().join("link")).unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        mkfifo(&dir.path().join("pipe"), Mode::S_IRWXU).unwrap();
        for extent in [
            r#"RW 4192256 FLAT "/dev/sda" 0"#,
            r#"RW 4192256 FLAT "../secret" 0"#,
            r#"  RW 1 SPARSE "sub/x.vmdk""#,
            r#"RDONLY 1 FLAT "link" 0"#,
            r#"RW 1 FLAT "pipe" 0"#,
            r#"RW 1 FLAT "sub" 0"#,
            r#"RW 1 FLAT "missing.vmdk" 0"#,
            r#"RW 1 FLAT "nbd:localhost:10809" 0"#,
            r#"RW 1 FLAT "" 0"#,
        ] {
            let text = format!("{HEAD}{extent}\n");
            let error = refusal(dir.path(), text.as_bytes());
            let name = extent.split('"').nth(1).unwrap();
            assert!(error.contains(&format!("{name:?}")), "{extent}: {error}");
        }
        fs::write(dir.path().join("x-flat.vmdk"), [0; 1024]).unwrap();
        let good = format!(
            "{HEAD}\r\nRW 1 FLAT \"x-flat.vmdk\" 0\r\nRW 1 FLAT \"x-flat.vmdk\" 1\r\n\
             ddb.adapterType = \"/dev/sda\"\n"
        );
        let path = dir.path().join("disk.vmdk");
        fs::write(&path, &good).unwrap();
        assert!(matches!(open(&path).unwrap(), Vmdk::Split(_)));
        let twice = format!("{good}RW 2 FLAT \"x-flat.vmdk\" 0\n");
        assert!(refusal(dir.path(), twice.as_bytes()).contains("twice"));
    }

    #[test]
    fn what_is_lent_names_open_files_only() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x-flat.vmdk"), [7; 512]).unwrap();
        let path = dir.path().join("disk.vmdk");
        fs::write(&path, format!("{HEAD}RW 1 FLAT \"x-flat.vmdk\" 0\n")).unwrap();
        let Vmdk::Split(split) = open(&path).unwrap() else {
            panic!("not split");
        };
        let lent = split.lend().unwrap();
        let text = fs::read_to_string(lent[0].path()).unwrap();
        let line = format!("RW 1 FLAT \"{}\" 0\n", lent[1].path());
        assert!(text.ends_with(&line), "{text}");
        assert_eq!(fs::read(lent[1].path()).unwrap(), [7; 512]);
    }

    #[test]
    fn a_header_without_capacity_is_refused_also_in_an_extent() {
        let dir = tempfile::tempdir().unwrap();
        let mut header = vec![0; 1024];
        header[..4].copy_from_slice(b"KDMV");
        assert!(refusal(dir.path(), &header).contains("without capacity"));
        fs::write(dir.path().join("s001.vmdk"), &header).unwrap();
        let text = format!("{HEAD}RW 1 SPARSE \"s001.vmdk\"\n");
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

    /// What is accepted is of the size that `qemu-img` finds in the same text, where
    /// it accepts that at all.
    #[test]
    fn a_descriptor_says_the_same_to_qemu_img() {
        let host = Host::new(false);
        if host.run(&Cmd::new("qemu-img").arg("--version")).is_err() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["a-flat.vmdk", "b"] {
            fs::write(dir.path().join(name), [0; 4096]).unwrap();
        }
        let path = dir.path().join("disk.vmdk");
        let info = Cmd::new("qemu-img").args(["info", "--output=json", "-f", "vmdk"]);
        let info = info.arg(&path);
        let text = format!(
            "{HEAD}CID=12345678\nparentCID=ffffffff\n# Extents\nRW 4 FLAT \"a-flat.vmdk\" 0\n\
             RW 2\tFLAT \"b\" 1\n\nddb.adapterType = \"ide\"\n"
        );
        let odd = b" \t\r\n\x0b\x0c\0\"=#09RWFLAT/b\xff\x85";
        let (mut state, mut agreed) = (1_u64, 0);
        for round in 0..300 {
            let mut text = text.clone().into_bytes();
            let mut next = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                usize::try_from(state >> 33).unwrap()
            };
            if round > 0 {
                let (at, byte) = (next() % text.len(), odd[next() % odd.len()]);
                match next() % 3 {
                    0 => text[at] = byte,
                    1 => text.insert(at, byte),
                    _ => drop(text.remove(at)),
                }
            }
            fs::write(&path, &text).unwrap();
            let Ok(Vmdk::Split(split)) = open(&path) else {
                continue;
            };
            let extents = split.descriptor.extents.iter();
            let bytes: u64 = extents.map(|extent| extent.sectors * 512).sum();
            let Ok(told) = host.run(&info) else { continue };
            let told: serde_json::Value = serde_json::from_str(&told).unwrap();
            assert_eq!(told["virtual-size"], bytes, "{}", text.escape_ascii());
            agreed += 1;
        }
        assert!(agreed > 10, "{agreed}");
    }
}
