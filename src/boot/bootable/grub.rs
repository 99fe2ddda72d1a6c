//! The GRUB of a tree: its tools and the files of its BIOS platform.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::tree::Tree;

/// The tools and files of GRUB; paths are absolute inside the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrubTools {
    /// `grub-install` or `grub2-install`.
    pub install: PathBuf,
    /// `grub-script-check` or `grub2-script-check`.
    pub script_check: PathBuf,
    /// `grub-mkimage` or `grub2-mkimage`.
    pub mkimage: PathBuf,
    /// The directory with the boot images and modules for BIOS machines.
    pub platform_dir: PathBuf,
    /// The directory below /boot that this `grub-install` makes: "grub" or "grub2".
    pub dir_name: &'static str,
}

const PLATFORM_DIR: &str = "usr/lib/grub/i386-pc";

/// What the boot sector, the core image and our menu are made of.
const PLATFORM_FILES: [&str; 20] = [
    "boot.img",
    "diskboot.img",
    "kernel.img",
    "moddep.lst",
    "biosdisk.mod",
    "part_gpt.mod",
    "part_msdos.mod",
    "ext2.mod",
    "xfs.mod",
    "search.mod",
    "search_fs_uuid.mod",
    "loadenv.mod",
    "test.mod",
    "linux.mod",
    "normal.mod",
    "configfile.mod",
    "echo.mod",
    "reboot.mod",
    "sleep.mod",
    "gzio.mod",
];

const TOOL_DIRS: [&str; 4] = ["usr/sbin", "usr/bin", "sbin", "bin"];

/// Finds the tools and the platform's files; adds to `missing` what is lacking.
pub fn find(tree: &Tree<'_>, missing: &mut Vec<String>) -> Result<Option<GrubTools>> {
    let mut tool = |name: &str, packages: &str| -> Result<Option<PathBuf>> {
        let found = find_tool(tree, name)?;
        if found.is_none() {
            missing.push(format!(
                "it has neither grub-{name} nor grub2-{name} (packages {packages})"
            ));
        }
        Ok(found)
    };
    let install = tool("install", "grub2-common or grub2-tools")?;
    let script_check = tool("script-check", "grub-common or grub2-tools")?;
    let mkimage = tool("mkimage", "grub-common or grub2-tools")?;
    let mut lacking = Vec::new();
    for name in PLATFORM_FILES {
        if tree
            .resolve_file(format!("{PLATFORM_DIR}/{name}"))?
            .is_none()
        {
            lacking.push(name);
        }
    }
    if lacking.len() == PLATFORM_FILES.len() {
        missing.push(format!(
            "it has no GRUB for BIOS machines ({PLATFORM_DIR}; \
             packages grub-pc-bin or grub2-pc-modules)"
        ));
    } else if !lacking.is_empty() {
        missing.push(format!(
            "its GRUB for BIOS machines lacks {} ({PLATFORM_DIR}; \
             packages grub-pc-bin or grub2-pc-modules)",
            lacking.join(", ")
        ));
    }
    let (Some(install), Some(script_check), Some(mkimage)) = (install, script_check, mkimage)
    else {
        return Ok(None);
    };
    let renamed = install.ends_with("grub2-install");
    Ok(lacking.is_empty().then(|| GrubTools {
        install,
        script_check,
        mkimage,
        platform_dir: Path::new("/").join(PLATFORM_DIR),
        dir_name: if renamed { "grub2" } else { "grub" },
    }))
}

fn find_tool(tree: &Tree<'_>, name: &str) -> Result<Option<PathBuf>> {
    for prefix in ["grub2-", "grub-"] {
        for dir in TOOL_DIRS {
            let path = format!("{dir}/{prefix}{name}");
            if tree.resolve_file(&path)?.is_some() {
                return Ok(Some(Path::new("/").join(path)));
            }
        }
    }
    Ok(None)
}
