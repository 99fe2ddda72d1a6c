//! Whole flows on a fake machine, with every step made to fail once.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on may panic, and runs programs of its own"
)]

mod apply;
mod boots;
mod cut;
mod deadline;
mod grubs;
mod lone;
mod machine;
mod programs;
mod release;
mod repair;
mod rollback;
mod settle;
mod streams;
mod trial;
mod writes;
