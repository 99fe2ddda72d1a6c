//! The report of checks: what was found, and whether it is in the way.

use anyhow::{Error, Result, anyhow};
use serde::Serialize;

use crate::failure::{Class, class_of, with_class};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// Worth knowing; not in the way.
    Warn,
    /// In the way.
    Fail,
}

/// One check.
#[derive(Debug, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found, and for a failure the way out.
    pub message: String,
    #[serde(skip)]
    class: Option<Class>,
}

/// The report of all checks; its JSON form is what `check --json` prints.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The version of this shape.
    pub format: u32,
    /// Whether an upgrade may go ahead.
    pub ok: bool,
    /// The checks in the order they ran.
    pub checks: Vec<Check>,
}

impl Default for Report {
    fn default() -> Report {
        Report {
            format: 1,
            ok: true,
            checks: Vec::new(),
        }
    }
}

impl Report {
    /// Makes the report of what could not be checked any further.
    pub fn refusal(name: &'static str, error: &Error) -> Report {
        Report {
            ok: false,
            checks: vec![Check {
                name,
                verdict: Verdict::Fail,
                message: format!("{error:#}"),
                class: Some(class_of(error)),
            }],
            ..Report::default()
        }
    }

    /// Notes how a check ended; an error keeps its class, else it is a refusal.
    pub fn add<T>(&mut self, name: &'static str, outcome: Result<(T, String)>) -> Option<T> {
        match outcome {
            Ok((value, message)) => {
                self.checks.push(Check {
                    name,
                    verdict: Verdict::Pass,
                    message,
                    class: None,
                });
                Some(value)
            }
            Err(error) => {
                let class = match class_of(&error) {
                    Class::Unexpected => Class::Refused,
                    class => class,
                };
                let message = format!("{error:#}");
                self.checks.push(Check {
                    name,
                    verdict: Verdict::Fail,
                    message,
                    class: Some(class),
                });
                self.ok = false;
                None
            }
        }
    }

    /// Notes something that is not in the way.
    pub fn warn(&mut self, name: &'static str, message: String) {
        self.checks.push(Check {
            name,
            verdict: Verdict::Warn,
            message,
            class: None,
        });
    }

    /// Fails with everything that is in the way, classed as the first of it.
    ///
    /// # Errors
    /// When a check failed.
    pub fn require(&self) -> Result<()> {
        let failed: Vec<&Check> = self
            .checks
            .iter()
            .filter(|c| c.verdict == Verdict::Fail)
            .collect();
        let Some(class) = failed.first().and_then(|check| check.class) else {
            return Ok(());
        };
        let messages: Vec<&str> = failed.iter().map(|check| check.message.as_str()).collect();
        Err(with_class(class, anyhow!("{}", messages.join("; "))))
    }
}
