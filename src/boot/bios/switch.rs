//! GRUB from the target, through chroot, into a new directory.
//!
//! 1. save the boot code, the bios_grub partition and the directories GRUB
//!    started from ([`Switch::prepare`]);
//! 2. run the target's own `grub-install` in a chroot of the target, which makes
//!    modules and a core in a new directory and touches nothing else;
//! 3. write the menu, let the target's `grub-script-check` read it;
//! 4. write the core beside the current one, read it back; keep what it starts now
//!    ([`before`](super::before));
//! 5. switch the boot sector.
//!
//! Until step 5 the old GRUB boots; after it the new one. [`Switch::undo`] puts
//! back what step 1 saved.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::area::BootArea;
use super::backup::Backup;
use super::before::{About, Before};
use super::installed::{CORE_FILE, dirs_in_use, new_dir};
use super::saved::Saved;
use super::sector::Sectors;
use crate::boot::bootable::Bootable;
use crate::boot::{journal, menu};
use crate::paths::{BOOT, BOOT_DIR};
use crate::sha::Sha;
use crate::slot::Slot;
use crate::system::{Chroot, Cmd, System, files};
use crate::tree::resolve;

/// Where the old boot directories are kept meanwhile, in the slot being written.
const SAVED_DIR: &str = ".va-upgrade-saved";

/// What is to be installed where.
pub struct Plan<'a> {
    /// Which slot that is, and whether it is the first `apply`.
    pub about: About,
    /// The slot being written, mounted.
    pub slot_root: &'a Path,
    /// What was found in it.
    pub bootable: &'a Bootable,
    /// The disk that the BIOS starts from.
    pub disk: &'a Path,
    /// The UUID of the file system on `/boot`.
    pub boot_uuid: &'a str,
    /// The slot to boot when the boot state is unreadable.
    pub baked: Slot,
    /// The running kernel's command line, which names the consoles.
    pub cmdline: &'a str,
}

/// A switch of GRUB that can be undone.
pub struct Switch<'a> {
    sys: &'a dyn System,
    area: BootArea,
    saved: Saved,
    backups: Vec<Backup>,
    new_dir: PathBuf,
}

