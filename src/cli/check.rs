//! `check`: every check of an upgrade, for people and programs.

use std::path::{Path, PathBuf};

use anyhow::{Error, Result, anyhow};

use super::output::{Page, Tone, is_on_terminal, print_json};
use super::trust::{keyring, trust};
use super::{Session, threads};
use crate::appliance::machine::Machine;
use crate::bundle::{Manifest, Sealed};
use crate::failure::{class_of, with_class};
use crate::progress::Progress;
use crate::report::{Check, Report, Verdict};
use crate::upgrade::preflight::{self, Offer};

/// Run every check of an upgrade; changes nothing
///
/// Without a bundle, only the appliance is checked.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle
    #[arg(value_name = "FILE.vab")]
    file: Option<PathBuf>,
    /// Accept a bundle without a signature
    #[arg(long)]
    allow_unsigned: bool,
    /// Accept a version older than the running one
    #[arg(long)]
    allow_downgrade: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `check`; its error is what is in the way.
pub fn run(session: &Session, args: &Args) -> Result<()> {
    session.start_changing("check")?;
    let (report, version) = match report(session, args) {
        Ok(checked) => checked,
        // A program that reads the answer gets one here, too.
        Err((name, error)) if args.json => (Report::refusal(name, &error), None),
        Err((_, error)) => return Err(error),
    };
    session.ui.finish();
    if args.json {
        print_json(&report)?;
        return report.require();
    }
    let mut page = Page::of_stdout();
    write(&mut page, &report, version.as_deref());
    page.print()?;
    match report.require() {
        // A person has just read it all.
        Err(error) if is_on_terminal() => {
            let message = anyhow!("not ready for an upgrade, for what is marked REFUSE above");
            Err(with_class(class_of(&error), message))
        }
        outcome => outcome,
    }
}

/// Runs the checks; returns the bundle's version too. An error comes with the
/// name of what could not be checked.
fn report(
    session: &Session,
    args: &Args,
) -> Result<(Report, Option<String>), (&'static str, Error)> {
    let manifest = match &args.file {
        Some(file) => {
            let manifest = authentic(session, file, args.allow_unsigned);
            Some(manifest.map_err(|error| ("bundle", error))?)
        }
        None => None,
    };
    let appliance = session.appliance();
    let machine = Machine::look(&appliance).map_err(|error| ("appliance", error))?;
    let offer = manifest.as_ref().map(|manifest| Offer {
        manifest,
        allow_downgrade: args.allow_downgrade,
    });
    let (report, _) = preflight::check(&appliance, &machine, offer);
    Ok((report, manifest.map(|manifest| manifest.version)))
}

/// Proves a bundle whole and genuine and returns its manifest.
fn authentic(session: &Session, file: &Path, allow_unsigned: bool) -> Result<Manifest> {
    let keyring = keyring(session, None)?;
    let (mut bundle, _) = Sealed::open(file)?.authenticate(trust(&keyring, allow_unsigned))?;
    bundle.verify(threads(None)?, &session.ui)?;
    Ok(bundle.manifest().clone())
}

/// Writes whether an upgrade, to `version`, may go ahead, and every check.
pub fn write(page: &mut Page, report: &Report, version: Option<&str>) {
    let tone = if report.ok { Tone::Good } else { Tone::Bad };
    page.add(tone, if report.ok { "Ready" } else { "Not ready" });
    page.add(Tone::Strong, &summary(report, version));
    page.end_line();
    page.end_line();
    let rows: Vec<_> = report.checks.iter().map(row).collect();
    page.table(&rows);
}

/// Renders the first sentence after its "Ready" or "Not ready".
fn summary(report: &Report, version: Option<&str>) -> String {
    let named = |verdict| -> Vec<&str> {
        let checks = report.checks.iter();
        let these = checks.filter(|check| check.verdict == verdict);
        these.map(|check| check.name).collect()
    };
    let (passed, warned) = (named(Verdict::Ok), named(Verdict::Warn));
    let failed = named(Verdict::Refuse);
    let what = match version {
        Some(version) => format!("version {version}"),
        None => "an upgrade".to_owned(),
    };
    let mut counts = match failed.len() {
        0 => format!("{} checks passed", passed.len()),
        failures => format!(
            "{failures} of {} checks refuse it ({})",
            report.checks.len(),
            failed.join(", ")
        ),
    };
    if !warned.is_empty() {
        counts += &format!(", {} warned ({})", warned.len(), warned.join(", "));
    }
    format!(" for {what}: {counts}.")
}

/// Renders a check; a failure's message ends with the way out.
fn row(check: &Check) -> [(Tone, String); 3] {
    let (tone, verdict) = match check.verdict {
        Verdict::Ok => (Tone::Good, "ok"),
        Verdict::Warn => (Tone::Warn, "warn"),
        Verdict::Refuse => (Tone::Bad, "REFUSE"),
    };
    [
        // As wide whatever the others are.
        (tone, format!("{verdict:<6}")),
        (Tone::Plain, check.name.to_owned()),
        (Tone::Plain, check.message()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &'static str, verdict: Verdict, message: &str) -> Check {
        let mut report = Report::refusal(name, &anyhow!("{message}"));
        let mut check = report.checks.remove(0);
        check.verdict = verdict;
        check
    }

    fn text(checks: Vec<Check>, version: Option<&str>) -> String {
        let mut report = Report::default();
        report.ok = !checks.iter().any(|check| check.verdict == Verdict::Refuse);
        report.checks = checks;
        let mut page = Page::plain();
        write(&mut page, &report, version);
        page.text().to_owned()
    }

    #[test]
    fn the_answer_comes_first_and_then_every_check() {
        let product = || check("product", Verdict::Ok, "gateway");
        let trial = || check("last trial", Verdict::Warn, "it failed: health");
        let boot = check(
            "boot",
            Verdict::Refuse,
            "/boot is full;\nremove \x1b[1mfiles",
        );
        assert_eq!(
            text(vec![product(), product()], None),
            "\
Ready for an upgrade: 2 checks passed.

ok      product  gateway
ok      product  gateway
"
        );
        assert_eq!(
            text(vec![product(), product(), trial()], Some("9.4")),
            "\
Ready for version 9.4: 2 checks passed, 1 warned (last trial).

ok      product     gateway
ok      product     gateway
warn    last trial  it failed: health
"
        );
        assert_eq!(
            text(vec![product(), boot, trial()], Some("9.4")),
            "\
Not ready for version 9.4: 1 of 3 checks refuse it (boot), 1 warned (last trial).

ok      product     gateway
REFUSE  boot        /boot is full; remove ?[1mfiles
warn    last trial  it failed: health
"
        );
    }
}
