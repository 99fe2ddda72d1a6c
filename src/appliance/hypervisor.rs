//! What the machine is run by, where the way out of a fault differs.

use std::fs;

use super::context::Appliance;

/// A hypervisor that names itself to its machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hypervisor {
    /// VMware ESXi or Workstation.
    Vmware,
    /// QEMU with KVM, as libvirt, Proxmox and clouds run it.
    Kvm,
    /// Hyper-V or Azure.
    HyperV,
    /// Xen.
    Xen,
    /// VirtualBox.
    VirtualBox,
    /// None, or one that is not known.
    Other,
}

impl Hypervisor {
    /// Asks the firmware's tables.
    pub fn of(appliance: &Appliance) -> Hypervisor {
        let read = |name: &str| {
            let path = appliance.at("/sys/class/dmi/id").join(name);
            fs::read_to_string(path).unwrap_or_default()
        };
        Hypervisor::named(&read("sys_vendor"), &read("product_name"))
    }

    fn named(vendor: &str, product: &str) -> Hypervisor {
        let (vendor, product) = (vendor.trim(), product.trim());
        match vendor {
            _ if vendor.starts_with("VMware") => Hypervisor::Vmware,
            "Microsoft Corporation" if product == "Virtual Machine" => Hypervisor::HyperV,
            "Xen" => Hypervisor::Xen,
            "innotek GmbH" => Hypervisor::VirtualBox,
            "QEMU" | "Red Hat" | "Google" | "OpenStack Foundation" | "Amazon EC2" => {
                Hypervisor::Kvm
            }
            _ if product.contains("KVM") => Hypervisor::Kvm,
            _ => Hypervisor::Other,
        }
    }

    /// Says how the machine gets a processor of a higher level.
    pub fn raise_processor(self) -> &'static str {
        match self {
            Hypervisor::Vmware => {
                "raise the EVC mode of the cluster, and of the machine itself, and start it from \
                 power-off"
            }
            Hypervisor::Kvm => {
                "set the machine's CPU model to `host-passthrough`, or to one of that level, and \
                 start it from power-off"
            }
            Hypervisor::HyperV => {
                "shut the machine down, turn off its processor compatibility \
                 (`Set-VMProcessor -CompatibilityForMigrationEnabled $false`), and start it"
            }
            Hypervisor::Xen => {
                "raise the CPU level of the pool, or take away the machine's CPU mask, and start \
                 it from power-off"
            }
            Hypervisor::VirtualBox => "run it on a host whose processor has that level",
            Hypervisor::Other => {
                "raise the CPU compatibility mode of the hypervisor, or move to a host that has \
                 that level, and start the machine from power-off"
            }
        }
    }

    /// Says how the machine's clock is put right.
    pub fn set_clock(self) -> &'static str {
        match self {
            Hypervisor::Vmware => {
                "set the time of the ESXi host, turn on the machine's time synchronization, or set \
                 a time server"
            }
            Hypervisor::HyperV => {
                "turn on the machine's time synchronization service, or set a time server"
            }
            _ => "set the clock, or a time server",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hypervisor_is_known_by_what_it_writes_into_the_firmware_s_tables() {
        for (vendor, product, wanted) in [
            ("VMware, Inc.\n", "VMware7,1\n", Hypervisor::Vmware),
            (
                "QEMU\n",
                "Standard PC (i440FX + PIIX, 1996)\n",
                Hypervisor::Kvm,
            ),
            (
                "Microsoft Corporation",
                "Virtual Machine",
                Hypervisor::HyperV,
            ),
            ("Microsoft Corporation", "Surface", Hypervisor::Other),
            ("Xen", "HVM domU", Hypervisor::Xen),
            ("innotek GmbH", "VirtualBox", Hypervisor::VirtualBox),
            ("oVirt", "KVM", Hypervisor::Kvm),
            ("", "", Hypervisor::Other),
        ] {
            assert_eq!(Hypervisor::named(vendor, product), wanted, "{vendor}");
        }
    }
}
