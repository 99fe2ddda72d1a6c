//! The kernel arguments that a release brings with it, and what becomes of them.
//!
//! Each argument has an owner:
//!
//! | owner | arguments | in the new slot |
//! |---|---|---|
//! | the slot | `root=`, `rd.lvm.lv=` of the slots, `va.*` | its own |
//! | the builder's machine | other devices and addresses the image was made with | left out |
//! | the customer | whatever the running system was started with | inherited |
//! | the image | names that the running system was not given | added |

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use super::configured;
use super::once::{is_end, is_init, is_repair};

/// Names of arguments that tell of the machine an image was built on, or of the
/// appliance it runs on, never of the release.
const OF_A_MACHINE: [&str; 22] = [
    "BOOT_IMAGE",
    "biosdevname",
    "boot",
    "bootdev",
    "console",
    "earlycon",
    "fips",
    "ifname",
    "initrd",
    "ip",
    "mem",
    "nameserver",
    "net.ifnames",
    "netroot",
    "nfsroot",
    "rd.neednet",
    "resume",
    "resume_offset",
    "ro",
    "root",
    "rootflags",
    "rw",
];

/// How the names of further ones begin: dracut's devices (dracut.cmdline(7)), our words.
const OF_A_MACHINE_BY_PREFIX: [&str; 8] = [
    "rd.dm", "rd.iscsi", "rd.luks", "rd.lvm", "rd.md", "rd.znet", "rootfs", "va.",
];

/// What reserves memory for kdump, looked after by [`crashkernel`](super::crashkernel).
const RESERVED_MEMORY: &str = "crashkernel";

/// Adds to `args` what the image at `root` gives its kernel `release` and the
/// running system was not given by any value; returns a sentence about them.
///
/// # Errors
/// When the tree cannot be read.
pub fn add(args: &mut Vec<String>, release: &str, root: &Path) -> Result<Option<String>> {
    let given: BTreeSet<String> = args.iter().map(|arg| name(arg).to_owned()).collect();
    let is_news = |word: &String| {
        let name = name(word);
        !given.contains(name)
            && name != RESERVED_MEMORY
            && !is_of_a_machine(name)
            && !is_init(word)
            && !is_repair(word)
            && !is_end(word)
    };
    let mut news = of_tree(root, release)?;
    let mut seen = BTreeSet::new();
    news.retain(|word| is_news(word) && seen.insert(word.clone()));
    if news.is_empty() {
        return Ok(None);
    }
    let note = format!("kernel arguments of the new release: {}", news.join(" "));
    args.extend(news);
    Ok(Some(note))
}

fn name(word: &str) -> &str {
    word.split('=').next().unwrap_or(word)
}

fn is_of_a_machine(name: &str) -> bool {
    let mut prefixes = OF_A_MACHINE_BY_PREFIX.iter();
    OF_A_MACHINE.contains(&name) || prefixes.any(|prefix| name.starts_with(prefix))
}

/// Returns what the boot configuration of a tree gives the kernel `release`: its
/// loader entry, else what kernel-install(8) would give it, else what GRUB's
/// scripts would.
fn of_tree(root: &Path, release: &str) -> Result<Vec<String>> {
    for entry in configured::entries(root)? {
        if entry.name.ends_with(&format!("{release}.conf")) {
            let environment = configured::grubenv(root)?;
            let options = entry.text.lines().filter_map(|line| {
                let (key, value) = line.trim().split_once(char::is_whitespace)?;
                (key == "options").then_some(value)
            });
            let options: Vec<&str> = options.collect();
            return Ok(words(&options.join(" "), &environment));
        }
    }
    if let Some(text) = configured::read(root, Path::new("etc/kernel/cmdline"))? {
        return Ok(words(&text, &BTreeMap::new()));
    }
    let mut variables = BTreeMap::new();
    for text in configured::grub_defaults(root)? {
        for line in text.lines() {
            let Some((key, value)) = line.trim().split_once('=') else {
                continue;
            };
            let value = words(value.trim().trim_matches(['"', '\'']), &variables);
            variables.insert(key.to_owned(), value.join(" "));
        }
    }
    let lines = ["GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"];
    let of = |name: &str| variables.get(name).cloned().unwrap_or_default();
    Ok(words(&lines.map(of).join(" "), &BTreeMap::new()))
}

