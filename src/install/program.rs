//! Our program, its units and its hook for kernels inside a system.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::login;
use crate::appliance::Appliance;
use crate::paths::PROGRAM;
use crate::system::{Chroot, Cmd, files};
use crate::tree::resolve;
use crate::version;

/// Our units, and the unit that wants each of them.
const UNITS: [(&str, &str, &str); 6] = [
    (
        "va-upgrade-boot.service",
        "multi-user.target.wants",
        include_str!("../../packaging/va-upgrade-boot.service"),
    ),
    (
        "va-upgrade-deadline.service",
        "sysinit.target.wants",
        include_str!("../../packaging/va-upgrade-deadline.service"),
    ),
    (
        "va-upgrade-carry.service",
        "sysinit.target.wants",
        include_str!("../../packaging/va-upgrade-carry.service"),
    ),
    (
        "va-upgrade-cards.service",
        "sysinit.target.wants",
        include_str!("../../packaging/va-upgrade-cards.service"),
    ),
    (
        "va-upgrade-owners.service",
        "sysinit.target.wants",
        include_str!("../../packaging/va-upgrade-owners.service"),
    ),
    (
        "va-upgrade-grow.service",
        "multi-user.target.wants",
        include_str!("../../packaging/va-upgrade-grow.service"),
    ),
];

/// Tells our program of kernels that packages bring or take.
const HOOK: &str = include_str!("../../packaging/kernel-hook");

/// Where programs look for such a script: kernel-install(8), behind the making of
/// the initramfs; Debian's packages of kernels, and RHEL 7's new-kernel-pkg(8);
/// update-initramfs(8).
const HOOK_PLACES: [&str; 5] = [
    "/usr/lib/kernel/install.d/95-va-upgrade.install",
    "/etc/kernel/postinst.d/zz-va-upgrade",
    "/etc/kernel/prerm.d/zz-va-upgrade",
    "/etc/kernel/postrm.d/zz-va-upgrade",
    "/etc/initramfs/post-update.d/va-upgrade",
];

/// Returns every place where [`install`] and [`install_units`] put something.
pub fn places() -> Vec<PathBuf> {
    let units = UNITS.iter().flat_map(|(name, wanted_by, _)| {
        let wants = Path::new("/etc/systemd/system").join(wanted_by);
        [unit_path(name), wants.join(name)]
    });
    let hooks = HOOK_PLACES.iter().map(PathBuf::from);
    let login = login::places().map(PathBuf::from);
    let program = PathBuf::from(PROGRAM);
    units.chain(hooks).chain(login).chain([program]).collect()
}

/// Puts our program, its units and its hook where the tree at `root` has no
/// program or an older one. A newer one keeps its own.
///
/// # Errors
/// When something cannot be written.
pub fn install(appliance: &Appliance, root: &Path) -> Result<()> {
    let to = resolve::place(root, Path::new(PROGRAM))?;
    let chroot = Chroot::enter(appliance.sys, root, &[])?;
    let there = chroot.run(Cmd::new(PROGRAM).arg("--version")).ok();
    chroot.leave()?;
    if there.is_some_and(|output| is_up_to_date(&output, env!("CARGO_PKG_VERSION"))) {
        return Ok(());
    }
    for (name, _, content) in UNITS {
        write(&resolve::place(root, &unit_path(name))?, content, 0o644)?;
    }
    for path in HOOK_PLACES {
        write(&resolve::place(root, Path::new(path))?, HOOK, 0o755)?;
    }
    let own = appliance.at("/proc/self/exe");
    let program = fs::read(&own).with_context(|| format!("reading {}", own.display()))?;
    files::write_atomic(&to, &program, 0o755)
}

/// Tells whether the program that printed `output` as its version is no older
/// than `own`.
fn is_up_to_date(output: &str, own: &str) -> bool {
    parse_version(output).is_some_and(|there| {
        let own = parse_version(own).unwrap_or_default();
        version::compare(&there, &own).is_ge()
    })
}

/// Reads `1.2.3` or `1.2.3-rc1` out of what a program prints of its version, in
/// the form that is compared: `~` comes before everything.
fn parse_version(text: &str) -> Option<String> {
    let word = text.split_whitespace().last()?;
    // What follows a plus tells builds of one version apart.
    let word = word.split('+').next()?;
    let is_of_version = |c: char| c.is_ascii_alphanumeric() || ".-~".contains(c);
    let is_version =
        word.starts_with(|c: char| c.is_ascii_digit()) && word.chars().all(is_of_version);
    is_version.then(|| word.replacen('-', "~", 1))
}

