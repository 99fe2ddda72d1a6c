//! The order of the members of one group: what looks alike beside each other.

use anyhow::Result;

use super::group::Group;
use super::likeness::{Likeness, Listed, Places};

/// Puts the members of `group` in `window` into the order they are packed in.
pub fn arrange(group: Group, window: &mut Vec<Listed>, likeness: &mut Likeness) -> Result<()> {
    match group {
        Group::Dirs | Group::Nodes | Group::Links => {}
        // Parents first.
        Group::EarlyDirs => window.sort(),
        _ => window.sort_by(|(a, _), (b, _)| ending_key(a).cmp(&ending_key(b))),
    }
    match group {
        Group::Rest => likeness.arrange(window, Places::All),
        Group::Programs => likeness.arrange(window, Places::Functions),
        _ => Ok(()),
    }
}

/// Sorts by ending, then by path, but translations of one program, which repeat
/// its messages, before others into the same language.
fn ending_key(path: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    let ending = match name.iter().rposition(|b| *b == b'.') {
        Some(dot) if dot > 0 => &name[dot..],
        _ => b"",
    };
    match ending {
        b".mo" => (ending, name, path),
        _ => (ending, b"", path),
    }
}
