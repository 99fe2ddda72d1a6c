//! GRUB from the target, through chroot, into a new directory.
//!
//! 1. save the boot code, the bios_grub partition and the directories GRUB
//!    started from;
//! 2. run the target's own `grub-install` in a chroot of the target, which makes
//!    modules and a core in a new directory and touches nothing else;
//! 3. write the menu, let the target's `grub-script-check` read it;
//! 4. write the core beside the current one, read it back;
//! 5. switch the boot sector.
//!
//! Until step 5 the old GRUB boots; after it the new one. [`Switch::undo`] puts
//! back what step 1 saved.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::machine::{BOOT, BOOT_DIR};
use super::record::sha256_file;
use crate::boot::core::{BootArea, Saved};
use crate::boot::menu;
use crate::boot::target::Target;
use crate::config::Config;
use crate::disk::space;
use crate::slot::Slot;
use crate::system::{Cmd, Mount, Mounted, System, beneath, files};

/// What a chroot of the target needs of the running system.
const BINDS: [&str; 5] = ["/dev", "/dev/pts", "/proc", "/sys", "/run"];

/// Where the old boot directories are kept meanwhile, in the slot being written.
const SAVED_DIR: &str = ".va-upgrade-saved";

/// GRUB's directories of the installations before ours.
const FOREIGN_DIRS: [&str; 2] = ["grub", "grub2"];

/// The file in a GRUB directory of ours that says which core belongs to it.
const CORE_FILE: &str = "core";

/// What is to be installed where.
pub struct Plan<'a> {
    /// The slot being written, mounted.
    pub slot_root: &'a Path,
    /// What was found in it.
    pub target: &'a Target,
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
    config: &'a Config,
    area: BootArea,
    saved: Saved,
    old_dirs: Vec<OldDir>,
    new_dir: PathBuf,
}

/// A directory of the GRUB that runs now, and its copy.
struct OldDir {
    path: PathBuf,
    copy: PathBuf,
    content: BTreeMap<PathBuf, String>,
}

