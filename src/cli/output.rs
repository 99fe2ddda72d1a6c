//! Results on stdout: text for people, JSON for programs.
//!
//! Whatever came from outside leaves here without control characters: a
//! version or a file's name must not steer the terminal. Colours are added
//! here alone, and only for a terminal.

use std::env;
use std::ffi::OsStr;
use std::io::{self, ErrorKind, IsTerminal, Write};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use serde::Serialize;

use crate::stderr::{self, printable, printable_json};

/// Prints text for a person.
///
/// # Errors
/// When it cannot be written; a reader that went away early is no error.
pub fn print(text: &str) -> Result<()> {
    print_raw(printable(text).as_bytes())
}

/// Tells a person of something that is done. That it cannot be written anywhere
/// undoes nothing, so it is no failure.
pub fn print_done(text: &str) {
    if let Err(error) = print(text) {
        stderr::say(&format!("warning: {}", printable(&format!("{error:#}"))));
    }
}

/// Prints `value` as JSON, for programs.
///
/// # Errors
/// As for [`print_raw`].
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("rendering JSON")?;
    print_raw(format!("{}\n", printable_json(&text)).as_bytes())
}

/// Prints exactly these bytes.
///
/// # Errors
/// When they cannot be written; a reader that went away early is no error.
pub fn print_raw(bytes: &[u8]) -> Result<()> {
    match io::stdout().lock().write_all(bytes) {
        Err(error) if !is_gone(&error) => Err(error).context("writing to standard output"),
        _ => Ok(()),
    }
}

/// Tells whether standard output has no reader any more: a pipe or, where the kernel
/// says EIO, a terminal that was closed.
fn is_gone(error: &io::Error) -> bool {
    let is_device = || {
        let stat = fstat(io::stdout());
        stat.is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode).contains(SFlag::S_IFCHR))
    };
    error.kind() == ErrorKind::BrokenPipe
        || error.raw_os_error() == Some(Errno::EIO as i32) && is_device()
}

/// What a word tells; a colour where there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    Plain,
    /// The answer.
    Strong,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// In the way.
    Bad,
}

impl Tone {
    /// Returns the parameter of ECMA-48's "select graphic rendition".
    fn code(self) -> Option<&'static str> {
        match self {
            Tone::Plain => None,
            Tone::Strong => Some("1"),
            Tone::Good => Some("32"),
            Tone::Warn => Some("33"),
            Tone::Bad => Some("31"),
        }
    }
}

/// A text for a person, made piece by piece.
pub struct Page {
    text: String,
    is_coloured: bool,
}

impl Page {
    /// Starts a page for stdout.
    pub fn of_stdout() -> Page {
        let variable = |name| env::var_os(name).unwrap_or_default();
        let is_wanted = wants_colours(&variable("NO_COLOR"), &variable("TERM"));
        Page {
            text: String::new(),
            is_coloured: is_on_terminal() && is_wanted,
        }
    }

    /// Adds a piece of a line.
    pub fn add(&mut self, tone: Tone, piece: &str) {
        let piece = printable(piece).replace('\n', " ");
        match tone.code() {
            Some(code) if self.is_coloured => {
                self.text += &format!("\x1b[{code}m{piece}\x1b[0m");
            }
            _ => self.text += &piece,
        }
    }

    /// Ends the line.
    pub fn end_line(&mut self) {
        self.text.push('\n');
    }

    /// Adds a whole line.
    pub fn line(&mut self, text: &str) {
        self.add(Tone::Plain, text);
        self.end_line();
    }

    /// Adds lines of cells, one below the other, two spaces apart.
    pub fn table<const N: usize>(&mut self, rows: &[[(Tone, String); N]]) {
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].1.chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: [usize; N] = std::array::from_fn(width);
        for row in rows {
            // Nothing follows the last cell that says something.
            let end = row.iter().rposition(|(_, text)| !text.is_empty());
            for (column, (tone, text)) in row.iter().enumerate() {
                self.add(*tone, text);
                if end.is_none_or(|end| column >= end) {
                    break;
                }
                let gap = widths[column] - text.chars().count() + 2;
                self.text.extend(std::iter::repeat_n(' ', gap));
            }
            self.end_line();
        }
    }

    /// Prints the page.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn print(self) -> Result<()> {
        print_raw(self.text.as_bytes())
    }
}

/// Tells whether a person sees stdout at once.
pub fn is_on_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Tells whether a terminal may get colours (no-color.org: any value but the
/// empty one says no).
fn wants_colours(no_color: &OsStr, term: &OsStr) -> bool {
    no_color.is_empty() && !term.is_empty() && term != "dumb"
}

#[cfg(test)]
impl Page {
    /// Starts a page that is no terminal's.
    pub fn plain() -> Page {
        Page {
            text: String::new(),
            is_coloured: false,
        }
    }

    /// Starts a page with colours.
    pub fn coloured() -> Page {
        Page {
            is_coloured: true,
            ..Page::plain()
        }
    }

    /// Returns what would be printed.
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_colours_steer_the_terminal() {
        let mut page = Page::coloured();
        page.add(Tone::Bad, "a\x1b[0m\nb");
        assert_eq!(page.text(), "\x1b[31ma?[0m b\x1b[0m");
    }

    #[test]
    fn colours_change_no_column() {
        let cell = |tone, text: &str| (tone, text.to_owned());
        let rows = [
            [
                cell(Tone::Plain, "slot"),
                cell(Tone::Plain, "state"),
                cell(Tone::Plain, ""),
            ],
            [
                cell(Tone::Strong, "root"),
                cell(Tone::Good, "good"),
                cell(Tone::Plain, "runs"),
            ],
        ];
        let mut plain = Page::plain();
        plain.table(&rows);
        assert_eq!(plain.text(), "slot  state\nroot  good   runs\n");
        let mut coloured = Page::coloured();
        coloured.table(&rows);
        assert_eq!(
            coloured.text(),
            "slot  state\n\x1b[1mroot\x1b[0m  \x1b[32mgood\x1b[0m   runs\n"
        );
    }

    #[test]
    fn colours_can_be_refused() {
        let wanted = |no_color: &str, term: &str| wants_colours(no_color.as_ref(), term.as_ref());
        assert!(wanted("", "linux"));
        assert!(!wanted("1", "linux"));
        assert!(!wanted("", "dumb"));
        assert!(!wanted("", ""));
    }
}
