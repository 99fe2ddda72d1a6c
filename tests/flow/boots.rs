//! Whether the fake machine, as its disk and `/boot` are at this moment, would
//! start a system: what a power cut at any step must find.

use std::path::PathBuf;

use va_upgrade::boot::bios::area::BootArea;
use va_upgrade::boot::files;
use va_upgrade::boot::state::State;
use va_upgrade::slot::Slot;
use va_upgrade::system::System;

use crate::machine::Machine;

/// Says why the machine would not start, if it would not.
pub fn fault(machine: &Machine) -> Option<String> {
    let core = BootArea::look(&machine.at("/dev/vda"))
        .and_then(|area| area.current_core())
        .unwrap();
    // A disk as an installer leaves it has no core of ours, and its own menu.
    if core.starts_with("0 ") {
        let menu = machine.at("/boot/grub/grub.cfg");
        return (!menu.exists()).then(|| "the installer's menu is gone".to_owned());
    }
    let dirs = ["grub-1", "grub-2"].map(|name| machine.at(&format!("/boot/va/{name}")));
    let is_started = |dir: &&PathBuf| {
        std::fs::read_to_string(dir.join("core")).is_ok_and(|note| note.trim() == core)
    };
    let Some(dir) = dirs.iter().find(is_started) else {
        return Some(format!("no GRUB on /boot belongs to the core {core}"));
    };
    if !dir.join("grub/grub.cfg").exists() || !dir.join("grub/i386-pc/normal.mod").exists() {
        return Some(format!("{} is not whole", dir.display()));
    }
    let slot = match State::load(&machine.at("/boot/va")) {
        Ok(Some(state)) => state.committed(),
        // The menu then asks the file beside it.
        _ => {
            let default = machine.read("/boot/va/default.cfg");
            let name = default.trim().strip_prefix("set va_slot=");
            match name.and_then(|name| name.parse().ok()) {
                Some(slot) => slot,
                None => return Some(format!("default.cfg says {default:?}")),
            }
        }
    };
    slot_fault(machine, slot)
}

/// Says why the slot's boot files would not start, if they would not.
pub fn slot_fault(machine: &Machine, slot: Slot) -> Option<String> {
    let sys: &dyn System = machine;
    let record = match files::record(sys, slot) {
        Ok(Some(record)) => record,
        other => return Some(format!("the record of slot {slot} is {other:?}")),
    };
    let faults = record.faults(&files::dir(sys, slot), true);
    if !faults.is_empty() {
        return Some(faults.join("; "));
    }
    let entry = machine.read(&format!("/boot/va/{slot}/entry.cfg"));
    let mut words = entry
        .split(|c: char| c.is_whitespace() || c == ';')
        .skip_while(|word| *word != "linux");
    let named = [
        words.nth(1),
        words.find(|w| *w == "initrd").and(words.next()),
    ];
    let is_there = |path: &str| machine.at(&format!("/boot{path}")).exists();
    let missing = named.iter().find(|path| !path.is_some_and(is_there))?;
    Some(format!(
        "the entry of slot {slot} starts {missing:?}, which is not there"
    ))
}