/// Puts our units and our hook into the tree at `root` where they are missing, and
/// enables the units.
///
/// # Errors
/// When one cannot be written.
pub fn install_units(root: &Path) -> Result<()> {
    for (name, wanted_by, content) in UNITS {
        let file = resolve::place(root, &unit_path(name))?;
        if !file.exists() {
            write(&file, content, 0o644)?;
        }
        let wants = resolve::place(root, &Path::new("/etc/systemd/system").join(wanted_by))?;
        fs::create_dir_all(&wants).with_context(|| format!("making {}", wants.display()))?;
        let link = wants.join(name);
        if !link.is_symlink() {
            symlink(unit_path(name), &link).with_context(|| format!("enabling {name}"))?;
        }
    }
    for path in HOOK_PLACES {
        let file = resolve::place(root, Path::new(path))?;
        if !file.exists() {
            write(&file, HOOK, 0o755)?;
        }
    }
    login::install(root)
}

/// Returns a unit of ours that the system at `root` does not start, and without which
/// no trial of it would end.
///
/// # Errors
/// When the tree leads out of itself.
pub fn disabled_unit(root: &Path) -> Result<Option<&'static str>> {
    for (name, wanted_by, _) in &UNITS[..2] {
        let wants = resolve::place(root, &Path::new("/etc/systemd/system").join(wanted_by))?;
        let file = resolve::place(root, &unit_path(name))?;
        if !file.is_file() || !wants.join(name).is_symlink() {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn unit_path(name: &str) -> PathBuf {
    Path::new("/usr/lib/systemd/system").join(name)
}

fn write(file: &Path, content: &str, mode: u32) -> Result<()> {
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    files::write_atomic(file, content.as_bytes(), mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::Receiver;
    use std::time::{Duration, SystemTime};

    use crate::config::Config;
    use crate::progress::Silent;
    use crate::system::{Mount, Restart, System};

    /// A machine with a program in its slot, which only answers for its version.
    struct Machine {
        dir: tempfile::TempDir,
        version: Option<&'static str>,
    }

    impl System for Machine {
        fn root(&self) -> &Path {
            self.dir.path()
        }

        fn run(&self, cmd: &Cmd) -> Result<String> {
            assert_eq!(cmd.program(), PROGRAM);
            assert_eq!(cmd.arguments(), ["--version"]);
            self.version.map(str::to_owned).context("not there")
        }

        fn mount(&self, _: &Mount) -> Result<()> {
            unreachable!("nothing is mounted")
        }

        fn unmount(&self, _: &Path) -> Result<()> {
            unreachable!("nothing is unmounted")
        }

        fn reboot(&self, _: Restart) -> Result<()> {
            unreachable!("nothing is restarted")
        }

        fn now(&self) -> SystemTime {
            unreachable!("no time is told")
        }

        fn wait(&self, _: Duration) {}

        fn wait_for(&self, _: &Receiver<()>, _: Duration) -> bool {
            unreachable!("nothing is waited for")
        }

        fn lock_memory(&self) -> Result<()> {
            unreachable!("nothing watches")
        }
    }

    /// Installs into a tree that has a program of `version` with a unit of its
    /// own; returns the program and both units.
    fn installed_over(version: Option<&'static str>) -> [String; 3] {
        let machine = Machine {
            dir: tempfile::tempdir().unwrap(),
            version,
        };
        let slot = machine.dir.path().join("slot");
        let boot_unit = slot.join("usr/lib/systemd/system/va-upgrade-boot.service");
        for (path, text) in [
            (&machine.dir.path().join("proc/self/exe"), "ours"),
            (&slot.join("usr/sbin/va-upgrade"), "theirs"),
            (&boot_unit, "their unit"),
        ] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let appliance = Appliance {
            sys: &machine,
            config: &Config::parse("product: acme\n").unwrap(),
            progress: &Silent,
        };
        install(&appliance, &slot).unwrap();
        install_units(&slot).unwrap();
        let wants = slot.join("etc/systemd/system");
        assert!(
            wants
                .join("multi-user.target.wants/va-upgrade-boot.service")
                .is_symlink()
        );
        let deadline = boot_unit.with_file_name("va-upgrade-deadline.service");
        [slot.join("usr/sbin/va-upgrade"), boot_unit, deadline]
            .map(|path| fs::read_to_string(path).unwrap())
    }

    #[test]
    fn a_newer_program_keeps_its_units_and_an_older_one_gets_ours() {
        let [(.., boot), (.., deadline), ..] = UNITS;
        for kept in [
            "va-upgrade 999.0.0",
            concat!("va-upgrade ", env!("CARGO_PKG_VERSION")),
        ] {
            assert_eq!(
                installed_over(Some(kept)),
                ["theirs", "their unit", deadline]
            );
        }
        for replaced in [None, Some("va-upgrade 0.0.9"), Some("garbage")] {
            assert_eq!(installed_over(replaced), ["ours", boot, deadline]);
        }
    }

    #[test]
    fn versions_are_compared_and_candidates_come_before_their_release() {
        let ascending = [
            "0.9.3",
            "0.10.0",
            "1.0.0-rc1",
            "1.0.0-rc2",
            "1.0.0-rc10",
            "1.0.0",
            "1.0.1-rc1",
        ];
        for (i, there) in ascending.iter().enumerate() {
            for (j, own) in ascending.iter().enumerate() {
                let output = format!("va-upgrade {there}\n");
                assert_eq!(is_up_to_date(&output, own), i >= j, "{there} {own}");
            }
        }
        assert!(is_up_to_date("va-upgrade 1.0.0+build.7", "1.0.0"));
        for garbage in ["", "garbage", "va-upgrade 1.0,0", "va-upgrade v1"] {
            assert!(!is_up_to_date(garbage, "0.0.1"), "{garbage}");
        }
    }

    /// What systemd 219 knows, CentOS 7's: systemd.unit(5), systemd.service(5),
    /// systemd.exec(5) and systemd.kill(5) of that version. It passes over what it does
    /// not know, and a unit would be another one there.
    const KNOWN_TO_SYSTEMD_219: [(&str, &str); 3] = [
        (
            "[Unit]",
            "Description Documentation SourcePath Requires RequiresOverridable Requisite Wants \
             BindsTo PartOf Conflicts Before After OnFailure PropagatesReloadTo \
             ReloadPropagatedFrom JoinsNamespaceOf RequiresMountsFor OnFailureJobMode \
             IgnoreOnIsolate IgnoreOnSnapshot StopWhenUnneeded RefuseManualStart \
             RefuseManualStop AllowIsolate DefaultDependencies JobTimeoutSec JobTimeoutAction \
             JobTimeoutRebootArgument ConditionArchitecture ConditionVirtualization \
             ConditionHost ConditionKernelCommandLine ConditionSecurity ConditionCapability \
             ConditionACPower ConditionNeedsUpdate ConditionFirstBoot ConditionPathExists \
             ConditionPathExistsGlob ConditionPathIsDirectory ConditionPathIsSymbolicLink \
             ConditionPathIsMountPoint ConditionPathIsReadWrite ConditionDirectoryNotEmpty \
             ConditionFileNotEmpty ConditionFileIsExecutable",
        ),
        (
            "[Service]",
            "Type RemainAfterExit GuessMainPID PIDFile BusName ExecStart ExecStartPre \
             ExecStartPost ExecReload ExecStop ExecStopPost RestartSec TimeoutStartSec \
             TimeoutStopSec TimeoutSec WatchdogSec Restart SuccessExitStatus \
             RestartPreventExitStatus RestartForceExitStatus PermissionsStartOnly \
             RootDirectoryStartOnly NonBlocking NotifyAccess Sockets StartLimitInterval \
             StartLimitBurst StartLimitAction FailureAction RebootArgument WorkingDirectory \
             RootDirectory User Group SupplementaryGroups Nice OOMScoreAdjust UMask \
             Environment EnvironmentFile StandardInput StandardOutput StandardError TTYPath \
             SyslogIdentifier SyslogFacility SyslogLevel LimitNOFILE LimitMEMLOCK PrivateTmp \
             ReadWriteDirectories ReadOnlyDirectories InaccessibleDirectories KillMode \
             KillSignal SendSIGHUP SendSIGKILL",
        ),
        (
            "[Install]",
            "Alias WantedBy RequiredBy Also DefaultInstance",
        ),
    ];

    /// Of directives whose values became more, those that there were.
    const VALUES_KNOWN_TO_SYSTEMD_219: [(&str, &str); 3] = [
        ("Type", "simple forking oneshot dbus notify idle"),
        (
            "FailureAction",
            "none reboot reboot-force reboot-immediate poweroff poweroff-force poweroff-immediate",
        ),
        (
            "Restart",
            "no on-success on-failure on-abnormal on-watchdog on-abort always",
        ),
    ];

    /// Returns what of a unit's text systemd 219 does not know.
    fn newer_than_systemd_219(text: &str) -> Vec<String> {
        let has = |words: &str, word: &str| words.split_whitespace().any(|known| known == word);
        let mut section = "";
        let mut newer = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if line.starts_with('[') {
                section = line;
                continue;
            }
            let Some((name, value)) = line.split_once('=').filter(|_| !line.starts_with('#'))
            else {
                continue;
            };
            let known = KNOWN_TO_SYSTEMD_219.iter().find(|known| known.0 == section);
            let values = VALUES_KNOWN_TO_SYSTEMD_219
                .iter()
                .find(|known| known.0 == name);
            let is_known = known.is_some_and(|(_, names)| has(names, name))
                && values.is_none_or(|(_, values)| has(values, value));
            if !is_known {
                newer.push(format!("{section} {line}"));
            }
        }
        newer
    }

    #[test]
    fn no_unit_has_a_directive_that_systemd_219_does_not_know() {
        for (name, _, text) in UNITS {
            assert_eq!(newer_than_systemd_219(text), [""; 0], "{name}");
        }
        let newer = "[Unit]\nFailureAction=reboot\n# A=b\n[Service]\nType=exec\nDynamicUser=yes\n";
        assert_eq!(
            newer_than_systemd_219(newer),
            [
                "[Unit] FailureAction=reboot",
                "[Service] Type=exec",
                "[Service] DynamicUser=yes"
            ]
        );
    }
}