impl<'a> Switch<'a> {
    /// Saves everything the switch may change; changes nothing itself, except
    /// that directories of GRUBs no longer started are removed.
    ///
    /// # Errors
    /// When something cannot be read or copied.
    pub fn prepare(sys: &'a dyn System, config: &'a Config, plan: &Plan) -> Result<Switch<'a>> {
        let area = BootArea::change(&config.at(plan.disk))?;
        let saved = area.save().context("saving the boot area")?;
        let current = area.current_core()?;
        let new_dir = new_dir(config, &current)?;
        let mut old_dirs = Vec::new();
        let saved_dir = plan.slot_root.join(SAVED_DIR);
        fs::create_dir(&saved_dir).with_context(|| format!("making {}", saved_dir.display()))?;
        for path in dirs_in_use(config, &current)? {
            let copy = saved_dir.join(path.file_name().unwrap_or_default());
            sys.run(&Cmd::new("cp").args(["-a", "--"]).arg(&path).arg(&copy))
                .with_context(|| format!("saving {}", path.display()))?;
            let content = content(&path)?;
            old_dirs.push(OldDir {
                path,
                copy,
                content,
            });
        }
        Ok(Switch {
            sys,
            config,
            area,
            saved,
            old_dirs,
            new_dir,
        })
    }

    /// Installs and switches. On an error the caller runs [`Switch::undo`].
    ///
    /// # Errors
    /// When any tool, write or comparison fails.
    pub fn run(&self, plan: &Plan) -> Result<()> {
        let grub = &plan.target.grub;
        let chroot = Chroot::enter(self.sys, self.config, plan.slot_root)?;
        let inside = Path::new(BOOT_DIR).join(self.new_dir.file_name().unwrap_or_default());
        chroot
            .run(
                Cmd::new(&grub.install)
                    .args(["--target=i386-pc", "--no-bootsector"])
                    .arg(format!("--boot-directory={}", inside.display()))
                    .arg(plan.disk),
            )
            .context("installing GRUB from the target")?;
        let platform = self.new_dir.join(grub.dir_name).join("i386-pc");
        compare_modules(
            &beneath::place(plan.slot_root, &grub.platform_dir)?,
            &platform,
        )?;

        let menu_path = self.new_dir.join(grub.dir_name).join("grub.cfg");
        let text = menu::render(plan.boot_uuid, plan.baked, plan.cmdline)?;
        files::write_atomic(&menu_path, text.as_bytes(), 0o644)?;
        let mut scripts = vec![inside.join(grub.dir_name).join("grub.cfg")];
        scripts.extend(
            Slot::ALL
                .iter()
                .map(|s| Path::new(BOOT_DIR).join(s.name()).join("entry.cfg")),
        );
        for script in scripts {
            chroot
                .run(Cmd::new(&grub.script_check).arg(&script))
                .with_context(|| format!("checking {}", script.display()))?;
        }
        chroot.leave()?;

        let core = read(&platform.join("core.img"))?;
        let boot_img = read(&platform.join("boot.img"))?;
        let place = self.area.write_core(&core).context("writing GRUB's core")?;
        let written = self.area.core_at(place)?;
        files::write_atomic(&self.new_dir.join(CORE_FILE), written.as_bytes(), 0o644)?;
        space::flush_journal(self.sys, &self.config.at(BOOT))?;
        self.area
            .switch(&boot_img, place.start_lba)
            .context("switching the boot sector")
    }

    /// Sees that the old directories are untouched and gives up their copies.
    ///
    /// # Errors
    /// When one was changed, or the copies cannot be removed.
    pub fn finish(&mut self, plan: &Plan) -> Result<()> {
        for old in &self.old_dirs {
            ensure!(
                content(&old.path)? == old.content,
                "the target's GRUB tools changed {}",
                old.path.display()
            );
        }
        self.old_dirs.clear();
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
        for old in &self.old_dirs {
            let same = content(&old.path).is_ok_and(|content| content == old.content);
            if !same {
                self.restore_dir(old)
                    .with_context(|| format!("restoring {}", old.path.display()))?;
            }
        }
        files::remove_tree(&self.new_dir)?;
        space::flush_journal(self.sys, &self.config.at(BOOT))
    }
}

