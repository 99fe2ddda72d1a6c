//! A lived-in appliance: what its customer made of it is there in the new system,
//! in the one after that, and still in the old one.

use anyhow::Result;

use crate::appliance::{Appliance, NEXT_RELEASE, RELEASE};

/// What a customer does to an appliance. The number of `ops` is one that the new
/// release may give to somebody else.
const LIVE_IN: &str = r#"set -e
    echo gw-oslo >/etc/hostname
    echo '192.0.2.7 ntp.example.net ntp' >>/etc/hosts
    ln -sf /usr/share/zoneinfo/Europe/Oslo /etc/localtime
    echo 'net.ipv4.ip_forward = 1' >/etc/sysctl.d/50-own.conf
    mkdir -p /etc/cron.d /root/.ssh /etc/strange /usr/local/share/ca-certificates
    echo '1 2 * * * root true' >/etc/cron.d/own
    echo 'ssh-ed25519 AAAA own' >/root/.ssh/authorized_keys
    chmod 600 /root/.ssh/authorized_keys
    echo 'b=2' >/etc/strange/own.conf
    groupadd -g 1500 team
    useradd -m -u 1000 -G team -s /bin/sh admin
    echo 'admin:own-password' | chpasswd
    echo 'root:own-password' | chpasswd
    echo secret >/home/admin/key && chmod 600 /home/admin/key && chown admin:team /home/admin/key
    echo 'proxy=http://192.0.2.1:3128' >>/etc/environment"#;

/// What of that is asked for, as one answer.
const LOOK: &str = r#"set -e
    hostname
    getent hosts ntp.example.net | tr -s ' '
    readlink /etc/localtime
    sysctl -n net.ipv4.ip_forward
    cat /etc/cron.d/own /root/.ssh/authorized_keys /etc/machine-id
    id admin
    stat -c '%U %G %a' /home/admin/key /root/.ssh/authorized_keys
    getent passwd admin
    getent shadow admin root
    grep proxy= /etc/environment
    pwck -r >/dev/null 2>&1 && grpck -r >/dev/null 2>&1; echo checks $?"#;

#[test]
#[ignore = "starts virtual machines"]
fn what_the_customer_made_of_an_appliance_comes_over_and_goes_back() -> Result<()> {
    let mut appliance = Appliance::old("customer")?;
    appliance.ok(LIVE_IN)?;
    appliance.reboot()?;
    let lived_in = appliance.ok(LOOK)?;
    assert!(lived_in.starts_with("gw-oslo\n"), "{lived_in}");
    let plan = appliance.ok("va-upgrade sync plan")?;
    assert!(plan.contains("/etc/strange/own.conf"), "{plan}");

    appliance.apply(RELEASE)?;
    appliance.reboot()?;
    appliance.wait_until_committed("back")?;
    assert_eq!(appliance.ok(LOOK)?, lived_in);
    assert_eq!(appliance.ok(". /etc/os-release; echo $VERSION_ID")?, "12");
    appliance.ok("test ! -e /etc/strange/own.conf")?;
    let kept = "cat /data/va-upgrade/sync/1/unknown/etc/strange/own.conf";
    assert_eq!(appliance.ok(kept)?, "b=2");

    // From here on it is known what the system was delivered with.
    let plan = appliance.ok("va-upgrade sync plan")?;
    assert!(
        !plan.contains("/etc/motd") && !plan.contains("came from a bundle"),
        "{plan}"
    );
    appliance
        .ok("passwd -l admin >/dev/null; rm /etc/cron.d/own; echo gw-bergen >/etc/hostname")?;
    appliance.apply(NEXT_RELEASE)?;
    appliance.reboot()?;
    appliance.wait_until_committed("root")?;
    assert_eq!(appliance.ok("hostname")?, "gw-bergen");
    appliance.ok("test ! -e /etc/cron.d/own && getent shadow admin | grep -q '^admin:!'")?;

    appliance.ok("va-upgrade rollback")?;
    appliance.reboot()?;
    assert_eq!(appliance.status()?["booted"], "back");
    assert_eq!(appliance.ok("hostname")?, "gw-bergen");
    appliance.ok("va-upgrade sync restore 1 /etc/strange/own.conf --yes")?;
    assert_eq!(appliance.ok("cat /etc/strange/own.conf")?, "b=2");
    Ok(())
}
