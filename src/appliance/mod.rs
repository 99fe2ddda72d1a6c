//! This machine: its slots, cards and network, what is written down about it.

pub mod assets;
pub mod before;
pub mod cards;
mod context;
pub mod devices;
pub mod disks;
pub mod first_start;
pub mod gateways;
pub mod hardware;
pub mod history;
pub mod hypervisor;
pub mod machine;
pub mod network;
pub mod pristine;
pub mod release;
pub mod routes;
pub mod selinux;
pub mod services;

pub use context::Appliance;
