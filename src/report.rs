//! The report of checks: what was found, and whether it is in the way.

use std::collections::BTreeMap;

use anyhow::{Error, Result, anyhow};
use serde::{Deserialize, Serialize};

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

/// What becomes of what a check finds wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// It is noted.
    Observe,
    /// It is a warning.
    Warn,
    /// It is in the way.
    Enforce,
}

impl Policy {
    fn verdict(self) -> Verdict {
        match self {
            Policy::Observe => Verdict::Pass,
            Policy::Warn => Verdict::Warn,
            Policy::Enforce => Verdict::Fail,
        }
    }
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
    #[serde(skip)]
    policies: BTreeMap<String, Policy>,
}

impl Default for Report {
    fn default() -> Report {
        Report {
            format: 1,
            ok: true,
            checks: Vec::new(),
            policies: BTreeMap::new(),
        }
    }
}

impl Report {
    /// Makes an empty report in which each check is as strict as `policies` has it
    /// by name.
    pub fn new(policies: &BTreeMap<String, Policy>) -> Report {
        Report {
            policies: policies.clone(),
            ..Report::default()
        }
    }

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
                self.push(name, Verdict::Pass, message, None);
                Some(value)
            }
            Err(error) => {
                let class = match class_of(&error) {
                    Class::Unexpected => Class::Refused,
                    class => class,
                };
                // Nobody can choose to take a bundle that is not genuine.
                let policy = self.policies.get(name).filter(|_| class == Class::Refused);
                let verdict = policy.map_or(Verdict::Fail, |policy| policy.verdict());
                self.push(name, verdict, format!("{error:#}"), Some(class));
                None
            }
        }
    }

    /// Notes something that is not in the way, unless its policy says so.
    pub fn warn(&mut self, name: &'static str, message: String) {
        let policy = self.policies.get(name);
        let verdict = policy.map_or(Verdict::Warn, |policy| policy.verdict());
        self.push(name, verdict, message, Some(Class::Refused));
    }

    fn push(
        &mut self,
        name: &'static str,
        verdict: Verdict,
        message: String,
        class: Option<Class>,
    ) {
        self.ok &= verdict != Verdict::Fail;
        self.checks.push(Check {
            name,
            verdict,
            message,
            class,
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

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    fn verdicts(policy: Option<Policy>, class: Class) -> Vec<Verdict> {
        let policies = policy.map(|policy| ("memory".to_owned(), policy));
        let mut report = Report::new(&policies.into_iter().collect());
        let fault = || -> Result<((), String)> { bail!("16 MiB are free") };
        let outcome = fault().map_err(|error| with_class(class, error));
        report.add("memory", outcome);
        report.warn("memory", "16 MiB are free".into());
        report.add("memory", Ok(((), "8 GiB are free".into())));
        assert_eq!(report.ok, report.require().is_ok());
        report.checks.iter().map(|check| check.verdict).collect()
    }

    #[test]
    fn a_policy_says_what_becomes_of_a_fault_but_not_of_a_false_bundle() {
        use Verdict::{Fail, Pass, Warn};
        for (policy, class, wanted) in [
            (None, Class::Refused, [Fail, Warn, Pass]),
            (Some(Policy::Observe), Class::Refused, [Pass, Pass, Pass]),
            (Some(Policy::Warn), Class::Refused, [Warn, Warn, Pass]),
            (Some(Policy::Enforce), Class::Refused, [Fail, Fail, Pass]),
            (Some(Policy::Observe), Class::BadBundle, [Fail, Pass, Pass]),
        ] {
            assert_eq!(verdicts(policy, class), wanted, "{policy:?}");
        }
    }
}
