//! Whether the network of the old system is there in the one on trial.
//!
//! 1. [`mend_names`]: a card that came up under another name gets its own back, now
//!    and at each later start;
//! 2. [`check`]: each card has its name and packet size; each card, address, gateway and
//!    configured route is there, and some name server.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::name_cards;
use crate::appliance::Appliance;
use crate::appliance::cards::naming::{self, Misnamed};
use crate::appliance::cards::{self, Card, Interfaces, Record, rename};
use crate::appliance::network::{self, Lacks, Network};
use crate::report::Policy;
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
        check_sizes(appliance, &cards, &now)?;
    }
    let Some(then) = record::<Network>(before, network::FILE)? else {
        return Ok(());
    };
    let policy = |subject: &str| {
        let policies = &appliance.config.report;
        policies.get(subject).copied().unwrap_or(Policy::Enforce)
    };
    let mut lacks = Lacks::default();
    let mut warnings = Vec::new();
    for _ in 0..NETWORK_SECONDS {
        lacks = lacking(&then, &Network::look(appliance)?);
        warnings.clear();
        for (subject, text) in lacks.settings.drain(..) {
            match policy(subject) {
                Policy::Enforce => lacks.missing.push(text),
                Policy::Warn => warnings.push(text),
                Policy::Observe => {}
            }
        }
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
    if !warnings.is_empty() {
        let text = format!("the network lacks {}", warnings.join(", "));
        appliance.progress.warn(&text);
    }
    if !lacks.moved.is_empty() {
        appliance.progress.warn(&format!(
            "not here any more, as of a cluster whose other machine has it now: {}",
            lacks.moved.join(", ")
        ));
    }
    Ok(())
}

/// Refuses packets of another size than before, unless the configuration has it
/// otherwise.
fn check_sizes(appliance: &Appliance, then: &[Card], now: &Interfaces) -> Result<()> {
    let others = other_sizes(then, now).join(", ");
    let policy = appliance.config.report.get("mtu").copied();
    match policy.unwrap_or(Policy::Enforce) {
        _ if others.is_empty() => {}
        Policy::Enforce => bail!("{others}"),
        Policy::Warn => appliance.progress.warn(&others),
        Policy::Observe => {}
    }
    Ok(())
}

/// Lists the cards whose largest packet is another than it was.
pub(super) fn other_sizes(then: &[Card], now: &Interfaces) -> Vec<String> {
    let pairs = then.iter().filter(|card| card.is_up).filter_map(|card| {
        let found = now.cards.iter().find(|it| it.mac == card.mac)?;
        Some((card, card.mtu?, found.mtu?))
    });
    pairs
        .filter(|(_, then, now)| then != now)
        .map(|(card, then, now)| {
            let (name, mac) = (&card.name, &card.mac);
            format!("MTU of network card {mac} ({name}) is {now}, it was {then}")
        })
        .collect()
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
