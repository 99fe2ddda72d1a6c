//! How a check ends.

use anyhow::Result;

use crate::failure::{Class, with_class};
use crate::report::Finding;

/// What a check found, for the flow and in words; an error is in the way.
pub type Checked<T> = Result<(T, String)>;

/// Refuses: says what was found, what is needed and what to do.
///
/// # Errors
/// Always.
pub fn refuse<T>(
    found: impl Into<String>,
    needed: impl Into<String>,
    remedy: impl Into<String>,
) -> Checked<T> {
    Err(with_class(
        Class::Refused,
        Finding::new(found, needed, remedy).into(),
    ))
}
