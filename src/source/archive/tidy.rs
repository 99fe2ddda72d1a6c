//! What a member has once a root has unpacked it, whatever way its archive says so.

use anyhow::{Context, Result};

use crate::archive::batch::Member;
use crate::refuse;
use crate::tree::acl;
use crate::tree::meta::{Kind, Meta};
use crate::tree::path::show_whole;
use crate::tree::xattrs::Xattr;

/// The kernel takes no larger value.
const MAX_VALUE_BYTES: usize = 64 << 10;
/// The kernel takes no longer name.
const MAX_NAME_BYTES: usize = 255;

/// Returns the attributes of a member as the kernel would show them.
///
/// # Errors
/// Class `Refused` when the kernel would not take them.
pub fn attributes(member: &Member) -> Result<(Meta, Vec<Xattr>)> {
    let mut meta = member.meta;
    let mut xattrs = member.xattrs.clone();
    for xattr in &xattrs {
        let (name, value) = (xattr.name.len(), xattr.value.len());
        if name > MAX_NAME_BYTES || value > MAX_VALUE_BYTES {
            refuse!(
                "its attribute {} has a name of {name} bytes and a value of {value}, more than \
                 Linux takes",
                show_whole(&xattr.name[..name.min(MAX_NAME_BYTES)])
            );
        }
    }
    if meta.kind == Kind::Symlink {
        // Some write what the umask left of it.
        meta.mode = 0o777;
        return Ok((meta, xattrs));
    }
    if let Some(at) = xattrs.iter().position(|x| x.name == acl::ACCESS) {
        let shown = acl::permissions(&xattrs[at].value).context("its ACL is malformed")?;
        meta.mode = meta.mode & 0o7000 | shown.mode;
        if shown.is_all {
            xattrs.remove(at);
        }
    }
    Ok((meta, xattrs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Class, class_of};

    fn tidied(kind: Kind, mode: u32, name: &[u8], value: Vec<u8>) -> Result<(u32, usize)> {
        let member = Member {
            begin: 0,
            path: 0..0,
            link_end: 0..0,
            is_hard_link: false,
            meta: Meta {
                kind,
                mode,
                ..Meta::default()
            },
            xattrs: vec![Xattr {
                name: name.to_vec(),
                value,
            }],
            stored: 0,
            parts: 0..0,
        };
        attributes(&member).map(|(meta, xattrs)| (meta.mode, xattrs.len()))
    }

    #[test]
    fn an_acl_decides_the_mode_and_goes_where_it_says_no_more() {
        let acl = |text: &str| acl::from_text(text.as_bytes()).unwrap();
        let small = acl("user::rw-,group::r--,other::---");
        let large = acl("user::rw-,user:5:rwx,group::r--,mask::rwx,other::---");
        let of = |mode, acl| tidied(Kind::File, mode, acl::ACCESS, acl).unwrap();
        assert_eq!(of(0o4777, small), (0o4640, 0));
        assert_eq!(of(0o600, large), (0o670, 1));
        assert!(tidied(Kind::File, 0, acl::ACCESS, b"x".to_vec()).is_err());
    }

    #[test]
    fn what_linux_would_not_take_is_refused_and_links_have_no_mode() {
        let error = tidied(Kind::File, 0, b"user.x", vec![0; 70_000]).unwrap_err();
        assert_eq!(class_of(&error), Class::Refused);
        let link = tidied(Kind::Symlink, 0o644, b"trusted.x", Vec::new());
        assert_eq!(link.unwrap(), (0o777, 1));
    }
}
