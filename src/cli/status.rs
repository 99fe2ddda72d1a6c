//! `status`: what runs, what boots next and why, for people and programs.

use anyhow::Result;

use super::Session;
use super::output::{Page, Tone, print_json};
use crate::appliance::machine::Machine;
use crate::boot::bios::installed::Owner;
use crate::boot::state::{Phase, Reason, Trial};
use crate::slot::Slot;
use crate::upgrade::boot_sector;
use crate::upgrade::status::{Failed, SlotStatus, Status, status};

/// Show the slots, their versions, what boots next and why
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `status`.
pub fn run(session: &Session, args: &Args) -> Result<()> {
    let appliance = session.appliance();
    let machine = Machine::look(&appliance)?;
    let status = status(&appliance, &machine)?;
    if args.json {
        return print_json(&status);
    }
    let mut page = Page::of_stdout();
    write(&mut page, &status);
    page.print()
}

/// Writes the answer in a sentence, the slots, and what a person may want to do.
fn write(page: &mut Page, status: &Status) {
    page.add(Tone::Strong, &answer(status));
    page.end_line();
    page.end_line();
    let titles = ["slot", "state", "version", "kernel", "bootable", ""];
    let mut rows = vec![titles.map(|title| (Tone::Plain, title.to_owned()))];
    rows.extend(status.slots.iter().map(|slot| row(status, slot)));
    page.table(&rows);
    let notes = notes(status);
    if !notes.is_empty() {
        page.end_line();
    }
    for note in notes {
        page.add(note.tone, &format!("{}:", note.kind));
        page.line(&format!(" {}", note.text));
    }
}

/// Renders a slot.
fn row(status: &Status, slot: &SlotStatus) -> [(Tone, String); 6] {
    let unknown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
    let (runs, next) = (status.booted == slot.name, status.next == slot.name);
    let name = if runs { Tone::Strong } else { Tone::Plain };
    let state = match slot.state {
        Phase::Committed => Tone::Good,
        Phase::Trial | Phase::Writing => Tone::Warn,
        Phase::Failed => Tone::Bad,
        Phase::Empty | Phase::Ready | Phase::Good => Tone::Plain,
    };
    let (bootable, word) = match slot.bootable {
        true => (Tone::Plain, "yes"),
        false if next => (Tone::Bad, "no"),
        false => (Tone::Plain, "no"),
    };
    let role = match (runs, next) {
        (true, true) => "runs, boots next",
        (true, false) => "runs",
        (false, true) => "boots next",
        (false, false) => "",
    };
    [
        (name, slot.name.to_string()),
        (state, slot.state.to_string()),
        (Tone::Plain, unknown(&slot.version)),
        (Tone::Plain, unknown(&slot.kernel)),
        (bootable, word.to_owned()),
        (Tone::Plain, role.to_owned()),
    ]
}

/// Says in one sentence what runs, what boots next, and why.
fn answer(status: &Status) -> String {
    let system = |slot| version(status, slot);
    let (booted, next) = (status.booted, status.next);
    let runs = format!("Running {} from slot {booted}", system(booted));
    let tries = |trial: Trial| match trial.tries_left {
        1 => "1 try".to_owned(),
        tries => format!("{tries} tries"),
    };
    match status.trial {
        Some(trial) if trial.slot == booted && next == booted => format!(
            "{runs} on trial; it is not confirmed yet and boots next, with {} left.",
            tries(trial)
        ),
        Some(trial) if trial.slot == booted => format!(
            "{runs} on trial, without another try; unless it is confirmed, {} in slot {next} boots next.",
            system(next)
        ),
        Some(trial) if trial.slot == next => format!(
            "{runs}; {} in slot {next} boots next, on trial with {}.",
            system(next),
            tries(trial)
        ),
        Some(trial) if next == booted => format!(
            "{runs}, which boots next; the trial of {} in slot {} has no tries left.",
            system(trial.slot),
            trial.slot
        ),
        _ if next == booted => format!("{runs}, which is committed and boots next."),
        _ => format!(
            "{runs}; {} in slot {next} is committed and boots next.",
            system(next)
        ),
    }
}

/// Names the system in `slot`.
fn version(status: &Status, slot: Slot) -> String {
    let mut slots = status.slots.iter();
    let found = slots.find(|status| status.name == slot);
    match found.and_then(|slot| slot.version.as_deref()) {
        Some(version) => format!("version {version}"),
        None => "an unknown version".to_owned(),
    }
}

