//! What became of an order: written by the environment to the old disk, read by the
//! old system.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::order::Mode;
use crate::system::files;

/// The largest outcome that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The outcome.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Outcome {
    /// The version of this record.
    pub format: u32,
    /// What was asked for.
    pub mode: Mode,
    /// Why it ended before its end; `None` when all went well.
    pub failure: Option<Failure>,
    /// What was done, in order.
    pub steps: Vec<StepTime>,
    /// What it took of the machine's memory.
    pub memory: Memory,
    /// The lines that stood on the console.
    pub lines: Vec<String>,
}

/// Why the environment gave up. Nothing of the disk was changed.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The code on the console, such as `M04`.
    pub code: String,
    /// The step it was in.
    pub step: String,
    /// The reason, in a person's words.
    pub reason: String,
}

/// How long a step took.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct StepTime {
    /// Its code.
    pub code: String,
    /// Its name.
    pub step: String,
    /// Its time.
    pub seconds: f64,
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// What the machine has, with what its kernel keeps for itself.
    pub machine_bytes: u64,
    /// The most of it that was in use at a time, the kernel included.
    pub peak_bytes: u64,
}

impl StepTime {
    /// Rounds to milliseconds.
    pub fn new(code: &str, step: &str, time: Duration) -> StepTime {
        StepTime {
            code: code.to_owned(),
            step: step.to_owned(),
            seconds: (time.as_secs_f64() * 1000.0).round() / 1000.0,
        }
    }
}

impl Outcome {
    /// The version of the record.
    pub const FORMAT: u32 = 1;

    /// Writes it to `path`, whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        files::write_atomic(path, text.as_bytes(), 0o600)
    }

    /// Reads the one in `path`.
    ///
    /// # Errors
    /// When it is not there or is none.
    pub fn load(path: &Path) -> Result<Outcome> {
        let read = || -> Result<Outcome> {
            let mut text = String::new();
            let bounded = &mut File::open(path)?.take(MAX_BYTES + 1);
            let size = bounded.read_to_string(&mut text)? as u64;
            ensure!(size <= MAX_BYTES, "it has more than {MAX_BYTES} bytes");
            Ok(serde_json::from_str(&text)?)
        };
        read().with_context(|| format!("reading {}", path.display()))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = self.mode;
        match &self.failure {
            Some(Failure { code, step, reason }) => write!(
                f,
                "{mode} ended in step {step} ({code}), before it changed the disk: {reason}"
            ),
            None => write!(
                f,
                "{mode} came to its end; it took {} of {} MiB of memory",
                self.memory.peak_bytes.div_ceil(1 << 20),
                self.memory.machine_bytes >> 20
            ),
        }
    }
}
