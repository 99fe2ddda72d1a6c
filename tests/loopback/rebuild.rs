//! The layout of a disk that is made anew, made by the real tools. The kernel that
//! builds has no device-mapper, so volumes are looked at as metadata.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use va_upgrade::config::{Layout, Volumes};
use va_upgrade::disk::group::{EXTENT_BYTES, NewGroup};
use va_upgrade::disk::mkfs::{self, FsType};
use va_upgrade::disk::table::{self, Purpose};
use va_upgrade::migrate::rebuild::plan::{Disk, Needs, Plan, plan};
use va_upgrade::migrate::rebuild::twin;
use va_upgrade::system::{Host, System};

use super::disk::{run, text};

const GIB: u64 = 1 << 30;

fn planned(size_bytes: u64) -> Plan {
    let disk = Disk {
        size_bytes,
        logical_sector_bytes: 512,
    };
    plan(
        disk,
        &Layout::default(),
        &Volumes::default(),
        Needs::default(),
    )
    .unwrap()
}

/// A part of a file as a loop device.
struct Part(String);

impl Part {
    fn of(file: &Path, start_bytes: u64, size_bytes: u64) -> Part {
        let (offset, limit) = (
            format!("--offset={start_bytes}"),
            format!("--sizelimit={size_bytes}"),
        );
        let args = ["--find", "--show", &offset, &limit, text(file)];
        Part(run("losetup", &args).trim().to_owned())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        run("losetup", &["--detach", &self.0]);
    }
}

/// A disk of 20 GiB that held something else, with the new table.
fn divided(dir: &Path) -> (PathBuf, Plan) {
    let path = dir.join("disk.raw");
    let file = fs::File::create(&path).unwrap();
    file.set_len(20 * GIB).unwrap();
    run(
        "sgdisk",
        &["--new=1:34:0", "--typecode=1:8300", text(&path)],
    );
    let plan = planned(20 * GIB);
    table::write(&path, 20 * GIB, &plan.partitions, "not yet").unwrap();
    (path, plan)
}

#[test]
fn the_table_is_one_that_other_tools_find_no_fault_with() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, _) = divided(dir.path());
    let verdict = run("sgdisk", &["--verify", text(&disk)]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let printed = run("sgdisk", &["--print", text(&disk)]);
    for code in ["EF02", "8300", "8E00"] {
        assert!(printed.contains(code), "{printed}");
    }
    // The backup heals the primary table.
    let file = OpenOptions::new().write(true).open(&disk).unwrap();
    file.write_all_at(&[0; 4096], 512).unwrap();
    let error = table::verify(&disk, &planned(20 * GIB).partitions);
    assert!(error.is_err());
}

#[test]
fn the_group_has_the_volumes_of_the_plan_also_at_a_second_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, plan) = divided(dir.path());
    let lvm = plan.partition(Purpose::Lvm);
    let part = Part::of(&disk, lvm.start_bytes, lvm.size_bytes);
    let host = Host::new(false);
    let group = NewGroup {
        sys: &host,
        name: "VA-loop-test",
        device: PathBuf::from(&part.0),
    };
    for _ in 0..2 {
        group.make(&plan.volumes).unwrap();
    }
    let config = format!(
        "--config=devices{{use_devicesfile=0 filter=[\"a|^{}$|\",\"r|.*|\"]}} \
         global{{activation=0}}",
        part.0
    );
    let columns = "--options=vg_free_count,vg_extent_size,vg_systemid";
    let args = ["--noheadings", "--nosuffix", "--units=b", "--separator=|"];
    let found = run(
        "vgs",
        &[&[&*config, columns][..], &args, &["VA-loop-test"]].concat(),
    );
    let wanted = format!("{}|{EXTENT_BYTES}|", plan.free_extents);
    assert_eq!(found.trim(), wanted);
}

#[test]
fn a_layout_is_tried_on_a_file_that_goes_again() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::new(false);
    let mut plan = planned(20 * GIB);
    twin::try_out(&host, &plan, "VA", dir.path()).unwrap();
    plan.volumes[2].extents += plan.free_extents + 1;
    let error = twin::try_out(&host, &plan, "VA", dir.path()).unwrap_err();
    assert!(format!("{error:#}").contains("lvcreate"), "{error:#}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let loops = run("losetup", &["--list", "--noheadings", "--output=BACK-FILE"]);
    assert!(!loops.contains(text(dir.path())), "{loops}");
}

#[test]
fn boot_gets_a_file_system_that_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, plan) = divided(dir.path());
    let boot = plan.partition(Purpose::FileSystem);
    let part = Part::of(&disk, boot.start_bytes, boot.size_bytes);
    let host = Host::new(false);
    let device = Path::new(&part.0);
    let format = mkfs::command(&host, FsType::Ext4, device, boot.size_bytes, 1000).unwrap();
    host.run(&format).unwrap();
    run("e2fsck", &["-fn", &part.0]);
}
