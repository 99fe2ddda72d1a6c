//! A machine whose power goes at some call.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use va_upgrade::system::{Cmd, Mount, Restart, System};

use crate::machine::Machine;

/// The machine of before with the power gone at some call.
pub struct Dying<'a> {
    machine: &'a Machine,
    left: AtomicUsize,
}

impl<'a> Dying<'a> {
    /// Returns it with this many calls left.
    pub fn after(machine: &'a Machine, calls: usize) -> Dying<'a> {
        Dying {
            machine,
            left: calls.into(),
        }
    }

    fn live(&self) -> Result<&Machine> {
        if std::thread::panicking() {
            bail!("there is no power");
        }
        let left = self.left.load(Ordering::Relaxed);
        assert!(left > 0, "the power is gone");
        self.left.store(left - 1, Ordering::Relaxed);
        Ok(self.machine)
    }
}

impl System for Dying<'_> {
    fn root(&self) -> &Path {
        self.machine.root()
    }

    fn run(&self, cmd: &Cmd) -> Result<String> {
        self.live()?.run(cmd)
    }

    fn mount(&self, mount: &Mount) -> Result<()> {
        self.live()?.mount(mount)
    }

    fn unmount(&self, at: &Path) -> Result<()> {
        self.live()?.unmount(at)
    }

    fn reboot(&self, how: Restart) -> Result<()> {
        self.live()?.reboot(how)
    }

    fn now(&self) -> SystemTime {
        self.machine.now()
    }

    fn wait(&self, time: Duration) {
        self.machine.wait(time);
    }

    fn wait_for(&self, word: &Receiver<()>, limit: Duration) -> bool {
        self.machine.wait_for(word, limit)
    }

    fn lock_memory(&self) -> Result<()> {
        self.live()?.lock_memory()
    }

    fn selinux_label(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.machine.selinux_label(path)
    }
}
