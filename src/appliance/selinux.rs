//! What SELinux does on this machine.

use std::fs;

use super::Appliance;

/// Whether SELinux decides anything (selinux(8)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is not there, or switched off.
    Off,
    /// It only writes down what it would have refused.
    Permissive,
    /// It refuses.
    Enforcing,
}

impl Mode {
    /// Asks the kernel. Its file system is mounted only where a policy is used.
    pub fn of_running(appliance: &Appliance) -> Mode {
        match fs::read_to_string(appliance.at("/sys/fs/selinux/enforce")) {
            Ok(text) if text.trim() == "1" => Mode::Enforcing,
            Ok(_) => Mode::Permissive,
            Err(_) => Mode::Off,
        }
    }
}
