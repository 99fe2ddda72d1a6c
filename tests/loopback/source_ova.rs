//! OVAs: what their descriptions and manifests say holds.

use std::fmt::Write;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use super::disk::{Disk, FileSystem, run, text};
use super::opener::open;
use super::source_formats::{convert, plain_disk};

/// A directory in which an OVA is put together.
struct Ova<'d> {
    dir: &'d Path,
    files: String,
    disks: String,
    drives: String,
    members: Vec<String>,
}

impl<'d> Ova<'d> {
    fn new(dir: &'d Path) -> Ova<'d> {
        Ova {
            dir,
            files: String::new(),
            disks: String::new(),
            drives: String::new(),
            members: vec!["vm.ovf".into()],
        }
    }

    /// Adds a file of the machine that is split into members of these names.
    fn file(mut self, href: &str, attributes: &str, members: &[&str]) -> Self {
        let size = members.iter().map(|name| self.size(name)).sum::<u64>();
        let line =
            format!("<File ovf:id='{href}' ovf:href='{href}' ovf:size='{size}' {attributes}/>");
        self.files += &line;
        self.members
            .extend(members.iter().map(|name| (*name).to_owned()));
        self
    }

    /// Adds a disk in `file`, or an empty one, as a unit of a controller.
    fn disk(mut self, file: &str, controller: u32, unit: u32) -> Self {
        let id = format!("disk{controller}-{unit}");
        let place = match file {
            "" => String::new(),
            _ => format!("ovf:fileRef='{file}'"),
        };
        write!(
            self.disks,
            "<Disk ovf:diskId='{id}' ovf:capacity='1' {place}/>"
        )
        .unwrap();
        write!(
            self.drives,
            "<Item><rasd:AddressOnParent>{unit}</rasd:AddressOnParent>\
             <rasd:HostResource>ovf:/disk/{id}</rasd:HostResource>\
             <rasd:InstanceID>{id}</rasd:InstanceID><rasd:Parent>{controller}</rasd:Parent>\
             <rasd:ResourceType>17</rasd:ResourceType></Item>"
        )
        .unwrap();
        self
    }

    /// A disk of one VMDK, which is a file of the same name.
    fn vmdk(self, name: &str, unit: u32) -> Self {
        self.file(name, "", &[name]).disk(name, 1, unit)
    }

    fn size(&self, name: &str) -> u64 {
        fs::metadata(self.dir.join(name)).unwrap().len()
    }

    fn describe(&self) {
        let controllers: String = (0..3)
            .map(|n| {
                format!(
                    "<Item><rasd:Address>{n}</rasd:Address><rasd:InstanceID>{n}</rasd:InstanceID>\
                     <rasd:ResourceType>6</rasd:ResourceType></Item>"
                )
            })
            .collect();
        let envelope = format!(
            "<?xml version='1.0' encoding='UTF-8'?>\n\
             <Envelope xmlns='http://schemas.dmtf.org/ovf/envelope/1'\n\
             xmlns:ovf='http://schemas.dmtf.org/ovf/envelope/1'\n\
             xmlns:rasd='http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData'>\n\
             <References>{}</References><DiskSection>{}</DiskSection>\
             <VirtualSystem ovf:id='vm'><VirtualHardwareSection>{}{controllers}\
             </VirtualHardwareSection></VirtualSystem></Envelope>",
            self.files, self.disks, self.drives
        );
        fs::write(self.dir.join("vm.ovf"), envelope).unwrap();
    }

    /// Adds a manifest with the digests of all members.
    fn manifest(mut self, algorithm: &str) -> Self {
        self.describe();
        let mut args = vec!["dgst", algorithm];
        let paths: Vec<PathBuf> = self
            .members
            .iter()
            .map(|name| self.dir.join(name))
            .collect();
        args.extend(paths.iter().map(|path| text(path)));
        let digests = run("openssl", &args).replace(&format!("{}/", text(self.dir)), "");
        let digests = digests.replace("SHA2-", "SHA");
        fs::write(self.dir.join("vm.mf"), digests).unwrap();
        self.members.push("vm.mf".into());
        self
    }

    fn pack(self) -> PathBuf {
        if !self.members.iter().any(|name| name == "vm.mf") {
            self.describe();
        }
        let path = self.dir.join("vm.ova");
        let mut args = vec!["--format=ustar", "-C", text(self.dir), "-cf", text(&path)];
        args.extend(self.members.iter().map(String::as_str));
        run("tar", &args);
        path
    }
}

fn stream_optimized(raw: &Path, to: &Path) {
    convert(raw, "vmdk", &["-o", "subformat=streamOptimized"], to);
}

fn assert_refused(ova: &Path, words: &[&str]) {
    let seen = open(ova, None);
    let refusal = seen.refusal();
    for word in words.iter().chain(&["vm.ova"]) {
        assert!(refusal.contains(word), "{word}: {refusal}");
    }
    assert!(!refusal.contains("/proc/"), "{refusal}");
    assert!(!refusal.contains('\n'), "{refusal}");
}

#[test]
fn disks_of_every_format_are_read_out_of_an_ova() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let raw = plain_disk(dir);
    stream_optimized(&raw, &dir.join("a.vmdk"));
    convert(&raw, "qcow2", &[], &dir.join("a.qcow2"));
    run("gzip", &["--keep", text(&dir.join("a.vmdk"))]);
    run("gzip", &["--keep", "-1", text(&raw)]);
    let chunk = 2_000;
    let split = |name: &str, from: &str| -> Vec<String> {
        let prefix = dir.join(format!("{name}."));
        let (whole, size) = (dir.join(from), format!("{chunk}"));
        let args = ["-b", &size, "-d", "-a9", text(&whole), text(&prefix)];
        run("split", &args);
        let count = fs::metadata(&whole).unwrap().len().div_ceil(chunk);
        assert!(count > 1);
        (0..count).map(|n| format!("{name}.{n:09}")).collect()
    };
    let plain_chunks = split("c.vmdk", "a.vmdk");
    let packed_chunks = split("z.vmdk", "a.vmdk.gz");
    let plain_chunks: Vec<&str> = plain_chunks.iter().map(String::as_str).collect();
    let packed_chunks: Vec<&str> = packed_chunks.iter().map(String::as_str).collect();
    let in_chunks = format!("ovf:chunkSize='{chunk}'");
    let packed_in_chunks = format!("{in_chunks} ovf:compression='gzip'");
    for (file, attributes, members, algorithm) in [
        ("a.vmdk", "", &["a.vmdk"][..], "-sha1"),
        (
            "a.qcow2",
            "ovf:compression='identity'",
            &["a.qcow2"],
            "-sha256",
        ),
        ("disk.raw", "", &["disk.raw"], "-sha512"),
        (
            "a.vmdk.gz",
            "ovf:compression='gzip'",
            &["a.vmdk.gz"],
            "-sha256",
        ),
        (
            "disk.raw.gz",
            "ovf:compression='gzip'",
            &["disk.raw.gz"],
            "-sha256",
        ),
        ("c.vmdk", &in_chunks, &plain_chunks, "-sha256"),
        ("z.vmdk", &packed_in_chunks, &packed_chunks, "-sha256"),
    ] {
        let ova = Ova::new(dir)
            .file(file, attributes, members)
            .disk(file, 0, 0);
        let seen = open(&ova.manifest(algorithm).pack(), None);
        seen.assert_opened();
        assert_eq!(seen.tree["etc/greeting"], "hello", "{file}");
        assert_eq!(seen.notes, ["the root file system is partition 1"]);
    }
}

