//! Puts the customer's settings into the image's text.
//!
//! Nothing here decides anything. A place that turns out wrong is noticed by whoever
//! reads the text again.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::choice::{Choices, Key, Only};
use super::units::{Doc, Kind, Unit};

/// Returns the image's text with what was chosen of the customer's.
pub fn edit(
    pristine: Option<&Doc<'_>>,
    customer: &Doc<'_>,
    image: &Doc<'_>,
    choices: &Choices,
    only: &Only,
) -> String {
    let image_places = Places::of(image);
    let comments = Comments::of(pristine, image, only.is_all());
    let wanted = Wanted::of(pristine, customer, choices, only);
    let additions = add(customer, image, &image_places, &wanted, &comments);
    write(image, &wanted, additions)
}

/// Where in a text its keys and sections end; units are counted from one.
struct Places<'d> {
    keys: HashMap<&'d [String], usize>,
    sections: HashMap<&'d [String], usize>,
    /// Where settings outside of any section end.
    top: usize,
}

impl<'d> Places<'d> {
    fn of(doc: &'d Doc<'_>) -> Places<'d> {
        let mut places = Places {
            keys: HashMap::new(),
            sections: HashMap::new(),
            top: doc.units.len(),
        };
        for (before, unit) in doc.units.iter().enumerate() {
            match unit.kind {
                Kind::Entry => places.keys.insert(&unit.key, before + 1),
                Kind::Heading => places.sections.insert(&unit.key, before + 1),
                Kind::Unknown => continue,
            };
            for depth in 1..=unit.depth {
                places.sections.insert(&unit.key[..depth], before + 1);
            }
            if begins_section(unit) {
                places.top = places.top.min(before);
            }
        }
        places
    }

    fn end_of(&self, unit: &Unit<'_>) -> Option<usize> {
        let places = match unit.kind {
            Kind::Heading => &self.sections,
            _ => &self.keys,
        };
        places.get(unit.key.as_slice()).copied()
    }
}

/// Tells whether what stands behind it belongs to it, as to a `Match` of sshd's.
fn begins_section(unit: &Unit<'_>) -> bool {
    unit.kind == Kind::Heading || (unit.kind == Kind::Entry && unit.key.len() > unit.depth + 1)
}

/// Tells comments that only the customer has.
struct Comments<'d> {
    known: HashSet<&'d str>,
    /// Whether comments of settings that are not carried are the customer's, too.
    are_all_carried: bool,
}

impl<'d> Comments<'d> {
    fn of(pristine: Option<&Doc<'d>>, image: &Doc<'d>, is_all: bool) -> Comments<'d> {
        let docs = pristine.into_iter().chain([image]);
        let leads = docs.flat_map(|doc| doc.units.iter().map(|u| u.lead).chain([doc.tail]));
        Comments {
            known: leads.flat_map(str::lines).map(str::trim).collect(),
            are_all_carried: is_all && pristine.is_some(),
        }
    }

    /// Leaves of a lead the lines that are the customer's alone.
    fn fresh(&self, lead: &str) -> String {
        let lead = lead.trim_start_matches('\u{feff}');
        let lines = lead.split_inclusive('\n');
        let is_fresh = |line: &&str| !line.trim().is_empty() && !self.known.contains(line.trim());
        lines.filter(is_fresh).collect()
    }
}

/// What of the customer's units is wanted.
struct Wanted<'d> {
    choices: &'d Choices,
    /// Sections that something stays in.
    inhabited: HashSet<&'d [String]>,
    /// Sections that the customer made.
    made: HashSet<&'d [String]>,
    /// Sections that the customer took out.
    removed: HashSet<&'d [String]>,
}

