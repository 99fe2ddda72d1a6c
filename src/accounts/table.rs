//! passwd(5), shadow(5), group(5), gshadow(5), subuid(5) and subgid(5) as lines
//! and records. What is not changed is rendered byte for byte as it was.

use std::collections::{HashMap, HashSet};

use anyhow::Result;

use crate::refuse;

/// The name of an account or a group, of any bytes that are fit for one.
pub type Name = Vec<u8>;

const MAX_LINES: usize = 1 << 16;
/// `LOGIN_NAME_MAX` of Linux.
const MAX_NAME_BYTES: usize = 256;
/// Lines without lists of members; shadow(3) of old glibc reads no longer ones.
const MAX_LINE_BYTES: usize = 8 << 10;
const MAX_GROUP_LINE_BYTES: usize = 2 << 20;

/// Which of the six files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Name, password, uid, gid, description, home, shell.
    Passwd,
    /// Name, hash, seven fields of ageing.
    Shadow,
    /// Name, password, gid, members.
    Group,
    /// Name, hash, administrators, members.
    Gshadow,
    /// Name, first id, how many; several lines for a name.
    Subids,
}

/// The place of a field in its record.
pub mod field {
    /// The name, in all files.
    pub const NAME: usize = 0;
    /// The password or its place holder, in all files but subuid and subgid.
    pub const PASSWORD: usize = 1;
    /// The uid in passwd, the gid in group.
    pub const ID: usize = 2;
    /// The primary group in passwd.
    pub const GID: usize = 3;
    /// The description in passwd.
    pub const GECOS: usize = 4;
    /// The home in passwd.
    pub const HOME: usize = 5;
    /// The shell in passwd.
    pub const SHELL: usize = 6;
    /// The administrators in gshadow.
    pub const ADMINS: usize = 2;
    /// The members in group and gshadow.
    pub const MEMBERS: usize = 3;
    /// The first id in subuid and subgid.
    pub const START: usize = 1;
    /// How many ids in subuid and subgid.
    pub const COUNT: usize = 2;
}

/// The fields of a line.
pub type Record = Vec<Vec<u8>>;

#[derive(Clone, Debug)]
enum Line {
    Record(Record),
    /// An order to ask NIS, `+` or `-` with or without a name.
    Nis(Vec<u8>),
    /// A comment, an empty line, or what nobody can read.
    Other(Vec<u8>),
}

/// One of the files.
#[derive(Clone, Debug)]
pub struct Table {
    format: Format,
    lines: Vec<Line>,
    ends_in_newline: bool,
    /// The first record of each name, which is the one that counts.
    index: HashMap<Name, usize>,
    /// Names that stand on lines nobody can read.
    unreadable: HashSet<Name>,
    /// The numbers of such lines, and of records whose name came before.
    dropped: Vec<usize>,
}

impl Table {
    /// Parses a file.
    ///
    /// # Errors
    /// Class `Refused` when it has more than 65,536 lines.
    pub fn parse(format: Format, text: &[u8]) -> Result<Table> {
        let ends_in_newline = text.is_empty() || text.ends_with(b"\n");
        let body = text.strip_suffix(b"\n").unwrap_or(text);
        let mut table = Table {
            format,
            lines: Vec::new(),
            ends_in_newline,
            index: HashMap::new(),
            unreadable: HashSet::new(),
            dropped: Vec::new(),
        };
        if text.is_empty() {
            return Ok(table);
        }
        for (at, line) in body.split(|byte| *byte == b'\n').enumerate() {
            if at == MAX_LINES {
                refuse!("it has more than {MAX_LINES} lines");
            }
            let line = parse_line(format, line);
            if let Line::Other(text) = &line
                && !is_silent(text)
            {
                table.dropped.push(at + 1);
                table.unreadable.insert(first_word(text));
            }
            if let Line::Record(record) = &line
                && format != Format::Subids
                && table.index.contains_key(&record[field::NAME])
            {
                table.dropped.push(at + 1);
            }
            table.lines.push(line);
            table.index_line(at);
        }
        Ok(table)
    }

