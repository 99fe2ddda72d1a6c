//! Whole flows on a fake machine, with every step made to fail once.

mod apply;
mod machine;
mod release;
mod rollback;
mod trial;