/// Something out of the ordinary, with what can be done.
struct Note {
    tone: Tone,
    kind: &'static str,
    text: String,
}

impl Note {
    fn new(tone: Tone, kind: &'static str, text: impl Into<String>) -> Note {
        let text = text.into();
        Note { tone, kind, text }
    }
}

fn notes(status: &Status) -> Vec<Note> {
    let failed = status.failed.as_ref();
    let notes = [
        about_trial(status),
        about_staged(status),
        status.boot_sector.and_then(about_boot_sector),
        about_kernel(status),
        about_kernel_trial(status),
        about_unread_state(status),
        about_other_slot(status),
        about_next_boot(status),
        failed.map(|failed| Note::new(Tone::Bad, "failed", failure(failed))),
    ];
    notes.into_iter().flatten().collect()
}

fn about_trial(status: &Status) -> Option<Note> {
    let slot = status.trial?.slot;
    let text = if slot == status.booted {
        "the boot service confirms it once it is healthy; `va-upgrade confirm` keeps it now, \
         `va-upgrade rollback --reboot` goes back"
    } else if slot == status.next {
        "restart to try it; `va-upgrade discard` cancels the trial and drops it"
    } else {
        "`va-upgrade rollback` ends the trial"
    };
    Some(Note::new(Tone::Strong, "note", text))
}

/// Tells of a whole system that waits for its trial.
fn about_staged(status: &Status) -> Option<Note> {
    let waits = |slot: &&SlotStatus| slot.state == Phase::Ready && slot.name != status.booted;
    let slot = status.slots.iter().find(waits)?;
    let text = format!(
        "{} waits in slot {}; `va-upgrade activate` has the next boot try it, \
         `va-upgrade discard` drops it",
        version(status, slot.name),
        slot.name
    );
    Some(Note::new(Tone::Strong, "note", text))
}

fn about_boot_sector(owner: Owner) -> Option<Note> {
    let tone = match owner {
        Owner::Other => Tone::Bad,
        Owner::Ours | Owner::Unknown => Tone::Warn,
    };
    boot_sector::fault(owner).map(|fault| Note::new(tone, "warning", fault))
}

fn about_kernel(status: &Status) -> Option<Note> {
    let drift = status.kernel_drift.as_ref()?;
    Some(Note::new(Tone::Warn, "warning", drift.clone()))
}

fn about_kernel_trial(status: &Status) -> Option<Note> {
    let trial = status.kernel_trial.as_ref()?;
    let text = format!(
        "kernel {} is on trial in slot {}, with {} starts left; the kernel before it starts \
         again if it does not come up",
        trial.kernel.as_deref().unwrap_or("?"),
        status.committed,
        trial.tries_left
    );
    Some(Note::new(Tone::Strong, "note", text))
}

/// Tells why a slot runs that nothing in the boot state asks for.
fn about_unread_state(status: &Status) -> Option<Note> {
    let text = format!(
        "the menu could not read the boot state, so it started slot {}, which default.cfg or \
         the menu itself names; the state is readable now, the boot service writes it again, \
         and a restart shows whether slot {} boots; if not, look for errors of the disk that \
         holds /boot",
        status.booted, status.next
    );
    status
        .state_unread
        .then(|| Note::new(Tone::Warn, "warning", text))
}

/// Wonders at a slot that runs and is neither committed nor on trial.
fn about_other_slot(status: &Status) -> Option<Note> {
    let (booted, committed) = (status.booted, status.committed);
    if status.state_unread
        || booted == committed
        || status.trial.is_some_and(|trial| trial.slot == booted)
    {
        return None;
    }
    let text = format!(
        "slot {booted} runs although {committed} is committed: rolled back and not restarted yet, \
         chosen in the menu, or slot {committed} did not load; restart, \
         or keep what runs with `va-upgrade rollback`"
    );
    Some(Note::new(Tone::Warn, "warning", text))
}

/// Warns of a next boot that would not get far.
fn about_next_boot(status: &Status) -> Option<Note> {
    let find = |name| status.slots.iter().find(|slot| slot.name == name);
    if find(status.next).is_some_and(|slot| slot.bootable) {
        return None;
    }
    let is_fallback =
        |slot: &SlotStatus| slot.bootable && matches!(slot.state, Phase::Good | Phase::Committed);
    let way_out = if find(status.next.other()).is_some_and(is_fallback) {
        "`va-upgrade rollback` makes the other slot boot"
    } else {
        "write a whole system with `va-upgrade apply` before a restart"
    };
    let text = format!(
        "slot {} boots next, but its boot files are not whole; {way_out}",
        status.next
    );
    Some(Note::new(Tone::Bad, "warning", text))
}

