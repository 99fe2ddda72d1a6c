//! What makes an unpacked tree the system of one slot of this appliance.
//!
//! A bundle never names a slot. Its fstab is rewritten for the slot, our
//! settings come over from the running system, and our program and units are
//! put in where they are missing or older.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::record::{RELEASE_FILE, ReleaseRecord};
use crate::config::Config;
use crate::disk::lvm;
use crate::progress::Progress;
use crate::slot::Slot;
use crate::system::{Cmd, System, beneath, files};

/// Our directory of settings.
const SETTINGS_DIR: &str = "/etc/va-upgrade";

/// Where our program is in every system.
const PROGRAM: &str = "/usr/sbin/va-upgrade";

/// Our units, and the unit that wants each of them.
const UNITS: [(&str, &str, &str); 2] = [
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
];

/// What the slot becomes part of.
pub struct Identity<'a> {
    /// The slot.
    pub slot: Slot,
    /// Its file system type.
    pub fs_type: &'a str,
    /// The UUID of the appliance's `/boot`.
    pub boot_uuid: &'a str,
    /// The file system type of `/boot`.
    pub boot_fs_type: &'a str,
    /// The product and version that were unpacked.
    pub release: &'a ReleaseRecord,
}

/// Gives the tree mounted at `root` its identity.
///
/// # Errors
/// When a file cannot be read or written.
pub fn settle(
    sys: &dyn System,
    config: &Config,
    root: &Path,
    identity: &Identity,
    progress: &dyn Progress,
) -> Result<()> {
    write_fstab(config, root, identity, progress)?;
    carry_settings(sys, config, root)?;
    let release =
        serde_yaml::to_string(identity.release).context("rendering the release record")?;
    files::write_atomic(
        &beneath::place(root, Path::new(RELEASE_FILE))?,
        release.as_bytes(),
        0o644,
    )?;
    install_program(sys, config, root)?;
    install_units(root)
}

fn write_fstab(
    config: &Config,
    root: &Path,
    identity: &Identity,
    progress: &dyn Progress,
) -> Result<()> {
    let path = beneath::place(root, Path::new("/etc/fstab"))?;
    let of_image = fs::read_to_string(&path).unwrap_or_default();
    let running_path = config.at("/etc/fstab");
    let of_running = fs::read_to_string(&running_path)
        .with_context(|| format!("reading {}", running_path.display()))?;
    let fstab = render_fstab(config, identity, &of_image, &of_running);
    for line in &fstab.left_out {
        progress.note(&format!("left out of the new fstab: {line}"));
    }
    for target in &fstab.mount_points {
        let point = beneath::place(root, target)?;
        fs::create_dir_all(&point).with_context(|| format!("making {}", point.display()))?;
    }
    files::write_atomic(&path, fstab.text.as_bytes(), 0o644)
}

/// A slot's fstab, made from two.
struct Fstab {
    text: String,
    mount_points: Vec<PathBuf>,
    left_out: Vec<String>,
}

/// A line of fstab(5) that is not a comment.
#[derive(Clone, PartialEq, Eq)]
struct FstabLine {
    source: String,
    target: String,
    fs_type: String,
    rest: String,
}

impl FstabLine {
    fn parse(line: &str) -> Option<FstabLine> {
        let mut fields = line.split_whitespace();
        let source = fields.next().filter(|f| !f.starts_with('#'))?.to_owned();
        let target = fields.next()?.to_owned();
        let fs_type = fields.next()?.to_owned();
        Some(FstabLine {
            source,
            target,
            fs_type,
            rest: fields.collect::<Vec<_>>().join(" "),
        })
    }

    fn is_system(&self) -> bool {
        let system = ["/", "/usr", "/var", "/etc", "/opt"];
        system.contains(&self.target.as_str()) || self.target.starts_with("/boot")
    }

    fn is_kernel(&self) -> bool {
        let kinds = [
            "proc",
            "sysfs",
            "tmpfs",
            "devpts",
            "devtmpfs",
            "cgroup2",
            "securityfs",
            "debugfs",
        ];
        kinds.contains(&self.fs_type.as_str())
    }

    fn render(&self) -> String {
        format!(
            "{} {} {} {}\n",
            self.source, self.target, self.fs_type, self.rest
        )
    }
}

