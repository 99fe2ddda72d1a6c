//! What our early service does at each start of a system whose cards have the
//! kernel's own names: `eth0` is to be the card that it was in the old system.
//!
//! 1. wait until udev has done with what it has found;
//! 2. wait a little for cards that are not there yet;
//! 3. rename ([`cards::rename`](rename)).

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::appliance::Appliance;
use crate::appliance::cards::{self, Card, Interfaces, Record, naming, rename};
use crate::paths::SETTINGS_DIR;
use crate::system::{Cmd, files};

/// How long a card may take after udev has finished, in pauses.
const PATIENCE_SECONDS: u32 = 10;

/// Gives each card of the record among the settings its name.
///
/// # Errors
/// When the record cannot be read, or a card not be renamed.
pub fn run(appliance: &Appliance) -> Result<()> {
    let path = path(appliance);
    if !path.exists() {
        return Ok(());
    }
    let wanted: Record = files::read_yaml(&path)?;
    let settle = Cmd::new("udevadm").args(["settle", "--timeout=30"]);
    if let Err(error) = appliance.sys.run(&settle) {
        appliance.progress.warn(&format!("{error:#}"));
    }
    let mut now = Interfaces::look(appliance)?;
    for _ in 0..PATIENCE_SECONDS {
        let is_there = |card: &Card| naming::find(card, &now).is_some();
        if wanted.cards.iter().all(is_there) {
            break;
        }
        appliance.sys.wait(Duration::from_secs(1));
        now = Interfaces::look(appliance)?;
    }
    rename::carry_out(appliance, &naming::plan(&wanted.cards, &now))
}

/// Adds cards to the record among the running system's settings, by which
/// [`run`] names them; writes it.
///
/// # Errors
/// When the record cannot be read or written.
pub fn keep<'a>(appliance: &Appliance, cards: impl Iterator<Item = &'a Card>) -> Result<()> {
    let path = path(appliance);
    let mut record: Record = match path.exists() {
        true => files::read_yaml(&path)?,
        false => Record::default(),
    };
    for card in cards {
        record
            .cards
            .retain(|it| it.mac != card.mac && it.name != card.name);
        record.cards.push(card.clone());
    }
    let text = serde_yaml::to_string(&record).context("rendering the names of the cards")?;
    files::write_atomic(&path, text.as_bytes(), 0o644)
}

fn path(appliance: &Appliance) -> PathBuf {
    appliance.at(SETTINGS_DIR).join(cards::FILE)
}
