//! A disk made anew on the fake machine, from what lies in its RAM.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Result;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey, EncodePublicKey};
use va_upgrade::appliance::Appliance;
use va_upgrade::boot::bios::area::BootArea;
use va_upgrade::boot::state::{Phase, State};
use va_upgrade::bundle::{Sealed, Trust, load_signing_key, sign_bundle};
use va_upgrade::config::Config;
use va_upgrade::disk::log_area;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::migrate::rebuild::{self, Payload, Reporter, plan::Plan};
use va_upgrade::paths::NO_RETURN_FILE;
use va_upgrade::progress::Silent;
use va_upgrade::slot::Slot;
use va_upgrade::system::System;

use crate::machine::{Machine, scratch};
use crate::release::make_bundle;
use crate::settings::{collect, old_system};

pub const DISK_BYTES: u64 = 8 << 30;

/// What the disk holds before: at its edges and in between.
const OLD: [(u64, &[u8]); 3] = [
    (0, b"old boot code"),
    (5 << 20, b"old file system"),
    (DISK_BYTES - 512, b"EFI PART, the backup"),
];

/// What all machines are given.
pub struct Lab {
    dir: tempfile::TempDir,
}

/// A machine that runs from its RAM, with the payload in it.
pub struct InRam {
    pub machine: Machine,
    pub payload: Payload,
}

impl Lab {
    pub fn new() -> Lab {
        let lab = Lab { dir: scratch() };
        let bundle = make_bundle(lab.dir.path(), "9.4.1");
        lab.trust_and_sign(&bundle);
        collect(&old_system(), &lab.path("settings.tar")).unwrap();
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn trust_and_sign(&self, bundle: &Path) {
        let key = SigningKey::from_bytes(&[7; 32]);
        let secret = self.path("key.pem");
        fs::write(&secret, &*key.to_pkcs8_pem(LineEnding::LF).unwrap()).unwrap();
        let public = key.verifying_key();
        let public = public.to_public_key_pem(LineEnding::LF).unwrap();
        fs::create_dir(self.path("trusted.d")).unwrap();
        fs::write(self.path("trusted.d/key.pem"), public).unwrap();
        let key = load_signing_key(&secret).unwrap();
        sign_bundle(&Machine::fresh(), bundle, &key).unwrap();
    }

    /// Starts a machine with the old disk in it.
    pub fn start(&self) -> InRam {
        let machine = Machine::fresh();
        // No step before the last one leaves a disk that starts.
        machine.be_damaged();
        fs::remove_dir_all(machine.at("/boot")).unwrap();
        fs::create_dir(machine.at("/boot")).unwrap();
        for name in ["vda2", "data", "image", "root", "back"] {
            fs::create_dir_all(machine.at(&format!("/devices/VA-{name}"))).unwrap();
        }
        for device in ["vda1", "vda3", "VA/data", "VA/image"] {
            machine.write(&format!("/dev/{device}"), "");
        }
        let disk = fs::File::create(machine.at("/dev/vda")).unwrap();
        disk.set_len(DISK_BYTES).unwrap();
        for (at, bytes) in OLD {
            disk.write_all_at(bytes, at).unwrap();
        }
        let work = machine.at("/work");
        fs::create_dir(&work).unwrap();
        for name in ["9.4.1.vab", "settings.tar"] {
            fs::copy(self.path(name), work.join(name)).unwrap();
        }
        let payload = Payload {
            bundle: work.join("9.4.1.vab"),
            settings: work.join("settings.tar"),
            disk: "/dev/vda".into(),
            trusted: self.path("trusted.d"),
            work,
        };
        let ram = InRam { machine, payload };
        let lines = ram.plan().volumes.into_iter().map(|volume| {
            let bytes = volume.extents << 22;
            format!("  {}|{bytes}|linear\n", volume.name)
        });
        ram.machine.answer("lvs", &lines.collect::<String>());
        ram
    }
}

impl InRam {
    pub fn run(&self) -> Result<()> {
        self.run_on(&self.machine)
    }

    /// Runs on `sys`, which is this machine with a flaw.
    pub fn run_on(&self, sys: &dyn System) -> Result<()> {
        let config = Config::default();
        let appliance = Appliance {
            sys,
            config: &config,
            progress: &Silent,
        };
        let reporter = Reporter::new(sys, &Silent);
        let prepared = rebuild::prepare(&appliance, &self.payload, &reporter)?;
        rebuild::run(&appliance, &self.payload, &prepared, &reporter)
    }

