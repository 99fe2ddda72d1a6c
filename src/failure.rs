//! What kind of failure an error is, for callers that branch on it.
//!
//! Owns the exit codes; never prints. Any error may be given a [`Class`]; an
//! error without one is "unexpected".

use std::fmt;

use anyhow::Error;

/// The kinds of failure a caller can tell apart; the numbers are exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// An unexpected failure; the running slot is untouched and the default.
    Unexpected = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// A check refused the operation; nothing was changed.
    Refused = 3,
    /// The bundle is damaged, untrusted or for another product.
    BadBundle = 4,
    /// Writing the inactive slot or GRUB failed and was undone.
    Undone = 5,
    /// Another `va-upgrade` holds the lock.
    Locked = 6,
    /// Undoing failed as well; a person must act.
    Stuck = 7,
}

impl Class {
    /// Returns the word that programs know the class by.
    pub fn name(self) -> &'static str {
        match self {
            Class::Unexpected => "unexpected",
            Class::Usage => "usage",
            Class::Refused => "refused",
            Class::BadBundle => "bad-bundle",
            Class::Undone => "undone",
            Class::Locked => "locked",
            Class::Stuck => "stuck",
        }
    }
}

/// An error with a [`Class`]; displays and chains exactly as the error inside.
#[derive(Debug)]
pub struct Failure {
    class: Class,
    error: Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Adds a [`Class`] to a `Result`.
pub trait Classify<T> {
    /// Gives the error `class`, in place of any class it had.
    ///
    /// # Errors
    /// The same error, classed.
    fn class(self, class: Class) -> anyhow::Result<T>;
}

impl<T, E: Into<Error>> Classify<T> for Result<T, E> {
    fn class(self, class: Class) -> anyhow::Result<T> {
        self.map_err(|error| with_class(class, error.into()))
    }
}

/// Wraps `error` so that [`class_of`] answers `class`.
pub fn with_class(class: Class, error: Error) -> Error {
    Error::new(Failure { class, error })
}

/// Returns the outermost class in the chain of `error`.
pub fn class_of(error: &Error) -> Class {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Failure>())
        .map_or(Class::Unexpected, |failure| failure.class)
}

/// Returns what `error` was before it was given a class.
pub fn unclassed(error: &Error) -> &Error {
    match error.downcast_ref::<Failure>() {
        Some(failure) => unclassed(&failure.error),
        None => error,
    }
}

/// Returns early with an error of class [`Class::Refused`].
#[macro_export]
macro_rules! refuse {
    ($($arg:tt)*) => {
        return Err($crate::failure::with_class(
            $crate::failure::Class::Refused,
            anyhow::anyhow!($($arg)*),
        ))
    };
}

/// Returns early with an error of class [`Class::BadBundle`].
#[macro_export]
macro_rules! bad_bundle {
    ($($arg:tt)*) => {
        return Err($crate::failure::with_class(
            $crate::failure::Class::BadBundle,
            anyhow::anyhow!($($arg)*),
        ))
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn the_outermost_class_wins_and_the_chain_prints_once() {
        let inner: anyhow::Result<()> = Err(anyhow!("disk is full")).class(Class::Refused);
        let outer = inner
            .context("writing a")
            .class(Class::Undone)
            .context("applying");
        let error = outer.unwrap_err();
        assert_eq!(class_of(&error), Class::Undone);
        assert_eq!(format!("{error:#}"), "applying: writing a: disk is full");
    }

    #[test]
    fn an_unclassed_error_is_unexpected() {
        assert_eq!(class_of(&anyhow!("odd")), Class::Unexpected);
    }
}
