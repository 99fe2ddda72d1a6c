//! What becomes of a disk that is made anew when a step fails, once or for good.

use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use va_upgrade::failure::{Class, class_of};
use va_upgrade::system::{Cmd, Mount, Restart, System};

use crate::machine::{Fault, Machine};
use crate::rebuild::{InRam, Lab};

#[test]
fn a_step_that_fails_once_changes_nothing_or_is_made_up_for() {
    let lab = Lab::new();
    for fault in [Fault::Fails, Fault::FailsAfterItsWork] {
        for step in 0.. {
            let ram = lab.start();
            let before = ram.old_bytes();
            ram.machine.fail_at(step, fault);
            let outcome = ram.run();
            let Some(call) = ram.machine.failed_call() else {
                assert!(step > 40, "only {step} calls");
                break;
            };
            match outcome {
                Ok(()) => ram.require_new_system(),
                Err(error) => {
                    assert_eq!(class_of(&error), Class::Refused, "{call}: {error:#}");
                    assert_eq!(ram.old_bytes(), before, "{call}");
                    assert!(ram.machine.mounts().is_empty(), "{call}");
                }
            }
        }
    }
}

/// A machine on which calls that hold some words fail, from one of them on.
struct Broken<'a> {
    machine: &'a Machine,
    words: &'static str,
    /// How many such calls are still well.
    well: Mutex<u32>,
}

impl Broken<'_> {
    fn check(&self, call: &str) -> Result<()> {
        let mut well = self.well.lock().unwrap();
        if call.contains(self.words) {
            if *well == 0 {
                bail!("{call}: broken");
            }
            *well -= 1;
        }
        Ok(())
    }
}

impl System for Broken<'_> {
    fn root(&self) -> &Path {
        self.machine.root()
    }

    fn run(&self, cmd: &Cmd) -> Result<String> {
        self.check(&cmd.to_string())?;
        self.machine.run(cmd)
    }

    fn mount(&self, mount: &Mount) -> Result<()> {
        self.check(&format!("mount {}", mount.source.display()))?;
        self.machine.mount(mount)
    }

    fn unmount(&self, at: &Path) -> Result<()> {
        self.machine.unmount(at)
    }

    fn reboot(&self, how: Restart) -> Result<()> {
        self.machine.reboot(how)
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
        self.machine.lock_memory()
    }
}

fn run_broken(ram: &InRam, words: &'static str, well: u32) -> anyhow::Error {
    let broken = Broken {
        machine: &ram.machine,
        words,
        well: Mutex::new(well),
    };
    ram.run_on(&broken).unwrap_err()
}

#[test]
fn a_failure_for_good_before_the_first_wipe_leaves_the_disk_byte_for_byte() {
    let lab = Lab::new();
    for (words, well) in [
        // The table does not leave the cache.
        ("--flushbufs /dev/vda", 0),
        // The kernel does not read it, nor the old one again.
        ("--rereadpt", 1),
    ] {
        let ram = lab.start();
        let before = ram.old_bytes();
        let error = run_broken(&ram, words, well);
        assert_eq!(class_of(&error), Class::Undone, "{words}: {error:#}");
        assert_eq!(ram.old_bytes(), before, "{words}");
        assert!(ram.machine.reboots().is_empty());
    }
}

#[test]
fn a_failure_for_good_after_it_stops_with_a_code_and_never_restarts() {
    let lab = Lab::new();
    for (words, well, code) in [
        ("lvm vgchange -an", 0, "M22"),
        // The twin's went well.
        ("pvcreate", 1, "M23"),
        ("lvcreate", 4, "M23"),
        ("mkfs.ext4 -q", 0, "M24"),
        ("mount /dev/VA/root", 0, "M25"),
        ("--flushbufs /dev/VA/root", 0, "M26"),
        ("mount /dev/VA/data", 0, "M27"),
        ("cp -a", 0, "M27"),
        ("mount /dev/vda2", 0, "M28"),
        ("grub-install", 0, "M29"),
        // Wiping flushes it once.
        ("--flushbufs /dev/vda2", 1, "M31"),
    ] {
        let ram = lab.start();
        let error = run_broken(&ram, words, well);
        let text = format!("{error:#}");
        assert_eq!(class_of(&error), Class::Stuck, "{words}: {text}");
        assert!(text.starts_with(code), "{words}: {text}");
        assert!(text.contains("Do not restart this machine"), "{text}");
        assert!(!ram.starts(), "{words}");
        let sector = ram.boot_sector();
        let notice = b"va-upgrade: the move to two slots was cut short";
        assert!(sector.windows(notice.len()).any(|part| part == notice));
        let log = ram.log();
        let stopped = format!("{code} ");
        let last = log.last().unwrap();
        assert!(
            last.starts_with(&stopped) && last.contains("STOPPED"),
            "{last}"
        );
        let attempts = log
            .iter()
            .filter(|line| line.starts_with(&stopped) && line.contains("of 3 failed"));
        assert_eq!(attempts.count(), 3, "{log:?}");
        assert!(ram.machine.reboots().is_empty());
        assert!(ram.machine.mounts().is_empty(), "{words}");
        assert!(ram.payload.bundle.exists() && ram.payload.settings.exists());
    }
}
