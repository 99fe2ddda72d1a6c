//! What a person should know of a merge. No text holds a hash or a line.

use std::fmt;

use serde::Serialize;

use crate::tree::path;

/// The longest list of notes; hostile files would make it any length.
const MAX_NOTES: usize = 1000;

/// Why there is a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// An id is another in the target.
    Renumbered,
    /// Two names had one id in the old system, and have in the target.
    Shared,
    /// Deleted or locked by the customer, and so in the target.
    Revoked,
    /// Of the old system, and not in the target.
    LeftOut,
    /// A line that nobody can read, or that lies.
    Unreadable,
    /// The target cannot check the password.
    Hash,
    /// The target lacks the login shell.
    Shell,
    /// In both systems with other settings, without a way to tell whose count.
    Differs,
    /// New with the image, and not known to the old system.
    New,
    /// There are more notes than are kept.
    More,
}

/// One thing to know about an account, a group or a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Why it is here.
    pub reason: Reason,
    /// The name of the account, group or file, fit to be shown.
    pub name: String,
    /// What it is about the name, as in "user id 1000 becomes 1002".
    pub text: String,
}

impl Note {
    /// Makes a note about a name of any bytes.
    pub fn new(reason: Reason, name: &[u8], text: impl Into<String>) -> Note {
        Note {
            reason,
            name: path::show(name),
            text: text.into(),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.text)
    }
}

/// The notes of one merge, of bounded number.
#[derive(Debug, Default)]
pub struct Notes {
    kept: Vec<Note>,
    more: usize,
}

impl Notes {
    /// Adds one, or counts it where there are enough.
    pub fn add(&mut self, reason: Reason, name: &[u8], text: impl Into<String>) {
        self.push(Note::new(reason, name, text));
    }

    /// Likewise, for a note made elsewhere.
    pub fn push(&mut self, note: Note) {
        if self.kept.len() < MAX_NOTES {
            self.kept.push(note);
        } else {
            self.more += 1;
        }
    }

    /// Returns them, and as the last one how many there were besides.
    pub fn finish(mut self) -> Vec<Note> {
        if self.more > 0 {
            let text = format!("{} more notes are not shown", self.more);
            self.kept.push(Note::new(Reason::More, b"accounts", text));
        }
        self.kept
    }
}