/// Splits a line into arguments; `$name` and `${name}` stand for variables, and
/// what GRUB or a shell would have to compute is left out.
fn words(line: &str, variables: &BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    for word in line.split_whitespace() {
        let variable = word.strip_prefix('$').map(|name| {
            let name = name.strip_prefix('{').unwrap_or(name);
            name.strip_suffix('}').unwrap_or(name)
        });
        match variable {
            Some(name) => {
                let value = variables.get(name).map_or("", String::as_str);
                found.extend(value.split_whitespace().map(str::to_owned));
            }
            None => found.push(word.to_owned()),
        }
    }
    found.retain(|word| !word.contains(['$', '`', '"', '\'', '\\']));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const RELEASE: &str = "5.14.0-427.el9.x86_64";

    /// What a system that was given `ro quiet audit=0` gets besides.
    fn added(files: &[(&str, &str)]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let given = ["root=/dev/mapper/VA-back", "ro", "quiet", "audit=0"].map(str::to_owned);
        let mut args = given.to_vec();
        let note = add(&mut args, RELEASE, dir.path()).unwrap();
        let news = args.split_off(given.len());
        assert_eq!(args, given);
        assert_eq!(note.is_some(), !news.is_empty());
        news
    }

    #[test]
    fn what_only_the_image_names_is_added_from_any_kind_of_configuration() {
        let all = "root=UUID=1-2 ro rd.lvm.lv=cl/root resume=/dev/sda3 console=ttyS1 quiet \
                   crashkernel=1G-4G:192M audit=1 systemd.unified_cgroup_hierarchy=1 rhgb";
        let wanted = ["systemd.unified_cgroup_hierarchy=1", "rhgb"];
        let entry = format!("boot/loader/entries/0123-{RELEASE}.conf");
        let defaults = format!("GRUB_CMDLINE_LINUX=\"{all}\"\nGRUB_DEFAULT=saved\n");
        let environment = format!("# GRUB Environment Block\nkernelopts={all}\n####");
        for files in [
            vec![(
                &entry[..],
                "title x\noptions $kernelopts $tuned_params\n".to_owned(),
            )],
            vec![(&entry[..], format!("options {all}\n"))],
            vec![("etc/kernel/cmdline", all.to_owned())],
            vec![("etc/default/grub", defaults.clone())],
        ] {
            let mut files: Vec<(&str, &str)> = files
                .iter()
                .map(|(path, text)| (*path, &text[..]))
                .collect();
            files.push(("boot/grub2/grubenv", &environment));
            assert_eq!(added(&files), wanted, "{files:?}");
        }
    }

    #[test]
    fn files_of_debians_cloud_images_add_to_the_variables_before_them() {
        let files = [
            (
                "etc/default/grub",
                "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\nGRUB_CMDLINE_LINUX=\"apparmor=0\"\n",
            ),
            (
                "etc/default/grub.d/a.cfg",
                "GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT mitigations=off\"\n",
            ),
        ];
        assert_eq!(added(&files), ["apparmor=0", "mitigations=off"]);
    }

    #[test]
    fn what_starts_a_repair_or_would_have_to_be_computed_is_never_added() {
        let text = "single init=/bin/sh systemd.unit=rescue.target a=$(date) b=`id` va.why=trial c='d -- ---";
        assert!(added(&[("etc/kernel/cmdline", text)]).is_empty());
        assert!(added(&[]).is_empty());
    }

    #[test]
    fn what_tells_of_the_network_disk_or_memory_of_the_builders_machine_is_left_out() {
        let text = "boot=UUID=1-2 netroot=iscsi:10.0.0.1::::iqn nfsroot=10.0.0.1:/r mem=2G \
                    rd.iscsi.initiator=iqn rd.iscsi.firmware rd.neednet=1";
        assert!(added(&[("etc/kernel/cmdline", text)]).is_empty());
        let others = added(&[(
            "etc/kernel/cmdline",
            "boot_delay=1 memtest=1 rd.net.timeout.dhcp=9",
        )]);
        assert_eq!(others.len(), 3, "{others:?}");
    }

    #[test]
    fn an_entry_of_another_kernel_tells_nothing() {
        let other = ("boot/loader/entries/0123-4.18.0.conf", "options other=1\n");
        assert!(added(&[other]).is_empty());
    }
}
