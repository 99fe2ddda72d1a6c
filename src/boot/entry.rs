//! A slot's boot entry and the kernel command lines in it.

use std::path::Path;

use anyhow::{Result, ensure};

use super::menu::{DIR, TRIAL_ARGS};
use super::once::{is_end, is_init, is_repair};
use crate::slot::Slot;

const TEMPLATE: &str = include_str!("../../grub/entry.cfg");

const NEXT_TEMPLATE: &str = include_str!("../../grub/next.cfg");

/// What an entry sources where another kernel of its slot is on trial, beside it.
pub const NEXT: &str = "next.cfg";

/// The word that tells which of a slot's kernels was started.
const KERNEL_WORD: &str = "va.kernel=";

/// Words of a command line that a boot loader writes.
const LOADER_WORDS: [&str; 2] = ["BOOT_IMAGE", "initrd"];

/// Renders the entry that boots `slot` from the files `kernel` and `initramfs` of
/// its directory with the kernel arguments `args`.
///
/// # Errors
/// When a name or an argument would be read as GRUB script.
pub fn render(slot: Slot, title: &str, names: [&str; 2], args: &[String]) -> Result<String> {
    fill(TEMPLATE, slot, title, names, args)
}

/// Renders what starts another kernel of `slot` on trial, in the same way.
///
/// # Errors
/// Like [`render`].
pub fn render_next(slot: Slot, title: &str, names: [&str; 2], args: &[String]) -> Result<String> {
    fill(NEXT_TEMPLATE, slot, title, names, args)
}

/// Returns the argument that names the kernel `id`.
pub fn kernel_word(id: &str) -> String {
    format!("{KERNEL_WORD}{id}")
}

fn fill(
    template: &str,
    slot: Slot,
    title: &str,
    [kernel, initramfs]: [&str; 2],
    args: &[String],
) -> Result<String> {
    let title: String = title.chars().filter(|c| !c.is_control()).collect();
    let quoted: Result<Vec<String>> = args.iter().map(|arg| quote(arg)).collect();
    let path = |name: &str| quote(&format!("{DIR}/{}/{name}", slot.name()));
    Ok(template
        .replace("@SLOT@", slot.name())
        .replace("@NEXT@", &path(NEXT)?)
        .replace("@TITLE@", &title)
        .replace("@KERNEL@", &path(kernel)?)
        .replace("@INITRD@", &path(initramfs)?)
        .replace("@ARGS@", &quoted?.join(" ")))
}

/// Quotes one kernel argument for GRUB's script reader.
///
/// GRUB puts double quotes around a word with blanks by itself, and would
/// escape those that are there already.
pub fn quote(arg: &str) -> Result<String> {
    ensure!(
        !arg.contains(['\n', '\'']),
        "kernel argument {arg:?} cannot be written in a boot entry"
    );
    let arg = arg.replace('"', "");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%".contains(c);
    Ok(if arg.chars().all(plain) {
        arg
    } else {
        format!("'{arg}'")
    })
}

/// Returns the kernel arguments for a slot: `root=` and what activates it,
/// then the words of `inherited` that do not belong to one slot or one boot.
/// `init=` is one of the old system's programs, so the new one starts its own.
///
/// `mapper_path` is `/dev/mapper/VA-back`, `volume` is `VA/back`, `other_volume`
/// is that of the slot the words come from.
pub fn arguments(
    mapper_path: &Path,
    volume: &str,
    other_volume: &str,
    inherited: &str,
) -> Vec<String> {
    let root = format!("root={}", mapper_path.display());
    let mut args = vec![root, format!("rd.lvm.lv={volume}")];
    let slot_volumes = [volume, other_volume].map(|volume| format!("rd.lvm.lv={volume}"));
    let trial_args: Vec<&str> = TRIAL_ARGS.split_whitespace().collect();
    let trial_boot = booted_by(inherited).why == "trial";
    let words = split_words(inherited);
    // The same word before it is the appliance's own.
    let entry_end = words.iter().position(|word| word.starts_with("va.slot="));
    for (at, word) in words.into_iter().enumerate() {
        let own = word.starts_with("root=") || slot_volumes.contains(&word) || is_init(&word);
        let is_behind = entry_end.is_some_and(|end| at > end);
        let trial = trial_boot && is_behind && trial_args.contains(&word.as_str());
        if !own && !trial && !is_of_one_boot(&word) {
            args.push(word);
        }
    }
    if !args.iter().any(|arg| arg == "ro" || arg == "rw") {
        args.insert(2, "ro".to_owned());
    }
    args
}

