//! Messages on standard error, which may have no reader.
//!
//! `eprintln!` panics where the reader went away: a log collector that was
//! restarted must not end an upgrade half-way.
//!
//! Whatever came from outside leaves here without control characters: a
//! version or a file's name must not steer the terminal.

use std::io::{self, Write};

use serde::Serialize;

/// Writes a line; that nobody can read it is no reason to stop.
pub fn say(line: &str) {
    write(&format!("{}\n", printable(line)));
}

/// Writes `value` as a line of JSON, for programs.
pub fn say_json(value: &impl Serialize) {
    // What is said has no maps with odd keys; nothing else can fail.
    if let Ok(text) = serde_json::to_string(value) {
        write(&format!("{}\n", printable_json(&text)));
    }
}

/// Writes `question`, and leaves the rest of the line to the answer.
pub fn ask(question: &str) {
    write(&printable(question));
}

fn write(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Replaces every control character that is not the end of a line, and those
/// that turn the direction of writing or are a line's end for some.
pub fn printable(text: &str) -> String {
    let replace = |c| match c {
        '\n' => c,
        c if steers(c) => '?',
        c => c,
    };
    text.chars().map(replace).collect()
}

/// Escapes the same in JSON, where they stand in strings alone: JSON itself only
/// escapes those of ASCII, and not the last of them (RFC 8259).
pub fn printable_json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => escaped.push(c),
            c if steers(c) => escaped += &format!("\\u{:04x}", u32::from(c)),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Tells whether a terminal obeys a character instead of showing it (C0, C1, and
/// the marks of Unicode's bidirectional algorithm, UAX 9).
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, proptest};

    #[test]
    fn what_comes_from_outside_cannot_steer_the_terminal() {
        assert_eq!(
            printable("9.4\x1b[2J\r\u{9b}1m\t\u{202e}x\ny äß\u{2028}"),
            "9.4?[2J??1m??x\ny äß?"
        );
        let value = serde_json::json!({ "a": "\x7f\u{9b}\u{202e}ä\n" });
        let text = printable_json(&value.to_string());
        assert_eq!(text, r#"{"a":"\u007f\u009b\u202eä\n"}"#);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }

    proptest! {
        #[test]
        fn no_text_leaves_with_a_control_character(text in any::<String>()) {
            assert!(!printable(&text).replace('\n', "").contains(steers));
            let json = serde_json::to_string_pretty(&[&text]).unwrap();
            let escaped = printable_json(&json);
            assert!(!escaped.replace('\n', "").contains(steers));
            assert_eq!(serde_json::from_str::<Vec<String>>(&escaped).unwrap(), [text]);
        }
    }
}
