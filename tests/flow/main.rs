//! Whole flows on a fake machine, with every step made to fail once.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on may panic, and runs programs of its own"
)]

mod anew;
mod apply;
mod banner;
mod boots;
mod cards;
mod checks;
mod clock;
mod cut;
mod deadline;
mod discard;
mod drill;
mod dying;
mod environment;
mod first;
mod first_start;
mod fit;
mod full;
mod grow;
mod grubs;
mod in_ram;
mod incident;
mod kernel;
mod kernel_choice;
mod kernel_health;
mod kernel_hook;
mod lone;
mod machine;
mod migrate;
mod network;
mod network_settings;
mod owners;
mod parts;
mod pinning;
mod pristine;
mod programs;
mod rebuild;
mod rebuild_faults;
mod release;
mod repair;
mod report;
mod rollback;
mod round_trip;
mod selinux;
mod settings;
mod settle;
mod single_root;
mod stage;
mod streams;
mod sync;
mod trial;
mod turn;
mod volumes;
mod window;
mod writes;
