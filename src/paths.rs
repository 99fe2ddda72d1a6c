//! Where things are on an appliance. Every path is absolute in its system.

/// Where `/boot` is mounted.
pub const BOOT: &str = "/boot";

/// Our directory on `/boot`.
pub const BOOT_DIR: &str = "/boot/va";

/// Our directory of settings.
pub const SETTINGS_DIR: &str = "/etc/va-upgrade";

/// The settings file, unless `--config` names another.
pub const CONFIG_FILE: &str = "/etc/va-upgrade/config.yaml";

/// Where trusted keys are.
pub const TRUSTED_DIR: &str = "/etc/va-upgrade/trusted.d";

/// The list of key ids that are no longer trusted.
pub const REVOKED_FILE: &str = "/etc/va-upgrade/revoked";

/// Where a slot's release record is, inside the slot.
pub const RELEASE_FILE: &str = "/etc/va-upgrade/release.yaml";

/// The directory of the product's own health checks.
pub const CHECKS_DIR: &str = "/etc/va-upgrade/health.d";

/// Where a slot keeps what it was delivered with.
pub const PRISTINE_DIR: &str = "/usr/lib/va-upgrade/pristine";

/// The fingerprint of what was carried over to a slot, inside it.
pub const CARRIED_FILE: &str = "/usr/lib/va-upgrade/carried";

/// Says when a slot that something was carried over to was first started, inside it.
pub const STARTED_FILE: &str = "/usr/lib/va-upgrade/started";

/// Where the archive of a migration has what is told of the old system.
pub const MOVED_DIR: &str = "/usr/lib/va-upgrade/migration";

/// Is in a system that was written to a disk made anew, until its first start is
/// found healthy.
pub const FIRST_START_FILE: &str = "/usr/lib/va-upgrade/first-start.yaml";

/// What agetty(8) shows before a login, besides the system's own, until the next start.
pub const ISSUE_FILE: &str = "/run/issue.d/va-upgrade.issue";

/// What pam_motd(8) shows after one, likewise.
pub const MOTD_FILE: &str = "/run/motd.d/va-upgrade";

/// The console of the machine.
pub const CONSOLE: &str = "/dev/console";

/// Where our program is in every system.
pub const PROGRAM: &str = "/usr/sbin/va-upgrade";

/// Is in a slot whose SELinux labels are not all set; says why.
pub const UNLABELLED_FILE: &str = "/.va-upgrade-unlabelled";

/// The lock of every command that changes something.
pub const LOCK_FILE: &str = "/run/va-upgrade.lock";

/// Is there once the trial that the running kernel was started for is over; gone
/// with the next start, as all of `/run` is.
pub const TRIAL_OVER_FILE: &str = "/run/va-upgrade.over";

/// Is there while whoever logs in is to be told something.
pub const BANNER_FILE: &str = "/run/va-upgrade.banner";

/// Says until when the running trial may go on, where it was granted more time
/// than its deadline: seconds since the kernel started.
pub const TRIAL_UNTIL_FILE: &str = "/run/va-upgrade.until";

/// Is there while the disk holds no system: from the point of no return of a migration
/// to its end. Whatever runs then must not restart the machine.
pub const NO_RETURN_FILE: &str = "/run/va-upgrade.no-return";

/// Where a slot is mounted while it is written.
pub const TARGET_MOUNT: &str = "/run/va-upgrade/slot";

/// Where the other slot is mounted while it is looked at.
pub const OTHER_MOUNT: &str = "/run/va-upgrade/other";

/// Where on the data volume the history of operations is.
pub const HISTORY_FILE: &str = "va-upgrade/history.jsonl";

/// Where on the data volume the reports of trials are, each in a directory of its own.
pub const TRIALS_DIR: &str = "va-upgrade/trials";

/// Where on the data volume it stands which system's ids its files have.
pub const OWNERS_FILE: &str = "va-upgrade/owners.json";
/// What a migration keeps of the system before it, to go on with or to undo it.
pub const MIGRATION_DIR: &str = "/var/lib/va-upgrade/migration";

/// Is there once free disk space has been taken by itself; goes to every new slot.
pub const GROWN_FILE: &str = "/etc/va-upgrade/grown";
/// Where the migration environment mounts a file system of the old system.
pub const OLD_MOUNT: &str = "/run/va-upgrade/old";

/// Where the migration environment keeps what it needs of the old disk, in memory.
pub const MEMORY_MOUNT: &str = "/run/va-upgrade/memory";

/// Where on the data volume the logs of migrations are.
pub const MIGRATIONS_DIR: &str = "va-upgrade/migrations";
