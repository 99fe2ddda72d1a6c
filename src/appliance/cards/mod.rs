//! The network cards of this machine, and how each keeps its name.
//!
//! - [`card`]: what is written down of a card
//! - [`interfaces`]: which interfaces are cards, which stand on top of them
//! - [`means`]: how the next system is to name each
//! - [`naming`]: which cards have another one's name, and the way out as a plan
//! - [`rename`]: the plan carried out
//!
//! A card is known by the hardware address that it was made with. Order, driver
//! and bus path may be others in the next system.

pub mod card;
pub mod interfaces;
pub mod means;
pub mod naming;
pub mod rename;

pub use card::{Card, FILE, Record};
pub use interfaces::Interfaces;
pub use means::Means;