    fn plan(&self) -> Plan {
        let sealed = Sealed::open(&self.payload.bundle).unwrap();
        let (bundle, _) = sealed.authenticate(Trust::Anyone).unwrap();
        self.machine
            .with_appliance(|appliance| {
                let disk = rebuild::measure(appliance, Path::new("/dev/vda"))?;
                let settings = self.payload.settings.metadata()?.len();
                rebuild::divide(appliance, bundle, settings, disk, &self.payload.work)
            })
            .unwrap()
    }

    /// The bytes of the disk that the old system consists of.
    pub fn old_bytes(&self) -> Vec<u8> {
        let disk = fs::File::open(self.machine.at("/dev/vda")).unwrap();
        let mut found = vec![0; 6 << 20];
        disk.read_exact_at(&mut found, 0).unwrap();
        let mut end = vec![0; 1 << 20];
        disk.read_exact_at(&mut end, DISK_BYTES - (1 << 20))
            .unwrap();
        found.extend(end);
        found
    }

    /// The first sector.
    pub fn boot_sector(&self) -> Vec<u8> {
        self.old_bytes()[..512].to_vec()
    }

    pub fn log(&self) -> Vec<String> {
        let lines = log_area::read(&self.machine.at("/dev/vda")).unwrap();
        lines.into_iter().map(|line| line.text).collect()
    }

    /// Says what the disk starts: only GRUB's own code goes on to a core.
    pub fn starts(&self) -> bool {
        let area = BootArea::look(&self.machine.at("/dev/vda"));
        area.is_ok_and(|area| area.has_core().unwrap())
    }

