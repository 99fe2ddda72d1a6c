//! What boots: the system in a tree.

pub mod target;
