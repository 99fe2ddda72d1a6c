//! Which network cards keep their names, and how.

use super::checked::Checked;
use crate::appliance::Appliance;
use crate::appliance::cards::{Interfaces, Means, means};
use crate::install::cards::not_pinned;
use crate::report::Report;

/// Lists the cards of the running system, and warns of those whose names the new
/// one may change.
pub fn check(appliance: &Appliance, report: &mut Report) {
    const NAME: &str = "network cards";
    let found = Interfaces::look(appliance);
    let warnings: Vec<String> = found
        .iter()
        .flat_map(|all| all.cards.iter().map(move |card| (card, all)))
        .filter(|(card, all)| means::of(card, all) == Means::Nothing)
        .map(|(card, _)| not_pinned(card))
        .collect();
    report.add(NAME, found.and_then(|all| list(&all)));
    if !warnings.is_empty() {
        report.warn("names of network cards", warnings.join("; "));
    }
}

fn list(all: &Interfaces) -> Checked<()> {
    let by = |wanted: Means, words: &str| {
        let cards = all
            .cards
            .iter()
            .filter(|card| means::of(card, all) == wanted);
        let names: Vec<String> = cards
            .map(|it| format!("{} ({})", it.name, it.mac))
            .collect();
        (!names.is_empty()).then(|| format!("{} {words}", names.join(", ")))
    };
    let pinned: Vec<String> = [
        by(Means::Link, "by a file for udev"),
        by(Means::Service, "by our service at each start"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let message = match pinned.is_empty() {
        true => "no names to keep".to_owned(),
        false => format!("names are kept: {}", pinned.join("; ")),
    };
    Ok(((), message))
}
