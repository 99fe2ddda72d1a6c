//! The kernel of a tree: the newest one that has its modules.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::tree::Tree;
use crate::linux::initramfs;
use crate::version;

/// The most of `modules.dep` that is read, in bytes; it has about 1 MiB.
const MAX_LIST_BYTES: u64 = 16 << 20;

/// How many of the modules that it lists are looked for.
const SAMPLE: usize = 20;

/// A kernel and what belongs to it; paths are relative to the tree, free of links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFiles {
    /// The release, as `uname -r` prints it.
    pub release: String,
    /// The kernel image.
    pub image: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
}

/// Finds the newest kernel in `/boot` that has modules and is meant to boot;
/// adds to `missing` what it lacks.
pub fn find(tree: &Tree<'_>, missing: &mut Vec<String>) -> Result<Option<KernelFiles>> {
    let mut without_modules = Vec::new();
    for release in releases(tree)? {
        let modules = format!("lib/modules/{release}/modules.dep");
        if tree.resolve_file(&modules)?.is_none() {
            without_modules.push(release);
            continue;
        }
        let Some(image) = tree.resolve_file(format!("boot/vmlinuz-{release}"))? else {
            continue;
        };
        let names = names(&release);
        let Some(initramfs) = tree.first_file(&names.each_ref().map(String::as_str))? else {
            let [debian, rhel] = names;
            missing.push(format!(
                "kernel {release} has no initramfs ({debian} or {rhel}; \
                 `update-initramfs -c -k {release}` or `dracut --kver {release}` makes it)"
            ));
            return Ok(None);
        };
        return Ok(Some(KernelFiles {
            release,
            image,
            initramfs,
        }));
    }
    missing.push(match without_modules.first() {
        None => "it has no kernel (boot/vmlinuz-*; packages linux-image-amd64 or kernel-core); \
                 if /boot is a file system of its own, it must be mounted"
            .into(),
        Some(newest) => {
            format!("its kernel {newest} has no modules (lib/modules/{newest}/modules.dep)")
        }
    });
    Ok(None)
}

/// Lists the kernels in `/boot` that lack nothing, the newest first.
pub fn whole(tree: &Tree<'_>) -> Result<Vec<KernelFiles>> {
    let mut found = Vec::new();
    for release in releases(tree)? {
        if modules(tree, &release)? != Modules::There {
            continue;
        }
        let image = tree.resolve_file(format!("boot/vmlinuz-{release}"))?;
        let names = names(&release);
        let initramfs = tree.first_file(&names.each_ref().map(String::as_str))?;
        if let (Some(image), Some(initramfs)) = (image, initramfs) {
            found.push(KernelFiles {
                release,
                image,
                initramfs,
            });
        }
    }
    Ok(found)
}

/// What a tree has of a kernel's modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modules {
    /// They are there, and listed in `modules.dep`.
    There,
    /// Some are there, but no list of them: kernel-install(8) takes it away while
    /// a package is installed again.
    Unlisted,
    /// They are gone.
    Gone,
}

/// Looks for the modules of `release`. A removed package of Debian's leaves
/// `modules.dep` behind, and a person may have removed one module that it lists,
/// so most of a sample of them decide.
pub fn modules(tree: &Tree<'_>, release: &str) -> Result<Modules> {
    let dir = format!("lib/modules/{release}");
    let Some(list) = tree.resolve_file(format!("{dir}/modules.dep"))? else {
        let is_left = tree.resolve(format!("{dir}/kernel"))?.is_some();
        return Ok(if is_left {
            Modules::Unlisted
        } else {
            Modules::Gone
        });
    };
    let mut text = Vec::new();
    tree.open(&list)?
        .take(MAX_LIST_BYTES)
        .read_to_end(&mut text)
        .with_context(|| format!("reading {}", list.display()))?;
    let text = String::from_utf8_lossy(&text);
    // "kernel/fs/xfs.ko.xz: kernel/lib/crc.ko.xz"; a path that is not below the
    // directory is absolute (modules.dep(5)).
    let listed: Vec<&str> = text
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0))
        .collect();
    let step = listed.len().div_ceil(SAMPLE).max(1);
    let (mut there, mut missing) = (0, 0);
    for module in listed.iter().step_by(step) {
        let path = match module.starts_with('/') {
            true => (*module).to_owned(),
            false => format!("{dir}/{module}"),
        };
        match tree.resolve_file(path)? {
            Some(_) => there += 1,
            None => missing += 1,
        }
    }
    Ok(if missing > there {
        Modules::Gone
    } else {
        Modules::There
    })
}

/// Tells whether two releases are of one flavour: `-amd64`, `-rt-amd64` and
/// `.x86_64+debug` are three, whatever their versions.
pub fn is_same_flavour(one: &str, other: &str) -> bool {
    flavour(one) == flavour(other)
}

/// Returns the words of a release without its version, and without what
/// distributions and the kernel's own build write into that: `6.1.0-0.deb11.13-amd64`,
/// `5.14.0-427.el9_4.x86_64`, `5.10.7-00042-g1a2b3c4d5e6f-dirty`.
fn flavour(release: &str) -> Vec<String> {
    const OF_VERSIONS: [&str; 7] = ["bpo", "deb", "dirty", "el", "fc", "git", "rc"];
    let words = release.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let letters = |word: &str| -> String {
        let letters = word.chars().filter(char::is_ascii_alphabetic);
        letters.collect()
    };
    words
        .filter(|word| !is_hash(word))
        .map(letters)
        .filter(|word| !word.is_empty() && !OF_VERSIONS.contains(&word.as_str()))
        .collect()
}