    /// Fails the test unless the disk starts the whole new system.
    pub fn require_new_system(&self) {
        let machine = &self.machine;
        let boot = "/devices/VA-vda2/va";
        assert!(self.starts());
        let area = BootArea::look(&machine.at("/dev/vda")).unwrap();
        let noted = ["grub-1", "grub-2"]
            .map(|dir| fs::read_to_string(machine.at(&format!("{boot}/{dir}/core"))))
            .map(Result::unwrap_or_default);
        assert!(noted.contains(&area.current_core().unwrap()));
        let state = State::load(&machine.at(boot)).unwrap().unwrap();
        assert_eq!(state.committed(), Slot::Root);
        assert_eq!(state.phase(Slot::Back), Phase::Empty);
        assert_eq!(state.trial(), None);
        assert!(machine.mounts().is_empty());
        assert!(!machine.at(NO_RETURN_FILE).exists());
        let root = "/devices/VA-root";
        assert_eq!(machine.read(&format!("{root}/etc/hostname")), "gateway-7\n");
    }
}

#[test]
fn the_new_system_has_all_of_the_customers_and_the_disk_starts_it() {
    let lab = Lab::new();
    let ram = lab.start();
    ram.run().unwrap();
    ram.require_new_system();
    let machine = &ram.machine;
    let root = |path: &str| machine.read(&format!("/devices/VA-root/{path}"));
    assert_eq!(root("root/.ssh/authorized_keys"), "ssh-ed25519 AAAA\n");
    assert_eq!(
        root("etc/va-upgrade/release.yaml"),
        "product: acme\nversion: 9.4.1\n"
    );
    let fstab = root("etc/fstab");
    for (line, is_there) in [
        ("/dev/mapper/VA-root / ext4 defaults 0 1\n", true),
        ("/boot ext4", true),
        ("/dev/mapper/VA-data /data ext4 defaults 0 2\n", true),
        ("nas:/x /mnt/nas nfs _netdev,nofail", true),
        ("swapfile", false),
        ("/dev/vda1", false),
    ] {
        assert_eq!(fstab.contains(line), is_there, "{line} in {fstab}");
    }
    let entry = machine.read("/devices/VA-vda2/va/root/entry.cfg");
    let args = "root=/dev/mapper/VA-root rd.lvm.lv=VA/root ro console=ttyS0 va.slot=root";
    assert!(entry.contains(args), "{entry}");
    let first = root("usr/lib/va-upgrade/first-start.yaml");
    assert!(first.contains("from: '11'\nto: 9.4.1\n"), "{first}");
    let kept = machine.read("/data/va-upgrade/sync/1/unknown/opt/app/own.conf");
    assert_eq!(kept, "colour: blue\n");
    let run = run_of(machine);
    let archive = format!("/devices/VA-data/va-upgrade/migrations/{run}.settings.tar");
    let kept = fs::read(machine.at(&archive)).unwrap();
    assert_eq!(kept, fs::read(&ram.payload.settings).unwrap());
    for name in ["network.yaml", "cards.yaml", "before.yaml"] {
        let path = format!("/devices/VA-vda2/va/root/{name}");
        assert!(machine.at(&path).exists(), "{name}");
    }
    let log = ram.log();
    assert!(log[0].starts_with("M11 prove: "), "{log:?}");
    assert!(log.iter().any(|line| line.contains("point of no return")));
    assert_eq!(log.last().unwrap(), "M32 start: done");
    assert!(!ram.payload.work.join("twin").exists());
}

/// The number of the run in the log area.
fn run_of(machine: &Machine) -> u64 {
    log_area::read(&machine.at("/dev/vda")).unwrap()[0].run
}

#[test]
fn a_customer_whose_files_no_system_takes_gets_a_system_that_starts_all_the_same() {
    let lab = Lab::new();
    let ram = lab.start();
    let machine = &ram.machine;
    let of_old = old_system();
    of_old.write("/etc/app/own.conf", "a=1\n");
    of_old.write(
        "/etc/va-upgrade/sync.d/app.yaml",
        "- {name: app, way: transform, run: /usr/bin/refuses, paths: [/etc/app/own.conf]}\n",
    );
    collect(&of_old, &ram.payload.settings).unwrap();
    ram.run().unwrap();
    assert!(ram.starts());
    let first = machine.read("/devices/VA-root/usr/lib/va-upgrade/first-start.yaml");
    assert!(first.contains("lacks: "), "{first}");
    assert!(first.contains("too old"), "{first}");
    let log = ram.log();
    assert!(log.iter().any(|line| line.contains("going on without")));
    let archive = format!(
        "/devices/VA-data/va-upgrade/migrations/{}.settings.tar",
        run_of(machine)
    );
    let kept = fs::read(machine.at(&archive)).unwrap();
    assert_eq!(kept, fs::read(&ram.payload.settings).unwrap());
}

/// Changes a machine behind the back of whoever works on it.
type Spoil = fn(&Machine);

#[test]
fn what_the_storage_spoils_before_the_last_write_is_found_and_written_again() {
    let spoils: [(&str, Spoil); 3] = [
        ("--flushbufs /dev/VA/root", |machine| {
            machine.write("/devices/VA-root/etc/hostname", "spoilt");
        }),
        ("--flushbufs /dev/vda2", |machine| {
            machine.write("/devices/VA-vda2/va/root/entry.cfg", "spoilt");
        }),
        ("--flushbufs /dev/vda", |machine| {
            let disk = fs::File::options().write(true).open(machine.at("/dev/vda"));
            disk.unwrap().write_all_at(&[1; 1 << 20], 1 << 20).unwrap();
        }),
    ];
    for (words, spoil) in spoils {
        let lab = Lab::new();
        let ram = lab.start();
        NEXT.lock().unwrap().replace((words, spoil));
        ram.machine.meanwhile("grub-install", |machine| {
            let (words, spoil) = NEXT.lock().unwrap().take().unwrap();
            machine.meanwhile(words, spoil);
        });
        ram.run().unwrap();
        ram.require_new_system();
        let log = ram.log();
        let is_found = |line: &String| line.starts_with("M31 ") && line.contains("1 of 3 failed");
        assert!(log.iter().any(is_found), "{words}: {log:?}");
    }
}

/// What happens to a machine once GRUB is installed.
static NEXT: Mutex<Option<(&str, Spoil)>> = Mutex::new(None);

#[test]
fn what_is_not_as_it_was_is_found_before_the_disk_is_touched() {
    let lab = Lab::new();
    for name in ["settings.tar", "9.4.1.vab"] {
        let ram = lab.start();
        let before = ram.old_bytes();
        let path = ram.payload.work.join(name);
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() * 2 / 3;
        bytes[at..at + 600].fill(b'x');
        fs::write(&path, bytes).unwrap();
        let error = ram.run().unwrap_err();
        assert_eq!(class_of(&error), Class::BadBundle, "{name}: {error:#}");
        assert!(format!("{error:#}").starts_with("M11 "), "{error:#}");
        assert_eq!(ram.old_bytes(), before, "{name}");
    }
    let ram = lab.start();
    let before = ram.old_bytes();
    fs::remove_file(lab.path("trusted.d/key.pem")).unwrap();
    let error = ram.run().unwrap_err();
    assert_eq!(class_of(&error), Class::BadBundle, "{error:#}");
    assert_eq!(ram.old_bytes(), before);
}

#[test]
fn a_disk_that_is_too_small_is_refused_with_the_numbers() {
    let lab = Lab::new();
    let ram = lab.start();
    let disk = fs::File::options()
        .write(true)
        .open(ram.machine.at("/dev/vda"))
        .unwrap();
    disk.set_len(1 << 30).unwrap();
    let error = ram.run().unwrap_err();
    assert_eq!(class_of(&error), Class::Refused);
    assert!(format!("{error:#}").contains("has 1024 MiB"), "{error:#}");
}
