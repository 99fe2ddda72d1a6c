//! Real Debian root file systems: the old appliance's and the new release's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use va_upgrade::system::{Cmd, System};

use super::cache::cached;
use super::host;
use super::tell::short;

/// A Debian release as a root file system.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Debian {
    /// Debian 11, whose kernel and GRUB are the old ones.
    Bullseye,
    /// Debian 12.
    Bookworm,
    /// Debian 12 whose SELinux policy is enforced.
    BookwormWithSelinux,
    /// Debian 11 with the names, files and tools of CentOS 7.
    BullseyeAsRhel,
    /// Debian 12 with the names and files of Rocky 9.
    BookwormAsRhel,
}

const PACKAGES: &str = "linux-image-cloud-amd64,systemd-sysv,udev,dbus,kmod,lvm2,e2fsprogs,\
    util-linux,grub-pc-bin,grub2-common,initramfs-tools,dracut-core,zstd,xz-utils,iproute2,procps";

const RHEL_PACKAGES: &str = "linux-image-cloud-amd64,systemd-sysv,udev,dbus,kmod,lvm2,\
    e2fsprogs,xfsprogs,util-linux,grub-pc-bin,grub2-common,dracut,cpio,zstd,xz-utils,iproute2,\
    procps,network-manager,rpm";

const SELINUX_PACKAGES: &str = "selinux-policy-default,policycoreutils,selinux-utils";

/// What the hook script of mmdebstrap reads, so that a change makes a new root.
const GUEST_FILES: [&str; 6] = [
    include_str!("../guest/customize"),
    include_str!("../guest/agent"),
    include_str!("../guest/lab-agent.service"),
    include_str!("../guest/dhcp.network"),
    include_str!("../guest/faulty-tool"),
    include_str!("../guest/initramfs-mark"),
];

/// What the hook script reads for the RHEL family's shape.
const RHEL_FILES: [&str; 4] = [
    include_str!("../guest/rhel-shape"),
    include_str!("../guest/rhel-grub2-install"),
    include_str!("../guest/rhel-old-tool"),
    include_str!("../guest/rhel-old-kernel.conf"),
];

/// CentOS 7 has one `/usr` for all, Debian 11 only when it is told. Without its
/// databases of packages, mmdebstrap's last tidying fails.
const RHEL_OPTIONS: [&str; 2] = [
    "--setup-hook=/usr/share/mmdebstrap/hooks/merged-usr/setup00.sh",
    "--skip=cleanup/apt,cleanup/mmdebstrap",
];

impl Debian {
    fn suite(self) -> &'static str {
        match self {
            Debian::Bullseye | Debian::BullseyeAsRhel => "bullseye",
            Debian::Bookworm | Debian::BookwormWithSelinux | Debian::BookwormAsRhel => "bookworm",
        }
    }

    fn packages(self) -> String {
        match self {
            Debian::Bullseye | Debian::Bookworm => PACKAGES.to_owned(),
            Debian::BookwormWithSelinux => format!("{PACKAGES},{SELINUX_PACKAGES}"),
            Debian::BullseyeAsRhel | Debian::BookwormAsRhel => {
                format!("{RHEL_PACKAGES},{SELINUX_PACKAGES}")
            }
        }
    }

    fn is_of_rhels_shape(self) -> bool {
        matches!(self, Debian::BullseyeAsRhel | Debian::BookwormAsRhel)
    }

    /// Returns its name in the cache.
    fn name(self) -> &'static str {
        match self {
            Debian::Bullseye | Debian::Bookworm => self.suite(),
            Debian::BookwormWithSelinux => "bookworm-selinux",
            Debian::BullseyeAsRhel => "bullseye-as-rhel",
            Debian::BookwormAsRhel => "bookworm-as-rhel",
        }
    }

    /// Returns its number.
    pub fn number(self) -> u8 {
        match self {
            Debian::Bullseye | Debian::BullseyeAsRhel => 11,
            Debian::Bookworm | Debian::BookwormWithSelinux | Debian::BookwormAsRhel => 12,
        }
    }

    /// Returns a tar of the root file system, made by mmdebstrap.
    pub fn tar(self) -> Result<PathBuf> {
        let (suite, name, packages) = (self.suite(), self.name(), self.packages());
        // The main archive alone: the security archive of a release that has
        // reached its end is not kept whole.
        let source = format!("deb http://deb.debian.org/debian {suite} main");
        let mut inputs = vec![suite, &packages, &source];
        inputs.extend(GUEST_FILES);
        let mut options = Vec::new();
        if self.is_of_rhels_shape() {
            inputs.extend(RHEL_FILES);
            inputs.extend(RHEL_OPTIONS);
            options.extend(RHEL_OPTIONS);
        }
        let what = format!(
            "a root file system of Debian {} (takes minutes)",
            self.number()
        );
        cached(&format!("{name}.tar"), &what, &inputs, |path| {
            let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.log"));
            let cmd = Cmd::new("sh")
                .args(["-c", r#"exec mmdebstrap "$@" >"$0" 2>&1"#])
                .arg(&log)
                .args(["--variant=minbase", "--mode=root", "--format=tar"])
                .arg(format!("--include={packages}"))
                .args(&options)
                .args([
                    "--aptopt=Acquire::Languages \"none\"",
                    "--aptopt=Acquire::Retries \"5\"",
                ])
                .args(
                    ["doc", "man", "locale"]
                        .map(|dir| format!("--dpkgopt=path-exclude=/usr/share/{dir}/*")),
                )
                .arg(concat!(
                    "--customize-hook=",
                    env!("CARGO_MANIFEST_DIR"),
                    "/tests/vm/guest/customize"
                ))
                .arg(suite)
                .arg(path)
                .arg(&source)
                .limit(Duration::from_secs(30 * 60));
            let run = host().run(&cmd).map(drop);
            run.with_context(|| {
                format!(
                    "running mmdebstrap; its log {} ends with\n{}",
                    short(&log),
                    end(&log)
                )
            })
        })
    }
}

/// Returns the last lines of a log.
fn end(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
