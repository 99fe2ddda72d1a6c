//! An archive of a root file system: a tar, packed or not, in a file or on
//! standard input.
//!
//! 1. [`stream`] unpacks the bytes as they come.
//! 2. The [`Parser`] reads members, and [`tidy`] says what an unpacked one has.
//! 3. [`replica`] makes of each, below `TMPDIR`, what any user may make, and
//!    notes all else; [`room`] stops it before the disk is full.
//!
//! Needs no rights: neither owners nor device nodes are made. What it has made
//! is removed with the [`Opened`].

mod replica;
mod room;
mod stream;
mod tidy;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};
use tar::Header;

use self::replica::Replica;
use self::stream::{StandardInput, Stream};
use super::opened::{Opened, Unpacked};
use crate::archive::batch::Batch;
use crate::archive::header::check_sum;
use crate::archive::parse::Parser;
use crate::failure::{Class, Classify};
use crate::progress::{Progress, Step};
use crate::refuse;
use crate::signals;
use crate::system::files::ScratchDir;
use crate::tree::attributes::Notes;

/// The name of standard input.
pub const STANDARD_INPUT: &str = "-";

/// How many bytes of the tar are looked at in one go.
const PIECE_BYTES: usize = 256 << 10;

/// Tells whether something that starts with `head` is a tar.
pub fn is_tar(head: &[u8]) -> bool {
    head.len() == stream::HEAD_BYTES && check_sum(Header::from_byte_slice(head), head).is_ok()
}

/// Tells whether a tar that starts with `head` holds a machine, not a root: in
/// an OVA the description comes first, or else what belongs to it.
pub fn is_machine(head: &[u8]) -> bool {
    let name = Header::from_byte_slice(head)
        .path_bytes()
        .to_ascii_lowercase();
    let name = name.strip_prefix(b"./").unwrap_or(&name);
    let ends = |ending: &&[u8]| name.ends_with(ending);
    let is_disk = name.windows(5).any(|part| part == b".vmdk");
    let endings: [&[u8]; 3] = [b".ovf", b".mf", b".cert"];
    !name.contains(&b'/') && (is_disk || endings.iter().any(ends))
}

/// Tells whether the file at `path` is a root's tar that was packed.
///
/// # Errors
/// When it cannot be opened.
pub fn is_packed(path: &Path) -> Result<bool> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    // What cannot be unpacked is for others to name.
    let head = Stream::new(file).and_then(|mut stream| stream.head());
    Ok(head.is_ok_and(|head| is_tar(&head) && !is_machine(&head)))
}

/// Unpacks the archive at `source`, and opens what is in it as a tree.
///
/// # Errors
/// Class `Refused` when it is damaged or not one, contradicts itself, or does
/// not fit below `TMPDIR`.
pub fn open<'a>(source: &Path, progress: &dyn Progress) -> Result<Opened<'a>> {
    let is_input = source == Path::new(STANDARD_INPUT);
    let shown = match is_input {
        true => "standard input".to_owned(),
        false => source.display().to_string(),
    };
    let (stream, total) = match is_input {
        true => (Stream::new(StandardInput::default()), None),
        false => {
            let file = File::open(source).with_context(|| format!("opening {shown}"))?;
            let size = file.metadata()?.len();
            (Stream::new(file), Some(size))
        }
    };
    let name = source.file_name().filter(|_| !is_input);
    let name = name.map_or(shown.clone(), |name| name.to_string_lossy().into_owned());
    progress.start(Step::Read(name), total);
    let scratch = ScratchDir::new()
        .context("TMPDIR may name another directory")
        .class(Class::Refused)?;
    let root = scratch.path().join("tree");
    fs::create_dir(&root).with_context(|| format!("making {}", root.display()))?;
    let notes = stream
        .map_err(read_error)
        .and_then(|stream| unpack(stream, &root, progress))
        .with_context(|| format!("reading {shown}"))?;
    progress.finish();
    Ok(Opened {
        root,
        mounts: Vec::new(),
        _disks: Vec::new(),
        unpacked: Some(Unpacked {
            notes,
            _scratch: scratch,
        }),
    })
}

/// Makes the replica of a tar in the directory `root`.
fn unpack(mut stream: Stream, root: &Path, progress: &dyn Progress) -> Result<Notes> {
    let head = stream.head().map_err(read_error)?;
    if !is_tar(&head) {
        refuse!("it is no tar archive, packed with gzip, xz, zstd or not at all");
    }
    if is_machine(&head) {
        refuse!("it is an OVA; unpack it first, or give it by its name");
    }
    let mut parser = Parser::default();
    let mut batch = Batch::default();
    let mut replica = Replica::new(root)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        signals::check()?;
        let length = match stream.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other.map_err(read_error)?,
        };
        if length == 0 {
            break;
        }
        let piece = &piece[..length];
        parser.parse(piece, &mut batch).class(Class::Refused)?;
        replica.take(&batch, piece)?;
        progress.advance(stream.newly_taken());
    }
    parser.finish().class(Class::Refused)?;
    replica.finish()
}

/// Says of an error of the stream what it means; a signal is none of its own.
fn read_error(error: io::Error) -> anyhow::Error {
    let damaged = || -> Result<()> {
        signals::check()?;
        Err(error)
            .context("it is damaged or cut off; make or copy it again")
            .class(Class::Refused)
    };
    match damaged() {
        Err(error) => error,
        Ok(()) => unreachable!("it always fails"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(name: &str) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_path(name).unwrap();
        header.set_size(0);
        header.set_mode(0o755);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    #[test]
    fn a_tar_is_told_by_its_sum_and_a_machine_by_its_first_name() {
        for (name, is_ova) in [
            ("gateway.ovf", true),
            ("./Gateway.OVF", true),
            ("gateway.mf", true),
            ("gateway-disk1.vmdk.gz", true),
            ("./", false),
            ("bin/", false),
            (".dockerenv", false),
            ("etc/x.mf", false),
        ] {
            assert!(is_tar(&head(name)), "{name}");
            assert_eq!(is_machine(&head(name)), is_ova, "{name}");
        }
        assert!(!is_tar(&[0; 512]));
        assert!(!is_tar(b"ustar"));
        let mut damaged = head("bin/");
        damaged[0] = b'B';
        assert!(!is_tar(&damaged));
    }
}
