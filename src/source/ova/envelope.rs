//! The OVF description (DMTF DSP0243): the files it refers to, its disks, and
//! the order in which its machine sees them.

use anyhow::{Context, Result, bail, ensure};

use super::xml::{self, Element};

/// More disks, or devices of the machine, than a description has.
const MAX_DEVICES: usize = 1000;

/// A file that the description refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileRef {
    id: String,
    /// Its name in the archive.
    pub href: String,
    /// How long it is.
    pub size_bytes: Option<u64>,
    /// How it is compressed, if it is.
    pub compression: Option<String>,
    /// The length of the pieces it is split into, if it is.
    pub chunk_bytes: Option<u64>,
}

/// A disk of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskRef {
    id: String,
    /// The file that it starts with; without one it is empty.
    pub file: Option<FileRef>,
    /// Whether the file holds only what differs from another disk.
    pub is_delta: bool,
}

impl DiskRef {
    /// Returns its name, for messages.
    pub fn name(&self) -> &str {
        self.file.as_ref().map_or(&self.id, |file| &file.href)
    }
}

/// What a description says that matters here.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// All files.
    pub files: Vec<FileRef>,
    /// The disks in the order of the machine's controllers and their units.
    pub disks: Vec<DiskRef>,
    /// Disks that no controller has.
    pub loose: Vec<DiskRef>,
}

impl Envelope {
    /// Reads a description.
    pub fn parse(text: &str) -> Result<Envelope> {
        let top = xml::parse(text)?;
        let files = top
            .descendants("References")
            .iter()
            .flat_map(|references| references.children("File"))
            .map(file_ref)
            .collect::<Result<Vec<_>>>()?;
        let disks = top
            .descendants("DiskSection")
            .iter()
            .flat_map(|section| section.children("Disk"))
            .map(|disk| disk_ref(disk, &files))
            .collect::<Result<Vec<_>>>()?;
        ensure!(
            disks.len() <= MAX_DEVICES,
            "it has more than {MAX_DEVICES} disks"
        );
        let machines = top.descendants("VirtualSystem");
        ensure!(
            machines.len() <= 1,
            "it describes {} virtual machines; export the one to build from",
            machines.len()
        );
        // Further sections describe the same machine for other hypervisors.
        let hardware = machines
            .first()
            .and_then(|machine| machine.children("VirtualHardwareSection").next());
        let attached = match hardware {
            Some(hardware) => attached(hardware, &disks, &files)?,
            None => Vec::new(),
        };
        if attached.is_empty() {
            return Ok(Envelope {
                files,
                disks,
                loose: Vec::new(),
            });
        }
        let loose = disks.into_iter().filter(|disk| !attached.contains(disk));
        Ok(Envelope {
            loose: loose.collect(),
            files,
            disks: attached,
        })
    }
}

fn file_ref(file: &Element) -> Result<FileRef> {
    let number = |name: &str| -> Result<Option<u64>> {
        let Some(text) = file.attribute(name) else {
            return Ok(None);
        };
        let number = text.trim().parse();
        number
            .map(Some)
            .with_context(|| format!("{name} of a file is {text:?}, not a number"))
    };
    Ok(FileRef {
        id: file.attribute("id").unwrap_or_default().to_owned(),
        href: file.attribute("href").unwrap_or_default().to_owned(),
        size_bytes: number("size")?,
        compression: file
            .attribute("compression")
            .filter(|kind| !matches!(*kind, "" | "identity"))
            .map(str::to_owned),
        chunk_bytes: number("chunkSize")?,
    })
}

fn disk_ref(disk: &Element, files: &[FileRef]) -> Result<DiskRef> {
    let id = disk.attribute("diskId").unwrap_or_default().to_owned();
    let file = match disk.attribute("fileRef") {
        None | Some("") => None,
        Some(wanted) => {
            let file = files.iter().find(|file| file.id == wanted);
            let file = file.with_context(|| format!("disk {id} is in a file {wanted}, unknown"))?;
            Some(file.clone())
        }
    };
    let parent = disk.attribute("parentRef");
    Ok(DiskRef {
        id,
        file,
        is_delta: parent.is_some_and(|parent| !parent.is_empty()),
    })
}

/// Returns the disks of the machine, sorted as Linux names them: by controller,
/// then by unit.
fn attached(hardware: &Element, disks: &[DiskRef], files: &[FileRef]) -> Result<Vec<DiskRef>> {
    let items: Vec<&Element> = hardware
        .children("Item")
        .chain(hardware.children("StorageItem"))
        // A limit on what may be set, not a device.
        .filter(|item| item.attribute("bound").is_none())
        .collect();
    ensure!(
        items.len() <= MAX_DEVICES,
        "its machine has more than {MAX_DEVICES} devices"
    );
    let mut found = Vec::new();
    for item in items.iter().filter(|item| kind(item) == DISK_DRIVE) {
        let resource = item.text_of("HostResource").unwrap_or_default();
        let disk = match disk_behind(resource, disks, files) {
            Some(disk) => disk,
            // A disk that the machine brings along, with nothing in it.
            None if resource.is_empty() => DiskRef {
                id: item.text_of("ElementName").unwrap_or_default().to_owned(),
                file: None,
                is_delta: false,
            },
            None => bail!("a disk drive holds {resource:?}, which is unknown"),
        };
        let controller = items.iter().find(|other| {
            is_controller(other) && other.text_of("InstanceID") == item.text_of("Parent")
        });
        let place = controller.map(|controller| (rank(controller), number(controller, "Address")));
        found.push((place, number(item, "AddressOnParent"), disk));
    }
    found.sort_by_key(|(controller, unit, _)| (*controller, *unit));
    Ok(found.into_iter().map(|(_, _, disk)| disk).collect())
}