#[test]
fn disks_count_as_the_machine_orders_them_empty_ones_too() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let fstab = "/dev/sdc1 / ext4 defaults 0 1\n/dev/sda /opt ext4 defaults 0 2\n";
    let files = [
        ("etc/os-release", "ID=debian\n"),
        ("etc/fstab", fstab),
        ("sbin/init", "init"),
        ("opt/", ""),
    ];
    let root = FileSystem::make(dir, "ext4", "root", 24, &files);
    let disk = Disk::new(dir.join("disk.raw"), 26);
    disk.gpt(&[("8300", 24)]);
    disk.put_whole(&root, disk.partition_offset(1));
    stream_optimized(&disk.path, &dir.join("system.vmdk"));
    let opt = FileSystem::make(dir, "ext4", "opt", 16, &[("product", "x")]);
    stream_optimized(&opt.path, &dir.join("opt.vmdk"));
    // The first file is the last disk, and an empty one is between them.
    let ova = Ova::new(dir).vmdk("system.vmdk", 4).vmdk("opt.vmdk", 0);
    let seen = open(&ova.disk("", 1, 1).pack(), None);
    seen.assert_opened();
    assert_eq!(seen.tree["opt/product"], "x");
    assert!(!seen.tree.contains_key("opt/etc/fstab"));
    assert!(seen.notes[0].contains("no manifest"), "{seen:?}");
    assert_eq!(
        seen.notes[1],
        "the root file system is partition 1 of disk 3"
    );
    // Without the empty one, the disk after it has another name.
    let ova = Ova::new(dir).vmdk("system.vmdk", 4).vmdk("opt.vmdk", 0);
    assert_refused(
        &ova.pack(),
        &["/dev/sdc1", "partition 1 of disk 2", "--root"],
    );
    // What is packed as the root is never packed again below it.
    let fstab = "/dev/sda1 /opt ext4 defaults 0 2\n";
    root.while_mounted(dir, |tree| {
        fs::write(tree.join("etc/fstab"), fstab).unwrap()
    });
    disk.put_whole(&root, disk.partition_offset(1));
    let seen = open(&disk.path, None);
    let refusal = seen.refusal();
    assert!(
        refusal.contains("/opt") && refusal.contains("/dev/sda1"),
        "{refusal}"
    );
}