    /// Renders the file.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for line in &self.lines {
            match line {
                Line::Record(fields) => text.extend(fields.join(&b':')),
                Line::Nis(line) | Line::Other(line) => text.extend(line),
            }
            text.push(b'\n');
        }
        if !self.ends_in_newline {
            text.pop();
        }
        text
    }

    /// Returns the record of a name that counts.
    pub fn get(&self, name: &[u8]) -> Option<&Record> {
        match self.lines.get(*self.index.get(name)?)? {
            Line::Record(record) => Some(record),
            Line::Nis(_) | Line::Other(_) => None,
        }
    }

    /// Likewise, to be changed; the name must stay.
    pub fn get_mut(&mut self, name: &[u8]) -> Option<&mut Record> {
        match self.lines.get_mut(*self.index.get(name)?)? {
            Line::Record(record) => Some(record),
            Line::Nis(_) | Line::Other(_) => None,
        }
    }

    /// Lists the records that count, in the order of the file: the first of
    /// each name, in subuid and subgid all.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.lines
            .iter()
            .enumerate()
            .filter_map(|(at, line)| match line {
                Line::Record(record) => {
                    let counts = self.format == Format::Subids
                        || self.index.get(&record[field::NAME]) == Some(&at);
                    counts.then_some(record)
                }
                Line::Nis(_) | Line::Other(_) => None,
            })
    }

    /// Lists every record, also those that do not count.
    pub fn all_records(&self) -> impl Iterator<Item = &Record> {
        self.lines.iter().filter_map(|line| match line {
            Line::Record(record) => Some(record),
            Line::Nis(_) | Line::Other(_) => None,
        })
    }

    /// Lists the ids on lines that are no records here: other readers may be
    /// less strict.
    pub fn hidden_ids(&self) -> impl Iterator<Item = u32> {
        self.lines.iter().filter_map(|line| match line {
            Line::Other(line) => number(line.split(|byte| *byte == b':').nth(field::ID)?),
            Line::Record(_) | Line::Nis(_) => None,
        })
    }

    /// Lists the orders to ask NIS.
    pub fn nis(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().filter_map(|line| match line {
            Line::Nis(line) => Some(line.as_slice()),
            Line::Record(_) | Line::Other(_) => None,
        })
    }

    /// Tells whether a name stands on a line that nobody can read.
    pub fn is_unreadable(&self, name: &[u8]) -> bool {
        self.unreadable.contains(name)
    }

    /// Lists the numbers of lines that do not count, though they ought to.
    pub fn dropped(&self) -> &[usize] {
        &self.dropped
    }

    /// Adds records behind all others; readers stop at an order to ask NIS.
    pub fn extend(&mut self, records: Vec<Record>) {
        if records.is_empty() {
            return;
        }
        let is_nis = |line: &Line| matches!(line, Line::Nis(_));
        let at = self.lines.iter().position(is_nis);
        let at = at.unwrap_or(self.lines.len());
        let records = records.into_iter().map(Line::Record);
        self.lines.splice(at..at, records);
        self.changed();
    }

    /// Takes all records of some names out.
    pub fn remove(&mut self, is_gone: impl Fn(&Name) -> bool) {
        let before = self.lines.len();
        self.lines.retain(|line| match line {
            Line::Record(record) => !is_gone(&record[field::NAME]),
            Line::Nis(_) | Line::Other(_) => true,
        });
        if self.lines.len() != before {
            self.changed();
        }
    }

    /// Puts `records` in the place of the first record of `name`, or behind all
    /// others, and takes the other ones out.
    pub fn replace_all(&mut self, wanted: &[(Name, Vec<Record>)]) {
        let mut of: HashMap<&Name, &Vec<Record>> = wanted.iter().map(|(n, r)| (n, r)).collect();
        let names: HashSet<&Name> = of.keys().copied().collect();
        let mut lines = Vec::new();
        for line in std::mem::take(&mut self.lines) {
            match line {
                Line::Record(record) if names.contains(&record[field::NAME]) => {
                    let records = of.remove(&record[field::NAME]);
                    lines.extend(records.into_iter().flatten().cloned().map(Line::Record));
                }
                other => lines.push(other),
            }
        }
        self.lines = lines;
        self.changed();
        let behind = wanted.iter().filter(|(name, _)| of.contains_key(name));
        self.extend(behind.flat_map(|(_, records)| records.clone()).collect());
    }

    /// Adds and takes out orders to ask NIS.
    pub fn change_nis(&mut self, added: &[&[u8]], removed: &HashSet<&[u8]>) {
        let before = self.lines.len();
        self.lines
            .retain(|line| !matches!(line, Line::Nis(text) if removed.contains(text.as_slice())));
        if added.is_empty() && self.lines.len() == before {
            return;
        }
        let added = added.iter().map(|line| Line::Nis(line.to_vec()));
        self.lines.extend(added);
        self.changed();
    }

    /// A line may have come or gone anywhere.
    fn changed(&mut self) {
        self.ends_in_newline = true;
        self.index.clear();
        for at in 0..self.lines.len() {
            self.index_line(at);
        }
    }

    fn index_line(&mut self, at: usize) {
        if let Line::Record(record) = &self.lines[at] {
            let name = record[field::NAME].clone();
            self.index.entry(name).or_insert(at);
        }
    }
}

fn is_silent(line: &[u8]) -> bool {
    line.trim_ascii().is_empty() || line.trim_ascii_start().starts_with(b"#")
}

fn first_word(line: &[u8]) -> Name {
    let word = line.split(|byte| *byte == b':').next().unwrap_or_default();
    word.trim_ascii().to_vec()
}

fn parse_line(format: Format, line: &[u8]) -> Line {
    let limit = match format {
        Format::Group | Format::Gshadow => MAX_GROUP_LINE_BYTES,
        Format::Passwd | Format::Shadow | Format::Subids => MAX_LINE_BYTES,
    };
    let is_clean = line.len() <= limit && !line.iter().any(u8::is_ascii_control);
    if !is_clean || is_silent(line) {
        return Line::Other(line.to_vec());
    }
    if line.starts_with(b"+") || line.starts_with(b"-") {
        return Line::Nis(line.to_vec());
    }
    let fields: Record = line
        .split(|byte| *byte == b':')
        .map(<[u8]>::to_vec)
        .collect();
    if is_record(format, &fields) {
        Line::Record(fields)
    } else {
        Line::Other(line.to_vec())
    }
}

