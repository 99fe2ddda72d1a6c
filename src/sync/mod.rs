//! What of the customer's comes over to a new slot.
//!
//! 1. [`rules`] say by path how a thing is carried;
//! 2. [`plan`] joins them with what the customer changed; changes nothing;
//! 3. [`carry`] does it: everything is made aside first, then put in place;
//! 4. [`keep`] leaves the report, both sides of conflicts and what no rule
//!    knows on the data volume;
//! 5. [`owners`] gives files on the data volume the ids of the new accounts, once the
//!    new system is kept.

pub mod carry;
pub mod keep;
pub mod owners;
pub mod plan;
pub mod rules;

mod aside;
mod like;
mod people;
mod source;

pub use plan::Plan;
pub use rules::Rules;
