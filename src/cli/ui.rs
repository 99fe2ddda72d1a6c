//! Progress for people and programs, on stderr.

use std::io::{self, BufRead, IsTerminal};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use nix::errno::Errno;
use nix::unistd::isatty;
use serde::Serialize;
use serde_json::Value;

use crate::progress::{Note, Progress, Step};
use crate::stderr::{ask, printable, say, say_json};

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// A bar on a terminal, plain lines elsewhere
    Auto,
    /// A bar
    Bar,
    /// Lines: one per step, and one each tenth or half minute of it
    Plain,
    /// JSON Lines
    Json,
    /// Nothing
    None,
}

/// Shows progress in the chosen way.
pub struct Ui {
    mode: ProgressMode,
    state: Mutex<Shown>,
}

struct Shown {
    /// The word programs know the step by; empty before the first.
    step: &'static str,
    /// What people read.
    title: String,
    total: Option<u64>,
    done: u64,
    started: Instant,
    shown: Instant,
    /// How much was done then.
    shown_done: u64,
    bar: Option<ProgressBar>,
}

/// The least between two lines of one step for a program.
const JSON_PAUSE: Duration = Duration::from_secs(1);

/// The most between two lines of one step in a log, unless a tenth is done sooner.
const PLAIN_PAUSE: Duration = Duration::from_secs(30);

impl Ui {
    /// Makes the display; `quiet` shows nothing.
    pub fn new(mode: ProgressMode, quiet: bool) -> Ui {
        let mode = match mode {
            _ if quiet => ProgressMode::None,
            ProgressMode::Auto if io::stderr().is_terminal() => ProgressMode::Bar,
            ProgressMode::Auto => ProgressMode::Plain,
            mode => mode,
        };
        let now = Instant::now();
        let state = Shown {
            step: "",
            title: String::new(),
            total: None,
            done: 0,
            started: now,
            shown: now,
            shown_done: 0,
            bar: None,
        };
        Ui {
            mode,
            state: Mutex::new(state),
        }
    }

    /// Tells whether progress is for programs.
    pub fn is_json(&self) -> bool {
        self.mode == ProgressMode::Json
    }

    /// Tells a program `value` under the name `key`, in a line of its own; for
    /// people nothing.
    pub fn tell_json(&self, key: &str, value: &impl Serialize) {
        if self.is_json() {
            say_json(&serde_json::json!({ key: value }));
        }
    }

    /// Returns whether somebody is there to be asked, or was until the terminal was
    /// closed.
    pub fn can_ask(&self) -> bool {
        matches!(isatty(io::stdin()), Ok(true) | Err(Errno::EIO))
    }

    /// Asks a yes-or-no question on the terminal.
    ///
    /// # Errors
    /// When the answer cannot be read.
    pub fn ask(&self, question: &str) -> Result<bool> {
        ask(&format!("{question} [y/N] "));
        let mut answer = String::new();
        match io::stdin().lock().read_line(&mut answer) {
            // Nobody answers on a terminal that was closed.
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => {}
            read => drop(read.context("reading the answer")?),
        }
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    fn state(&self) -> MutexGuard<'_, Shown> {
        // A panic elsewhere leaves numbers to be shown, nothing worse.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Shown {
    fn plain(&self) -> String {
        let mib = |bytes: u64| bytes >> 20;
        let mut line = match self.total {
            Some(total) if total > 0 => format!(
                "{}: {} of {} MiB ({} %)",
                self.title,
                mib(self.done),
                mib(total),
                self.done * 100 / total
            ),
            _ if self.done > 0 => format!("{}: {} MiB", self.title, mib(self.done)),
            _ => return self.title.clone(),
        };
        if let Some(rate) = self.rate() {
            line.push_str(&format!(", {:.1} MiB/s", rate / f64::from(1 << 20)));
        }
        if let Some(seconds) = self.seconds_left() {
            line.push_str(&format!(", {seconds:.0} s left"));
        }
        line
    }

    /// Tells whether another line is due: in a log one each tenth, or when nothing
    /// was said for long.
    fn is_due(&self, mode: ProgressMode) -> bool {
        let elapsed = self.shown.elapsed();
        if mode != ProgressMode::Plain {
            return elapsed >= JSON_PAUSE;
        }
        let tenth = self.total.map_or(u64::MAX, |total| total / 10);
        let is_tenth = self.done - self.shown_done >= tenth;
        elapsed >= PLAIN_PAUSE || (elapsed >= JSON_PAUSE && is_tenth)
    }

    /// Returns the bytes in a second so far.
    fn rate(&self) -> Option<f64> {
        let seconds = self.started.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "for people to read")]
        let done = self.done as f64;
        (seconds > 0.0 && done > 0.0).then(|| done / seconds)
    }

    fn seconds_left(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "for people to read")]
        let left = self.total?.checked_sub(self.done)? as f64;
        Some(left / self.rate()?)
    }

    fn json(&self) -> Value {
        let whole = |number: f64| number.round();
        serde_json::json!({
            "step": self.step,
            "title": self.title,
            "done": self.done,
            "total": self.total,
            "rate": self.rate().map(whole),
            "left": self.seconds_left().map(whole),
        })
    }

    fn end(&mut self, mode: ProgressMode) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if self.step.is_empty() {
            return;
        }
        match mode {
            ProgressMode::Bar | ProgressMode::Plain => {
                say(&format!(
                    "{} (done in {:.1} s)",
                    self.title,
                    self.started.elapsed().as_secs_f64()
                ));
            }
            ProgressMode::Json => say_json(&self.json()),
            ProgressMode::Auto | ProgressMode::None => {}
        }
        self.step = "";
    }
}

fn bar(title: &str, total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        None => "{spinner} {msg} {bytes} {elapsed}",
    };
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(title.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

impl Progress for Ui {
    fn start(&self, step: Step, total_bytes: Option<u64>) {
        let title = printable(&step.to_string());
        let mut state = self.state();
        state.end(self.mode);
        let now = Instant::now();
        *state = Shown {
            step: step.id(),
            title: title.clone(),
            total: total_bytes,
            done: 0,
            started: now,
            shown: now,
            shown_done: 0,
            bar: (self.mode == ProgressMode::Bar).then(|| bar(&title, total_bytes)),
        };
        match self.mode {
            ProgressMode::Plain => say(&title),
            ProgressMode::Json => say_json(&state.json()),
            _ => {}
        }
    }

    fn advance(&self, bytes: u64) {
        let mut state = self.state();
        let done = state.done + bytes;
        // A total may be an estimate.
        state.done = state.total.map_or(done, |total| done.min(total));
        if let Some(bar) = &state.bar {
            bar.set_position(state.done);
        }
        if state.is_due(self.mode) {
            state.shown = Instant::now();
            state.shown_done = state.done;
            match self.mode {
                ProgressMode::Plain => say(&state.plain()),
                ProgressMode::Json => say_json(&state.json()),
                _ => {}
            }
        }
    }

    fn finish(&self) {
        self.state().end(self.mode);
    }

    fn tell(&self, note: Note) {
        let text = printable(&note.to_string());
        let state = self.state();
        match (&state.bar, self.mode) {
            (Some(bar), _) => bar.println(text),
            (None, ProgressMode::Json) => say_json(&serde_json::json!({ "note": text })),
            (None, ProgressMode::None) => {}
            (None, _) => say(&text),
        }
    }
}
