//! `status`: what runs, what boots next and why, for people and programs.

use anyhow::Result;

use super::Session;
use super::output::{Page, Tone, print, print_json};
use crate::appliance::machine::Machine;
use crate::boot::bios::installed::Owner;
use crate::boot::state::{Phase, Reason, Trial};
use crate::migrate::in_ram;
use crate::slot::Slot;
use crate::upgrade::boot_sector;
use crate::upgrade::drill;
use crate::upgrade::status::{Confirmation, Failed, SlotStatus, Status, status};

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
    let machine = match Machine::look(&appliance) {
        Ok(machine) => machine,
        // A system with one root has no slots; it may be about to get them.
        Err(error) => match in_ram::last(&appliance)? {
            Some(last) if args.json => return Err(error.context(last)),
            Some(last) => return print(&format!("{last}\n")),
            None => return Err(error),
        },
    };
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
    let is_drill = status.drill.is_some_and(|drill| drill.outcome.is_none());
    match status.trial {
        Some(trial) if is_drill && trial.slot == booted => {
            format!("{runs} for a drill; {} boots next.", system(next))
        }
        Some(trial) if is_drill && trial.slot != next => {
            format!(
                "{runs}, which boots next; the drill of slot {} is over.",
                trial.slot
            )
        }
        Some(trial) if trial.slot == booted && next == booted => format!(
            "{runs} on trial; it is not confirmed yet and boots next, with {} left.",
            tries(trial)
        ),
        Some(trial) if trial.slot == booted => format!(
            "{runs} on trial, without another try; unless it is confirmed, {} in slot {next} boots next.",
            system(next)
        ),
        Some(trial) if trial.slot == next => format!(
            "{runs}; {} in slot {next} boots next, {}.",
            system(next),
            match is_drill {
                true => "once, as a drill".to_owned(),
                false => format!("on trial with {}", tries(trial)),
            }
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
        about_drilled(status),
        failed.map(|failed| Note::new(Tone::Bad, "failed", failure(failed))),
    ];
    notes.into_iter().flatten().collect()
}

fn about_trial(status: &Status) -> Option<Note> {
    let slot = status.trial?.slot;
    if status.drill.is_some_and(|drill| drill.outcome.is_none()) {
        return Some(about_drill(status, slot));
    }
    if let Some(Confirmation { seconds_left }) = status.confirmation {
        let back = status.committed;
        let text = format!(
            "it is healthy and waits for a person: `va-upgrade confirm` keeps it, within {}; then \
             slot {back} boots again. `va-upgrade confirm --extend MINUTES` gives it more time, \
             `va-upgrade rollback --reboot` goes back",
            in_words(seconds_left)
        );
        return Some(Note::new(Tone::Warn, "note", text));
    }
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

/// Renders a time, rounded down: it is one that somebody has left.
fn in_words(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} seconds"),
        120..=7199 => format!("{} minutes", seconds / 60),
        7200..=172_799 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    }
}

/// Tells of a drill that is armed, or runs.
fn about_drill(status: &Status, slot: Slot) -> Note {
    let committed = status.committed;
    let text = if slot == status.booted {
        format!("this is a drill: the boot service restarts at once, and slot {committed} boots")
    } else if slot == status.next {
        format!(
            "this is a drill: restart to have slot {slot} started once and left for slot \
             {committed} again; `va-upgrade discard` cancels the drill"
        )
    } else {
        format!(
            "slot {slot} was started for a drill; the boot service of slot {committed} writes \
             down how it ended"
        )
    };
    Note::new(Tone::Strong, "note", text)
}

/// Tells how the last drill ended.
fn about_drilled(status: &Status) -> Option<Note> {
    let drill = status.drill?;
    let tone = match drill.outcome? {
        Reason::Drill => Tone::Good,
        _ => Tone::Warn,
    };
    let text = drill::verdict(drill.slot, drill.outcome?);
    Some(Note::new(tone, "drill", text))
}

/// Tells of a whole system that waits for its trial.
fn about_staged(status: &Status) -> Option<Note> {
    if status.trial.is_some() {
        return None;
    }
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
        Reason::Drill => ("it was given up on purpose", "nothing is wrong with it"),
    };
    let kept = match &failed.kept {
        Some(dir) => format!("; its report and journal are in {dir}"),
        None => String::new(),
    };
    format!(
        "version {} in slot {}: {why} ({}); {way_out}{kept}",
        failed.version.as_deref().unwrap_or("unknown"),
        failed.slot,
        failed.reason
    )
}

#[cfg(test)]
mod tests;
