//! Linear logical volumes, found in LVM's metadata on the disk itself.
//!
//! Reads the on-disk format (lvm2 `format_text/layout.h`, unchanged since LVM2
//! began) instead of running `lvm`: no loop device has to exist while a tool
//! looks at it, and nothing depends on the build machine's own LVM set-up.

mod label;
mod text;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use anyhow::{Context, Result, anyhow, ensure};

use crate::failure::{Class, Classify};
use crate::refuse;

use super::content::ReadAt;
use text::Section;

/// LVM counts in these.
const SECTOR: u64 = 512;
/// More than any real volume group has.
const MAX_SEGMENTS: i64 = 100_000;
/// More logical volumes than any real machine has.
const MAX_VOLUMES: usize = 1000;
/// LVM's own limit (`NAME_LEN`), with the zero behind it.
const MAX_NAME: usize = 127;

/// A physical volume found in the image.
pub struct PhysicalVolume {
    /// Where it was found, for messages: "partition 3".
    pub place: String,
    uuid: String,
    size_bytes: u64,
    metadata: Option<String>,
}

impl PhysicalVolume {
    /// Reads the label and the metadata of the physical volume at `place`.
    ///
    /// # Errors
    /// Class `Refused` when they are damaged.
    pub fn read(read: ReadAt<'_>, size_bytes: u64, place: String) -> Result<PhysicalVolume> {
        let label = label::read(read, size_bytes)
            .with_context(|| format!("reading LVM's metadata in {place}"))
            .class(Class::Refused)?;
        Ok(PhysicalVolume {
            place,
            uuid: label.uuid,
            size_bytes,
            metadata: label.metadata,
        })
    }
}

#[cfg(fuzzing)]
impl PhysicalVolume {
    /// Makes one that holds the metadata `text`.
    pub fn of_text(uuid: &str, size_bytes: u64, text: &str) -> PhysicalVolume {
        PhysicalVolume {
            place: uuid.to_owned(),
            uuid: uuid.to_owned(),
            size_bytes,
            metadata: Some(text.to_owned()),
        }
    }
}

/// A stretch of a physical volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The index of the physical volume.
    pub pv: usize,
    /// Where it starts in there.
    pub offset: u64,
    /// How long it is.
    pub size_bytes: u64,
}

/// A logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalVolume {
    /// The volume group's name.
    pub group: String,
    /// The volume's name.
    pub name: String,
    /// The UUIDs of the group and the volume, one after the other, without hyphens.
    pub uuid: String,
    /// Where its bytes are, in order; or why they cannot be told.
    pub layout: Result<Vec<Stretch>, String>,
}

/// Lists the visible logical volumes on the physical volumes of one image.
///
/// # Errors
/// Class `Refused` when metadata make no sense or two groups share a name.
pub fn logical_volumes(pvs: &[PhysicalVolume]) -> Result<Vec<LogicalVolume>> {
    let by_uuid: HashMap<&str, usize> = pvs
        .iter()
        .enumerate()
        .map(|(index, pv)| (pv.uuid.as_str(), index))
        .collect();
    if by_uuid.len() != pvs.len() {
        refuse!("two of its LVM physical volumes have the same UUID; one is a copy of the other");
    }
    let mut volumes = Vec::new();
    for group in newest_groups(pvs)?.values() {
        let found = group
            .volumes(pvs, &by_uuid)
            .with_context(|| format!("reading the metadata of volume group {}", group.name))
            .class(Class::Refused)?;
        volumes.extend(found);
    }
    check_disjoint(&volumes).class(Class::Refused)?;
    Ok(volumes)
}

/// A volume group as its metadata describe it.
struct Group {
    name: String,
    id: String,
    seqno: i64,
    section: Section,
}

/// Returns the newest metadata of each group, by name.
fn newest_groups(pvs: &[PhysicalVolume]) -> Result<BTreeMap<String, Group>> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for pv in pvs {
        let Some(metadata) = &pv.metadata else {
            continue;
        };
        let group = Group::parse(metadata)
            .with_context(|| format!("reading LVM's metadata in {}", pv.place))
            .class(Class::Refused)?;
        match groups.get(&group.name) {
            Some(known) if known.id != group.id => refuse!(
                "it has two volume groups named {}, with the UUIDs {} and {}; \
                 give an image with one of them, or `vgrename` the other",
                group.name,
                known.id,
                group.id
            ),
            Some(known) if known.seqno >= group.seqno => {}
            _ => drop(groups.insert(group.name.clone(), group)),
        }
    }
    Ok(groups)
}

impl Group {
    fn parse(metadata: &str) -> Result<Group> {
        let mut top = text::parse(metadata)?;
        let name = top
            .sections()
            .next()
            .map(|(name, _)| name.to_owned())
            .context("no volume group in it")?;
        let section = top.take_section(&name).context("no volume group in it")?;
        Ok(Group {
            id: section.string("id")?.to_owned(),
            seqno: section.integer("seqno")?,
            name,
            section,
        })
    }