/// Tells whether a word of a release is the name of a commit: `g1a2b3c4` (the
/// kernel's `scripts/setlocalversion`), `20230915git9fdfb15a3dbf` (Fedora's), or
/// the bare name, which has a digit.
fn is_hash(word: &str) -> bool {
    const SHORTEST: usize = 7;
    let of_date = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let marked = of_date.strip_prefix("git").or(of_date.strip_prefix('g'));
    let name = marked.unwrap_or(word);
    name.len() >= SHORTEST
        && name.chars().all(|c| c.is_ascii_hexdigit())
        && (marked.is_some() || name.contains(|c: char| c.is_ascii_digit()))
}

/// Returns where the initramfs of `release` may be.
fn names(release: &str) -> [String; 2] {
    initramfs::names(release).map(|name| format!("boot/{name}"))
}

/// Lists the kernels in `/boot`, the newest first.
fn releases(tree: &Tree<'_>) -> Result<Vec<String>> {
    let Some(boot) = tree.resolve("boot")? else {
        return Ok(Vec::new());
    };
    let dir = tree.root.join(boot);
    let context = || format!("listing {}", dir.display());
    let mut releases = Vec::new();
    for entry in fs::read_dir(&dir).with_context(context)? {
        let name = entry.with_context(context)?.file_name();
        let release = name.to_str().and_then(|name| name.strip_prefix("vmlinuz-"));
        // RHEL keeps a rescue kernel, kdump a crash kernel, under the same name.
        releases.extend(
            release
                .filter(|r| !r.is_empty() && !r.contains("rescue") && !r.contains("kdump"))
                .map(str::to_owned),
        );
    }
    releases.sort_by(|a, b| version::compare(b, a));
    Ok(releases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flavour_is_what_stands_beside_the_version_in_the_names_of_either_family() {
        for (one, other) in [
            ("6.1.0-9-amd64", "6.1.0-10-amd64"),
            ("5.10.0-28-amd64", "6.1.0-0.deb11.13-amd64"),
            ("6.12.6-amd64", "6.12.38+deb13-amd64"),
            ("6.1.0-9-686-pae", "6.1.0-10-686-pae"),
            ("5.14.0-427.el9.x86_64", "5.14.0-503.11.1.el9_5.x86_64"),
            ("3.10.0-1160.el7.x86_64", "3.10.0-1160.119.1.el7.x86_64"),
            ("5.15.0-100-generic", "5.15.0-101-generic"),
            ("5.10.7-00042-g1a2b3c4d5e6f", "5.10.8-00043-gdeadbeefcafe"),
            ("6.1.0-acme-g1a2b3c4-dirty", "6.1.1-acme-g4d5e6f7"),
            ("6.1.0-acme-1a2b3c4d5e6f7", "6.1.1-acme-0f1e2d3c4b5a6"),
            (
                "6.6.0-0.rc1.20230915git9fdfb15a3dbf.18.fc40.x86_64",
                "6.6.0-0.rc2.20230920gitabcdef012345.20.fc40.x86_64",
            ),
        ] {
            assert!(is_same_flavour(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("6.1.0-9-amd64", "6.1.0-10-rt-amd64"),
            ("6.1.0-9-amd64", "6.1.0-10-cloud-amd64"),
            ("6.1.0-9-686", "6.1.0-10-686-pae"),
            ("5.14.0-427.el9.x86_64", "5.14.0-503.el9.x86_64+debug"),
            ("5.14.0-427.el9.x86_64", "5.14.0-503.el9.x86_64+rt"),
            ("3.10.0-1160.el7.x86_64", "3.10.0-1161.el7.x86_64.debug"),
            ("3.10.0-1160.el7.x86_64", "3.10.0-1160.rt56.1131.el7.x86_64"),
            ("5.15.0-100-generic", "5.15.0-101-lowlatency"),
            ("6.1.0-acme-g1a2b3c4", "6.1.0-acme-rt-g4d5e6f7"),
            ("6.1.0-gateway", "6.1.0-gadget"),
        ] {
            assert!(!is_same_flavour(one, other), "{one} {other}");
        }
    }

    #[test]
    fn modules_are_gone_only_when_most_of_a_sample_are() {
        let dir = tempfile::tempdir().unwrap();
        let modules_dir = dir.path().join("lib/modules/6.1");
        let look = || modules(&Tree { root: dir.path() }, "6.1").unwrap();
        assert_eq!(look(), Modules::Gone);
        fs::create_dir_all(modules_dir.join("kernel")).unwrap();
        assert_eq!(look(), Modules::Unlisted);
        let names: Vec<String> = (0..100).map(|n| format!("kernel/{n}.ko")).collect();
        let list = names.join(":\n") + ":\n";
        fs::write(modules_dir.join("modules.dep"), list).unwrap();
        assert_eq!(look(), Modules::Gone);
        for name in &names {
            fs::write(modules_dir.join(name), "").unwrap();
        }
        for name in &names[..40] {
            fs::remove_file(modules_dir.join(name)).unwrap();
        }
        assert_eq!(look(), Modules::There, "the first ones may be gone");
        for name in &names[40..70] {
            fs::remove_file(modules_dir.join(name)).unwrap();
        }
        assert_eq!(look(), Modules::Gone);
    }
}