impl<'d> Wanted<'d> {
    fn of(
        pristine: Option<&'d Doc<'_>>,
        customer: &'d Doc<'_>,
        choices: &'d Choices,
        only: &Only,
    ) -> Wanted<'d> {
        let before = pristine.map(headings).unwrap_or_default();
        let after = headings(customer);
        let is_carried = |key: &&&[String]| only.covers(key);
        let made = after.difference(&before).filter(is_carried).copied();
        let removed = before.difference(&after).filter(is_carried).copied();
        let sections = |key: &'d Key| (1..key.len()).map(move |depth| &key[..depth]);
        Wanted {
            choices,
            inhabited: choices.expected.keys().flat_map(sections).collect(),
            made: made.collect(),
            removed: removed.collect(),
        }
    }

    /// Tells whether the customer's version of this is what counts.
    fn takes(&self, unit: &Unit<'_>) -> bool {
        match unit.kind {
            Kind::Entry => self.takes_key(&unit.key),
            Kind::Heading => {
                let key = unit.key.as_slice();
                self.inhabited.contains(key) || self.made.contains(key)
            }
            Kind::Unknown => false,
        }
    }

    /// A unit that says more than its key, as a mapping in braces, is taken whole.
    fn takes_key(&self, key: &Key) -> bool {
        let chosen = &self.choices.customer;
        let below = chosen.range(key.clone()..).next();
        below.is_some_and(|first| {
            first == key || (first.starts_with(key) && !self.choices.expected.contains_key(key))
        })
    }

    fn removes(&self, heading: &Unit<'_>) -> bool {
        let key = heading.key.as_slice();
        self.removed.contains(key) && !self.inhabited.contains(key)
    }
}

fn headings<'d>(doc: &'d Doc<'_>) -> HashSet<&'d [String]> {
    let headings = doc.units.iter().filter(|unit| unit.kind == Kind::Heading);
    headings.map(|unit| unit.key.as_slice()).collect()
}

/// A new setting, or a new section with what is in it.
struct Group<'d> {
    /// How many sections it is in.
    level: usize,
    /// The key that it begins with.
    heading: &'d [String],
    text: String,
}

/// What goes into the image's text, and where.
#[derive(Default)]
struct Additions<'d> {
    /// Behind the unit of that number; 0 is before the first.
    behind: Vec<Vec<Group<'d>>>,
    /// In the place of a key that the image has.
    instead: HashMap<&'d [String], Vec<String>>,
    /// Comments for what the image has.
    before: HashMap<(bool, &'d [String]), String>,
    /// Comments that lost their place.
    last: String,
}

fn add<'d>(
    customer: &'d Doc<'_>,
    image: &Doc<'_>,
    places: &Places<'_>,
    wanted: &Wanted<'_>,
    comments: &Comments<'_>,
) -> Additions<'d> {
    let mut additions = Additions {
        behind: (0..=image.units.len()).map(|_| Vec::new()).collect(),
        ..Additions::default()
    };
    let mut finder = Finder::new(places, image.units.len());
    for unit in &customer.units {
        let fresh = comments.fresh(unit.lead);
        let is_heading = unit.kind == Kind::Heading;
        if unit.kind != Kind::Unknown
            && let Some(end) = places.end_of(unit)
        {
            finder.pass(unit, end);
            if wanted.takes(unit) && !is_heading {
                let texts = additions.instead.entry(&unit.key).or_default();
                texts.push(fresh + &unit.text);
            } else if comments.are_all_carried {
                *additions.before.entry((is_heading, &unit.key)).or_default() += &fresh;
            }
        } else if wanted.takes(unit) {
            let group = finder.place(unit, &mut additions.behind);
            let is_repeated = is_heading && !group.text.is_empty() && group.heading == unit.key;
            let gap = if unit.lead.starts_with(['\n', '\r']) {
                "\n"
            } else {
                ""
            };
            let own = if is_repeated { "" } else { &*unit.text };
            for part in [gap, &fresh, own] {
                end_line(&mut group.text);
                group.text += part;
            }
        } else if comments.are_all_carried {
            additions.last += &fresh;
        }
    }
    if comments.are_all_carried {
        additions.last += &comments.fresh(customer.tail);
    }
    additions
}

/// Finds places for what the image does not have.
struct Finder<'d, 'p> {
    places: &'p Places<'p>,
    end: usize,
    /// Where the last one before it went: within the same section, and apart for what
    /// begins a section and what does not.
    siblings: HashMap<(&'d [String], bool), usize>,
    /// The groups that new sections are in.
    sections: HashMap<&'d [String], (usize, usize)>,
}

impl<'d, 'p> Finder<'d, 'p> {
    fn new(places: &'p Places<'p>, end: usize) -> Finder<'d, 'p> {
        Finder {
            places,
            end,
            siblings: HashMap::new(),
            sections: HashMap::new(),
        }
    }

