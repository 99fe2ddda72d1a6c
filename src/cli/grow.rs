//! `grow`: takes free disk space.

use std::fmt::Write;

use anyhow::Result;

use super::Session;
use super::output::print;
use crate::grow::{self, Extent, Grown, Occasion};
use crate::progress::Progress;

/// Take free disk space into the volume group and the volumes the settings name
///
/// After the disk was enlarged: the partition, the volume group, and then each volume
/// that `grow` in the configuration names, with its file system, while it is in use.
/// It can be run at any time and again; nothing is ever made smaller.
#[derive(clap::Args)]
pub struct Args {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do it in the first start only, for the boot service
    #[arg(long, hide = true, conflicts_with = "dry_run")]
    first_start: bool,
}

/// Runs `grow`; writes the partition table, LVM's metadata and file systems.
pub fn run(session: &Session, args: &Args) -> Result<()> {
    session.start_changing("grow")?;
    let extent = match args.dry_run {
        true => Extent::DryRun,
        false => Extent::Whole,
    };
    let occasion = match args.first_start {
        true => Occasion::FirstStart,
        false => Occasion::Asked,
    };
    let grown = grow::grow(&session.appliance(), occasion, extent)?;
    session.ui.finish();
    print(&text(&grown, extent))
}

/// Renders what has grown.
fn text(grown: &Grown, extent: Extent) -> String {
    let word = match extent {
        Extent::DryRun => "would grow",
        Extent::Whole => "has grown",
    };
    let mut text = String::new();
    let partition = grown.partition.as_ref();
    let partition = partition.map(|(path, from, to)| (path.display().to_string(), *from, *to));
    for (name, from, to) in partition.into_iter().chain(grown.volumes.iter().cloned()) {
        if to > from {
            let _ = writeln!(
                text,
                "{name} {word} from {} to {} MiB",
                from >> 20,
                to >> 20
            );
        }
    }
    if text.is_empty() {
        text.push_str("nothing to grow\n");
    }
    let _ = writeln!(
        text,
        "{} MiB are free in the volume group",
        grown.free_bytes >> 20
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_grown_is_told_and_what_has_not_is_not() {
        let grown = Grown {
            partition: Some(("/dev/vda3".into(), 1 << 30, 3 << 30)),
            volumes: vec![("data".into(), 1 << 28, 1 << 29)],
            free_bytes: 5 << 20,
        };
        assert_eq!(
            text(&grown, Extent::Whole),
            "/dev/vda3 has grown from 1024 to 3072 MiB\ndata has grown from 256 to 512 MiB\n\
             5 MiB are free in the volume group\n"
        );
        let nothing = text(&Grown::default(), Extent::DryRun);
        assert_eq!(
            nothing,
            "nothing to grow\n0 MiB are free in the volume group\n"
        );
    }
}
