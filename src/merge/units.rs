//! A text cut into settings with the comments before them, and put together again.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::choice::{Entries, Key};

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It sets a key.
    Entry,
    /// It begins a section.
    Heading,
    /// Nobody knows.
    Unknown,
}

/// Whole lines that belong together.
#[derive(Clone, Debug)]
pub struct Unit<'a> {
    /// The comments and empty lines before it.
    pub lead: &'a str,
    /// Its own lines.
    pub text: Cow<'a, str>,
    /// What it is.
    pub kind: Kind,
    /// The sections it is in and its own name.
    pub key: Key,
    /// How many parts of the key are sections.
    pub depth: usize,
    /// What the key is set to, without what makes no difference.
    pub value: String,
}

impl Unit<'_> {
    /// Returns the section it is in.
    pub fn parent(&self) -> &[String] {
        &self.key[..self.depth]
    }
}

/// A text in units: one after the other, and the tail, are the text.
#[derive(Debug, Default)]
pub struct Doc<'a> {
    /// The units in order.
    pub units: Vec<Unit<'a>>,
    /// The comments behind the last one.
    pub tail: &'a str,
}

impl Doc<'_> {
    /// Returns what the text sets.
    pub fn entries(&self) -> Entries {
        let mut entries = Entries::new();
        for unit in self.units.iter().filter(|unit| unit.kind == Kind::Entry) {
            let values = entries.entry(unit.key.clone()).or_default();
            values.push(unit.value.clone());
        }
        entries
    }

    /// Counts the lines that nobody knows the meaning of.
    pub fn unknown(&self) -> BTreeMap<&str, usize> {
        let mut unknown = BTreeMap::new();
        for unit in self.units.iter().filter(|u| u.kind == Kind::Unknown) {
            *unknown.entry(unit.text.trim()).or_default() += 1;
        }
        unknown.remove("");
        unknown
    }
}

/// Cuts a text into units, line by line.
pub struct Cutter<'a> {
    text: &'a str,
    lead: usize,
    at: usize,
    units: Vec<Unit<'a>>,
}

impl<'a> Cutter<'a> {
    /// Begins at the first line; a byte order mark stays with what is before it.
    pub fn new(text: &'a str) -> Cutter<'a> {
        let at = if text.starts_with('\u{feff}') { 3 } else { 0 };
        Cutter {
            text,
            lead: 0,
            at,
            units: Vec::new(),
        }
    }

    /// Returns the next line with its ending.
    pub fn line(&self) -> Option<&'a str> {
        self.lines_after("").next()
    }

    /// Returns the lines behind `taken`, which is the text that comes next.
    pub fn lines_after(&self, taken: &str) -> std::str::SplitInclusive<'a, char> {
        self.text[self.at + taken.len()..].split_inclusive('\n')
    }

    /// Returns the next `bytes` of the text.
    pub fn ahead(&self, bytes: usize) -> &'a str {
        &self.text[self.at..self.at + bytes]
    }

    /// Leaves a line to what comes behind it.
    pub fn skip(&mut self, line: &str) {
        self.at += line.len();
    }

    /// Makes a unit of `text`, which comes next.
    pub fn take(&mut self, text: &'a str, kind: Kind, key: Key, depth: usize, value: String) {
        self.units.push(Unit {
            lead: &self.text[self.lead..self.at],
            text: Cow::Borrowed(text),
            kind,
            key,
            depth,
            value,
        });
        self.at += text.len();
        self.lead = self.at;
    }

    /// Makes a unit of a line with no known meaning.
    pub fn take_unknown(&mut self, line: &'a str) {
        self.take(line, Kind::Unknown, Key::new(), 0, String::new());
    }

    /// Returns what was cut.
    pub fn finish(self) -> Doc<'a> {
        Doc {
            units: self.units,
            tail: &self.text[self.lead..],
        }
    }
}

/// Tells whether a line is empty or begins, behind blanks, with one of `marks`.
pub fn is_comment(line: &str, marks: &[char]) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with(marks)
}

/// Puts one blank between words, unless there are quotes.
pub fn squeezed(value: &str) -> String {
    if value.contains(['"', '\'']) {
        return value.trim().to_owned();
    }
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}
