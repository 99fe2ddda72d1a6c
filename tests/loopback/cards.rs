//! Interfaces of a network name space of the test's own change their names.

use std::thread;

use nix::sched::{CloneFlags, unshare};
use va_upgrade::appliance::Appliance;
use va_upgrade::appliance::cards::naming::{Move, Plan};
use va_upgrade::appliance::cards::rename::carry_out;
use va_upgrade::config::Config;
use va_upgrade::progress::Silent;
use va_upgrade::system::{Cmd, Host, System};

fn ip(words: &str) -> String {
    let cmd = Cmd::new("ip").args(words.split(' '));
    Host::new(false).run(&cmd).unwrap()
}

/// Returns the hardware address of an interface and whether it is switched on.
fn card(name: &str) -> (String, bool) {
    let line = ip(&format!("-o link show dev {name}"));
    let mut words = line.split_whitespace();
    words.find(|word| *word == "link/ether").unwrap();
    let address = words.next().unwrap().to_owned();
    (address, line.contains(",UP"))
}

#[test]
fn two_interfaces_that_are_switched_on_change_their_names() {
    // A name space belongs to a thread, and to the programs it starts.
    let swap = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link add eth0 type veth peer name eth1");
        ip("link set dev eth0 up");
        ip("link set dev eth1 up");
        let before = [card("eth0"), card("eth1")];
        let step = |from: &str, by_way_of: &str, to: &str| Move {
            from: from.into(),
            by_way_of: by_way_of.into(),
            to: to.into(),
            is_up: true,
        };
        let plan = Plan {
            moves: vec![
                step("eth0", "va-tmp0", "eth1"),
                step("eth1", "va-tmp1", "eth0"),
            ],
            blocked: Vec::new(),
        };
        let appliance = Appliance {
            sys: &Host::new(false),
            config: &Config::parse("product: acme\n").unwrap(),
            progress: &Silent,
        };
        carry_out(&appliance, &plan).unwrap();
        let [first, second] = before;
        assert_ne!(first.0, second.0);
        assert!(first.1 && second.1);
        assert_eq!([card("eth0"), card("eth1")], [second, first]);

        // The kernel refuses a name that is taken, and the old one stays.
        ip("link add lan0 type veth peer name lan1");
        let blocked = Plan {
            moves: vec![step("eth0", "va-tmp0", "lan0")],
            blocked: Vec::new(),
        };
        let before = [card("eth0"), card("lan0")];
        let error = carry_out(&appliance, &blocked).unwrap_err();
        assert!(format!("{error:#}").contains("lan0"), "{error:#}");
        assert_eq!([card("eth0"), card("lan0")], before);
    };
    thread::spawn(swap).join().unwrap();
}