    fn volumes(
        &self,
        pvs: &[PhysicalVolume],
        by_uuid: &HashMap<&str, usize>,
    ) -> Result<Vec<LogicalVolume>> {
        let extent_size = sectors(self.section.integer("extent_size")?)?;
        ensure!(extent_size > 0, "extents of no size");
        let mut places: HashMap<&str, Place<'_>> = HashMap::new();
        let physical = self.section.section("physical_volumes");
        for (name, section) in physical.iter().flat_map(|all| all.sections()) {
            let uuid = section.string("id")?.replace('-', "");
            let start = sectors(section.integer("pe_start")?)?;
            let index = by_uuid.get(uuid.as_str()).copied();
            let place = Place {
                index,
                start,
                section,
            };
            places.insert(name, place);
        }
        let logical = self.section.section("logical_volumes");
        let mut volumes = Vec::new();
        for (name, section) in logical.iter().flat_map(|all| all.sections()) {
            if !section.list("status").contains(&"VISIBLE") {
                continue;
            }
            ensure!(
                name.len() <= MAX_NAME && volumes.len() < MAX_VOLUMES,
                "more than {MAX_VOLUMES} logical volumes, or a longer name than LVM allows"
            );
            let layout = self
                .layout(section, extent_size, pvs, &places)
                .with_context(|| format!("logical volume {name}"))?;
            volumes.push(LogicalVolume {
                group: self.name.clone(),
                name: name.to_owned(),
                uuid: format!("{}{}", self.id, section.string("id")?).replace('-', ""),
                layout,
            });
        }
        Ok(volumes)
    }
}

/// Where the metadata have a physical volume.
struct Place<'g> {
    /// Its index, if it is in this image.
    index: Option<usize>,
    /// Where its extents start.
    start: u64,
    /// What is known of it.
    section: &'g Section,
}

/// Makes sure that no two places of volumes are the same bytes, which LVM does not
/// allow either: a small image would make a large tree.
fn check_disjoint(volumes: &[LogicalVolume]) -> Result<()> {
    let mut taken: Vec<(usize, Range<u64>, &str)> = Vec::new();
    for volume in volumes {
        for stretch in volume.layout.iter().flatten() {
            let range = stretch.offset..stretch.offset + stretch.size_bytes;
            taken.push((stretch.pv, range, &volume.name));
        }
    }
    taken.sort_by_key(|(pv, range, _)| (*pv, range.start));
    for pair in taken.windows(2) {
        let [(pv, range, name), (next_pv, next, next_name)] = pair else {
            continue;
        };
        ensure!(
            pv != next_pv || range.end <= next.start,
            "logical volumes {name} and {next_name} have the same bytes"
        );
    }
    Ok(())
}

impl Group {
    /// Returns where the bytes of a logical volume are; the inner error says why
    /// it is not of the kind that can be read.
    fn layout(
        &self,
        volume: &Section,
        extent_size: u64,
        pvs: &[PhysicalVolume],
        places: &HashMap<&str, Place<'_>>,
    ) -> Result<Result<Vec<Stretch>, String>> {
        let count = volume.integer("segment_count")?;
        if !(1..=MAX_SEGMENTS).contains(&count) {
            return Err(anyhow!("{count} segments"));
        }
        let segments: HashMap<&str, &Section> = volume.sections().collect();
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut next_extent = 0_i64;
        for i in 1..=count {
            let segment = segments
                .get(format!("segment{i}").as_str())
                .with_context(|| format!("segment {i} is missing"))?;
            let kind = segment.string("type")?;
            if kind != "striped" || segment.integer("stripe_count")? != 1 {
                return Ok(Err(format!("an LVM volume of type {kind}, not linear")));
            }
            let (place, first) = segment.pair("stripes")?;
            // Another volume's name stands here while `pvmove` is at work.
            let Some((place, pv)) = places.get(place).and_then(|p| Some((p, p.index?))) else {
                return Ok(Err(self.missing(place, places)));
            };
            let length = segment.integer("extent_count")?;
            if segment.integer("start_extent")? != next_extent || first < 0 || length < 1 {
                return Err(anyhow!("segment {i} has an impossible range"));
            }
            let bytes = |extents: i64| u64::try_from(extents).ok()?.checked_mul(extent_size);
            let stretch = (|| {
                let offset = bytes(first)?.checked_add(place.start)?;
                let size_bytes = bytes(length)?;
                let end = offset.checked_add(size_bytes)?;
                (end <= pvs[pv].size_bytes).then_some(Stretch {
                    pv,
                    offset,
                    size_bytes,
                })
            })()
            .with_context(|| {
                format!(
                    "segment {i} ends beyond {}: the image was cut off, copy it again",
                    pvs[pv].place
                )
            })?;
            next_extent = next_extent
                .checked_add(length)
                .context("more extents than can be counted")?;
            match stretches.last_mut() {
                Some(last) if last.pv == pv && last.offset + last.size_bytes == stretch.offset => {
                    last.size_bytes += stretch.size_bytes;
                }
                _ => stretches.push(stretch),
            }
        }
        Ok(Ok(stretches))
    }

    /// Says which physical volume is not here, as far as the metadata know it.
    fn missing(&self, place: &str, places: &HashMap<&str, Place<'_>>) -> String {
        let Some(Place { section, .. }) = places.get(place) else {
            return format!("partly on {place}, which only LVM itself can read");
        };
        let device = section.string("device").unwrap_or("unknown");
        let uuid = section.string("id").unwrap_or("unknown");
        format!(
            "partly on {place} of {}, an LVM physical volume that is not in this image \
             (last seen as {device}, UUID {uuid})",
            self.name
        )
    }
}

fn sectors(count: i64) -> Result<u64> {
    u64::try_from(count)
        .ok()
        .and_then(|count| count.checked_mul(SECTOR))
        .with_context(|| format!("{count} sectors"))
}

#[cfg(test)]
mod tests;
