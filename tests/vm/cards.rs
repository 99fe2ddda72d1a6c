//! Network cards that the new system finds in another order than the old one.

use anyhow::Result;

use crate::appliance::{Appliance, RELEASE};
use crate::lab::qemu::Hardware;

const FIRST: &str = "52:54:00:00:00:00";
const SECOND: &str = "52:54:00:00:00:01";

fn two_cards(is_reversed: bool) -> Hardware {
    Hardware {
        nics: vec!["virtio-net-pci", "virtio-net-pci"],
        is_reversed,
        ..Hardware::default()
    }
}

/// Returns the names of both cards, and in which order the kernel found them.
fn cards(appliance: &mut Appliance) -> Result<([String; 2], bool)> {
    let mut ask = |mac: &str, what: &str| {
        appliance.ok(&format!(
            "cd /sys/class/net; card=$(grep -l {mac} */address | cut -d/ -f1)
             [ {what} = name ] && echo $card || cat $card/{what}"
        ))
    };
    let names = [ask(FIRST, "name")?, ask(SECOND, "name")?];
    let first: u32 = ask(FIRST, "ifindex")?.parse()?;
    let second: u32 = ask(SECOND, "ifindex")?.parse()?;
    Ok((names, first < second))
}

/// Upgrades an appliance whose cards are plugged in the other way round between the
/// old system and the new one; returns it with the names of its cards.
fn upgrade_reversed(name: &str, words: &str) -> Result<(Appliance, [String; 2])> {
    let mut appliance = Appliance::old_on(name, two_cards(false))?;
    appliance.ok(&format!(
        "sed -i 's, ro , ro {words} ,' /boot/grub/grub.cfg"
    ))?;
    appliance.reboot()?;
    let (names, is_in_order) = cards(&mut appliance)?;
    assert!(is_in_order, "{names:?}");
    appliance.apply(RELEASE)?;
    let mut appliance = appliance.moved_to(&format!("{name}-reversed"), two_cards(true))?;
    appliance.wait_until_committed("back")?;
    assert_eq!(cards(&mut appliance)?, (names.clone(), false));
    let addresses = "ip -o -4 addr show scope global | awk '{print $2, $4}' | sort";
    let wanted = format!("{} 10.0.2.15/24\n{} 10.0.3.15/24", names[0], names[1]);
    assert_eq!(appliance.ok(addresses)?, wanted);
    assert_eq!(appliance.ok("systemctl is-system-running")?, "running");
    Ok((appliance, names))
}

#[test]
#[ignore = "starts virtual machines"]
fn the_kernels_names_stay_with_their_cards() -> Result<()> {
    let (mut appliance, names) = upgrade_reversed("cards-eth", "net.ifnames=0")?;
    assert_eq!(names, ["eth0", "eth1"]);
    appliance.reboot()?;
    assert_eq!(cards(&mut appliance)?, (names, false));
    let order = appliance.ok(
        "systemctl show -p ActiveEnterTimestampMonotonic --value va-upgrade-cards.service
         systemctl show -p InactiveExitTimestampMonotonic --value systemd-networkd.service",
    )?;
    let times: Vec<u64> = order.lines().map(str::parse).collect::<Result<_, _>>()?;
    assert!(0 < times[0] && times[0] < times[1], "{order}");
    Ok(())
}

#[test]
#[ignore = "starts virtual machines"]
fn the_names_that_udev_gives_stay_with_their_cards() -> Result<()> {
    let (mut appliance, names) = upgrade_reversed("cards-link", "quiet")?;
    assert!(names.iter().all(|name| name.starts_with("en")), "{names:?}");
    appliance.ok("test ! -e /etc/va-upgrade/cards.yaml")?;
    let name = &names[0];
    appliance.ok(&format!(
        "grep -aq network/10-va-{name}.link /boot/va/back/initrd"
    ))?;
    Ok(())
}
