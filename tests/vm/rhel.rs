//! Appliances of the RHEL family's shape, SELinux enforced on both sides: a dracut
//! initramfs, `grub2-*`, XFS, an RPM database, NetworkManager; on the old side the
//! options and the kernel calls that CentOS 7 has.

use anyhow::Result;
use serde_json::{Value, json};

use crate::appliance::{Appliance, NEXT_RELEASE, RELEASE, runs_all};

/// What a root shell runs in; what a service runs is in `initrc_t`.
const SHELL: &str = "runcon unconfined_u:unconfined_r:unconfined_t:s0";

/// What a customer does to such an appliance.
const LIVE_IN: &str = r#"set -e
    echo gw-oslo >/etc/hostname
    echo 'server 192.0.2.9 iburst' >>/etc/chrony.conf
    echo 'TYPE=Ethernet' >/etc/sysconfig/network-scripts/ifcfg-old
    useradd -m -u 1000 -s /bin/bash admin
    echo 'admin:own-password' | chpasswd
    keyfile=/etc/NetworkManager/system-connections/lan.nmconnection
    printf '%s\n' '[connection]' id=lan type=ethernet interface-name=eth0 '[ipv4]' \
        method=manual address1=10.0.2.77/24,10.0.2.2 'dns=192.0.2.53;' >$keyfile
    chmod 600 $keyfile
    restorecon -R -F /etc /home"#;

/// What of that is asked for, as one answer.
const LOOK: &str = r#"set -e
    hostname
    grep 192.0.2.9 /etc/chrony.conf
    cat /etc/sysconfig/network-scripts/ifcfg-old
    getent passwd admin
    getent shadow admin
    ip -o -4 addr show dev eth0 scope global | awk '{print $2, $4}'
    ip route show default | awk '{print $1, $3, $5}'"#;

/// Labels that decide who gets in and what starts; anything without one comes last.
const LABELS: &str = r#"stat -c '%C' /etc/shadow /etc/passwd /home/admin /usr/lib/systemd/systemd \
        /etc/NetworkManager/system-connections/lan.nmconnection | cut -d: -f3
    find / /boot -xdev -context '*:unlabeled_t:*' -o -xdev -context '*:file_t:*'"#;

fn assert_enforcing(appliance: &mut Appliance) -> Result<()> {
    assert_eq!(appliance.ok("cat /sys/fs/selinux/enforce")?, "1");
    Ok(())
}

/// Sees the old side as old as it claims to be.
fn assert_old_side(appliance: &mut Appliance) -> Result<()> {
    assert_enforcing(appliance)?;
    appliance.ok(
        "set -e; grep -q '^Seccomp:.2$' /proc/self/status; test $(rpm --dbpath /var/lib/rpm -qa | wc -l) -gt 3
         ! command -v dpkg update-grub grub-install update-initramfs
         ls /boot/initramfs-$(uname -r).img /boot/grub2/grub.cfg
         ! mount --options-mode=ignore /boot; rm /run/lab-refused",
    )?;
    assert_eq!(appliance.ok("findmnt -no FSTYPE /")?, "xfs");
    assert_eq!(appliance.ok("findmnt -no FSTYPE /boot")?, "xfs");
    Ok(())
}

/// Applies the bundle of `version` the way a person does, with the tools of this side.
fn apply(appliance: &mut Appliance, version: &str, options: &str) -> Result<()> {
    appliance.mount_payload()?;
    appliance.ok(&format!(
        "set -e; {SHELL} va-upgrade check /mnt/{version}.vab
         {SHELL} va-upgrade apply {options} /mnt/{version}.vab; umount /mnt
         ! cat /run/lab-refused"
    ))?;
    assert_enforcing(appliance)
}

/// Restarts into a trial that comes up in `slot`.
fn pass_trial(appliance: &mut Appliance, slot: &str) -> Result<()> {
    let starts = appliance.command_lines().len();
    appliance.reboot()?;
    appliance.wait_until_committed(slot)?;
    assert_eq!(appliance.command_lines().len(), starts + 1, "one try");
    assert_enforcing(appliance)?;
    let version = appliance.ok(". /etc/os-release; echo $ID $VERSION_ID")?;
    assert_eq!(version, "lablinux 9.4");
    Ok(())
}

