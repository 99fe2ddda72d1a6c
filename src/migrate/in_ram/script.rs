//! What has the old GRUB start the migration environment once: a few lines at the end
//! of its own configuration, or in the file that this reads at its end. Pure.
//!
//! The lines need nothing of the configuration around them, so one that knows no
//! `next_entry` will do. They count in an environment block of their own, and what
//! they are put into is restored byte for byte.

use anyhow::{Result, ensure};

use crate::boot::entry::quote;

const TEMPLATE: &str = include_str!("../../../grub/migrate.cfg");

const BEGIN: &[u8] = b"### BEGIN va-upgrade migration";
const END: &[u8] = b"### END va-upgrade migration ###\n";

/// The word behind [`BEGIN`] that tells what was there before.
const BEGINNINGS: [(Before, &str); 3] = [
    (Before::Lines, " ###\n"),
    (Before::UnfinishedLine, ", behind an unfinished line ###\n"),
    (Before::NoFile, ", in a file of its own ###\n"),
];

/// What our lines were put behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Whole lines, or nothing.
    Lines,
    /// A last line without its end.
    UnfinishedLine,
    /// There was no file.
    NoFile,
}

/// What of a file is left without our lines.
#[derive(Debug, PartialEq, Eq)]
pub enum Rest {
    /// This text.
    Text(Vec<u8>),
    /// The file was made for them.
    Nothing,
}

/// Renders the lines; `args` are the kernel's arguments.
///
/// # Errors
/// When one would be read as GRUB script.
pub fn render(args: &[String]) -> Result<String> {
    let quoted: Result<Vec<String>> = args.iter().map(|arg| quote(arg)).collect();
    Ok(TEMPLATE.replace("@ARGS@", &quoted?.join(" ")))
}

/// Puts `lines` behind `text`, which is a file's, or that of none.
///
/// # Errors
/// When they are there already.
pub fn add(text: Option<&[u8]>, lines: &str) -> Result<Vec<u8>> {
    let before = match text {
        None => Before::NoFile,
        Some([.., b'\n'] | []) => Before::Lines,
        Some(_) => Before::UnfinishedLine,
    };
    let mut whole = text.unwrap_or_default().to_vec();
    ensure!(
        find(&whole, BEGIN).is_none(),
        "a migration is prepared there already; `va-upgrade migrate --cancel` ends it"
    );
    if before == Before::UnfinishedLine {
        whole.push(b'\n');
    }
    whole.extend_from_slice(BEGIN);
    for (_, words) in BEGINNINGS.iter().filter(|(it, _)| *it == before) {
        whole.extend_from_slice(words.as_bytes());
    }
    whole.extend_from_slice(lines.as_bytes());
    whole.extend_from_slice(END);
    Ok(whole)
}

/// Takes our lines out of `text`; `None` where there are none. What was written
/// around them since stays.
pub fn remove(text: &[u8]) -> Option<Rest> {
    let mut begin = find(text, BEGIN)?;
    let words = &text[begin + BEGIN.len()..];
    let (before, _) = BEGINNINGS
        .iter()
        .find(|(_, known)| words.starts_with(known.as_bytes()))?;
    let end = begin + find(&text[begin..], END)? + END.len();
    if *before == Before::UnfinishedLine && text[..begin].ends_with(b"\n") {
        begin -= 1;
    }
    let rest = [&text[..begin], &text[end..]].concat();
    Some(match (before, rest.is_empty()) {
        (Before::NoFile, true) => Rest::Nothing,
        _ => Rest::Text(rest),
    })
}

/// Tells whether the configuration `grub_cfg` reads `custom.cfg` beside it, as
/// grub-mkconfig has it do at its end (GRUB manual, "Simple configuration").
pub fn reads_custom(grub_cfg: &[u8]) -> bool {
    let text = String::from_utf8_lossy(grub_cfg);
    let mut lines = text.lines().map(|line| line.trim().trim_end_matches(';'));
    lines.any(|line| {
        let file = line.strip_prefix("source").map(str::trim_start);
        file.is_some_and(|file| {
            let dirs = [
                "$prefix/",
                "${prefix}/",
                "$config_directory/",
                "${config_directory}/",
            ];
            dirs.iter()
                .any(|dir| file.strip_prefix(dir) == Some("custom.cfg"))
        })
    })
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What grub-mkconfig of Debian 11, CentOS 7 and Rocky 9 made, shortened.
    const CONFIGS: [&[u8]; 3] = [
        include_bytes!("../../../tests/data/grub-debian-11.cfg"),
        include_bytes!("../../../tests/data/grub-centos-7.cfg"),
        include_bytes!("../../../tests/data/grub-rocky-9.cfg"),
    ];

    #[test]
    fn what_is_put_in_comes_out_again_byte_for_byte() {
        let lines = render(&["va.migrate=1-2:/boot/grub/va-migrate".into()]).unwrap();
        let unfinished = b"set default=0\nmenuentry 'x\xff' {}".as_slice();
        for text in CONFIGS.into_iter().chain([unfinished, b"", b"\n"]) {
            let whole = add(Some(text), &lines).unwrap();
            assert!(whole.starts_with(text) && whole.ends_with(END));
            assert_eq!(remove(&whole), Some(Rest::Text(text.to_vec())));
            assert!(add(Some(&whole), &lines).is_err());
            assert_eq!(remove(text), None);
        }
        let own = add(None, &lines).unwrap();
        assert_eq!(remove(&own), Some(Rest::Nothing));
    }

    #[test]
    fn what_others_wrote_around_it_stays() {
        let lines = render(&[]).unwrap();
        let own = add(None, &lines).unwrap();
        let more = [b"set a=b\n", &own[..], b"set c=d\n"].concat();
        let rest = Rest::Text(b"set a=b\nset c=d\n".to_vec());
        assert_eq!(remove(&more), Some(rest));
        // Half of our lines are no reason to touch the file.
        assert_eq!(remove(&own[..own.len() - 1]), None);
    }

    #[test]
    fn whether_another_file_is_read_is_known() {
        for config in CONFIGS {
            assert!(reads_custom(config));
        }
        for text in [
            "# source $prefix/custom.cfg\n",
            "source $prefix/other.cfg\n",
            "source /boot/custom.cfg\n",
            "echo source custom.cfg\n",
        ] {
            assert!(!reads_custom(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn no_argument_can_end_the_entry() {
        let text = render(&["a=b c".into(), "console=ttyS0".into()]).unwrap();
        assert!(text.contains("va-migrate/vmlinuz 'a=b c' console=ttyS0; then"));
        assert!(!text.contains('@'));
        assert!(render(&["a='; halt".into()]).is_err());
    }
}
