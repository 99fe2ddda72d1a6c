//! Merges key by key, and hands out nothing that says anything else than was decided.

use super::choice::{Choices, Entries, Only, choose};
use super::edit::edit;
use super::units::Doc;
use super::{Format, Merged, Texts, hosts, ini, json, key_value, key_word, lines, yaml};

/// Returns the image's text with the customer's settings; none where they cannot be
/// told apart.
pub fn merge(format: Format, texts: &Texts<'_>, only: &[String]) -> Option<Merged> {
    let only = Only::new(only, |name| canonical(format, name));
    let mut customer = parse(format, texts.customer);
    let image = parse(format, texts.image);
    let pristine = texts.pristine.map(|text| parse(format, text));
    let image_entries = entries(format, texts.image, &image)?;
    let mut pristine_entries = match (texts.pristine, &pristine) {
        (Some(text), Some(doc)) => Some(entries(format, text, doc)?),
        _ => None,
    };
    if format == Format::Hosts && only.is_all() {
        hosts::join(pristine_entries.as_mut(), &mut customer, &image_entries);
    }
    let customer_entries = entries(format, texts.customer, &customer)?;
    let choices = choose(
        pristine_entries.as_ref(),
        &customer_entries,
        &image_entries,
        &only,
    );
    if !only.is_all() && choices.customer.is_empty() {
        return Some(Merged::clean(texts.image));
    }
    let is_as_decided = |text: &String| {
        entries(format, text, &parse(format, text)).as_ref() == Some(&choices.expected)
    };
    let by_line = || lines::merge(texts).filter(is_as_decided);
    let by_key = || {
        if only.is_all() && changes_unknown(pristine.as_ref(), &customer, &image) {
            return None;
        }
        let text = match format {
            Format::Json => json::edit(texts, &choices)?,
            _ => edit(pristine.as_ref(), &customer, &image, &choices, &only),
        };
        Some(text).filter(is_as_decided)
    };
    let text = if only.is_all() {
        by_line().or_else(by_key)
    } else {
        by_key()
    };
    text.map(|text| into_merged(text, choices))
}

fn into_merged(text: String, choices: Choices) -> Merged {
    Merged {
        content: text.into_bytes(),
        conflicts: choices.conflicts,
    }
}

fn parse(format: Format, text: &str) -> Doc<'_> {
    match format {
        Format::KeyValue => key_value::parse(text),
        Format::KeyWord => key_word::parse(text),
        Format::Ini => ini::parse(text),
        Format::Yaml => yaml::parse(text),
        Format::Hosts => hosts::parse(text),
        Format::Json | Format::Sudoers | Format::Lines => Doc::default(),
    }
}

/// Returns what a text sets, for formats of a grammar by a real parser.
fn entries(format: Format, text: &str, doc: &Doc<'_>) -> Option<Entries> {
    match format {
        Format::Yaml => yaml::entries(text),
        Format::Json => json::entries(text),
        _ => Some(doc.entries()),
    }
}

/// Puts a name in a rule as the format has its keys.
fn canonical(format: Format, name: &str) -> String {
    match format {
        Format::KeyValue => key_value::canonical(name),
        Format::KeyWord => key_word::canonical(name),
        Format::Hosts => name.to_ascii_lowercase(),
        _ => name.to_owned(),
    }
}

/// Tells whether the customer changed lines that nobody knows the meaning of.
fn changes_unknown(pristine: Option<&Doc<'_>>, customer: &Doc<'_>, image: &Doc<'_>) -> bool {
    let theirs = customer.unknown();
    theirs != image.unknown() && pristine.is_none_or(|doc| doc.unknown() != theirs)
}
