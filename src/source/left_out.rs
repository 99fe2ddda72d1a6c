//! Names every file system of an image that is not packed.

use std::path::Path;

use anyhow::Result;

use super::content::Content;
use super::discoverable::{self, Unit};
use super::disks::Disks;
use super::volume::{Name, Volume};
use crate::linux::fstab::Owner;

impl Disks<'_, '_> {
    /// Writes a line for each file system that is not among `named`, which have
    /// been packed or have a line already. `roots` are other roots; `tree` is the
    /// system.
    ///
    /// # Errors
    /// When the system's units cannot be read.
    pub fn name_left_out(&self, named: &[Name], roots: &[&Volume], tree: &Path) -> Result<()> {
        let units = discoverable::units(tree)?;
        for volume in self.volumes.iter().filter(|v| !named.contains(&v.name)) {
            let what = match &volume.content {
                Content::FileSystem(found) if found.label.is_empty() => found.kind.to_owned(),
                Content::FileSystem(found) => format!("{}, label {:?}", found.kind, found.label),
                Content::Closed(closed) => closed.reason.clone(),
                Content::PhysicalVolume | Content::Other => continue,
            };
            let is_root = roots.iter().any(|root| root.name == volume.name);
            let reason = if is_root {
                format!(
                    "another root file system, perhaps the one in use; --root {:?} packs it instead",
                    volume.name.to_string()
                )
            } else {
                self.reason(volume, &units)
            };
            let line = format!("{} ({what}): {reason}", volume.name);
            self.progress.leave_out(&line);
        }
        Ok(())
    }

    fn reason(&self, volume: &Volume, units: &[Unit]) -> String {
        if self.is_data(volume) {
            return "a data volume".into();
        }
        let unit = units.iter().find(|unit| self.is_named(volume, &unit.what));
        if let Some(unit) = unit {
            let place = unit.place.display();
            let way_out = way_out(&unit.place);
            return format!(
                "{} mounts it on {place}, no line of fstab does{way_out}",
                unit.name
            );
        }
        if let Some(place) = discoverable::mount_point(&volume.partition_kind) {
            let way_out = way_out(Path::new(place));
            return format!(
                "its partition type means {place}, no line of fstab mounts it{way_out}"
            );
        }
        "no line of fstab mounts it".into()
    }
}

/// Says how to have something packed that may be a part of the system.
fn way_out(place: &Path) -> &'static str {
    match Owner::of(place) {
        Owner::Customer => "",
        Owner::System | Owner::Delivered => "; one that does would have it packed",
    }
}
