//! LVM's metadata language: sections of `name = value`, where a value is a
//! number, a string or a list.

use anyhow::{Context, Result, bail, ensure};

/// Deeper nesting than metadata have.
const MAX_DEPTH: usize = 8;

/// Everything between two braces, in order.
#[derive(Debug, Default)]
pub struct Section {
    entries: Vec<(String, Entry)>,
}

#[derive(Debug)]
enum Entry {
    Value(Value),
    Section(Section),
}

#[derive(Debug)]
enum Value {
    Integer(i64),
    String(String),
    List(Vec<Value>),
}

impl Section {
    /// Lists the sections in this one.
    pub fn sections(&self) -> impl Iterator<Item = (&str, &Section)> {
        self.entries.iter().filter_map(|(name, entry)| match entry {
            Entry::Section(section) => Some((name.as_str(), section)),
            Entry::Value(_) => None,
        })
    }

    /// Returns the section `name`.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections()
            .find(|(found, _)| *found == name)
            .map(|(_, section)| section)
    }

    /// Takes the section `name` out.
    pub fn take_section(&mut self, name: &str) -> Option<Section> {
        let at = self
            .entries
            .iter()
            .position(|(found, entry)| found == name && matches!(entry, Entry::Section(_)))?;
        match self.entries.swap_remove(at).1 {
            Entry::Section(section) => Some(section),
            Entry::Value(_) => None,
        }
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.entries.iter().find_map(|(found, entry)| match entry {
            Entry::Value(value) if found == name => Some(value),
            _ => None,
        })
    }

    /// Returns the number `name`.
    pub fn integer(&self, name: &str) -> Result<i64> {
        match self.value(name) {
            Some(Value::Integer(number)) => Ok(*number),
            _ => bail!("{name} is not given as a number"),
        }
    }

    /// Returns the string `name`.
    pub fn string(&self, name: &str) -> Result<&str> {
        match self.value(name) {
            Some(Value::String(text)) => Ok(text),
            _ => bail!("{name} is not given as a string"),
        }
    }

    /// Returns the strings in the list `name`; empty when there is none.
    pub fn list(&self, name: &str) -> Vec<&str> {
        match self.value(name) {
            Some(Value::List(values)) => values
                .iter()
                .filter_map(|value| match value {
                    Value::String(text) => Some(text.as_str()),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Returns the list `name` of one string and one number.
    pub fn pair(&self, name: &str) -> Result<(&str, i64)> {
        match self.value(name) {
            Some(Value::List(values)) => match values.as_slice() {
                [Value::String(text), Value::Integer(number)] => Ok((text, *number)),
                _ => bail!("{name} is not a string and a number"),
            },
            _ => bail!("{name} is not given as a list"),
        }
    }
}

/// Parses a whole text.
pub fn parse(text: &str) -> Result<Section> {
    let mut parser = Parser { rest: text };
    let section = parser.section(0)?;
    ensure!(parser.rest.is_empty(), "a `}}` too many");
    Ok(section)
}

struct Parser<'t> {
    rest: &'t str,
}

impl<'t> Parser<'t> {
    /// Parses entries up to a closing brace or the end.
    fn section(&mut self, depth: usize) -> Result<Section> {
        ensure!(depth <= MAX_DEPTH, "sections nested too deeply");
        let mut section = Section::default();
        loop {
            self.skip_space();
            if self.rest.is_empty() || self.rest.starts_with('}') {
                return Ok(section);
            }
            let name = self.word()?.to_owned();
            self.skip_space();
            let entry = if self.eat('{') {
                let inner = self.section(depth + 1)?;
                ensure!(self.eat('}'), "section {name} does not end");
                Entry::Section(inner)
            } else {
                ensure!(self.eat('='), "neither `=` nor `{{` after {name}");
                Entry::Value(self.value(depth)?)
            };
            section.entries.push((name, entry));
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        ensure!(depth <= MAX_DEPTH, "lists nested too deeply");
        self.skip_space();
        if self.eat('"') {
            return self.string().map(Value::String);
        }
        if !self.eat('[') {
            let word = self.word()?;
            return match word.parse() {
                Ok(number) => Ok(Value::Integer(number)),
                Err(_) => Ok(Value::String(word.to_owned())),
            };
        }
        let mut list = Vec::new();
        loop {
            self.skip_space();
            if self.eat(']') {
                return Ok(Value::List(list));
            }
            if !self.eat(',') {
                list.push(self.value(depth + 1)?);
            }
        }
    }

    fn string(&mut self) -> Result<String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                '\\' => text.push(chars.next().context("a string does not end")?.1),
                _ => text.push(c),
            }
        }
        bail!("a string does not end")
    }

    fn word(&mut self) -> Result<&'t str> {
        let end = self
            .rest
            .find(|c: char| c.is_whitespace() || "={}[],\"#".contains(c))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        ensure!(!word.is_empty(), "a name or value is missing");
        // Names end up in messages, and on terminals.
        ensure!(
            word.bytes().all(|byte| byte.is_ascii_graphic()),
            "{word:?} is not a name LVM allows"
        );
        self.rest = rest;
        Ok(word)
    }

    fn eat(&mut self, c: char) -> bool {
        let rest = self.rest.strip_prefix(c);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Skips space and comments, which go from `#` to the end of a line.
    fn skip_space(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            if !self.rest.starts_with('#') {
                return;
            }
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            self.rest = &self.rest[end..];
        }
    }
}
