//! Decides each key by itself: whose setting the new system gets.

use std::collections::{BTreeMap, BTreeSet};

use super::Conflict;

/// Where a setting stands: its sections, then its own name.
pub type Key = Vec<String>;

/// The settings of a file: all values of each key, in order.
pub type Entries = BTreeMap<Key, Vec<String>>;

/// Which keys are carried over at all; without names, all of them.
pub struct Only(Vec<String>);

impl Only {
    /// Takes names as a rule spells them, each put as the format has its keys.
    pub fn new(names: &[String], canonical: impl Fn(&str) -> String) -> Only {
        Only(names.iter().map(|name| canonical(name)).collect())
    }

    /// Tells whether every key is carried.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells whether `key` is carried.
    pub fn covers(&self, key: &[String]) -> bool {
        if self.is_all() {
            return true;
        }
        let name = key.join("/");
        self.0.iter().any(|wanted| match wanted.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name
                .strip_prefix(wanted.as_str())
                .is_some_and(is_at_or_below),
        })
    }
}

/// A blank parts a keyword from what tells its settings apart.
fn is_at_or_below(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['/', ' '])
}

/// What was decided.
pub struct Choices {
    /// The keys whose setting, or lack of one, is the customer's.
    pub customer: BTreeSet<Key>,
    /// What the new file must say.
    pub expected: Entries,
    /// Where both sides wanted something else.
    pub conflicts: Vec<Conflict>,
}

enum Choice {
    Image,
    Customer,
    Conflict,
}

/// Decides every key that any side has.
pub fn choose(
    pristine: Option<&Entries>,
    customer: &Entries,
    image: &Entries,
    only: &Only,
) -> Choices {
    let mut choices = Choices {
        customer: BTreeSet::new(),
        expected: image.clone(),
        conflicts: Vec::new(),
    };
    let keys: BTreeSet<&Key> = customer.keys().chain(image.keys()).collect();
    for key in keys {
        let (theirs, ours) = (customer.get(key), image.get(key));
        let choice = match pristine {
            _ if !only.covers(key) => Choice::Image,
            Some(pristine) => three_ways(pristine.get(key), theirs, ours),
            None if theirs.is_none() || theirs == ours => Choice::Image,
            None => Choice::Customer,
        };
        match choice {
            Choice::Image => continue,
            Choice::Customer => {}
            Choice::Conflict => choices.conflicts.push(conflict(key, theirs, ours)),
        }
        choices.customer.insert(key.clone());
        match theirs {
            Some(values) => choices.expected.insert(key.clone(), values.clone()),
            None => choices.expected.remove(key),
        };
    }
    choices
}

fn three_ways<T: PartialEq>(pristine: T, customer: T, image: T) -> Choice {
    if customer == pristine || customer == image {
        Choice::Image
    } else if image == pristine {
        Choice::Customer
    } else {
        Choice::Conflict
    }
}

fn conflict(key: &Key, customer: Option<&Vec<String>>, image: Option<&Vec<String>>) -> Conflict {
    let shown = |values: &Vec<String>| values.join("\n");
    Conflict {
        key: key.join("/"),
        customer: customer.map(shown),
        image: image.map(shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Entries {
        let pair = |word: &str| {
            let (key, value) = word.split_once('=').unwrap();
            let key = key.split('/').map(str::to_owned).collect();
            (key, vec![value.to_owned()])
        };
        text.split_whitespace().map(pair).collect()
    }

    fn names(names: &[&str]) -> Only {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Only::new(&names, str::to_owned)
    }

    #[test]
    fn each_key_is_decided_by_itself() {
        for (pristine, customer, image, expected, conflicts) in [
            ("a=1", "a=1", "a=2", "a=2", 0),
            ("a=1", "a=2", "a=1", "a=2", 0),
            ("a=1", "a=2", "a=2", "a=2", 0),
            ("a=1", "a=2", "a=3", "a=2", 1),
            ("a=1 b=1", "b=1", "a=1 b=2", "b=2", 0),
            ("a=1", "", "a=2", "", 1),
            ("a=1", "a=2", "", "a=2", 1),
            ("a=1", "a=1", "", "", 0),
            ("", "a=1", "b=1", "a=1 b=1", 0),
        ] {
            let pristine = entries(pristine);
            let (customer, image) = (entries(customer), entries(image));
            let choices = choose(Some(&pristine), &customer, &image, &names(&[]));
            assert_eq!(
                choices.expected,
                entries(expected),
                "{pristine:?} {customer:?}"
            );
            assert_eq!(
                choices.conflicts.len(),
                conflicts,
                "{pristine:?} {customer:?}"
            );
        }
    }

    #[test]
    fn without_the_old_release_nothing_is_taken_out() {
        let (customer, image) = (entries("a=1 c=1"), entries("a=2 b=2"));
        let choices = choose(None, &customer, &image, &names(&[]));
        assert_eq!(choices.expected, entries("a=1 b=2 c=1"));
        assert_eq!(choices.conflicts, []);
    }

    #[test]
    fn names_pick_keys_sections_and_beginnings() {
        let key = |text: &str| text.split('/').map(str::to_owned).collect::<Key>();
        for (name, covered) in [
            ("s/a", "s/a"),
            ("s", "s/a"),
            ("s/*", "s/a"),
            ("net.ipv4.*", "net.ipv4.ip_forward"),
        ] {
            assert!(names(&[name]).covers(&key(covered)), "{name}");
            assert!(!names(&[name]).covers(&key("t/a")), "{name}");
        }
        assert!(!names(&["s/a"]).covers(&key("s/ab")));
    }
}
