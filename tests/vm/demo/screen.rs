//! A command's output as a person sees it: a step of the program stays one
//! line, on which its progress moves where there is a terminal.

use std::io::{self, IsTerminal};

use crate::lab::tell::write;

/// Shows the output of one command.
pub struct Screen {
    is_terminal: bool,
    /// The line that is not ended yet, as a step begins with it.
    open: Option<String>,
}

impl Screen {
    pub fn new() -> Screen {
        Screen {
            is_terminal: io::stderr().is_terminal(),
            open: None,
        }
    }

    /// Shows one line of the output.
    pub fn show(&mut self, line: &str) {
        let text = self.add(line);
        write(format_args!("{text}"));
    }

    /// Ends the output.
    pub fn end(self) {
        if self.open.is_some() {
            write(format_args!("\n"));
        }
    }

    /// Returns what `line` adds to the screen.
    fn add(&mut self, line: &str) -> String {
        let same_step = |open: &String| line.strip_prefix(open.as_str());
        match self.open.as_ref().and_then(same_step) {
            Some(more) if more.starts_with(" (done in ") => {
                self.open = None;
                if self.is_terminal {
                    format!("\r\x1b[K{line}\n")
                } else {
                    format!("{more}\n")
                }
            }
            Some(more) if more.starts_with(": ") && more.contains(" MiB") => {
                if self.is_terminal {
                    format!("\r\x1b[K{line}")
                } else {
                    String::new()
                }
            }
            _ => {
                let end = if self.open.is_some() { "\n" } else { "" };
                self.open = Some(line.to_owned());
                format!("{end}{line}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: [&str; 5] = [
        "unpacking",
        "unpacking: 3 of 9 MiB (33 %), 3.0 MiB/s, 2 s left",
        "unpacking (done in 3.0 s)",
        "",
        "version 2: done",
    ];

    fn shown(is_terminal: bool) -> String {
        let mut screen = Screen {
            is_terminal,
            open: None,
        };
        OUTPUT.map(|line| screen.add(line)).concat()
    }

    #[test]
    fn a_step_becomes_one_line() {
        let wanted = "unpacking (done in 3.0 s)\n\nversion 2: done";
        assert_eq!(shown(false), wanted);
    }

    #[test]
    fn progress_moves_on_a_terminal() {
        let wanted = "unpacking\
            \r\x1b[Kunpacking: 3 of 9 MiB (33 %), 3.0 MiB/s, 2 s left\
            \r\x1b[Kunpacking (done in 3.0 s)\n\nversion 2: done";
        assert_eq!(shown(true), wanted);
    }
}