/// Says how the last trial ended and what can be done.
fn failure(failed: &Failed) -> String {
    let (why, way_out) = match failed.reason {
        Reason::Exhausted => (
            "it used up its tries without coming up",
            "watch its console while `va-upgrade apply` has it tried again",
        ),
        Reason::Health => (
            "it came up, but a health check failed",
            "va-upgrade/history.jsonl on the data volume says which; mend that and apply again",
        ),
        Reason::Deadline => (
            "it was not confirmed in time",
            "raise deadline_seconds if it needs longer, and apply again",
        ),
        Reason::Nowrite => (
            "GRUB could not store the count, so it was not tried",
            "see what `va-upgrade check` says of /boot, and apply again",
        ),
        Reason::Noenv => (
            "the boot state was unreadable",
            "look for errors of the disk that holds /boot, and apply again",
        ),
    };
    format!(
        "version {} in slot {}: {why} ({}); {way_out}",
        failed.version.as_deref().unwrap_or("unknown"),
        failed.slot,
        failed.reason
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::status::KernelTrial;

    fn slot(name: Slot, state: Phase, version: &str) -> SlotStatus {
        SlotStatus {
            name,
            device: format!("/dev/VA/{name}"),
            state,
            version: Some(version.to_owned()),
            kernel: Some(format!("{version}-1")),
            bootable: state != Phase::Failed,
        }
    }

    /// An appliance that runs 7.9 from `root` and has 9.4 in `back`.
    fn appliance(root: Phase, back: Phase) -> Status {
        Status {
            format: 1,
            booted: Slot::Root,
            committed: Slot::Root,
            next: Slot::Root,
            trial: None,
            failed: None,
            state_unread: false,
            kernel_drift: None,
            kernel_trial: None,
            boot_sector: Some(Owner::Ours),
            slots: vec![slot(Slot::Root, root, "7.9"), slot(Slot::Back, back, "9.4")],
        }
    }

    fn text(status: &Status) -> String {
        let mut page = Page::plain();
        write(&mut page, status);
        page.text().to_owned()
    }

    #[test]
    fn a_quiet_appliance_is_a_sentence_and_a_table() {
        let mut status = appliance(Phase::Committed, Phase::Empty);
        let back = &mut status.slots[1];
        (back.version, back.kernel, back.bootable) = (None, None, false);
        assert_eq!(
            text(&status),
            "\
Running version 7.9 from slot root, which is committed and boots next.

slot  state      version  kernel  bootable
root  committed  7.9      7.9-1   yes       runs, boots next
back  empty      -        -       no
"
        );
    }

    #[test]
    fn a_kernel_on_trial_is_told_beside_what_runs() {
        let mut status = appliance(Phase::Committed, Phase::Good);
        status.kernel_trial = Some(KernelTrial {
            kernel: Some("7.9-2".into()),
            tries_left: 3,
        });
        let text = text(&status);
        assert!(text.starts_with("Running version 7.9 from slot root, which is committed"));
        assert!(
            text.ends_with(
                "note: kernel 7.9-2 is on trial in slot root, with 3 starts left; the kernel \
                 before it starts again if it does not come up\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn an_armed_trial_says_how_to_start_and_how_to_cancel_it() {
        let mut status = appliance(Phase::Committed, Phase::Trial);
        status.next = Slot::Back;
        status.trial = Some(Trial {
            slot: Slot::Back,
            tries_left: 3,
        });
        assert_eq!(
            text(&status),
            "\
Running version 7.9 from slot root; version 9.4 in slot back boots next, on trial with 3 tries.

slot  state      version  kernel  bootable
root  committed  7.9      7.9-1   yes       runs
back  trial      9.4      9.4-1   yes       boots next

note: restart to try it; `va-upgrade discard` cancels the trial and drops it
"
        );
    }

    #[test]
    fn a_staged_system_says_how_to_try_and_how_to_drop_it() {
        let told = text(&appliance(Phase::Committed, Phase::Ready));
        assert!(
            told.ends_with(
                "\n\nnote: version 9.4 waits in slot back; `va-upgrade activate` has the next \
                 boot try it, `va-upgrade discard` drops it\n"
            ),
            "{told}"
        );
    }

    #[test]
    fn every_other_state_is_said_in_one_sentence() {
        let trial = |slot, tries_left| Some(Trial { slot, tries_left });
        let (root, back) = (Slot::Root, Slot::Back);
        let cases = [
            (
                (back, root, back, trial(back, 1)),
                "Running version 9.4 from slot back on trial; it is not confirmed yet and boots next, with 1 try left.",
                "note: the boot service confirms it once it is healthy; ",
            ),
            (
                (back, root, root, trial(back, 0)),
                "Running version 9.4 from slot back on trial, without another try; \
                 unless it is confirmed, version 7.9 in slot root boots next.",
                "note: the boot service confirms it once it is healthy; ",
            ),
            (
                (root, root, root, trial(back, 0)),
                "Running version 7.9 from slot root, which boots next; \
                 the trial of version 9.4 in slot back has no tries left.",
                "note: `va-upgrade rollback` ends the trial\n",
            ),
            (
                (back, root, root, None),
                "Running version 9.4 from slot back; version 7.9 in slot root is committed and boots next.",
                "warning: slot back runs although root is committed: ",
            ),
        ];
        for ((booted, committed, next, trial), first, note) in cases {
            let mut status = appliance(Phase::Committed, Phase::Trial);
            (status.booted, status.committed, status.next) = (booted, committed, next);
            status.trial = trial;
            let text = text(&status);
            assert_eq!(text.lines().next(), Some(first));
            assert!(text.contains(&format!("\n\n{note}")), "{text}");
        }
    }

    #[test]
    fn a_failed_trial_is_told_with_its_way_out() {
        let mut status = appliance(Phase::Committed, Phase::Failed);
        status.failed = Some(Failed {
            slot: Slot::Back,
            version: Some("9.4".into()),
            reason: Reason::Deadline,
        });
        let told = text(&status);
        assert!(
            told.ends_with(
                "\n\nfailed: version 9.4 in slot back: it was not confirmed in time (deadline); \
                 raise deadline_seconds if it needs longer, and apply again\n"
            ),
            "{told}"
        );
    }

    #[test]
    fn a_slot_that_boots_next_and_cannot_is_a_warning_with_a_way_out() {
        let mut status = appliance(Phase::Committed, Phase::Good);
        status.slots[0].bootable = false;
        let warning = "warning: slot root boots next, but its boot files are not whole; ";
        let told = text(&status);
        assert!(
            told.contains(&format!("{warning}`va-upgrade rollback` makes")),
            "{told}"
        );
        status.slots[1].bootable = false;
        let told = text(&status);
        assert!(
            told.contains(&format!("{warning}write a whole system")),
            "{told}"
        );
    }

    #[test]
    fn a_boot_without_the_boot_state_is_told_as_that() {
        let mut status = appliance(Phase::Committed, Phase::Good);
        (status.booted, status.state_unread) = (Slot::Back, true);
        let told = text(&status);
        assert!(
            told.contains(
                "\n\nwarning: the menu could not read the boot state, so it started slot back, "
            ),
            "{told}"
        );
        assert!(!told.contains("rolled back"), "{told}");
    }

    #[test]
    fn a_boot_sector_that_starts_another_grub_is_a_warning_with_the_repair() {
        let mut status = appliance(Phase::Committed, Phase::Good);
        assert!(!text(&status).contains("boot sector"));
        for (owner, words) in [
            (Owner::Other, "warning: the boot sector starts another GRUB"),
            (
                Owner::Unknown,
                "warning: it cannot be told whether the boot sector",
            ),
        ] {
            status.boot_sector = Some(owner);
            let told = text(&status);
            assert!(told.contains(words), "{told}");
            assert!(told.contains("`va-upgrade repair` to start"), "{told}");
        }
    }

    #[test]
    fn a_terminal_gets_colours_and_no_control_character_of_a_version() {
        let mut status = appliance(Phase::Committed, Phase::Failed);
        status.slots[1].version = Some("9\x1b[2J".into());
        let mut page = Page::coloured();
        write(&mut page, &status);
        let text = page.text();
        assert!(
            text.starts_with("\x1b[1mRunning version 7.9 from"),
            "{text}"
        );
        assert!(text.contains("\x1b[32mcommitted\x1b[0m  7.9 "), "{text}");
        assert!(text.contains("\x1b[31mfailed\x1b[0m     9?[2J  "), "{text}");
    }
}