/// Returns the arguments of a running system, as they were given to it, for
/// an entry of its own; without what was meant for this boot only.
///
/// `init=` and `rdinit=` stay where `configured`, the words of the system's own
/// boot configuration, has the same word. Typed into the menu they start a
/// shell for a repair, and an entry that has them would never start the system
/// again; `single` and its like stand in the configuration too, in entries for
/// recovery, so that tells nothing about them.
pub fn own_arguments(cmdline: &str, configured: &[String]) -> Vec<String> {
    let mut args = split_words(cmdline);
    args.retain(|word| !is_of_one_boot(word) && (!is_init(word) || configured.contains(word)));
    args
}

/// Tells whether the boot loader or a person added `word` for one boot, or it would
/// take ours from the kernel.
fn is_of_one_boot(word: &str) -> bool {
    let name = word.split('=').next().unwrap_or(word);
    LOADER_WORDS.contains(&name) || name.starts_with("va.") || is_repair(word) || is_end(word)
}

/// Says whether these arguments can be written in an entry.
///
/// # Errors
/// When one of them cannot, by name.
pub fn check(args: &[String]) -> Result<()> {
    args.iter().try_for_each(|arg| quote(arg).map(drop))
}

/// Splits a command line at blanks outside double quotes, as the kernel does.
fn split_words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.trim().chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                words.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(word) = words.last_mut() {
            word.push(c);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// What a running kernel was told by our entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootedBy {
    /// The slot the entry was for; `None` when it was not our entry.
    pub slot: Option<Slot>,
    /// Why the menu chose it: `commit`, `trial`, `exhausted`, `nowrite`, `noenv` or `other`.
    pub why: String,
    /// Whether that trial is a drill.
    pub is_drill: bool,
    /// Which kernel the entry was for, where the slot has had several.
    pub kernel: Option<String>,
}

/// Reads our words out of `/proc/cmdline`.
pub fn booted_by(cmdline: &str) -> BootedBy {
    let word = |name: &str| {
        let words = cmdline.split_whitespace();
        words
            .filter_map(|w| w.strip_prefix(name))
            .next_back()
            .unwrap_or_default()
            .to_owned()
    };
    BootedBy {
        slot: word("va.slot=").parse().ok(),
        why: word("va.why="),
        is_drill: word("va.drill=") == "1",
        kernel: Some(word(KERNEL_WORD)).filter(|id| !id.is_empty()),
    }
}

/// Arguments that the kernel also has as `/proc/sys/kernel/<name>`.
const SETTINGS: [&str; 3] = ["panic", "softlockup_panic", "hung_task_panic"];

/// A kernel setting that the words of a trial made.
#[derive(Debug, PartialEq, Eq)]
pub struct TrialSetting {
    /// Its name below `/proc/sys/kernel`.
    pub name: &'static str,
    /// Its value on trial.
    pub on_trial: String,
    /// Its value without the words of the trial.
    pub otherwise: String,
}

/// Returns the settings that a trial's words in `/proc/cmdline` made. The entry's
/// own words come before ours, the trial's behind them.
pub fn trial_settings(cmdline: &str) -> Vec<TrialSetting> {
    let words = split_words(cmdline);
    let ours = words.iter().position(|word| word.starts_with("va.slot="));
    let (own, rest) = words.split_at(ours.unwrap_or(words.len()));
    let is_of_trial = |word: &&String| TRIAL_ARGS.split_whitespace().any(|arg| arg == *word);
    let setting = |name| {
        Some(TrialSetting {
            name,
            on_trial: last_value(rest.iter().filter(is_of_trial), name)?,
            otherwise: last_value(own.iter(), name).unwrap_or_else(|| "0".to_owned()),
        })
    };
    SETTINGS.into_iter().filter_map(setting).collect()
}