fn is_record(format: Format, fields: &[Vec<u8>]) -> bool {
    let is_number = |at: usize| number(&fields[at]).is_some();
    match format {
        _ if !fields.first().is_some_and(|name| is_name(name)) => false,
        Format::Passwd => fields.len() == 7 && is_number(field::ID) && is_number(field::GID),
        Format::Shadow => {
            fields.len() == 9 && is_hash(&fields[1]) && fields[2..].iter().all(|days| is_days(days))
        }
        Format::Group => fields.len() == 4 && is_number(field::ID),
        Format::Gshadow => fields.len() == 4 && is_hash(&fields[1]),
        Format::Subids => fields.len() == 3 && is_number(field::START) && is_number(field::COUNT),
    }
}

/// Tells whether all readers take this for one name: no separators, no blanks,
/// nothing that begins an order or a comment.
pub fn is_name(name: &[u8]) -> bool {
    let is_odd = |byte: &u8| byte.is_ascii_control() || b" :,/#".contains(byte);
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && !name.iter().any(is_odd)
        && !matches!(name[0], b'+' | b'-')
}

/// Hashes are printable; crypt(3) takes nothing else.
fn is_hash(hash: &[u8]) -> bool {
    hash.iter().all(u8::is_ascii_graphic)
}

fn is_days(days: &[u8]) -> bool {
    let digits = days.strip_prefix(b"-").unwrap_or(days);
    days.is_empty()
        || (!digits.is_empty() && digits.len() <= 10 && digits.iter().all(u8::is_ascii_digit))
}

/// Reads an id; the last one stands for none.
pub fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 10 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value: u32 = str::from_utf8(text).ok()?.parse().ok()?;
    (value != u32::MAX).then_some(value)
}

/// Reads a list of members.
pub fn list(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    field
        .split(|byte| *byte == b',')
        .filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_rendered_as_it_was() {
        for text in [
            "",
            "\n",
            "\n\n",
            "root:x:0:0::/root:/bin/sh",
            "#x\n\nroot:x:00:0::/root:/bin/sh\nbad line\n+::::::\nroot:x:1:1:::\n",
        ] {
            let table = Table::parse(Format::Passwd, text.as_bytes()).unwrap();
            assert_eq!(table.render(), text.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn the_first_record_counts_and_what_lies_is_none() {
        let text = "joe:x:5:5::/:/bin/sh\njoe:x:0:0::/:/bin/sh\n ann:x:1:1::/:/bin/sh\n\
                    eve:x:1:1::/:/bin/sh:root\nmax:x:1:1::/:/bin/sh\r\nbob:x:-1:1:::\n\
                    tim:x:4294967295:1:::\nsue:x:4294967296:1:::\na,b:x:1:1:::\n# eve\n";
        let table = Table::parse(Format::Passwd, text.as_bytes()).unwrap();
        let names: Vec<_> = table.records().map(|r| r[0].as_slice()).collect();
        assert_eq!(names, [b"joe"]);
        assert_eq!(table.get(b"joe").unwrap()[2], b"5");
        assert_eq!(table.dropped(), [2, 3, 4, 5, 6, 7, 8, 9]);
        assert!(table.is_unreadable(b"eve"));
        assert!(table.is_unreadable(b"ann"));
        assert!(!table.is_unreadable(b"joe"));
    }

    #[test]
    fn records_come_before_orders_to_ask_nis() {
        let mut table = Table::parse(Format::Passwd, b"a:x:1:1:::\n+::::::").unwrap();
        let record =
            |text: &[u8]| -> Record { text.split(|b| *b == b':').map(<[u8]>::to_vec).collect() };
        table.extend(vec![record(b"b:x:2:2:::")]);
        assert_eq!(table.render(), b"a:x:1:1:::\nb:x:2:2:::\n+::::::\n");
        assert!(table.get(b"b").is_some());
    }

    #[test]
    fn what_has_nothing_to_lose_stays_as_it_was() {
        let text = b"a:x:1:1:::\n-eve";
        let mut table = Table::parse(Format::Passwd, text).unwrap();
        table.remove(|name| name == b"b");
        table.change_nis(&[], &HashSet::from([b"+".as_slice()]));
        table.extend(Vec::new());
        assert_eq!(table.render(), text);
        table.change_nis(&[], &HashSet::from([b"-eve".as_slice()]));
        assert_eq!(table.render(), b"a:x:1:1:::\n");
    }

    #[test]
    fn too_many_lines_are_refused() {
        assert!(Table::parse(Format::Group, &b"\n".repeat(MAX_LINES)).is_ok());
        assert!(Table::parse(Format::Group, &b"\n".repeat(MAX_LINES + 1)).is_err());
    }
}
