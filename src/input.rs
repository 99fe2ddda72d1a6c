//! What a person or a program names to be read: bounded, and never waited for
//! once a signal has come.
//!
//! A named pipe without a writer would hold up open(2) itself, and an empty one
//! every read(2), which no signal ends: they are noted elsewhere.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::fcntl::OFlag;

use crate::signals;

/// Opens `path` to read it, and waits for no writer of a named pipe; read what is
/// no file through [`Patient`].
///
/// # Errors
/// Those of open(2).
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
}

/// Reads what may not be there yet, such as a pipe's content, until a signal comes.
pub struct Patient<F>(pub F);

impl<F: Read + AsFd> Read for Patient<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            signals::wait_for(self.0.as_fd()).map_err(io::Error::other)?;
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
        }
    }
}

/// Reads all of a file or a pipe, up to `limit` bytes.
///
/// # Errors
/// When it cannot be read or is larger.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    read_open(open(path)?, limit)
}

/// Reads the same as text.
///
/// # Errors
/// When it cannot be read, is larger or not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    text(read(path, limit)?)
}

/// Reads the text of what has to be a regular file, where nobody was asked which;
/// a pipe there would be waited for.
///
/// # Errors
/// When it is none, cannot be read, is larger or not UTF-8.
pub fn read_file(path: &Path, limit: u64) -> Result<(String, Metadata)> {
    let file = open(path)?;
    let meta = file.metadata()?;
    ensure!(meta.is_file(), "it is not a regular file");
    Ok((text(read_open(file, limit)?)?, meta))
}

/// Refuses what others than its owner may change: whoever can, decides.
///
/// # Errors
/// When its group or everybody may write to it.
pub fn check_owner_alone_writes(meta: &Metadata) -> Result<()> {
    let mode = meta.permissions().mode() & 0o7777;
    ensure!(
        mode & 0o022 == 0,
        "its mode is {mode:04o}, so others than its owner may change it; `chmod go-w` it"
    );
    Ok(())
}

fn read_open(file: File, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A file is there at once, also for who undoes what a signal has ended.
    match file.metadata()?.is_file() {
        true => file.take(limit + 1).read_to_end(&mut bytes)?,
        false => Patient(file).take(limit + 1).read_to_end(&mut bytes)?,
    };
    ensure!(
        bytes.len() as u64 <= limit,
        "it is larger than {limit} bytes"
    );
    Ok(bytes)
}

fn text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).ok().context("it is not text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use std::fs;
    use std::thread;

    #[test]
    fn what_is_read_is_bounded_and_a_pipe_is_a_file_only_where_it_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let (file, pipe) = (dir.path().join("file"), dir.path().join("pipe"));
        fs::write(&file, "text").unwrap();
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        assert_eq!(read_text(&file, 4).unwrap(), "text");
        assert_eq!(read_file(&file, 4).unwrap().0, "text");
        assert!(read(&file, 3).is_err());
        // Nobody writes to it.
        let error = read_file(&pipe, 4).unwrap_err().to_string();
        assert_eq!(error, "it is not a regular file");
        thread::scope(|scope| {
            scope.spawn(|| fs::write(&pipe, "late").unwrap());
            assert_eq!(read_text(&pipe, 4).unwrap(), "late");
        });
        fs::write(&file, b"\xff").unwrap();
        assert!(read_text(&file, 4).is_err());
        assert!(read(dir.path(), 4).is_err());
    }

    #[test]
    fn what_others_may_write_is_told() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, is_fine) in [(0o755, true), (0o700, true), (0o775, false), (0o757, false)] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            let checked = check_owner_alone_writes(&dir.path().metadata().unwrap());
            assert_eq!(checked.is_ok(), is_fine, "{mode:o}");
        }
    }
}