#[test]
fn what_an_ova_lacks_or_what_was_changed_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let raw = plain_disk(dir);
    stream_optimized(&raw, &dir.join("a.vmdk"));
    fs::copy(dir.join("a.vmdk"), dir.join("b.vmdk")).unwrap();
    fs::write(dir.join("notes.txt"), "text").unwrap();
    let plain = || Ova::new(dir).vmdk("a.vmdk", 0);
    let signed = || {
        plain()
            .file("notes.txt", "", &["notes.txt"])
            .manifest("-sha256")
    };

    // One bit of the disk, of the description and of a file that is not used.
    for name in ["a.vmdk", "vm.ovf", "notes.txt"] {
        let ova = signed();
        let path = dir.join(name);
        let before = fs::read(&path).unwrap();
        let mut bytes = before.clone();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        if name == "vm.ovf" {
            bytes = [&before[..], b"<!-- -->"].concat();
        }
        fs::write(&path, bytes).unwrap();
        let ova = ova.pack();
        fs::write(&path, before).unwrap();
        assert_refused(&ova, &[name, "digest", "copy it again"]);
    }

    let mut ova = signed();
    ova.members.retain(|name| name != "notes.txt");
    assert_refused(&ova.pack(), &["notes.txt", "does not hold"]);
    let mut ova = signed();
    let manifest = fs::read_to_string(dir.join("vm.mf")).unwrap();
    let extra = manifest + &format!("SHA1(gone.iso)= {}\n", "0".repeat(40));
    fs::write(dir.join("vm.mf"), &extra).unwrap();
    assert_refused(&ova.pack(), &["gone.iso", "manifest"]);
    ova = signed();
    let listed: String = fs::read_to_string(dir.join("vm.mf")).unwrap();
    let listed: Vec<&str> = listed.lines().filter(|l| !l.contains("a.vmdk")).collect();
    fs::write(dir.join("vm.mf"), listed.join("\n")).unwrap();
    assert_refused(&ova.pack(), &["a.vmdk", "no digest"]);

    let mut ova = plain();
    ova.files = ova.files.replace("ovf:size='", "ovf:size='9");
    assert_refused(&ova.pack(), &["a.vmdk", "bytes", "OVF"]);
    let mut ova = plain();
    ova.disks = ova.disks.replace("<Disk ", "<Disk ovf:parentRef='base' ");
    assert_refused(&ova.pack(), &["a.vmdk", "snapshots"]);
    let mut ova = plain();
    ova.members.remove(0);
    assert_refused(&ova.pack(), &["not an OVA", ".ovf"]);
    assert_refused(&Ova::new(dir).pack(), &["holds no disk", "vm.ovf"]);

    // What was cut off before the archive was made, and the archive itself.
    let file = OpenOptions::new()
        .write(true)
        .open(dir.join("b.vmdk"))
        .unwrap();
    file.set_len(fs::metadata(dir.join("b.vmdk")).unwrap().len() - (70 << 10))
        .unwrap();
    let ova = Ova::new(dir).vmdk("b.vmdk", 0).pack();
    assert_refused(&ova, &["b.vmdk", "cut off", "copy it again"]);
    run("gzip", &["--keep", text(&dir.join("a.vmdk"))]);
    let packed = dir.join("a.vmdk.gz");
    let length = fs::metadata(&packed).unwrap().len();
    OpenOptions::new()
        .write(true)
        .open(&packed)
        .unwrap()
        .set_len(length / 2)
        .unwrap();
    let ova = Ova::new(dir).file("a.vmdk.gz", "ovf:compression='gzip'", &["a.vmdk.gz"]);
    assert_refused(
        &ova.disk("a.vmdk.gz", 0, 0).pack(),
        &["a.vmdk.gz", "copy it again"],
    );
    let ova = plain().pack();
    let length = fs::metadata(&ova).unwrap().len();
    OpenOptions::new()
        .write(true)
        .open(&ova)
        .unwrap()
        .set_len(length / 2)
        .unwrap();
    assert_refused(&ova, &["a.vmdk", "cut off"]);
}
