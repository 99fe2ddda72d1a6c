//! Which cards have another name than they should, and how each gets its own.

use std::collections::BTreeSet;

use super::card::{Card, is_plain};
use super::interfaces::Interfaces;

/// A card that has another name than it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misnamed<'a> {
    /// The card as it was written down.
    pub wanted: &'a Card,
    /// The name it has.
    pub found: String,
}

/// A card on the way from one name to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The name it has.
    pub from: String,
    /// A name that nothing has or is to have.
    pub by_way_of: String,
    /// The name it gets.
    pub to: String,
    /// Whether its interface is switched on.
    pub is_up: bool,
}

/// What is to be renamed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// All moves; each takes its first step before any takes its second.
    pub moves: Vec<Move>,
    /// Why a card keeps a wrong name.
    pub blocked: Vec<String>,
}

/// Finds the card that was written down as `wanted`; `None` also where it cannot be
/// told from another one.
pub fn find<'a>(wanted: &Card, now: &'a Interfaces) -> Option<&'a Card> {
    let alike: Vec<&Card> = now.cards.iter().filter(|it| it.mac == wanted.mac).collect();
    let only = |is_it: &dyn Fn(&&&Card) -> bool| {
        let mut found = alike.iter().filter(is_it);
        found.next().filter(|_| found.next().is_none()).copied()
    };
    // A card may have another driver now, so that is only asked between several.
    only(&|_| true)
        .or_else(|| only(&|it| it.driver.is_some() && it.driver == wanted.driver))
        .or_else(|| only(&|it| it.bus.is_some() && it.bus == wanted.bus))
}

/// Lists the cards among `wanted` that are there under another name.
pub fn misnamed<'a>(wanted: &'a [Card], now: &Interfaces) -> Vec<Misnamed<'a>> {
    let mut names = BTreeSet::new();
    let mut cards = BTreeSet::new();
    let mut list = Vec::new();
    for wanted in wanted.iter().filter(|card| is_plain(&card.name)) {
        let Some(found) = find(wanted, now) else {
            continue;
        };
        let is_new = names.insert(&wanted.name) & cards.insert(&found.name);
        if is_new && found.name != wanted.name {
            let found = found.name.clone();
            list.push(Misnamed { wanted, found });
        }
    }
    list
}

/// Plans how every card in `wanted` gets its name. A card that nobody wrote down
/// makes way; what is no card does not.
pub fn plan(wanted: &[Card], now: &Interfaces) -> Plan {
    let known: BTreeSet<&str> = wanted
        .iter()
        .filter_map(|card| find(card, now))
        .map(|card| card.name.as_str())
        .collect();
    let card = |name: &str| {
        let mut all = now.cards.iter().chain(&now.parts);
        all.find(|card| card.name == name)
    };
    let mut pairs: Vec<(String, String)> = misnamed(wanted, now)
        .into_iter()
        .map(|it| (it.found, it.wanted.name.clone()))
        .collect();
    let may_stay = |name: &str| known.contains(name) || card(name).is_none();
    let mut blocked = Vec::new();
    while let Some(at) = held(&pairs, now, &may_stay) {
        let (from, to) = pairs.remove(at);
        blocked.push(format!("{from} cannot become {to}, a name that is taken"));
    }
    while let Some(at) = held(&pairs, now, &|_| true) {
        let name = pairs[at].1.clone();
        // The name of a card that is gone is free: this one may be in its place.
        let is_wanted = |name: &str| {
            let mut cards = wanted.iter().filter(|card| card.name == name);
            cards.any(|card| find(card, now).is_some())
        };
        let leaves = |name: &str| pairs.iter().any(|(from, _)| from == name);
        let comes = |name: &str| pairs.iter().any(|(_, to)| to == name);
        let free = first_name("eth", |name| {
            (!now.has(name) || leaves(name)) && !comes(name) && !is_wanted(name)
        });
        pairs.push((name, free));
    }
    let mut moves: Vec<Move> = Vec::new();
    for (from, to) in pairs {
        let by_way_of = first_name("va-tmp", |name| {
            !now.has(name) && moves.iter().all(|it| it.by_way_of != name)
        });
        let is_up = card(&from).is_some_and(|card| card.is_up);
        moves.push(Move {
            from,
            by_way_of,
            to,
            is_up,
        });
    }
    Plan { moves, blocked }
}

/// Returns the first pair whose new name is one that something keeps of which
/// `is_meant` is true.
fn held(
    pairs: &[(String, String)],
    now: &Interfaces,
    is_meant: &dyn Fn(&str) -> bool,
) -> Option<usize> {
    let leaves = |name: &String| pairs.iter().any(|(from, _)| from == name);
    pairs
        .iter()
        .position(|(_, to)| now.has(to) && !leaves(to) && is_meant(to))
}

fn first_name(stem: &str, is_free: impl Fn(&str) -> bool) -> String {
    let mut names = (0..u32::MAX).map(|number| format!("{stem}{number}"));
    names.find(|name| is_free(name)).unwrap_or_default()
}
