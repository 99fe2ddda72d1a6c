//! Which drivers a kernel of a tree has for a device (modules.alias,
//! modules.builtin: depmod(8), kbuild documentation). Looks only.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::tree::glob::Glob;
use crate::tree::resolve;

/// The drivers of one kernel.
pub struct Drivers {
    /// What each loadable module is for.
    aliases: Vec<(String, String)>,
    /// What is built into the kernel is for, where the kernel tells (5.2 and newer).
    builtin_aliases: Vec<String>,
    /// The names of what is built in.
    builtin: BTreeSet<String>,
    /// The names of the loadable modules.
    loadable: BTreeSet<String>,
}

/// Where a kernel has the driver of a device.
#[derive(Debug, PartialEq, Eq)]
pub enum Driver {
    /// In itself.
    Builtin,
    /// In one of these modules.
    Modules(BTreeSet<String>),
    /// Nowhere.
    Missing,
}

impl Drivers {
    /// Reads those of the kernel `release` in the tree at `root`.
    ///
    /// # Errors
    /// When a list cannot be read.
    pub fn read(root: &Path, release: &str) -> Result<Drivers> {
        let read = |name: &str| -> Result<String> {
            let path = format!("lib/modules/{release}/{name}");
            let context = || format!("reading {path} in {}", root.display());
            let found = resolve::resolve(root, Path::new(&path)).with_context(context)?;
            let Some(file) = found.map(|found| root.join(found)) else {
                return Ok(String::new());
            };
            let bytes = fs::read(file).with_context(context)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let aliases = read("modules.alias")?;
        let aliases = aliases.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let is_alias = words.next() == Some("alias");
            let (pattern, module) = (words.next()?, words.next()?);
            is_alias.then(|| (pattern.to_owned(), plain(module)))
        });
        let told = read("modules.builtin.modinfo")?;
        let builtin_aliases = told.split('\0').filter_map(|field| {
            let (key, pattern) = field.split_once('=')?;
            key.ends_with(".alias").then(|| pattern.to_owned())
        });
        let dependencies = read("modules.dep")?;
        let loadable = dependencies
            .lines()
            .filter_map(|line| line.split(':').next());
        Ok(Drivers {
            aliases: aliases.collect(),
            builtin_aliases: builtin_aliases.collect(),
            builtin: read("modules.builtin")?.lines().map(module_name).collect(),
            loadable: loadable.map(module_name).collect(),
        })
    }

    /// Finds the driver of a device that calls itself `modalias` and has, in the
    /// running system, the driver `current`.
    pub fn find(&self, modalias: &str, current: &str) -> Driver {
        let fits = |pattern: &str| {
            let shared = pattern.split(['*', '?', '[']).next().unwrap_or_default();
            modalias.starts_with(shared)
                && Glob::new(&format!("/{pattern}"))
                    .is_ok_and(|glob| glob.matches(modalias.as_bytes()))
        };
        let current = plain(current);
        // Most kernels do not tell what is built in is for.
        if self.builtin.contains(&current) || self.builtin_aliases.iter().any(|it| fits(it)) {
            return Driver::Builtin;
        }
        let fitting = self.aliases.iter().filter(|(pattern, _)| fits(pattern));
        let modules: BTreeSet<String> = fitting.map(|(_, module)| module.clone()).collect();
        if !modules.is_empty() {
            return Driver::Modules(modules);
        }
        match self.loadable.contains(&current) {
            true => Driver::Modules(BTreeSet::from([current])),
            false => Driver::Missing,
        }
    }
}

/// Returns the name of the module in a file such as
/// `kernel/drivers/net/virtio_net.ko.xz`.
pub fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    plain(file.split(".ko").next().unwrap_or(file))
}

/// Returns a module's name as the kernel shows it.
fn plain(module: &str) -> String {
    module.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: &str = "5.14.0-427.el9.x86_64";

    fn drivers(files: &[(&str, &str)]) -> Drivers {
        let dir = tempfile::tempdir().unwrap();
        let modules = dir.path().join(format!("lib/modules/{RELEASE}"));
        fs::create_dir_all(&modules).unwrap();
        for (name, text) in files {
            fs::write(modules.join(name), text).unwrap();
        }
        Drivers::read(dir.path(), RELEASE).unwrap()
    }

    #[test]
    fn a_device_finds_its_driver_by_what_it_calls_itself() {
        let drivers = drivers(&[
            (
                "modules.alias",
                "# Aliases\nalias pci:v00008086d00007010* pata_acpi\nalias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000\n\
                 alias virtio:d00000002v* virtio-blk\nalias virtio:d00000002v* other\n",
            ),
            (
                "modules.builtin.modinfo",
                "ahci.license=GPL\0ahci.alias=pci:v*d*sv*sd*bc01sc06i01*\0",
            ),
            ("modules.builtin", "kernel/drivers/ata/ata_piix.ko\n"),
            (
                "modules.dep",
                "kernel/drivers/scsi/vmw_pvscsi.ko.xz: kernel/a.ko.xz\n",
            ),
        ]);
        let modules =
            |names: &[&str]| Driver::Modules(names.iter().map(|name| (*name).to_owned()).collect());
        for (modalias, current, wanted) in [
            (
                "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00",
                "e1000",
                modules(&["e1000"]),
            ),
            (
                "virtio:d00000002v00001AF4",
                "virtio_blk",
                modules(&["other", "virtio_blk"]),
            ),
            (
                "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01",
                "ahci",
                Driver::Builtin,
            ),
            ("pci:v00008086d00007010", "ata_piix", Driver::Builtin),
            (
                "pci:v000015ADd000007C0",
                "vmw_pvscsi",
                modules(&["vmw_pvscsi"]),
            ),
            ("pci:v00001000d00000030", "mptspi", Driver::Missing),
        ] {
            assert_eq!(drivers.find(modalias, current), wanted, "{modalias}");
        }
    }

    #[test]
    fn a_modules_name_is_told_from_its_file() {
        for file in ["kernel/net/a-b.ko", "a_b.ko.zst", "/lib/x/a-b.ko.xz"] {
            assert_eq!(module_name(file), "a_b");
        }
    }
}
