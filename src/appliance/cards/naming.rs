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
    let mut plan = Plan::default();
    let is_up = |name: &str| {
        let mut all = now.cards.iter().chain(&now.parts);
        all.any(|card| card.name == name && card.is_up)
    };
    let mut pairs: Vec<(String, String)> = misnamed(wanted, now)
        .into_iter()
        .map(|it| (it.found, it.wanted.name.clone()))
        .collect();
    while let Some(at) = first_stuck(&pairs, now) {
        let name = pairs[at].1.clone();
        let is_wanted = wanted
            .iter()
            .any(|card| find(card, now).is_some_and(|found| found.name == name));
        let mut cards = now.cards.iter().chain(&now.parts);
        if !is_wanted && cards.any(|card| card.name == name) {
            let free = free_name("eth", &pairs, wanted, now);
            pairs.push((name, free));
        } else {
            let (from, to) = pairs.remove(at);
            plan.blocked
                .push(format!("{from} cannot become {to}, a name that is taken"));
        }
    }
    for (from, to) in &pairs {
        let mut taken = pairs.clone();
        taken.extend(
            plan.moves
                .iter()
                .map(|it| (String::new(), it.by_way_of.clone())),
        );
        plan.moves.push(Move {
            from: from.clone(),
            by_way_of: free_name("va-tmp", &taken, wanted, now),
            to: to.clone(),
            is_up: is_up(from),
        });
    }
    plan
}

/// Returns the first pair whose new name is held by what does not move.
fn first_stuck(pairs: &[(String, String)], now: &Interfaces) -> Option<usize> {
    let moves = |name: &String| pairs.iter().any(|(from, _)| from == name);
    pairs.iter().position(|(_, to)| now.has(to) && !moves(to))
}

fn free_name(stem: &str, pairs: &[(String, String)], wanted: &[Card], now: &Interfaces) -> String {
    let is_free = |name: &String| {
        !now.has(name)
            && pairs.iter().all(|(_, to)| to != name)
            && wanted.iter().all(|card| card.name != *name)
    };
    (0..u32::MAX)
        .map(|number| format!("{stem}{number}"))
        .find(is_free)
        .unwrap_or_default()
}