impl<'a> Switch<'a> {
    /// Saves everything the switch may change; changes nothing itself.
    ///
    /// # Errors
    /// When something cannot be read or copied.
    pub fn prepare(sys: &'a dyn System, plan: &Plan) -> Result<Switch<'a>> {
        let area = BootArea::change(&sys.at(plan.disk))?;
        let saved = area.save().context("saving the boot area")?;
        let new_dir = new_dir(sys)?;
        let saved_dir = plan.slot_root.join(SAVED_DIR);
        fs::create_dir(&saved_dir).with_context(|| format!("making {}", saved_dir.display()))?;
        let backups = dirs_in_use(sys, &area)?
            .into_iter()
            .map(|dir| Backup::take(sys, dir, &saved_dir))
            .collect::<Result<_>>()?;
        Ok(Switch {
            sys,
            area,
            saved,
            backups,
            new_dir,
        })
    }

    /// Installs and switches. On an error the caller runs [`Switch::undo`].
    ///
    /// # Errors
    /// When any tool, write or comparison fails.
    pub fn run(&self, plan: &Plan) -> Result<()> {
        let core = self.place(plan)?;
        let backups = self.backups.iter();
        let dirs = backups.map(|it| it.describe(self.sys)).collect();
        Before::keep(
            &self.new_dir,
            &self.area,
            &self.saved,
            core.place,
            plan.about,
            dirs,
        )
        .context("keeping what the boot sector starts")?;
        core.start_in(&self.area)
    }

    /// Installs without the switch: steps 2 to 4.
    ///
    /// # Errors
    /// When any tool, write or comparison fails.
    pub fn place(&self, plan: &Plan) -> Result<Placed> {
        let dir_name = plan.bootable.grub.dir_name;
        let platform = self.new_dir.join(dir_name).join("i386-pc");
        self.install(plan, &platform)?;
        place(self.sys, &self.area, &self.new_dir, &platform)
    }

    /// Lets the target's tools make modules, core and menu, and looks at them.
    fn install(&self, plan: &Plan, platform: &Path) -> Result<()> {
        let grub = &plan.bootable.grub;
        let mut binds = Chroot::KERNEL_DIRS.to_vec();
        binds.push(BOOT);
        let chroot = Chroot::enter(self.sys, plan.slot_root, &binds)?;
        let inside = Path::new(BOOT_DIR).join(self.new_dir.file_name().unwrap_or_default());
        let install = Cmd::new(&grub.install)
            .args(["--target=i386-pc", "--no-bootsector"])
            .arg(format!("--boot-directory={}", inside.display()))
            .arg(plan.disk);
        chroot
            .run(install)
            .context("installing GRUB from the target")?;
        compare_modules(
            &resolve::place(plan.slot_root, &grub.platform_dir)?,
            platform,
        )?;

        let menu_path = self.new_dir.join(grub.dir_name).join("grub.cfg");
        let text = menu::render(plan.boot_uuid, plan.baked, plan.cmdline)?;
        files::write_atomic(&menu_path, text.as_bytes(), 0o644)?;
        let entries = Slot::ALL.map(|slot| Path::new(BOOT_DIR).join(slot.name()).join("entry.cfg"));
        let menu = inside.join(grub.dir_name).join("grub.cfg");
        // A disk that was made anew has a system in one slot only.
        let entries = entries.iter().filter(|entry| self.sys.at(entry).exists());
        for script in [menu].iter().chain(entries) {
            chroot
                .run(Cmd::new(&grub.script_check).arg(script))
                .with_context(|| format!("checking {}", script.display()))?;
        }
        chroot.leave()
    }

    /// Sees that the old directories are untouched and gives up their copies.
    ///
    /// # Errors
    /// When one was changed, or the copies cannot be removed.
    pub fn finish(&mut self, plan: &Plan) -> Result<()> {
        self.backups.iter().try_for_each(Backup::compare)?;
        self.backups.clear();
        files::remove_tree(&plan.slot_root.join(SAVED_DIR))
    }

    /// Puts everything back byte for byte.
    ///
    /// # Errors
    /// When something cannot be restored; the error says what.
    pub fn undo(&self) -> Result<()> {
        self.area
            .restore(&self.saved)
            .context("restoring the boot sector and the bios_grub partition")?;
        for backup in &self.backups {
            backup.restore(self.sys)?;
        }
        files::remove_tree(&self.new_dir)?;
        journal::flush(self.sys, &self.sys.at(BOOT))
    }
}

/// A core that is on the disk and that nothing starts yet.
pub struct Placed {
    boot_img: Vec<u8>,
    place: Sectors,
    /// What tells the core from any other.
    word: String,
}

impl Placed {
    /// Has the first sector of `disk` start the core: one write, read back.
    ///
    /// # Errors
    /// When the sector cannot be written or does not read back.
    pub fn start(&self, sys: &dyn System, disk: &Path) -> Result<()> {
        self.start_in(&BootArea::change(&sys.at(disk))?)
    }

    /// Looks whether the core on `disk` is what was written.
    ///
    /// # Errors
    /// When it is not, or cannot be read.
    pub fn verify(&self, sys: &dyn System, disk: &Path) -> Result<()> {
        let found = BootArea::look(&sys.at(disk))?.core_at(self.place)?;
        ensure!(
            found == self.word,
            "GRUB's core on {} is not what was written",
            disk.display()
        );
        Ok(())
    }

    fn start_in(&self, area: &BootArea) -> Result<()> {
        area.switch(&self.boot_img, self.place.start_lba)
            .context("switching the boot sector")
    }
}

/// Writes the core in `platform` beside the one in use, notes it in `dir`, and has
/// LBA 0 start it.
pub(super) fn start(sys: &dyn System, area: &BootArea, dir: &Path, platform: &Path) -> Result<()> {
    place(sys, area, dir, platform)?.start_in(area)
}

/// Writes the core in `platform` beside the one in use and notes it in `dir`.
fn place(sys: &dyn System, area: &BootArea, dir: &Path, platform: &Path) -> Result<Placed> {
    let core = read(&platform.join("core.img"))?;
    let boot_img = read(&platform.join("boot.img"))?;
    let place = area.write_core(&core).context("writing GRUB's core")?;
    let word = area.core_at(place)?;
    files::write_atomic(&dir.join(CORE_FILE), word.as_bytes(), 0o644)?;
    journal::flush(sys, &sys.at(BOOT))?;
    Ok(Placed {
        boot_img,
        place,
        word,
    })
}

/// Compares the modules `grub-install` copied with those of the target.
fn compare_modules(from: &Path, to: &Path) -> Result<()> {
    let listed = fs::read_dir(from).with_context(|| format!("listing {}", from.display()))?;
    for entry in listed {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "mod") {
            let copy = to.join(path.file_name().unwrap_or_default());
            ensure!(
                Sha::of_file(&path)? == Sha::of_file(&copy)?,
                "{} is not what the target's GRUB has",
                copy.display()
            );
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
