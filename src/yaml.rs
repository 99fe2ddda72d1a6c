//! YAML from outside, bounded before its reader sees it.
//!
//! The reader takes the square of how deep brackets are nested and of how many
//! directives there are, about a hundred bytes for every token, and goes through
//! what has an anchor as often as it is referred to. What it says of a value it
//! did not expect quotes the value.

use std::fmt;

use anyhow::{Context, Result, ensure};
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

/// The most brackets and directives: nesting cannot be deeper.
const MAX_NESTING_MARKS: usize = 4096;
/// The most characters that may begin or end a token.
const MAX_MARKS: usize = 100_000;
/// The largest text with an anchor in it, in bytes.
const MAX_ANCHORED_BYTES: usize = 4096;

/// What a text holds as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Nothing, or nothing but comments.
    Empty,
    /// Names, each with a value.
    Mapping,
    /// Items.
    Sequence,
    /// A single value.
    Scalar,
}

/// Parses `text`.
///
/// # Errors
/// When it is no YAML, not what `T` wants, or would take its reader long.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    check(text)?;
    Ok(serde_yaml::from_str(text)?)
}

/// Tells what `text` holds, and quotes nothing of it.
///
/// # Errors
/// When it is no YAML, or would take its reader long.
pub fn shape(text: &str) -> Result<Shape> {
    // A key given by mistake.
    ensure!(
        !text.contains("PRIVATE KEY-----"),
        "it is a private key, where settings belong"
    );
    let shape: Option<Shape> = parse(text).context("it is not YAML")?;
    Ok(shape.unwrap_or(Shape::Empty))
}

fn check(text: &str) -> Result<()> {
    let (mut nesting, mut marks, mut last) = (0_usize, 0_usize, '\n');
    let mut is_anchored = false;
    for c in text.chars() {
        let begins_line = matches!(last, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
        let is_nesting = matches!(c, '[' | '{') || (c == '%' && begins_line);
        let is_mark = is_nesting || "]},:-?&*!\n\r\u{85}\u{2028}\u{2029}".contains(c);
        is_anchored |= last == '&' && !c.is_whitespace();
        nesting += usize::from(is_nesting);
        marks += usize::from(is_mark);
        // Within a word it stands for itself.
        let is_within = c == '&' && !(last.is_whitespace() || "[{,:-?!>\u{feff}".contains(last));
        last = if is_within { ' ' } else { c };
    }
    ensure!(
        nesting <= MAX_NESTING_MARKS && marks <= MAX_MARKS,
        "it has {nesting} brackets and {marks} marks, more than {MAX_NESTING_MARKS} or {MAX_MARKS}"
    );
    ensure!(
        !is_anchored || text.len() <= MAX_ANCHORED_BYTES,
        "it has anchors (&name) and more than {MAX_ANCHORED_BYTES} bytes"
    );
    Ok(())
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shape, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("anything")
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_u128<E: de::Error>(self, _: u128) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, _: A) -> Result<Shape, A::Error> {
        Ok(Shape::Scalar)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Shape::Sequence)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Shape, A::Error> {
        while pairs.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Shape::Mapping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_a_text_is_told() {
        for (text, expected) in [
            ("", Shape::Empty),
            ("# nothing\n", Shape::Empty),
            ("a: 1\nb: [x, *]\n", Shape::Mapping),
            ("- a\n", Shape::Sequence),
            ("some words", Shape::Scalar),
            ("1", Shape::Scalar),
            ("-1.5", Shape::Scalar),
            ("99999999999999999999999999", Shape::Scalar),
            ("true", Shape::Scalar),
        ] {
            let text = text.replace(", *", ", '*'");
            assert_eq!(shape(&text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_key_is_never_quoted() {
        for text in [
            "-----BEGIN PRIVATE KEY-----\nMC4CAQAw\n-----END PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMC4CAQAw: x\n",
        ] {
            let error = format!("{:#}", shape(text).unwrap_err());
            assert!(
                error.contains("a private key") && !error.contains("MC4C"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_would_take_the_reader_long_never_reaches_it() {
        for (text, word) in [
            ("[".repeat(100_000), "brackets"),
            ("a: {".repeat(100_000), "brackets"),
            ("%TAG !a! x\n".repeat(10_000), "brackets"),
            ("- ".repeat(200_000), "marks"),
            ("a: b\n".repeat(60_000), "marks"),
            (format!("a: &x [{}]\nb: *x", "x ".repeat(9000)), "anchors"),
            (format!("a: [&x {}]\nb: *x", "x ".repeat(9000)), "anchors"),
        ] {
            let error = parse::<IgnoredAny>(&text).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
        // None of these is an anchor.
        let fine = "# this & that, R&D, a?b=1&c=2\na: ['[a-z]*', \"x & y\"]\n".repeat(300);
        let fine = fine.replace("\na: ", "\n- ");
        parse::<IgnoredAny>(&fine).unwrap();
        parse::<IgnoredAny>("a: &x [1]\nb: *x\n").unwrap();
        // As deep as it may be, it ends.
        parse::<IgnoredAny>(&"[".repeat(MAX_NESTING_MARKS)).unwrap_err();
    }
}
