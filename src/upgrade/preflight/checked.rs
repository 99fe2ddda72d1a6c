//! How a check ends.

use anyhow::Result;

/// What a check found, for the flow and in words; an error is in the way.
pub type Checked<T> = Result<(T, String)>;