impl Switch<'_> {
    fn restore_dir(&self, old: &OldDir) -> Result<()> {
        let restored = with_suffix(&old.path, ".restored");
        files::remove_tree(&restored)?;
        self.sys.run(
            &Cmd::new("cp")
                .args(["-a", "--"])
                .arg(&old.copy)
                .arg(&restored),
        )?;
        let ruined = with_suffix(&old.path, ".ruined");
        files::remove_tree(&ruined)?;
        if old.path.exists() {
            fs::rename(&old.path, &ruined)?;
        }
        fs::rename(&restored, &old.path)?;
        files::remove_tree(&ruined)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Removes the directories of our GRUBs that LBA 0 does not start, and any
/// other half-made one.
///
/// # Errors
/// When one cannot be removed.
pub fn prune(config: &Config, disk: &Path) -> Result<()> {
    let current = BootArea::look(&config.at(disk))?.current_core()?;
    for dir in our_dirs(config)? {
        if recorded_core(&dir).as_ref() != Some(&current) {
            files::remove_tree(&dir)?;
        }
    }
    Ok(())
}

/// Returns whether LBA 0 starts a GRUB of ours whose files are there.
///
/// # Errors
/// When the disk or `/boot` cannot be read.
pub fn is_ours(config: &Config, disk: &Path) -> Result<bool> {
    let current = BootArea::look(&config.at(disk))?.current_core()?;
    Ok(our_dirs(config)?
        .iter()
        .any(|dir| recorded_core(dir).as_ref() == Some(&current)))
}

fn our_dirs(config: &Config) -> Result<Vec<PathBuf>> {
    let boot_dir = config.at(BOOT_DIR);
    if !boot_dir.exists() {
        return Ok(Vec::new());
    }
    let listed =
        fs::read_dir(&boot_dir).with_context(|| format!("listing {}", boot_dir.display()))?;
    let mut dirs = Vec::new();
    for entry in listed {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("grub-") {
            dirs.push(entry.path());
        }
    }
    dirs.sort();
    Ok(dirs)
}

/// Returns the core that belongs to the GRUB in `dir`, as it was written down.
fn recorded_core(dir: &Path) -> Option<String> {
    let text = fs::read_to_string(dir.join(CORE_FILE)).ok()?;
    Some(text.trim().to_owned())
}

/// Returns a directory name that the GRUB in use does not have.
fn new_dir(config: &Config, current: &str) -> Result<PathBuf> {
    let used: Vec<PathBuf> = our_dirs(config)?;
    let in_use = used
        .iter()
        .find(|dir| recorded_core(dir).as_deref() == Some(current));
    let name = |n: u32| config.at(BOOT_DIR).join(format!("grub-{n}"));
    Ok(if in_use == Some(&name(1)) {
        name(2)
    } else {
        name(1)
    })
}

/// Returns the directories the GRUB started by LBA 0 may read.
fn dirs_in_use(config: &Config, current: &str) -> Result<Vec<PathBuf>> {
    let ours = our_dirs(config)?
        .into_iter()
        .find(|dir| recorded_core(dir).as_deref() == Some(current));
    if ours.is_some() {
        return Ok(ours.into_iter().collect());
    }
    let foreign = FOREIGN_DIRS.iter().map(|name| config.at(BOOT).join(name));
    Ok(foreign.filter(|dir| dir.is_dir()).collect())
}

/// Compares the modules `grub-install` copied with those of the target.
fn compare_modules(from: &Path, to: &Path) -> Result<()> {
    let listed = fs::read_dir(from).with_context(|| format!("listing {}", from.display()))?;
    for entry in listed {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "mod") {
            let copy = to.join(path.file_name().unwrap_or_default());
            ensure!(
                sha256_file(&path)? == sha256_file(&copy)?,
                "{} is not what the target's GRUB has",
                copy.display()
            );
        }
    }
    Ok(())
}

/// Returns what a directory of GRUB holds: every file with its SHA-256.
///
/// `grubenv` is left out: services of the running system write it any time.
fn content(dir: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(next) = todo.pop() {
        let listed = fs::read_dir(&next).with_context(|| format!("listing {}", next.display()))?;
        for entry in listed {
            let path = entry?.path();
            if path.is_dir() && !path.is_symlink() {
                todo.push(path);
            } else if path.is_file() && !path.ends_with("grubenv") {
                let digest = sha256_file(&path)?;
                found.insert(path, digest);
            }
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// The target as a root directory, with what its tools need bound into it.
struct Chroot<'a> {
    sys: &'a dyn System,
    root: PathBuf,
    binds: Vec<Mounted<'a>>,
}

impl<'a> Chroot<'a> {
    fn enter(sys: &'a dyn System, config: &Config, root: &Path) -> Result<Chroot<'a>> {
        let mut chroot = Chroot {
            sys,
            root: root.to_owned(),
            binds: Vec::new(),
        };
        for path in BINDS.iter().chain([&BOOT]) {
            let target = beneath::place(root, Path::new(path))?;
            ensure!(
                !target.is_symlink(),
                "{path} of the target is a symbolic link"
            );
            let bind = Mount::bind(&config.at(path), &target);
            chroot.binds.push(Mounted::new(sys, &bind)?);
        }
        Ok(chroot)
    }

    fn run(&self, cmd: Cmd) -> Result<String> {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        self.sys.run(&cmd.env("PATH", path).chroot(&self.root))
    }

    fn leave(mut self) -> Result<()> {
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
