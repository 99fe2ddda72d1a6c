//! This machine: its slots, its network, what is written down about it.

mod context;
pub mod devices;
pub mod history;
pub mod machine;
pub mod network;
pub mod release;
pub mod selinux;
pub mod services;

pub use context::Appliance;
