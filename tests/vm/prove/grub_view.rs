//! What the firmware and GRUB would do with a disk: which core, which menu, which
//! slot, which kernel. Told by GRUB's own rules, not by the program under test.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail, ensure};
use ext4_view::Ext4;
use va_upgrade::sha::Sha;

use super::disk_state::DiskState;
use super::volumes::{As, BOOT_START, file_system};

const SECTOR: usize = 512;
/// The block list at the end of a core's first sector names where the rest is.
const BLOCK_LIST: usize = SECTOR - 24;

/// What is started, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The slot, or none where the GRUB of before decides.
    pub slot: Option<String>,
    /// Whether this start is a counted one.
    pub is_trial: bool,
    /// The digests of entry, kernel and initramfs.
    pub files: [Sha; 3],
    /// The kernel's name.
    pub kernel: String,
}

/// `/boot` as GRUB reads it.
pub struct Boot<'a> {
    disk: &'a DiskState,
    fs: Ext4,
}

/// A GRUB on the disk: the core that sector 0 names and the directory it belongs to.
pub struct Grub {
    /// Its directory on `/boot`, `/grub` for the one of before.
    pub dir: String,
    /// The digest of its modules by name and content.
    pub modules: Sha,
}

impl<'a> Boot<'a> {
    /// Opens `/boot`.
    pub fn open(disk: &'a DiskState) -> Result<Boot<'a>> {
        let fs = file_system(disk, BOOT_START, As::Grub).context("/boot")?;
        Ok(Boot { disk, fs })
    }

    /// Returns a byte of the disk that belongs to the content of a file.
    pub fn byte_of(&self, path: &str) -> Result<u64> {
        // With nothing kept of what was read before.
        let fresh = Boot::open(self.disk)?;
        self.disk.take_trace();
        let content = fresh.read(path)?.with_context(|| format!("no {path}"))?;
        let at = self.disk.find_read(&content)?;
        at.with_context(|| format!("where {path} lies"))
    }

    /// Reads a file; `None` where there is none.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        match self.fs.read(path) {
            Ok(content) => Ok(Some(content)),
            Err(ext4_view::Ext4Error::NotFound) => Ok(None),
            Err(error) => Err(anyhow!("{path} on /boot: {error}")),
        }
    }

    fn text(&self, path: &str) -> Result<Option<String>> {
        Ok(self
            .read(path)?
            .map(|text| String::from_utf8_lossy(&text).into_owned()))
    }

    /// Digests a file; `None` where there is none.
    pub fn digest(&self, path: &str) -> Result<Option<Sha>> {
        Ok(self.read(path)?.map(|content| Sha::of(&content)))
    }

    fn names(&self, dir: &str) -> Result<Vec<String>> {
        let fail = |error| anyhow!("{dir} on /boot: {error}");
        let mut names = Vec::new();
        for entry in self.fs.read_dir(dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            names.push(String::from_utf8_lossy(entry.file_name().as_ref()).into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Finds the GRUB that sector 0 starts. `foreign` are digests of cores that the
    /// installer's GRUB was seen with.
    pub fn grub(&self, foreign: &[Sha]) -> Result<Grub> {
        let core = core_in_use(self.disk)?;
        if foreign.contains(&Sha::of(&core)) {
            return self.grub_in("/grub");
        }
        let wanted = masked(&core);
        let dirs = match self.fs.exists("/va") {
            Ok(true) => self.names("/va")?,
            _ => Vec::new(),
        };
        for dir in dirs.iter().filter(|name| name.starts_with("grub-")) {
            for name in ["grub", "grub2"] {
                let dir = format!("/va/{dir}/{name}");
                if let Ok(Some(image)) = self.read(&format!("{dir}/i386-pc/core.img"))
                    && masked(&image) == wanted
                {
                    return self.grub_in(&dir);
                }
            }
        }
        bail!("sector 0 leads to a core that belongs to no GRUB on /boot")
    }

    fn grub_in(&self, dir: &str) -> Result<Grub> {
        let place = format!("{dir}/i386-pc");
        let mut all = String::new();
        for name in self.names(&place)? {
            if name.ends_with(".mod") || name.ends_with(".lst") {
                let sha = self.digest(&format!("{place}/{name}"))?;
                all += &format!("{name} {}\n", sha.context("a module went away")?);
            }
        }
        Ok(Grub {
            dir: dir.to_owned(),
            modules: Sha::of(all.as_bytes()),
        })
    }

    /// Returns the menu of a GRUB, but for the slot that was set when it was written.
    pub fn menu(&self, grub: &Grub) -> Result<String> {
        let path = format!("{}/grub.cfg", grub.dir);
        let text = self.text(&path)?.context("no menu")?;
        Ok(text
            .replace("set va_slot=root\n", "set va_slot=back\n")
            .trim_end()
            .to_owned())
    }

    /// Tells what the installer's menu starts.
    pub fn old_start(&self, menu: &str) -> Result<Start> {
        let word = |command: &str| -> Result<&str> {
            let line = menu
                .lines()
                .map(str::trim_start)
                .find(|line| line.starts_with(command))
                .with_context(|| format!("no `{command}` in the menu"))?;
            line.split_whitespace().nth(1).context("no file")
        };
        let (kernel, initramfs) = (word("linux ")?, word("initrd ")?);
        let need = |path: &str| -> Result<Sha> {
            self.digest(path)?
                .with_context(|| format!("{path} is not on /boot"))
        };
        Ok(Start {
            slot: None,
            is_trial: false,
            files: [Sha::of(b""), need(kernel)?, need(initramfs)?],
            kernel: kernel.to_owned(),
        })
    }

    /// Tells what our menu starts, after a trial that is given up where one is.
    pub fn starts(&self) -> Result<Vec<Start>> {
        let state = self.state()?;
        let Some(state) = state else {
            let text = self.text("/va/default.cfg")?.unwrap_or_default();
            let slot = ["root", "back"]
                .into_iter()
                .find(|slot| text.contains(&format!("va_slot={slot}")));
            let slot = slot.context("no copy of the boot state, and default.cfg names no slot")?;
            return Ok(vec![self.committed(slot, None)?]);
        };
        let word = |name: &str| state.get(name).map_or("", String::as_str);
        let commit = word("va_commit");
        let mut starts = Vec::new();
        if ["root", "back"].contains(&word("va_trial"))
            && matches!(word("va_left").as_bytes(), [b'1'..=b'9'])
        {
            let trial = self.start(word("va_trial"), true)?;
            starts.push(trial.context("the slot on trial has not all of its boot files")?);
        }
        starts.push(self.committed(commit, Some(&state))?);
        Ok(starts)
    }

    fn committed(&self, slot: &str, state: Option<&BTreeMap<String, String>>) -> Result<Start> {
        if let Some(start) = self.start(slot, false)? {
            return Ok(start);
        }
        let other = if slot == "root" { "back" } else { "root" };
        let is_good = state.is_some_and(|state| {
            state
                .get(&format!("va_{other}"))
                .is_some_and(|word| word == "good")
        });
        ensure!(is_good, "slot {slot} has not all of its boot files");
        self.start(other, false)?
            .with_context(|| format!("slots {slot} and {other} have not all of their boot files"))
    }

    /// Returns what a slot's entry starts, if all of it is there.
    pub fn start(&self, slot: &str, is_trial: bool) -> Result<Option<Start>> {
        let path = format!("/va/{slot}/entry.cfg");
        let Some(entry) = self.text(&path)? else {
            return Ok(None);
        };
        let word = |command: &str| -> Option<String> {
            let at = entry.find(command)?;
            let word = entry[at + command.len()..].split_whitespace().next()?;
            Some(
                word.trim_matches(['"', '\''])
                    .trim_end_matches(';')
                    .to_owned(),
            )
        };
        let (Some(kernel), Some(initramfs)) = (word("if linux "), word("if initrd ")) else {
            bail!("{path} starts nothing");
        };
        let clean = |path: &str| path.trim_matches(['"', '\'']).to_owned();
        let (kernel, initramfs) = (clean(&kernel), clean(&initramfs));
        let (Some(k), Some(i)) = (self.digest(&kernel)?, self.digest(&initramfs)?) else {
            return Ok(None);
        };
        Ok(Some(Start {
            slot: Some(slot.to_owned()),
            is_trial,
            files: [Sha::of(entry.as_bytes()), k, i],
            kernel,
        }))
    }

    /// Returns the variables of the first valid copy of the boot state.
    pub fn state(&self) -> Result<Option<BTreeMap<String, String>>> {
        for copy in ["env1", "env2"] {
            let Some(block) = self.read(&format!("/va/{copy}"))? else {
                continue;
            };
            if let Some(state) = environment(&block) {
                return Ok(Some(state));
            }
        }
        Ok(None)
    }
}

/// Parses a block as `load_env` does and judges it as the menu does.
fn environment(block: &[u8]) -> Option<BTreeMap<String, String>> {
    let text = String::from_utf8_lossy(block);
    let lines = text.strip_prefix("# GRUB Environment Block\n")?;
    let state: BTreeMap<String, String> = lines
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let is_whole = state.get("va_end").is_some_and(|end| end == "1");
    let commit = state.get("va_commit").map(String::as_str);
    (is_whole && matches!(commit, Some("root" | "back"))).then_some(state)
}

/// Digests the boot code but for what a disk keeps in it and where the core is
/// (GRUB's `boot.h`).
pub fn boot_code(disk: &DiskState) -> Result<Sha> {
    let mut sector = [0; SECTOR];
    disk.read(0, &mut sector)?;
    for own in [0x3..0x5a, 0x5c..0x65, 0x66..0x68] {
        sector[own].fill(0);
    }
    Ok(Sha::of(&sector[..440]))
}

/// Reads the core that sector 0 names, by the block list in its first sector.
pub fn core_in_use(disk: &DiskState) -> Result<Vec<u8>> {
    let mut sector = [0; SECTOR];
    disk.read(0, &mut sector)?;
    ensure!(sector[510..] == [0x55, 0xaa], "sector 0 is no boot sector");
    let code = &sector[..440];
    ensure!(
        code.windows(5).any(|word| word == b"GRUB "),
        "sector 0 is not GRUB's"
    );
    let lba = u64::from_le_bytes(std::array::from_fn(|byte| sector[0x5c + byte]));
    let mut first = [0; SECTOR];
    disk.read(lba * 512, &mut first).context("the core")?;
    let mut core = first.to_vec();
    for entry in first.rchunks_exact(12) {
        let start = u64::from_le_bytes(std::array::from_fn(|byte| entry[byte]));
        let count = u64::from(u16::from_le_bytes([entry[8], entry[9]]));
        if count == 0 {
            break;
        }
        ensure!(
            start == lba + 1 || core.len() > SECTOR,
            "the core's list does not begin behind it"
        );
        ensure!(
            start + count < BOOT_START / 512,
            "the core is not where cores lie"
        );
        let mut rest = vec![0; usize::try_from(count * 512)?];
        disk.read(start * 512, &mut rest)?;
        core.extend(rest);
    }
    ensure!(core.len() > SECTOR, "no core where sector 0 leads to");
    Ok(core)
}

/// Digests a core without where it lies and without padding.
fn masked(core: &[u8]) -> Sha {
    let mut bytes = core.to_vec();
    bytes.resize(core.len().div_ceil(SECTOR) * SECTOR, 0);
    if bytes.len() >= SECTOR {
        bytes[BLOCK_LIST..SECTOR].fill(0);
    }
    Sha::of(&bytes)
}
