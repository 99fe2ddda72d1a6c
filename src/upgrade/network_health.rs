//! Whether the network of the old system is there in the one on trial.
//!
//! 1. [`mend_names`]: a card that came up under another name gets its own back, now
//!    and at each later start;
//! 2. [`check`]: each card has its name; each card, address and gateway is there.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::name_cards;
use crate::appliance::Appliance;
use crate::appliance::cards::naming::{self, Misnamed};
use crate::appliance::cards::{self, Interfaces, Record, rename};
use crate::appliance::network::{self, Lacks, Network};
use crate::signals;
use crate::system::Cmd;
use crate::system::files::read_yaml;

/// Between two questions.
const PAUSE: Duration = Duration::from_secs(1);

/// How many pauses the network may take once the system has started.
const NETWORK_SECONDS: u32 = 60;

/// How long one of these may take to start anew.
const RESTART_LIMIT: Duration = Duration::from_secs(120);

/// What sets up the network in the systems of either family.
const NETWORK_UNITS: [&str; 4] = [
    "NetworkManager.service",
    "systemd-networkd.service",
    "networking.service",
    "network.service",
];

/// Gives each card that came up under another name its own, and has the early
/// service do so from now on. What that does not mend [`check`] tells.
///
/// `before` is the directory with what was written down.
pub fn mend_names(appliance: &Appliance, before: &Path) {
    match mend(appliance, before) {
        Ok(None) => {}
        Ok(Some(text)) => appliance
            .progress
            .warn(&format!("{text}; they have their names now")),
        Err(error) => appliance.progress.warn(&format!("{error:#}")),
    }
}

fn mend(appliance: &Appliance, before: &Path) -> Result<Option<String>> {
    let Some(Record { cards }) = record(before, cards::FILE)? else {
        return Ok(None);
    };
    let now = Interfaces::look(appliance)?;
    let wrong = naming::misnamed(&cards, &now);
    if wrong.is_empty() {
        return Ok(None);
    }
    name_cards::keep(appliance, wrong.iter().map(|it| it.wanted))?;
    rename::carry_out(appliance, &naming::plan(&cards, &now))?;
    for unit in NETWORK_UNITS {
        let restart = Cmd::new("systemctl").args(["try-restart", unit]);
        let restart = restart.limit(RESTART_LIMIT);
        // At most two of them are there.
        let _ = appliance.sys.run(&restart);
    }
    Ok(Some(told(&wrong)))
}

/// Compares the network with the one that was written down, by what `lacking` says that
/// the second lacks of the first; waits for it.
///
/// # Errors
/// What is not as it was.
pub fn check(
    appliance: &Appliance,
    before: &Path,
    lacking: fn(&Network, &Network) -> Lacks,
) -> Result<()> {
    if let Some(Record { cards }) = record(before, cards::FILE)? {
        let now = Interfaces::look(appliance)?;
        let wrong = naming::misnamed(&cards, &now);
        ensure!(wrong.is_empty(), "{}", told(&wrong));
    }
    let Some(then) = record::<Network>(before, network::FILE)? else {
        return Ok(());
    };
    let mut lacks = Lacks::default();
    for _ in 0..NETWORK_SECONDS {
        lacks = lacking(&then, &Network::look(appliance)?);
        if lacks.missing.is_empty() {
            break;
        }
        signals::check()?;
        appliance.sys.wait(PAUSE);
    }
    ensure!(
        lacks.missing.is_empty(),
        "the network lacks {}",
        lacks.missing.join(", ")
    );
    if !lacks.moved.is_empty() {
        appliance.progress.warn(&format!(
            "not here any more, as of a cluster whose other machine has it now: {}",
            lacks.moved.join(", ")
        ));
    }
    Ok(())
}

/// Reads what was written down beside the boot files; `None` where an earlier
/// version wrote nothing.
pub(super) fn record<T: serde::de::DeserializeOwned>(
    before: &Path,
    name: &str,
) -> Result<Option<T>> {
    let path = before.join(name);
    path.exists().then(|| read_yaml(&path)).transpose()
}

pub(super) fn told(wrong: &[Misnamed]) -> String {
    let one = |it: &Misnamed| {
        let driver = it.wanted.driver.as_deref().unwrap_or("unknown driver");
        let (mac, name) = (&it.wanted.mac, &it.wanted.name);
        let found = it.found.escape_debug();
        format!("network card {mac} ({driver}) is {found}, it was {name}")
    };
    let all: Vec<String> = wrong.iter().map(one).collect();
    all.join(", ")
}
