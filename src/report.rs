//! The report of checks: what was found, and whether it is in the way.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Error, Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::failure::{Class, class_of, unclassed, with_class};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Worth knowing; not in the way.
    Warn,
    /// In the way.
    Refuse,
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
            Policy::Observe => Verdict::Ok,
            Policy::Warn => Verdict::Warn,
            Policy::Enforce => Verdict::Refuse,
        }
    }
}

/// What a check has to say; as an error, what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is there.
    pub found: String,
    /// What should be.
    pub needed: Option<String>,
    /// What to do.
    pub remedy: Option<String>,
}

impl Finding {
    /// Makes one of what was found, what is needed and what to do.
    pub fn new(
        found: impl Into<String>,
        needed: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding {
            found: found.into(),
            needed: Some(needed.into()),
            remedy: Some(remedy.into()),
        }
    }

    fn of(error: &Error) -> Finding {
        match unclassed(error).downcast_ref::<Finding>() {
            Some(finding) => finding.clone(),
            None => Finding::from(format!("{error:#}")),
        }
    }
}

impl From<String> for Finding {
    fn from(found: String) -> Finding {
        Finding {
            found,
            needed: None,
            remedy: None,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.found)?;
        if let Some(needed) = &self.needed {
            write!(f, "; needed: {needed}")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Finding {}

/// One check.
#[derive(Debug, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What it has to say.
    #[serde(flatten)]
    pub finding: Finding,
    #[serde(skip)]
    class: Option<Class>,
}

impl Check {
    /// Returns all that it has to say in one sentence.
    pub fn message(&self) -> String {
        self.finding.to_string()
    }
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
            format: 2,
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
                verdict: Verdict::Refuse,
                finding: Finding::of(error),
                class: Some(class_of(error)),
            }],
            ..Report::default()
        }
    }

    /// Notes how a check ended; an error keeps its class, else it is a refusal.
    pub fn add<T>(&mut self, name: &'static str, outcome: Result<(T, String)>) -> Option<T> {
        match outcome {
            Ok((value, message)) => {
                self.push(name, Verdict::Ok, message.into(), None);
                Some(value)
            }
            Err(error) => {
                let class = match class_of(&error) {
                    Class::Unexpected => Class::Refused,
                    class => class,
                };
                // Nobody can choose to take a bundle that is not genuine.
                let policy = self.policies.get(name).filter(|_| class == Class::Refused);
                let verdict = policy.map_or(Verdict::Refuse, |policy| policy.verdict());
                self.push(name, verdict, Finding::of(&error), Some(class));
                None
            }
        }
    }

    /// Notes something that is not in the way, unless its policy says so.
    pub fn warn(&mut self, name: &'static str, finding: impl Into<Finding>) {
        let policy = self.policies.get(name);
        let verdict = policy.map_or(Verdict::Warn, |policy| policy.verdict());
        self.push(name, verdict, finding.into(), Some(Class::Refused));
    }

    fn push(
        &mut self,
        name: &'static str,
        verdict: Verdict,
        finding: Finding,
        class: Option<Class>,
    ) {
        self.ok &= verdict != Verdict::Refuse;
        self.checks.push(Check {
            name,
            verdict,
            finding,
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
            .filter(|c| c.verdict == Verdict::Refuse)
            .collect();
        let Some(class) = failed.first().and_then(|check| check.class) else {
            return Ok(());
        };
        let messages: Vec<String> = failed.iter().map(|check| check.message()).collect();
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
        report.warn("memory", "16 MiB are free".to_owned());
        report.add("memory", Ok(((), "8 GiB are free".into())));
        assert_eq!(report.ok, report.require().is_ok());
        report.checks.iter().map(|check| check.verdict).collect()
    }

    #[test]
    fn what_is_wrong_is_told_in_parts_whatever_class_it_has() {
        let finding = Finding::new("16 MiB are free", "128 MiB", "stop a service");
        for class in [Class::Refused, Class::BadBundle] {
            let mut report = Report::default();
            let error = with_class(class, finding.clone().into());
            report.add::<()>("memory", Err(error));
            assert_eq!(report.checks[0].finding, finding);
            let error = report.require().unwrap_err();
            assert_eq!(class_of(&error), class);
            let text = "16 MiB are free; needed: 128 MiB; stop a service";
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn a_policy_says_what_becomes_of_a_fault_but_not_of_a_false_bundle() {
        use Verdict::{Ok, Refuse, Warn};
        for (policy, class, wanted) in [
            (None, Class::Refused, [Refuse, Warn, Ok]),
            (Some(Policy::Observe), Class::Refused, [Ok, Ok, Ok]),
            (Some(Policy::Warn), Class::Refused, [Warn, Warn, Ok]),
            (Some(Policy::Enforce), Class::Refused, [Refuse, Refuse, Ok]),
            (Some(Policy::Observe), Class::BadBundle, [Refuse, Ok, Ok]),
        ] {
            assert_eq!(verdicts(policy, class), wanted, "{policy:?}");
        }
    }
}
