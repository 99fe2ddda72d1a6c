//! What is written is read again at once: no archive is made that its own
//! reader would refuse or take for another.

use anyhow::{Context, Result, ensure};

use super::batch::Batch;
use super::parse::Parser;
use super::write::NewMember;

/// Checks that `header`, which was written for `member`, reads as that member.
///
/// # Errors
/// With what the reader says, or that it reads something else.
pub fn check_readable(member: &NewMember, header: &[u8]) -> Result<()> {
    let mut batch = Batch::default();
    Parser::default().parse(header, &mut batch)?;
    let read = batch.members.first().context("no member is read")?;
    let stored: u64 = member.extents.iter().map(|e| e.length).sum();
    let is_same_inode = match member.is_hard_link {
        // Everything else is said by the file's first name.
        true => true,
        false => {
            (&read.meta, &read.xattrs[..], read.stored) == (member.meta, member.xattrs, stored)
        }
    };
    let is_same = batch.path(read) == member.path
        && batch.link_end(read) == member.link_end
        && read.is_hard_link == member.is_hard_link;
    ensure!(is_same && is_same_inode, "it is read as something else");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::meta::{Meta, Mtime};
    use crate::tree::xattrs::Xattr;

    fn write(member: &NewMember) -> Vec<u8> {
        let mut header = Vec::new();
        member.write(&mut header);
        header
    }

    #[test]
    fn only_the_header_of_the_same_member_will_do() {
        let meta = Meta {
            mode: 0o644,
            ..Meta::default()
        };
        let member = NewMember {
            path: b"etc/x",
            meta: &meta,
            link_end: b"",
            is_hard_link: false,
            xattrs: &[],
            extents: &[],
        };
        let header = write(&member);
        check_readable(&member, &header).unwrap();
        let later = Meta {
            mtime: Mtime {
                seconds: 5,
                nanoseconds: 1,
            },
            ..meta
        };
        let xattrs = [Xattr {
            name: b"user.x".to_vec(),
            value: b"\0".to_vec(),
        }];
        let others = [
            NewMember {
                path: b"etc/y",
                ..member
            },
            NewMember {
                meta: &later,
                ..member
            },
            NewMember {
                xattrs: &xattrs,
                ..member
            },
        ];
        for other in &others {
            assert!(check_readable(other, &header).is_err());
            check_readable(other, &write(other)).unwrap();
        }
    }

    #[test]
    fn what_the_reader_refuses_is_found_when_it_is_written() {
        let meta = Meta::default();
        let xattrs = [Xattr {
            name: b"user.x".to_vec(),
            value: vec![7; 9 << 20],
        }];
        let member = NewMember {
            path: b"x",
            meta: &meta,
            link_end: b"",
            is_hard_link: false,
            xattrs: &xattrs,
            extents: &[],
        };
        let error = check_readable(&member, &write(&member)).unwrap_err();
        assert!(error.to_string().contains("extended header"), "{error:#}");
    }
}
