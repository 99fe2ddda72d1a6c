use super::*;
use crate::boot::state::Drill;
use crate::upgrade::status::{Confirmation, KernelTrial};

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
        confirmation: None,
        failed: None,
        state_unread: false,
        kernel_drift: None,
        kernel_trial: None,
        drill: None,
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
fn a_trial_that_waits_for_a_person_says_for_how_long() {
    let mut status = appliance(Phase::Committed, Phase::Trial);
    (status.booted, status.next) = (Slot::Back, Slot::Back);
    status.trial = Some(Trial {
        slot: Slot::Back,
        tries_left: 2,
    });
    for (seconds_left, words) in [
        (0, "0 seconds"),
        (119, "119 seconds"),
        (1799, "29 minutes"),
        (7200, "2 hours"),
        (604_800, "7 days"),
    ] {
        status.confirmation = Some(Confirmation { seconds_left });
        let text = text(&status);
        let wanted = format!("`va-upgrade confirm` keeps it, within {words}; then slot root boots");
        assert!(text.contains(&wanted), "{text}");
    }
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
        kept: None,
    });
    let mut told = text(&status);
    assert!(
        told.ends_with(
            "\n\nfailed: version 9.4 in slot back: it was not confirmed in time (deadline); \
                 raise deadline_seconds if it needs longer, and apply again\n"
        ),
        "{told}"
    );
    status.failed.as_mut().unwrap().kept = Some("/data/va-upgrade/trials/1".into());
    told = text(&status);
    assert!(
        told.ends_with("; its report and journal are in /data/va-upgrade/trials/1\n"),
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

#[test]
fn a_drill_is_told_as_one_before_and_afterwards_and_never_as_a_failure() {
    let mut status = appliance(Phase::Committed, Phase::Ready);
    let drill = |outcome| {
        Some(Drill {
            slot: Slot::Back,
            outcome,
        })
    };
    (status.next, status.drill) = (Slot::Back, drill(None));
    status.trial = Some(Trial {
        slot: Slot::Back,
        tries_left: 1,
    });
    let told = text(&status);
    let first = "Running version 7.9 from slot root; version 9.4 in slot back boots next, once, \
                 as a drill.\n";
    assert!(told.starts_with(first), "{told}");
    assert!(
        told.contains("`va-upgrade discard` cancels the drill"),
        "{told}"
    );
    assert!(!told.contains("activate"), "{told}");
    (status.next, status.trial) = (Slot::Root, None);
    status.drill = drill(Some(Reason::Drill));
    let told = text(&status);
    assert!(
        told.contains("\ndrill: passed: slot back started"),
        "{told}"
    );
    status.drill = drill(Some(Reason::Exhausted));
    let told = text(&status);
    assert!(
        told.contains("\ndrill: failed: slot back did not start"),
        "{told}"
    );
    assert!(!told.contains("\nfailed:"), "{told}");
}
