//! Disk contents as plain bytes: the source file itself, or a temporary file
//! without a name.
//!
//! Programs that need a path get one through `/proc`, so that nothing has to be
//! removed afterwards.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{Whence, lseek};

use crate::failure::{Class, Classify};
use crate::progress::Progress;
use crate::system::files;
use crate::{refuse, signals};

/// Larger disks than this are not taken for real: 16 TiB is ext4's largest file.
const MAX_BYTES: u64 = 16 << 40;

/// Read at once.
const BLOCK: u64 = 1 << 20;

/// The bytes of one disk or volume.
pub struct RawImage {
    file: File,
    size_bytes: u64,
}

impl RawImage {
    /// Opens a raw image for reading.
    pub fn open(path: &Path) -> Result<RawImage> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let size_bytes = file.metadata()?.len();
        Ok(RawImage { file, size_bytes })
    }

    /// Makes an empty image in a temporary file, for `data_bytes` of data.
    ///
    /// # Errors
    /// Class `Refused` when the directory for temporary files has no room.
    pub fn temporary(size_bytes: u64, data_bytes: u64) -> Result<RawImage> {
        if size_bytes > MAX_BYTES {
            refuse!("a disk of {size_bytes} bytes is larger than the {MAX_BYTES} that can be read");
        }
        let dir = files::temp_dir();
        let file = files::unnamed_file(&dir).class(Class::Refused)?;
        check_room(&file, data_bytes)?;
        file.set_len(size_bytes)
            .with_context(|| format!("making a temporary file of {size_bytes} bytes"))
            .class(Class::Refused)?;
        Ok(RawImage { file, size_bytes })
    }

    /// Writes all that `reader` gives to a temporary file, holes for zeros.
    ///
    /// # Errors
    /// When it cannot be read to its end, or there is no room.
    pub fn from_reader(mut reader: impl Read, progress: &dyn Progress) -> Result<RawImage> {
        let mut image = RawImage::temporary(0, 0)?;
        let mut block = Vec::new();
        loop {
            signals::check()?;
            block.clear();
            let read = reader.by_ref().take(BLOCK).read_to_end(&mut block);
            let count = u64::try_from(read.context("it is damaged or cut off; copy it again")?)?;
            if count == 0 {
                break;
            }
            if image.size_bytes + count > MAX_BYTES {
                refuse!("it is larger than the {MAX_BYTES} bytes that can be read");
            }
            if block.iter().any(|byte| *byte != 0) {
                check_room(&image.file, count)?;
                let written = image.file.write_all_at(&block, image.size_bytes);
                written.context("writing a temporary file; TMPDIR may name a larger directory")?;
            }
            image.size_bytes += count;
            progress.advance(count);
        }
        image.file.set_len(image.size_bytes)?;
        Ok(image)
    }

    /// Returns the size of the disk.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Returns the bytes that take up space.
    pub fn allocated_bytes(&self) -> Result<u64> {
        use std::os::unix::fs::MetadataExt;
        Ok(self.file.metadata()?.blocks() * 512)
    }

    /// Returns a path under which this process and its children can open it.
    pub fn path(&self) -> PathBuf {
        let (pid, fd) = (std::process::id(), self.file.as_raw_fd());
        PathBuf::from(format!("/proc/{pid}/fd/{fd}"))
    }

    /// Returns the open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Fills `buffer` from `offset` on.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Copies a range of `from` to `to_offset`, leaving holes where `from` has holes.
    pub fn copy_from(
        &self,
        from: &RawImage,
        range: std::ops::Range<u64>,
        to_offset: u64,
        progress: &dyn Progress,
    ) -> Result<()> {
        let mut buffer = vec![0; 1 << 20];
        let mut at = range.start;
        while at < range.end {
            signals::check()?;
            let data = from.next_data(at, range.end)?;
            progress.advance(data - at);
            at = data;
            let wanted = u64::try_from(buffer.len())?.min(range.end - at);
            let chunk = &mut buffer[..usize::try_from(wanted)?];
            from.read_at(chunk, at).context("reading the image")?;
            if chunk.iter().any(|byte| *byte != 0) {
                self.file
                    .write_all_at(chunk, to_offset + (at - range.start))
                    .context("writing a temporary file")?;
            }
            progress.advance(wanted);
            at += wanted;
        }
        Ok(())
    }

    /// Returns where data begin at or after `at`, at most `end`.
    fn next_data(&self, at: u64, end: u64) -> Result<u64> {
        match lseek(&self.file, i64::try_from(at)?, Whence::SeekData) {
            Ok(data) => Ok(u64::try_from(data)?.min(end)),
            Err(Errno::ENXIO) => Ok(end),
            // A file system without holes: everything is data.
            Err(Errno::EINVAL) => Ok(at),
            Err(errno) => Err(errno).context("looking for data in the image"),
        }
    }
}

/// Refuses to write `data_bytes` more into `file`, one of our own, where too little
/// room would be left for others.
fn check_room(file: &File, data_bytes: u64) -> Result<()> {
    let dir = files::temp_dir();
    let stat = fstatvfs(file).with_context(|| format!("asking for space in {}", dir.display()))?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    if free < data_bytes.saturating_add(files::SPARE_BYTES) {
        refuse!(
            "{} has {free} bytes free, the disk's contents need up to {data_bytes}, and {} MiB \
             stay free; free some, or set TMPDIR to a directory with more",
            dir.display(),
            files::SPARE_BYTES >> 20
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn a_temporary_image_has_no_name_and_is_reachable_by_its_path() {
        let image = RawImage::temporary(1 << 20, 0).unwrap();
        assert_eq!(image.file.metadata().unwrap().len(), 1 << 20);
        let reopened = RawImage::open(&image.path()).unwrap();
        assert_eq!(reopened.size_bytes(), 1 << 20);
        let shown = std::fs::read_link(image.path()).unwrap();
        assert!(shown.to_string_lossy().ends_with("(deleted)"), "{shown:?}");
    }

    #[test]
    fn data_that_does_not_fit_is_refused_with_the_way_out() {
        let error = RawImage::temporary(1 << 20, u64::MAX).err().unwrap();
        assert!(format!("{error:#}").contains("set TMPDIR"), "{error:#}");
    }

    #[test]
    fn a_copy_has_the_same_bytes_and_keeps_holes() {
        let from = RawImage::temporary(8 << 20, 0).unwrap();
        from.file.write_all_at(b"first", 1 << 20).unwrap();
        from.file.write_all_at(b"second", (5 << 20) + 77).unwrap();
        let to = RawImage::temporary(8 << 20, 0).unwrap();
        to.copy_from(&from, 1 << 20..6 << 20, 0, &Silent).unwrap();
        let mut bytes = [0; 6];
        to.read_at(&mut bytes, (4 << 20) + 77).unwrap();
        assert_eq!(&bytes, b"second");
        to.read_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"first\0");
        assert!(to.allocated_bytes().unwrap() < 4 << 20);
    }
}
