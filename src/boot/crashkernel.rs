//! The memory that a kernel sets aside for kdump, `crashkernel=`.
//!
//! `auto` is an addition of the kernels of RHEL 7 and 8; others reserve nothing
//! for it, so that kdump.service fails and the system is degraded.

use std::path::Path;

use anyhow::{Context, Result};

use super::configured;
use crate::tree::resolve;

const AUTO: &str = "crashkernel=auto";

/// What RHEL 9 reserves where nobody chose a size (`kdumpctl
/// get-default-crashkernel` on x86-64).
const DEFAULT: &str = "crashkernel=1G-4G:192M,4G-64G:256M,64G-:512M";

/// The units of kdump, of either family.
const KDUMP_UNITS: [&str; 3] = [
    "usr/lib/systemd/system/kdump.service",
    "usr/lib/systemd/system/kdump-tools.service",
    "lib/systemd/system/kdump-tools.service",
];

/// Puts what the system at `root` reserves in the place of `crashkernel=auto`
/// among `args`, where its kernel `release` does not know that: the image's own
/// words, else the default if it has kdump, else nothing.
///
/// Returns a sentence that tells what was done, if anything was.
///
/// # Errors
/// When the tree cannot be read.
pub fn adapt(args: &mut Vec<String>, release: &str, root: &Path) -> Result<Option<String>> {
    let Some(at) = args.iter().position(|arg| arg == AUTO) else {
        return Ok(None);
    };
    if knows_auto(release) {
        return Ok(None);
    }
    let words = words_of(root)?;
    args.retain(|arg| arg != AUTO);
    let done = match words.as_slice() {
        [] => "is left out, since the new system has no kdump".to_owned(),
        words => format!("becomes {}", words.join(" ")),
    };
    args.splice(at..at, words);
    let note = format!("{AUTO} {done}; kernel {release} does not know auto");
    Ok(Some(note))
}

/// Tells whether a kernel is one of RHEL 7's or 8's, or of their rebuilds.
fn knows_auto(release: &str) -> bool {
    [("3.10.", ".el7"), ("4.18.", ".el8")]
        .iter()
        .any(|(version, system)| release.starts_with(version) && release.contains(system))
}

/// Returns the words that reserve memory in the system at `root`.
fn words_of(root: &Path) -> Result<Vec<String>> {
    for mut words in configured::words_by_file(root)? {
        words.retain(|word| is_literal(word));
        words.dedup();
        if !words.is_empty() {
            return Ok(words);
        }
    }
    let has_kdump = has_kdump(root)?;
    Ok(has_kdump.then(|| DEFAULT.to_owned()).into_iter().collect())
}

/// Tells whether `word` reserves memory by a size, not by `auto` or a variable.
fn is_literal(word: &str) -> bool {
    word.strip_prefix("crashkernel=")
        .is_some_and(|size| size.starts_with(|c: char| c.is_ascii_digit()))
}

fn has_kdump(root: &Path) -> Result<bool> {
    for unit in KDUMP_UNITS {
        let found = resolve::resolve(root, Path::new(unit))
            .with_context(|| format!("looking up {unit} in {}", root.display()))?;
        if found.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const EL9: &str = "5.14.0-427.el9.x86_64";

    /// Adapts `ro crashkernel=auto quiet` to a tree with these files.
    fn adapted(files: &[(&str, &str)], release: &str) -> (String, Option<String>) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut args = ["ro", AUTO, "quiet"].map(str::to_owned).to_vec();
        let note = adapt(&mut args, release, dir.path()).unwrap();
        (args.join(" "), note)
    }

    #[test]
    fn a_kernel_that_knows_auto_keeps_it() {
        let kdump = [("usr/lib/systemd/system/kdump.service", "")];
        for release in ["3.10.0-1160.el7.x86_64", "4.18.0-553.el8_10.x86_64"] {
            let kept = ("ro crashkernel=auto quiet".to_owned(), None);
            assert_eq!(adapted(&kdump, release), kept);
        }
        for release in [
            EL9,
            "6.1.0-9-amd64",
            "4.18.0-1-amd64",
            "5.4.17-1.el8uek.x86_64",
        ] {
            assert_eq!(adapted(&kdump, release).0, format!("ro {DEFAULT} quiet"));
        }
    }

    #[test]
    fn the_images_own_words_come_before_the_default() {
        let kdump = ("usr/lib/systemd/system/kdump.service", "");
        for (path, text) in [
            (
                "etc/default/grub",
                "GRUB_CMDLINE_LINUX=\"crashkernel=512M rhgb\"",
            ),
            ("etc/kernel/cmdline", "root=x crashkernel=512M"),
            (
                "boot/loader/entries/a.conf",
                "options root=x crashkernel=512M ro",
            ),
        ] {
            let (args, note) = adapted(&[kdump, (path, text)], EL9);
            assert_eq!(args, "ro crashkernel=512M quiet", "{path}");
            let told = "crashkernel=auto becomes crashkernel=512M; \
                        kernel 5.14.0-427.el9.x86_64 does not know auto";
            assert_eq!(note.unwrap(), told);
        }
        let auto = ("etc/default/grub", "GRUB_CMDLINE_LINUX=crashkernel=auto");
        let pair = (
            "etc/kernel/cmdline",
            "crashkernel=1G,high crashkernel=64M,low",
        );
        let both = "ro crashkernel=1G,high crashkernel=64M,low quiet";
        assert_eq!(adapted(&[auto, pair], EL9).0, both);
    }

    #[test]
    fn without_kdump_nothing_is_reserved() {
        let (args, note) = adapted(&[], EL9);
        assert_eq!(args, "ro quiet");
        assert!(note.unwrap().contains("has no kdump"));
    }
}
