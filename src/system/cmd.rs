//! A command as data: printed, compared in tests, run by a `System`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Who a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The number of the only group.
    pub gid: u32,
}

impl User {
    /// Whom no file belongs to, by the kernel's own number.
    pub const NOBODY: User = User {
        uid: 65_534,
        gid: 65_534,
    };
}

/// A program with its arguments, not yet run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    has_own_environment: bool,
    dies_with_us: bool,
    user: Option<User>,
    chroot: Option<PathBuf>,
    limit: Duration,
    interruptible: bool,
}

impl Cmd {
    /// How long a program may take unless [`Cmd::limit`] says otherwise.
    pub const DEFAULT_LIMIT: Duration = Duration::from_secs(15 * 60);

    /// Starts a command; `program` is looked up in PATH.
    pub fn new(program: impl AsRef<OsStr>) -> Cmd {
        Cmd {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            has_own_environment: false,
            dies_with_us: false,
            user: None,
            chroot: None,
            limit: Cmd::DEFAULT_LIMIT,
            interruptible: false,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Cmd {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Cmd {
        self.args
            .extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Cmd {
        self.envs
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Leaves out the caller's environment.
    #[must_use]
    pub fn without_environment(mut self) -> Cmd {
        self.has_own_environment = true;
        self
    }

    /// Runs the command with `dir` as its root directory, through chroot(8).
    #[must_use]
    pub fn chroot(mut self, dir: &Path) -> Cmd {
        self.chroot = Some(dir.to_owned());
        self
    }

    /// Sets the time after which the program is killed.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Cmd {
        self.limit = limit;
        self
    }

    /// Lets a signal to this process kill the program; for long programs that
    /// may be stopped anywhere.
    #[must_use]
    pub fn interruptible(mut self) -> Cmd {
        self.interruptible = true;
        self
    }

    /// Has the kernel kill the program when this process is killed, where setpriv(1)
    /// can ask for that; for long programs that leave files behind.
    #[must_use]
    pub fn dies_with_us(mut self) -> Cmd {
        self.dies_with_us = true;
        self
    }

    /// Tells whether the program is to be killed with this process.
    pub fn is_to_die_with_us(&self) -> bool {
        self.dies_with_us
    }

    /// Runs the program as `user` with no other group, without capabilities and, where
    /// setpriv(1) can ask for that, without ever getting more rights; for programs that
    /// parse what comes from outside. Only root can run it.
    #[must_use]
    pub fn confined(mut self, user: User) -> Cmd {
        self.user = Some(user);
        self
    }

    /// Returns who the program is, if not this process's user.
    pub fn user(&self) -> Option<User> {
        self.user
    }

    /// Returns the program as given, without the chroot.
    pub fn program(&self) -> &OsStr {
        &self.program
    }

    /// Returns the arguments as given, without the chroot.
    pub fn arguments(&self) -> &[OsString] {
        &self.args
    }

    /// Returns the root directory the program runs in, if not the caller's.
    pub fn root(&self) -> Option<&Path> {
        self.chroot.as_deref()
    }

    /// Returns the environment variables set on top of the caller's.
    pub fn environment(&self) -> &[(OsString, OsString)] {
        &self.envs
    }

    /// Tells whether the caller's environment is left out.
    pub fn has_own_environment(&self) -> bool {
        self.has_own_environment
    }

    /// Returns the time limit.
    pub fn time_limit(&self) -> Duration {
        self.limit
    }

    /// Tells whether a signal to this process kills the program.
    pub fn is_interruptible(&self) -> bool {
        self.interruptible
    }

    /// Returns the words as they are executed, chroot included.
    pub fn argv(&self) -> Vec<&OsStr> {
        let mut words: Vec<&OsStr> = Vec::new();
        if let Some(dir) = &self.chroot {
            words.push(OsStr::new("chroot"));
            words.push(dir.as_os_str());
        }
        words.push(&self.program);
        words.extend(self.args.iter().map(OsString::as_os_str));
        words
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, word) in self.argv().iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            write_quoted(f, &word.to_string_lossy())?;
        }
        Ok(())
    }
}

fn write_quoted(f: &mut fmt::Formatter<'_>, word: &str) -> fmt::Result {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%^~".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return f.write_str(word);
    }
    write!(f, "'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_prints_so_that_a_shell_would_run_it() {
        let cmd = Cmd::new("grub-install")
            .args(["--x=a b", "it's", ""])
            .chroot(Path::new("/mnt/t"));
        assert_eq!(
            cmd.to_string(),
            r"chroot /mnt/t grub-install '--x=a b' 'it'\''s' ''"
        );
    }
}
