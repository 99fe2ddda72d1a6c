//! `report`: what changed from before the upgrade to after it.

use anyhow::Result;

use super::Session;
use super::output::{Page, Tone, print_json};
use crate::appliance::machine::Machine;
use crate::upgrade::changes::{self, Changes};

/// Show what changed from before the upgrade to after it; changes nothing
///
/// Compares the running system with what `apply` saw of the one before: network
/// cards, addresses and routes, name servers, failed units, the ports that somebody listens on,
/// mounts, the host name, who can log in, certificates and whether the clock is synchronized.
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `report`.
pub fn run(session: &Session, args: &Args) -> Result<()> {
    let appliance = session.appliance();
    let machine = Machine::look(&appliance)?;
    let changes = changes::of_running(&appliance, &machine)?;
    if args.json {
        return print_json(&changes);
    }
    let mut page = Page::of_stdout();
    write(&mut page, &changes);
    page.print()
}

/// Writes how much changed in a sentence, then each change.
fn write(page: &mut Page, changes: &Changes) {
    let from = match &changes.from {
        Some(from) => format!("version {from}"),
        None => "an unknown version".to_owned(),
    };
    let warnings = changes.changes.iter().filter(|it| it.warning).count();
    let summary = match (changes.changes.len(), warnings) {
        (0, _) => "nothing that is looked at has changed".to_owned(),
        (all, 0) => format!("{all} changed, nothing that somebody would miss"),
        (all, _) => format!("{all} changed, {warnings} that somebody may miss"),
    };
    page.add(
        Tone::Strong,
        &format!("From {from} to version {}: {summary}.", changes.to),
    );
    page.end_line();
    if changes.changes.is_empty() {
        return;
    }
    page.end_line();
    let rows = changes.changes.iter().map(|change| {
        let (tone, word) = match change.warning {
            true => (Tone::Warn, "warn"),
            false => (Tone::Plain, "note"),
        };
        [
            (tone, word.to_owned()),
            (Tone::Plain, change.subject.to_owned()),
            (Tone::Plain, change.message.clone()),
        ]
    });
    page.table(&rows.collect::<Vec<_>>());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::changes::{Change, Kind};

    #[test]
    fn the_answer_comes_first_and_what_may_be_missed_before_the_rest() {
        let mut changes = Changes {
            format: 1,
            before: 1,
            from: Some("7.9".into()),
            to: "9.4".into(),
            changes: Vec::new(),
        };
        let text = |changes: &Changes| {
            let mut page = Page::plain();
            write(&mut page, changes);
            page.text().to_owned()
        };
        assert_eq!(
            text(&changes),
            "From version 7.9 to version 9.4: nothing that is looked at has changed.\n"
        );
        for (subject, warning, message) in [
            ("listener", true, "nobody listens on tcp 25 any more"),
            ("mount", false, "/srv\x1b[2J is mounted now"),
        ] {
            changes.changes.push(Change {
                subject,
                kind: Kind::Gone,
                warning,
                message: message.into(),
            });
        }
        assert_eq!(
            text(&changes),
            "\
From version 7.9 to version 9.4: 2 changed, 1 that somebody may miss.

warn  listener  nobody listens on tcp 25 any more
note  mount     /srv?[2J is mounted now
"
        );
    }
}