/// Returns what the last of the words `<name>=<value>` says.
fn last_value<'a>(words: impl Iterator<Item = &'a String>, name: &str) -> Option<String> {
    let values = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    values.last().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_gets_its_own_root_and_keeps_the_appliances_words() {
        let line = "BOOT_IMAGE=/vmlinuz-3.10 root=/dev/mapper/VA-root ro rd.lvm.lv=VA/root rd.lvm.lv=VA/swap single crashkernel=auto \
                    console=ttyS0 dyndbg=\"file a +p\" va.slot=root va.why=commit\n";
        let args = arguments(Path::new("/dev/mapper/VA-back"), "VA/back", "VA/root", line);
        assert_eq!(
            args,
            [
                "root=/dev/mapper/VA-back",
                "rd.lvm.lv=VA/back",
                "ro",
                "rd.lvm.lv=VA/swap",
                "crashkernel=auto",
                "console=ttyS0",
                "dyndbg=\"file a +p\""
            ]
        );
    }

    #[test]
    fn words_of_a_trial_are_not_inherited_but_the_same_words_of_a_person_are() {
        let line = format!("root=x ro panic=10 va.slot=back va.why=trial {TRIAL_ARGS}");
        assert_eq!(
            arguments(Path::new("m"), "v", "w", &line),
            ["root=m", "rd.lvm.lv=v", "ro", "panic=10"]
        );
        assert_eq!(
            arguments(Path::new("m"), "v", "w", "ro panic=10 va.why=commit")[3],
            "panic=10"
        );
    }

    #[test]
    fn an_adopted_system_keeps_its_own_line() {
        let line = "BOOT_IMAGE=(hd0,gpt2)/vmlinuz-3.10 root=UUID=1-2 rw quiet";
        let args = own_arguments(line, &[]);
        assert_eq!(args, ["root=UUID=1-2", "rw", "quiet"]);
    }

    #[test]
    fn words_of_a_repair_are_kept_for_no_entry_and_a_products_own_are() {
        let line = "root=x ro single 1 rd.break=mount systemd.unit=rescue.target \
                    systemd.unit=gateway.target init=/sbin/own rdinit=/bin/sh quiet";
        let configured = ["init=/sbin/own".to_owned()];
        assert_eq!(
            own_arguments(line, &configured),
            [
                "root=x",
                "ro",
                "systemd.unit=gateway.target",
                "init=/sbin/own",
                "quiet"
            ]
        );
        let own = own_arguments(line, &[]);
        assert!(!own.iter().any(|word| word.contains("init=")), "{own:?}");
        assert_eq!(
            arguments(Path::new("m"), "v", "w", line)[2..],
            ["ro", "systemd.unit=gateway.target", "quiet"]
        );
    }

    #[test]
    fn no_word_hands_the_words_behind_it_to_init_instead_of_the_kernel() {
        let line = "root=x ro quiet -- a=b --- c --d";
        let wanted = ["ro", "quiet", "a=b", "c", "--d"];
        assert_eq!(own_arguments(line, &[])[1..], wanted);
        assert_eq!(arguments(Path::new("m"), "v", "w", line)[2..], wanted);
    }

    #[test]
    fn the_entry_names_its_own_slot_everywhere() {
        let entry = render(
            Slot::Back,
            "acme 9.4\n1",
            ["vmlinuz-6.1", "initrd"],
            &["root=/dev/mapper/VA-back".into(), "a=\"b c\"".into()],
        )
        .unwrap();
        assert_eq!(
            entry,
            "# Boot entry of slot back: acme 9.41\n\
             # Both files are looked for first: GRUB loads no second kernel after a first.\n\
             set va_loaded=\n\
             if [ \"$va_why\" = \"trial\" -a \"$va_commit\" = \"back\" -a \
             -f /va/back/next.cfg ]; then\n  \
             # Of the committed slot, it is another kernel that is on trial.\n  \
             source /va/back/next.cfg\n\
             elif [ -f /va/back/vmlinuz-6.1 -a -f /va/back/initrd ]; then\n  \
             if linux /va/back/vmlinuz-6.1 root=/dev/mapper/VA-back 'a=b c' va.slot=back \
             va.why=$va_why va.left=$va_left $va_trial_args; then\n    \
             set va_loaded=1\n    \
             if initrd /va/back/initrd; then set va_ready=1; fi\n  fi\nfi\n"
        );
        let render = |kernel, arg: &str| render(Slot::Back, "x", [kernel, "initrd"], &[arg.into()]);
        assert!(render("vmlinuz-6.1", "a='; halt").is_err());
        assert!(render("vmlinuz-'; halt", "a").is_err());
    }

    #[test]
    fn what_an_entry_sources_starts_the_other_kernel_and_says_which() {
        let args = ["root=x".to_owned(), kernel_word("abc")];
        let names = ["k-abc/vmlinuz-6.2", "k-abc/initrd"];
        let next = render_next(Slot::Back, "acme 9.4", names, &args).unwrap();
        assert!(!next.contains('@') && !next.contains("source"), "{next}");
        let line = "if linux /va/back/k-abc/vmlinuz-6.2 root=x va.kernel=abc va.slot=back \
                    va.why=$va_why va.left=$va_left $va_trial_args; then\n";
        assert!(next.contains(line), "{next}");
        assert!(next.contains("initrd /va/back/k-abc/initrd; then set va_ready=1"));
        let booted = booted_by("root=x va.kernel=abc va.slot=back va.why=trial");
        assert_eq!(booted.kernel.as_deref(), Some("abc"));
    }

    #[test]
    fn the_last_word_on_the_command_line_counts() {
        let line = "root=x va.slot=root va.why=commit va.slot=back va.why=trial va.left=2";
        assert_eq!(
            booted_by(line),
            BootedBy {
                slot: Some(Slot::Back),
                why: "trial".into(),
                is_drill: false,
                kernel: None,
            }
        );
        assert_eq!(booted_by("root=x"), BootedBy::default());
        assert!(booted_by("va.slot=back va.why=trial va.left=0 va.drill=1 panic=10").is_drill);
    }
}