    /// Notes a unit that the image has, too.
    fn pass(&mut self, unit: &'d Unit<'_>, place: usize) {
        let sibling = (unit.parent(), begins_section(unit));
        self.siblings.insert(sibling, place);
    }

    /// Returns the group that a new unit belongs to.
    fn place<'a>(
        &mut self,
        unit: &'d Unit<'_>,
        behind: &'a mut [Vec<Group<'d>>],
    ) -> &'a mut Group<'d> {
        let is_heading = unit.kind == Kind::Heading;
        let repeated = self
            .sections
            .get(unit.key.as_slice())
            .filter(|_| is_heading);
        let found = repeated
            .or_else(|| self.sections.get(unit.parent()))
            .copied();
        let (place, index) = found.unwrap_or_else(|| {
            let sibling = (unit.parent(), begins_section(unit));
            let section = self.places.sections.get(unit.parent());
            let place = self.siblings.get(&sibling).or(section).copied();
            let place = place.unwrap_or(if sibling.1 { self.end } else { self.places.top });
            self.siblings.insert(sibling, place);
            behind[place].push(Group {
                level: unit.depth,
                heading: &unit.key,
                text: String::new(),
            });
            (place, behind[place].len() - 1)
        });
        if is_heading {
            self.sections.insert(&unit.key, (place, index));
        }
        &mut behind[place][index]
    }
}

fn write<'d>(image: &'d Doc<'_>, wanted: &Wanted<'_>, mut additions: Additions<'d>) -> String {
    let mut out = Out::like(image);
    out.put_all(std::mem::take(&mut additions.behind[0]));
    for (before, unit) in image.units.iter().enumerate() {
        out.keep(unit.lead);
        let name = (unit.kind == Kind::Heading, unit.key.as_slice());
        if unit.kind != Kind::Unknown
            && let Some(comments) = additions.before.remove(&name)
        {
            out.put(&comments);
        }
        let is_replaced = unit.kind == Kind::Entry && wanted.takes(unit);
        if is_replaced {
            let texts = additions.instead.remove(unit.key.as_slice());
            texts.iter().flatten().for_each(|text| out.put(text));
        } else if unit.kind != Kind::Heading || !wanted.removes(unit) {
            out.keep(&unit.text);
        }
        out.put_all(std::mem::take(&mut additions.behind[before + 1]));
    }
    out.keep(image.tail);
    out.put(&additions.last);
    out.finish()
}

fn end_line(text: &mut String) {
    if !text.is_empty() && !text.ends_with('\n') {
        *text += "\n";
    }
}

/// A text with the endings of lines that the image's has.
struct Out {
    text: String,
    ending: &'static str,
    ends_open: bool,
}

impl Out {
    fn like(image: &Doc<'_>) -> Out {
        let parts = image.units.iter().flat_map(|unit| [unit.lead, &unit.text]);
        let mut lines = parts.chain([image.tail]).filter(|part| !part.is_empty());
        let first = lines.next().unwrap_or("\n");
        let last = lines.next_back().unwrap_or(first);
        let is_crlf = first
            .split_inclusive('\n')
            .next()
            .is_some_and(|l| l.ends_with("\r\n"));
        Out {
            text: String::new(),
            ending: if is_crlf { "\r\n" } else { "\n" },
            ends_open: !last.ends_with('\n'),
        }
    }

    /// Adds text of the image's.
    fn keep(&mut self, text: &str) {
        if !text.is_empty() {
            self.end_line();
            self.text += text;
        }
    }

    /// Adds text of the customer's.
    fn put(&mut self, text: &str) {
        for line in text.lines() {
            self.end_line();
            self.text += line;
            self.text += self.ending;
        }
    }

    /// What is in more sections comes first: another section would end them.
    fn put_all(&mut self, mut groups: Vec<Group<'_>>) {
        groups.sort_by_key(|group| Reverse(group.level));
        groups.iter().for_each(|group| self.put(&group.text));
    }

    fn end_line(&mut self) {
        let begun = self.text.trim_start_matches('\u{feff}');
        if !begun.is_empty() && !begun.ends_with('\n') {
            self.text += self.ending;
        }
    }

    fn finish(mut self) -> String {
        if self.ends_open && self.text.ends_with(self.ending) {
            self.text.truncate(self.text.len() - self.ending.len());
        }
        self.text
    }
}
