//! What a machine can be asked to do.

use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::mpsc::Receiver;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use super::cmd::Cmd;
use super::mount::Mount;
use crate::tree::xattrs::SELINUX;

/// Takes what a program prints.
pub type Reader<'r> = dyn FnMut(&mut dyn Read) -> Result<()> + Send + 'r;

/// The machine a flow works on: the real one, or a fake in tests.
pub trait System: Sync {
    /// Returns the directory that is the machine's `/`.
    fn root(&self) -> &Path;

    /// Runs a program to its end and returns its standard output.
    ///
    /// # Errors
    /// When it cannot be started, fails or exceeds its time limit; the error
    /// holds the command, and when it failed [`Exited`].
    fn run(&self, cmd: &Cmd) -> Result<String>;

    /// Runs a program to its end while `read` takes its standard output to the end,
    /// however long that is.
    ///
    /// # Errors
    /// What `read` says, and what [`run`](System::run) would.
    fn run_reading(&self, cmd: &Cmd, read: &mut Reader<'_>) -> Result<()> {
        read(&mut self.run(cmd)?.as_bytes())
    }

    /// Mounts a file system or binds a directory.
    ///
    /// # Errors
    /// What the kernel or mount(8) says.
    fn mount(&self, mount: &Mount) -> Result<()>;

    /// Unmounts what is mounted at `at`.
    ///
    /// # Errors
    /// When something still uses it, or its last writes failed.
    fn unmount(&self, at: &Path) -> Result<()>;

    /// Restarts the machine.
    ///
    /// # Errors
    /// When the service manager does not accept the request.
    fn reboot(&self, how: Restart) -> Result<()>;

    /// Returns what the machine's clock says: for what a person is told only. It may
    /// be wrong and jump, forwards and backwards.
    fn now(&self) -> SystemTime;

    /// Lets `time` pass, whatever the clock says meanwhile.
    fn wait(&self, time: Duration);

    /// Waits for a word, at most `limit`; returns whether it came. A sender that
    /// is gone sends none any more: then it returns at once.
    fn wait_for(&self, word: &Receiver<()>, limit: Duration) -> bool;

    /// Keeps this process in memory, so that it runs on when storage hangs.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn lock_memory(&self) -> Result<()>;

    /// Returns the SELinux label of what is at `path`, a link itself too, as the
    /// kernel shows it; `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn selinux_label(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        xattr::get(path, OsStr::from_bytes(SELINUX))
    }
}

impl dyn System + '_ {
    /// Returns where the absolute path `path` of the machine is found.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root().join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Returns what the machine's clock says, in seconds since 1970; 0 before that.
    pub fn seconds_since_1970(&self) -> u64 {
        let since = self.now().duration_since(UNIX_EPOCH);
        since.unwrap_or_default().as_secs()
    }
}

/// How a program ended that failed.
#[derive(Debug)]
pub struct Exited {
    /// Its exit status, or the signal that ended it.
    pub status: ExitStatus,
    /// The last lines of its stderr.
    pub words: String,
}

impl fmt::Display for Exited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        match &*self.words {
            "" => Ok(()),
            words => write!(f, ": {words}"),
        }
    }
}

impl Error for Exited {}

/// How a machine restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Services are stopped first.
    Orderly,
    /// Services are killed, file systems are unmounted: for a system in which
    /// stopping a service may hang.
    Forced,
}
