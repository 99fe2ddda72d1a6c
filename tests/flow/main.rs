//! Whole flows on a fake machine, with every step made to fail once.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on may panic, and runs programs of its own"
)]

mod apply;
mod boots;
mod cards;
mod checks;
mod cut;
mod deadline;
mod drill;
mod first_start;
mod fit;
mod grubs;
mod kernel;
mod kernel_choice;
mod kernel_health;
mod kernel_hook;
mod lone;
mod machine;
mod network;
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
mod selinux;
mod settings;
mod settle;
mod stage;
mod streams;
mod sync;
mod trial;
mod window;
mod writes;
