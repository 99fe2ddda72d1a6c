//! The kernel arguments of the migration environment. Pure.

use std::path::Path;

use crate::boot::entry::own_arguments;

/// The word that tells the environment where its order is: the UUID of a file system,
/// a colon, a directory in it.
pub const WORD: &str = "va.migrate=";

/// What turns a kernel that fails into a restart, and lets every line of ours through
/// to the console.
const OWN: &str = "ro panic=10 softlockup_panic=1 hung_task_panic=1 rd.shell=0 \
                   rd.emergency=reboot printk.devkmsg=on";

/// Words for the old system's root, its start and its policies; those of its
/// hardware and consoles come along.
const NOT_OURS: [&str; 24] = [
    "audit",
    "boot",
    "crashkernel",
    "enforcing",
    "fips",
    "fsck.mode",
    "ip",
    "loglevel",
    "net.ifnames",
    "noresume",
    "panic",
    "quiet",
    "resume",
    "resume_offset",
    "rhgb",
    "ro",
    "root",
    "rootdelay",
    "rootflags",
    "rootfstype",
    "rw",
    "security",
    "selinux",
    "splash",
];

/// Returns the arguments for an order in the directory `dir` of the file system
/// `uuid`; `cmdline` is what the old system was started with.
pub fn arguments(cmdline: &str, uuid: &str, dir: &Path) -> Vec<String> {
    let mut args = own_arguments(cmdline, &[]);
    args.retain(|word| {
        let name = word.split('=').next().unwrap_or(word);
        let is_of_start = ["rd.", "systemd.", "udev.", "plymouth."]
            .iter()
            .any(|start| name.starts_with(start));
        !is_of_start && !NOT_OURS.contains(&name)
    });
    args.extend(OWN.split_whitespace().map(str::to_owned));
    args.push(format!("{WORD}{uuid}:{}", dir.display()));
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_and_consoles_come_along_and_the_old_root_does_not() {
        let line = "BOOT_IMAGE=/vmlinuz root=/dev/mapper/centos-root ro crashkernel=auto \
                    rd.lvm.lv=centos/root rhgb quiet single init=/bin/sh console=tty0 \
                    console=ttyS0,115200n8 pci=nomsi net.ifnames=0 va.why=trial resume=/dev/sda2\n";
        let args = arguments(line, "1-2", Path::new("/grub2/va-migrate"));
        let (old, own) = args.split_at(3);
        assert_eq!(old, ["console=tty0", "console=ttyS0,115200n8", "pci=nomsi"]);
        assert_eq!(own[0], "ro");
        assert_eq!(own.last().unwrap(), "va.migrate=1-2:/grub2/va-migrate");
    }
}