/// Composes: root and `/boot` of this slot; the image's kernel file systems;
/// everything else (data, swap, shares, extra disks) as the running system has it.
///
/// What the customer added gets `nofail`, so that a share that is down does not
/// fail a trial; volumes of the appliance stay required.
fn render_fstab(config: &Config, identity: &Identity, of_image: &str, of_running: &str) -> Fstab {
    let parse =
        |text: &str| -> Vec<FstabLine> { text.lines().filter_map(FstabLine::parse).collect() };
    let (image, running) = (parse(of_image), parse(of_running));
    let mut text = "# Written by va-upgrade for this slot; see fstab(5).\n".to_owned();
    let mapper = format!(
        "/dev/mapper/{}",
        lvm::mapper_name(&config.vg, config.volume(identity.slot))
    );
    let pass = if identity.fs_type == "xfs" {
        "0 0"
    } else {
        "0 1"
    };
    text += &format!("{mapper} / {} defaults {pass}\n", identity.fs_type);
    text += &format!(
        "UUID={} /boot {} defaults 0 0\n",
        identity.boot_uuid, identity.boot_fs_type
    );
    let mut mount_points = vec![PathBuf::from("/boot")];
    let mut left_out = Vec::new();
    let carried: Vec<&FstabLine> = running.iter().filter(|line| !line.is_system()).collect();
    for line in &carried {
        let mut line = (*line).clone();
        let own = line
            .source
            .starts_with(&format!("/dev/mapper/{}-", config.vg))
            || line.source.starts_with(&format!("/dev/{}/", config.vg));
        let optional = line
            .rest
            .split([',', ' '])
            .any(|o| o == "nofail" || o == "noauto");
        if !own && !optional && line.fs_type != "swap" && !line.is_kernel() {
            line.rest = match line.rest.split_once(' ') {
                Some((options, rest)) => format!("{options},nofail {rest}"),
                None if line.rest.is_empty() => "defaults,nofail".to_owned(),
                None => format!("{},nofail", line.rest),
            };
        }
        if line.target.starts_with('/') && !line.is_kernel() {
            mount_points.push(PathBuf::from(&line.target));
        }
        text += &line.render();
    }
    for line in image.iter().filter(|line| !line.is_system()) {
        let known = carried
            .iter()
            .any(|c| c.target == line.target && c.target.starts_with('/'));
        if line.is_kernel() && !known {
            text += &line.render();
        } else if !known {
            left_out.push(line.render().trim_end().to_owned());
        }
    }
    Fstab {
        text,
        mount_points,
        left_out,
    }
}

/// Copies our settings, keys and checks of the running system over the
/// image's, which stay where the running system has none of that name.
fn carry_settings(sys: &dyn System, config: &Config, root: &Path) -> Result<()> {
    let to = beneath::place(root, Path::new(SETTINGS_DIR))?;
    fs::create_dir_all(&to).with_context(|| format!("making {}", to.display()))?;
    let from = config.at(SETTINGS_DIR);
    if !from.is_dir() {
        return Ok(());
    }
    let mut content = from.into_os_string();
    content.push("/.");
    sys.run(
        &Cmd::new("cp")
            .args(["-a", "--remove-destination", "--"])
            .arg(content)
            .arg(&to),
    )
    .map(drop)
    .context("carrying over our settings")
}

fn install_program(sys: &dyn System, config: &Config, root: &Path) -> Result<()> {
    let to = beneath::place(root, Path::new(PROGRAM))?;
    let there = sys
        .run(&Cmd::new(PROGRAM).arg("--version").chroot(root))
        .ok();
    if there.as_deref().and_then(parse_version) >= parse_version(env!("CARGO_PKG_VERSION")) {
        return Ok(());
    }
    let own = config.at("/proc/self/exe");
    let program = fs::read(&own).with_context(|| format!("reading {}", own.display()))?;
    files::write_atomic(&to, &program, 0o755)
}

/// Gives every file the SELinux label the target's own policy wants, where it
/// has one: the running kernel may not know the labels in the bundle, and a
/// system without labels does not start its services.
///
/// # Errors
/// When the target wants labels and `setfiles` is missing or fails.
pub fn label(sys: &dyn System, root: &Path) -> Result<()> {
    let settings = beneath::place(root, Path::new("/etc/selinux/config"))?;
    let text = fs::read_to_string(settings).unwrap_or_default();
    let Some(policy) = selinux_policy(&text) else {
        return Ok(());
    };
    let contexts = format!("/etc/selinux/{policy}/contexts/files/file_contexts");
    sys.run(
        &Cmd::new("setfiles")
            .args(["-F", &contexts, "/"])
            .chroot(root),
    )
    .map(drop)
    .context("labelling the new system")
}

