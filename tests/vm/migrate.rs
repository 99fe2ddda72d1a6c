//! A system with one root, in a volume group of another name, gets a second one.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::appliance::{Appliance, RELEASE};

/// Makes the old appliance one with a single root in `vg0`, as its installer might
/// have, with swap that leaves too little room for a second root.
const RESHAPE: &str = r#"set -e
    umount /data /image
    sed -i '/VA-data\|VA.data\|VA.image/d; s/VA-root/vg0-root/' /etc/fstab
    sed -i s/VA-root/vg0-root/ /boot/grub/grub.cfg
    for name in back data image; do lvremove -y VA/$name; done
    vgrename VA vg0
    lvcreate -y -n swap -l $(($(vgs --noheadings -o vg_free_count vg0) - 40)) vg0
    mkswap -L customer /dev/vg0/swap
    echo "UUID=$(blkid -p -s UUID -o value /dev/vg0/swap) none swap sw 0 0" >>/etc/fstab
    echo 'kept by the customer' >/root/hers
    sync"#;

/// Everything that `migrate` makes or changes, but for the metadata of LVM.
const LOOK: &str = "sync; lvs --noheadings -o lv_name,lv_size --units b vg0
    swapon --noheadings --show=SIZE --bytes; blkid -p /dev/vg0/swap
    find /etc/fstab /etc/va-upgrade /etc/systemd /etc/kernel /etc/initramfs /usr/lib/systemd \
        /usr/lib/kernel /usr/sbin/va-upgrade /data /var/lib/va-upgrade -printf '%p %y %m\\n' | sort
    cat /etc/fstab /etc/va-upgrade/config.yaml";

#[test]
#[ignore = "starts virtual machines"]
fn a_system_with_one_root_is_migrated_in_place_through_a_power_cut() -> Result<()> {
    let mut appliance = Appliance::old("migrate")?;
    appliance.ok(RESHAPE)?;
    appliance.reboot()?;
    assert_eq!(
        appliance.ok("findmnt -no SOURCE /")?,
        "/dev/mapper/vg0-root"
    );
    let sight = appliance.run(LOOK)?.stdout;
    let boot = appliance.boot_fingerprint()?;

    appliance.mount_payload()?;
    let bundle = format!("/mnt/{RELEASE}.vab");
    let plan = appliance.ok(&format!("va-upgrade migrate --dry-run {bundle}"))?;
    assert!(plan.contains("in place: fits"), "{plan}");
    assert!(plan.contains("the swap vg0/swap shrinks"), "{plan}");
    assert_eq!(appliance.run(LOOK)?.stdout, sight);
    appliance.ok(&format!("va-upgrade migrate {bundle}"))?;
    assert_eq!(appliance.status()?["next"], "back");
    appliance.ok("va-upgrade migrate --cancel")?;
    assert_eq!(appliance.run(LOOK)?.stdout, sight);
    assert_eq!(appliance.boot_fingerprint()?, boot);

    // With room for all of the layout, and the power gone in the middle of it.
    appliance.ok(
        "set -e; swapoff /dev/vg0/swap; lvremove -y vg0/swap; sed -i '/ swap /d' /etc/fstab; sync",
    )?;
    appliance.ok(&format!(
        "systemd-run --unit=lab-migrate va-upgrade migrate {bundle}"
    ))?;
    appliance.wait_until("grep -c vg0 /etc/va-upgrade/config.yaml", |count| {
        count.trim() != "0"
    })?;
    std::thread::sleep(Duration::from_secs(2));
    appliance.cut_power()?;
    appliance.power_on()?;
    assert_eq!(
        appliance.ok("findmnt -no SOURCE /")?,
        "/dev/mapper/vg0-root"
    );

    appliance.mount_payload()?;
    appliance.ok(&format!("va-upgrade migrate {bundle}; umount /mnt"))?;
    let status = appliance.status()?;
    assert_eq!(status["booted"], "root", "{status}");
    assert_eq!(status["trial"], json!({"slot": "back", "tries_left": 3}));
    appliance.reboot()?;
    appliance.wait_until_committed("back")?;
    let status = appliance.status()?;
    assert_eq!(status["slots"][0]["state"], "good", "{status}");
    assert_eq!(status["slots"][1]["device"], "/dev/vg0/back", "{status}");
    assert_eq!(
        appliance.ok("findmnt -no SOURCE /")?,
        "/dev/mapper/vg0-back"
    );
    assert_eq!(appliance.ok(". /etc/os-release; echo $VERSION_ID")?, "12");
    assert_eq!(
        appliance.ok("hostname; cat /root/hers")?,
        "old-appliance\nkept by the customer"
    );
    assert_eq!(
        appliance.ok("findmnt -no SOURCE /data")?,
        "/dev/mapper/vg0-data"
    );
    appliance.ok("grep '\"apply\"' /data/va-upgrade/history.jsonl")?;
    let again = appliance.va_upgrade("migrate --cancel")?;
    assert_eq!(again.status, 3, "{again:?}");

    appliance.ok("va-upgrade rollback")?;
    appliance.reboot()?;
    assert_eq!(
        appliance.ok("findmnt -no SOURCE /")?,
        "/dev/mapper/vg0-root"
    );
    assert_eq!(appliance.ok(". /etc/os-release; echo $VERSION_ID")?, "11");
    assert_eq!(appliance.status()?["committed"], "root");
    Ok(())
}

#[test]
#[ignore = "starts virtual machines"]
fn an_enlarged_disk_is_taken_by_the_running_system() -> Result<()> {
    let mut appliance = Appliance::old_enlarged("grow", 2)?;
    let sizes = "lsblk -dbno SIZE /dev/vda3; df -B1 --output=size / /data | tail -2";
    let before = numbers(&appliance.ok(sizes)?)?;
    let config = "product: lab-appliance\nversion: 7.9.0\ngrow: {root: 50%, data: 50%}\n";
    appliance.put("/etc/va-upgrade/config.yaml", config, 0o644)?;
    appliance.ok("va-upgrade grow --dry-run && va-upgrade grow")?;
    let after = numbers(&appliance.ok(sizes)?)?;
    for (before, after) in before.iter().zip(&after) {
        assert!(*after >= before + (512 << 20), "{before} {after}");
    }
    assert!(appliance.ok("va-upgrade grow")?.contains("nothing to grow"));
    appliance.reboot()?;
    assert_eq!(numbers(&appliance.ok(sizes)?)?, after);
    Ok(())
}

fn numbers(text: &str) -> Result<Vec<u64>> {
    let words = text.split_whitespace();
    Ok(words.map(str::parse).collect::<Result<_, _>>()?)
}