fn roll_back(appliance: &mut Appliance) -> Result<()> {
    appliance.ok(&format!("{SHELL} va-upgrade rollback"))?;
    appliance.start_reboot()?;
    appliance.wait_for_boot_of("/dev/mapper/VA-root")?;
    let status = appliance.status()?;
    assert_eq!(status["booted"], json!("root"), "{status}");
    assert_old_side(appliance)
}

#[test]
#[ignore = "starts virtual machines"]
fn an_appliance_of_rhels_shape_is_upgraded_enforcing_all_the_time_and_rolled_back() -> Result<()> {
    let mut appliance = Appliance::of_rhels_shape("rhel")?;
    assert_old_side(&mut appliance)?;
    appliance.ok(LIVE_IN)?;
    appliance.ok("hostname gw-oslo; nmcli connection reload; nmcli connection up lan")?;
    let lived_in = appliance.ok(LOOK)?;
    assert!(lived_in.contains("eth0 10.0.2.77/24"), "{lived_in}");

    apply(&mut appliance, RELEASE, "")?;
    pass_trial(&mut appliance, "back")?;
    assert_eq!(appliance.ok(LOOK)?, lived_in);
    assert_eq!(
        appliance.ok(LABELS)?,
        "shadow_t\netc_t\nuser_home_dir_t\ninit_exec_t\nNetworkManager_etc_rw_t"
    );
    let chrony = appliance.ok("cat /etc/chrony.conf")?;
    assert!(chrony.contains("pool 2.new.example.org"), "{chrony}");
    let cmdline = appliance.ok("cat /proc/cmdline")?;
    for word in ["net.ifnames=0", "biosdevname=0", "rd.lvm.lv=VA/back"] {
        assert!(cmdline.contains(word), "{cmdline}");
    }
    assert!(!cmdline.contains("crashkernel=auto"), "{cmdline}");
    let kept = appliance.ok("cat /etc/kernel/cmdline /etc/default/grub")?;
    assert!(
        !kept.contains("VA/root") && !kept.contains("VA-root"),
        "{kept}"
    );
    appliance.ok("set -e; mountpoint /boot /data /image; rpm --dbpath /var/lib/rpm -q bash; ls /boot/va/grub-*/grub2")?;

    roll_back(&mut appliance)?;
    assert_eq!(appliance.ok(LOOK)?, lived_in);
    Ok(())
}

/// A trial that dracut gives up on, upgrades after it and after a rollback, and one
/// from a new side; they run only with everything that takes long.
#[test]
#[ignore = "starts virtual machines"]
fn a_trial_of_rhels_shape_that_dies_in_dracut_comes_back_and_later_ones_come_up() -> Result<()> {
    if !runs_all() {
        return Ok(());
    }
    let mut appliance = Appliance::of_rhels_shape("rhel-again")?;
    apply(&mut appliance, RELEASE, "")?;
    appliance.ok(
        "sed -i 's,VA-back,VA-nosuch,; s,VA/back,VA/nosuch,; s, ro , ro rd.retry=5 ,' \
             /boot/va/back/entry.cfg",
    )?;
    appliance.leave_tries(1)?;
    let status: Value = appliance.fail_trial()?;
    assert_eq!(status["failed"]["reason"], json!("exhausted"), "{status}");
    assert_eq!(status["booted"], json!("root"), "{status}");
    assert_old_side(&mut appliance)?;

    apply(&mut appliance, RELEASE, "")?;
    pass_trial(&mut appliance, "back")?;
    roll_back(&mut appliance)?;
    apply(&mut appliance, NEXT_RELEASE, "")?;
    pass_trial(&mut appliance, "back")?;
    apply(&mut appliance, RELEASE, "--allow-downgrade")?;
    pass_trial(&mut appliance, "root")
}