/// Returns the policy that selinux_config(5) names, unless it is switched off.
fn selinux_policy(config: &str) -> Option<&str> {
    let value = |name: &str| {
        let mut pairs = config.lines().filter_map(|line| line.split_once('='));
        pairs
            .rfind(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim())
    };
    let mode = value("SELINUX")?;
    let policy = value("SELINUXTYPE").unwrap_or("targeted");
    let plain = policy
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    (mode != "disabled" && plain).then_some(policy)
}

/// Reads `1.2.3` out of what a program prints of its version.
fn parse_version(text: &str) -> Option<Vec<u32>> {
    let word = text.split_whitespace().last()?;
    word.split('.').map(|part| part.parse().ok()).collect()
}

fn install_units(root: &Path) -> Result<()> {
    for (name, wanted_by, content) in UNITS {
        let unit = Path::new("/usr/lib/systemd/system").join(name);
        let file = beneath::place(root, &unit)?;
        fs::create_dir_all(file.parent().unwrap_or(root))?;
        files::write_atomic(&file, content.as_bytes(), 0o644)?;
        let wants = beneath::place(root, &Path::new("/etc/systemd/system").join(wanted_by))?;
        fs::create_dir_all(&wants).with_context(|| format!("making {}", wants.display()))?;
        let link = wants.join(name);
        if !link.is_symlink() {
            symlink(&unit, &link).with_context(|| format!("enabling {name}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(release: &ReleaseRecord) -> Identity<'_> {
        Identity {
            slot: Slot::Back,
            fs_type: "ext4",
            boot_uuid: "b-1",
            boot_fs_type: "xfs",
            release,
        }
    }

    #[test]
    fn the_fstab_is_the_slots_own_and_keeps_what_the_customer_mounts() {
        let release = ReleaseRecord {
            product: None,
            version: "1".into(),
        };
        let image = "# image\nUUID=i-1 / ext4 errors=remount-ro 0 1\nUUID=i-2 /boot ext4 defaults 0 2\n\
                     UUID=i-3 none swap sw 0 0\ntmpfs /tmp tmpfs mode=1777 0 0\n";
        let running = "/dev/mapper/VA-root / xfs defaults 0 0\nUUID=b-1 /boot xfs defaults 0 0\n\
                       /dev/VA/data /data ext4 defaults 0 2\nnas:/x /mnt/nas nfs ro 0 0\nUUID=s none swap sw 0 0\n";
        let fstab = render_fstab(&Config::default(), &identity(&release), image, running);
        assert_eq!(
            fstab.text,
            "# Written by va-upgrade for this slot; see fstab(5).\n\
             /dev/mapper/VA-back / ext4 defaults 0 1\n\
             UUID=b-1 /boot xfs defaults 0 0\n\
             /dev/VA/data /data ext4 defaults 0 2\n\
             nas:/x /mnt/nas nfs ro,nofail 0 0\n\
             UUID=s none swap sw 0 0\n\
             tmpfs /tmp tmpfs mode=1777 0 0\n"
        );
        assert_eq!(fstab.left_out, ["UUID=i-3 none swap sw 0 0"]);
        let points: Vec<&Path> = fstab.mount_points.iter().map(PathBuf::as_path).collect();
        assert_eq!(
            points,
            [
                Path::new("/boot"),
                Path::new("/data"),
                Path::new("/mnt/nas")
            ]
        );
    }

    #[test]
    fn labels_follow_the_targets_own_settings() {
        let text = "# SELINUX= can take\nSELINUX=enforcing\nSELINUXTYPE=targeted\n";
        assert_eq!(selinux_policy(text), Some("targeted"));
        assert_eq!(
            selinux_policy("SELINUX=disabled\nSELINUXTYPE=targeted\n"),
            None
        );
        assert_eq!(
            selinux_policy("SELINUX=enforcing\nSELINUXTYPE=../x\n"),
            None
        );
        assert_eq!(selinux_policy(""), None);
    }

    #[test]
    fn the_newer_program_stays() {
        assert!(parse_version("va-upgrade 0.10.0") > parse_version("0.9.3"));
        assert_eq!(parse_version("garbage"), None);
    }
}
