//! XML as a tree of elements, bounded in size and depth; prefixes are left out.

use anyhow::{Context, Result, bail, ensure};
use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};

/// Deeper nesting than a description has.
const MAX_DEPTH: usize = 32;
/// More attributes than an element has; each is compared with those before it.
const MAX_ATTRIBUTES: usize = 256;
/// More elements than a description has.
const MAX_ELEMENTS: usize = 100_000;

/// One element.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    children: Vec<Element>,
    text: String,
}

impl Element {
    /// Returns the value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Lists the elements of this name directly in this one.
    pub fn children<'e>(&'e self, name: &'e str) -> impl Iterator<Item = &'e Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// Returns the text in the first element of this name.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        let child = self.children.iter().find(|child| child.name == name)?;
        Some(child.text.trim())
    }

    /// Lists the elements of this name at any depth below this one.
    pub fn descendants<'e>(&'e self, name: &str) -> Vec<&'e Element> {
        let mut found = Vec::new();
        for child in &self.children {
            if child.name == name {
                found.push(child);
            }
            found.extend(child.descendants(name));
        }
        found
    }
}

/// Parses a whole document and returns its outermost element.
pub fn parse(text: &str) -> Result<Element> {
    let mut reader = Reader::from_str(text);
    // The first holds what is outside of all elements.
    let mut open = vec![Element::default()];
    let mut count = 0;
    loop {
        let event = reader.read_event();
        let event = event.with_context(|| format!("at byte {}", reader.error_position()))?;
        if matches!(event, Event::Start(_) | Event::Empty(_)) {
            count += 1;
            ensure!(count <= MAX_ELEMENTS, "more than {MAX_ELEMENTS} elements");
        }
        match event {
            Event::Start(start) => {
                ensure!(open.len() <= MAX_DEPTH, "elements nested too deeply");
                open.push(element(&start)?);
            }
            Event::Empty(start) => add(&mut open, element(&start)?)?,
            Event::End(_) => {
                let closed = open.pop().context("an element ends that never began")?;
                add(&mut open, closed)?;
            }
            Event::Text(piece) => add_text(&mut open, &piece.into_inner()),
            Event::CData(piece) => add_text(&mut open, &piece.into_inner()),
            Event::GeneralRef(reference) => {
                let name: &str = &reference;
                match (
                    reference.resolve_char_ref()?,
                    resolve_predefined_entity(name),
                ) {
                    (Some(letter), _) => add_text(&mut open, letter.encode_utf8(&mut [0; 4])),
                    (None, Some(text)) => add_text(&mut open, text),
                    (None, None) => bail!("the unknown entity &{name};"),
                }
            }
            Event::DocType(_) => bail!("a document type, which no description has"),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
            Event::Eof => break,
        }
    }
    ensure!(open.len() == 1, "it ends within an element");
    let outside = open.pop().context("no element")?;
    outside.children.into_iter().next().context("no element")
}

fn element(start: &BytesStart<'_>) -> Result<Element> {
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        ensure!(
            attributes.len() < MAX_ATTRIBUTES,
            "an element with more than {MAX_ATTRIBUTES} attributes"
        );
        let attribute = attribute.context("an attribute")?;
        let name = attribute.key.local_name().as_ref().to_owned();
        let value = attribute.normalized_value(XmlVersion::Implicit1_0)?;
        attributes.push((name, value.into_owned()));
    }
    Ok(Element {
        name: start.local_name().as_ref().to_owned(),
        attributes,
        ..Element::default()
    })
}

fn add(open: &mut [Element], element: Element) -> Result<()> {
    let parent = open
        .last_mut()
        .context("an element ends that never began")?;
    parent.children.push(element);
    Ok(())
}

fn add_text(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_references_and_cdata_are_undone() {
        let text = "<?xml version='1.0'?><!-- x --><o:A xmlns:o='u'><B o:id='1&amp;2'/>\
                    <r:C> a&lt;<![CDATA[<b>]]>&#65; </r:C><D><B id='3'/></D></o:A>";
        let top = parse(text).unwrap();
        let ids: Vec<_> = top
            .descendants("B")
            .iter()
            .map(|b| b.attribute("id").unwrap())
            .collect();
        assert_eq!(ids, ["1&2", "3"]);
        assert_eq!(top.text_of("C"), Some("a<<b>A"));
    }

    #[test]
    fn hostile_documents_are_errors() {
        let deep = "<a>".repeat(100_000);
        let many = format!("<a>{}</a>", "<b/>".repeat(MAX_ELEMENTS + 1));
        for (text, word) in [
            (deep.as_str(), "too deeply"),
            (many.as_str(), "more than"),
            ("<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", "document type"),
            ("<a>&x;</a>", "unknown entity"),
            ("<a>", "ends within"),
            ("<a></b>", "at byte"),
            ("", "no element"),
            ("</a>", "at byte"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }
}
