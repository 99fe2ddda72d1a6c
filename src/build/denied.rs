//! What the caller may not read, told with the way out.

use std::io;

use anyhow::{Error, anyhow};
use nix::errno::Errno;

use crate::failure::{Class, class_of, with_class};

/// Makes a refusal of the error of a tree that may not be read whole; other
/// errors stay as they are.
pub fn refuse(error: Error) -> Error {
    let is_denied = error.chain().any(|cause| {
        let of_call = cause.downcast_ref::<Errno>();
        let of_file = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(of_call, Some(Errno::EACCES | Errno::EPERM))
            || of_file == Some(io::ErrorKind::PermissionDenied)
    });
    if !is_denied || class_of(&error) != Class::Unexpected {
        return error;
    }
    let way_out = "build as root, or from an archive that root has made of the tree";
    with_class(Class::Refused, anyhow!("{error:#}; {way_out}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_not_be_read_is_refused() {
        let denied = [
            Error::from(Errno::EACCES),
            io::Error::from(io::ErrorKind::PermissionDenied).into(),
        ];
        for error in denied {
            let error = refuse(error.context("reading etc/shadow"));
            assert_eq!(class_of(&error), Class::Refused);
            let text = format!("{error:#}");
            assert!(text.starts_with("reading etc/shadow: "), "{text}");
            assert!(text.ends_with("made of the tree"), "{text}");
        }
        let broken = refuse(Error::from(Errno::EIO));
        assert_eq!(class_of(&broken), Class::Unexpected);
    }
}