/// The kinds of devices (CIM_ResourceAllocationSettingData).
const IDE_CONTROLLER: u64 = 5;
const SCSI_CONTROLLER: u64 = 6;
const DISK_DRIVE: u64 = 17;
const OTHER_STORAGE: u64 = 20;

fn kind(item: &Element) -> u64 {
    number(item, "ResourceType")
}

fn is_controller(item: &Element) -> bool {
    matches!(kind(item), IDE_CONTROLLER | SCSI_CONTROLLER | OTHER_STORAGE)
}

/// Controllers of one kind count before those of the next.
fn rank(controller: &Element) -> u64 {
    match kind(controller) {
        IDE_CONTROLLER => 0,
        SCSI_CONTROLLER => 1,
        _ => 2,
    }
}

fn number(item: &Element, name: &str) -> u64 {
    let text = item.text_of(name).unwrap_or_default();
    text.parse().unwrap_or(0)
}

/// Finds what `ovf:/disk/ID` or `ovf:/file/ID` names.
fn disk_behind(resource: &str, disks: &[DiskRef], files: &[FileRef]) -> Option<DiskRef> {
    let path = resource.strip_prefix("ovf:").unwrap_or(resource);
    let (what, id) = path.trim_start_matches('/').split_once('/')?;
    match what {
        "disk" => disks.iter().find(|disk| disk.id == id).cloned(),
        "file" => {
            let file = files.iter().find(|file| file.id == id)?;
            Some(DiskRef {
                id: id.to_owned(),
                file: Some(file.clone()),
                is_delta: false,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: u64, id: &str, rest: &str) -> String {
        format!(
            "<Item><rasd:ResourceType>{kind}</rasd:ResourceType>\
             <rasd:InstanceID>{id}</rasd:InstanceID>{rest}</Item>"
        )
    }

    fn drive(id: &str, parent: &str, unit: u64, resource: &str) -> String {
        let rest = format!(
            "<rasd:Parent>{parent}</rasd:Parent><rasd:AddressOnParent>{unit}</rasd:AddressOnParent>\
             <rasd:HostResource>{resource}</rasd:HostResource>"
        );
        item(17, id, &rest)
    }

    fn document(disks: &str, items: &[String]) -> String {
        format!(
            "<Envelope xmlns:ovf='o' xmlns:rasd='r'><References>\
             <File ovf:id='f1' ovf:href='one.vmdk' ovf:size='5'/>\
             <File ovf:id='f2' ovf:href='two.vmdk.gz' ovf:compression='gzip' ovf:chunkSize='9'/>\
             </References><DiskSection>{disks}</DiskSection><VirtualSystem ovf:id='v'>\
             <VirtualHardwareSection>{}</VirtualHardwareSection></VirtualSystem></Envelope>",
            items.concat()
        )
    }

    const DISKS: &str = "<Disk ovf:diskId='d1' ovf:fileRef='f1'/>\
                         <Disk ovf:diskId='d2' ovf:fileRef='f2'/><Disk ovf:diskId='empty'/>\
                         <Disk ovf:diskId='spare'/>";

    #[test]
    fn disks_stand_as_controllers_and_units_order_them() {
        let bus = |n: u64| format!("<rasd:Address>{n}</rasd:Address>");
        let text = document(
            DISKS,
            &[
                drive("10", "4", 0, "ovf:/disk/d1"),
                drive("11", "3", 2, "/disk/d2"),
                drive("12", "3", 0, "ovf:/disk/empty"),
                item(6, "4", &bus(1)),
                item(6, "3", &bus(0)),
                item(15, "13", "<rasd:Parent>3</rasd:Parent>"),
            ],
        );
        let envelope = Envelope::parse(&text).unwrap();
        let names: Vec<&str> = envelope.disks.iter().map(DiskRef::name).collect();
        assert_eq!(names, ["empty", "two.vmdk.gz", "one.vmdk"]);
        assert_eq!(envelope.loose[0].name(), "spare");
        let file = envelope.disks[1].file.clone().unwrap();
        assert_eq!(file.compression.as_deref(), Some("gzip"));
        assert_eq!(file.chunk_bytes, Some(9));
        assert_eq!(envelope.files[0].size_bytes, Some(5));
    }

    #[test]
    fn without_hardware_disks_stand_as_they_are_listed() {
        let envelope = Envelope::parse(&document(DISKS, &[])).unwrap();
        assert_eq!(envelope.disks.len(), 4);
        let delta = "<Disk ovf:diskId='d' ovf:fileRef='f1' ovf:parentRef='base'/>";
        assert!(Envelope::parse(&document(delta, &[])).unwrap().disks[0].is_delta);
    }

    #[test]
    fn what_does_not_fit_together_is_an_error() {
        for (text, word) in [
            (
                document("<Disk ovf:diskId='d' ovf:fileRef='f9'/>", &[]),
                "f9",
            ),
            (document(DISKS, &[drive("1", "2", 0, "ovf:/disk/d9")]), "d9"),
            (
                document("", &[]).replace("ovf:size='5'", "ovf:size='-5'"),
                "\"-5\"",
            ),
            (
                "<E><VirtualSystem/><C><VirtualSystem/></C></E>".to_owned(),
                "2 virtual machines",
            ),
        ] {
            let error = format!("{:#}", Envelope::parse(&text).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }
}
