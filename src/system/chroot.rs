//! Running the programs of another system inside its own tree.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::calls::System;
use super::cmd::Cmd;
use super::mount::Mount;
use super::mounted::Mounted;
use crate::tree::resolve;

/// Where the programs of every system are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A tree as a root directory, with what its programs need bound into it.
pub struct Chroot<'a> {
    sys: &'a dyn System,
    root: PathBuf,
    binds: Vec<Mounted<'a>>,
}

impl<'a> Chroot<'a> {
    /// What most programs need of the running system.
    pub const KERNEL_DIRS: [&'static str; 5] = ["/dev", "/dev/pts", "/proc", "/sys", "/run"];

    /// Binds the directories `binds` of the running system into the tree at
    /// `root`, each without what is mounted below it.
    ///
    /// # Errors
    /// When one of them is a link in the tree, or cannot be bound.
    pub fn enter(sys: &'a dyn System, root: &Path, binds: &[&str]) -> Result<Chroot<'a>> {
        let mut chroot = Chroot {
            sys,
            root: root.to_owned(),
            binds: Vec::new(),
        };
        for path in binds {
            let point = resolve::place(root, Path::new(path))?;
            ensure!(
                !point.is_symlink(),
                "{path} of the target is a symbolic link"
            );
            let bind = Mount::bind(&sys.at(path), &point);
            chroot.binds.push(Mounted::new(sys, &bind)?);
        }
        Ok(chroot)
    }

    /// Runs `cmd` in the tree, with an environment of its own.
    ///
    /// # Errors
    /// Like [`System::run`].
    pub fn run(&self, cmd: Cmd) -> Result<String> {
        let cmd = cmd.without_environment().env("PATH", PATH);
        self.sys.run(&cmd.chroot(&self.root))
    }

    /// Unmounts everything.
    ///
    /// # Errors
    /// When something is still in use.
    pub fn leave(mut self) -> Result<()> {
        while let Some(bind) = self.binds.pop() {
            bind.unmount()?;
        }
        Ok(())
    }
}

impl Drop for Chroot<'_> {
    fn drop(&mut self) {
        // In reverse order: /dev/pts lies inside /dev.
        while let Some(bind) = self.binds.pop() {
            drop(bind);
        }
    }
}
