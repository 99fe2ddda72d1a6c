//! Old ids and new ones, for whoever owns files.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::tree::acl;

/// Which id a name had and which it has now, where they differ.
///
/// No two old ids lead to one new id, so that the way back is known. Neither
/// root's id nor the overflow id is in it. An old id whose name is gone is, if
/// it is another name's now: its files belong to nobody then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMap {
    /// uids
    pub users: BTreeMap<u32, u32>,
    /// gids
    pub groups: BTreeMap<u32, u32>,
}

impl IdMap {
    /// Tells whether every id stays as it is.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }

    /// Returns the way back.
    pub fn reversed(&self) -> IdMap {
        let reverse = |map: &BTreeMap<u32, u32>| map.iter().map(|(a, b)| (*b, *a)).collect();
        IdMap {
            users: reverse(&self.users),
            groups: reverse(&self.groups),
        }
    }

    /// Returns the uid that files of `uid` get.
    pub fn user(&self, uid: u32) -> u32 {
        self.users.get(&uid).copied().unwrap_or(uid)
    }

    /// Returns the gid that files of `gid` get.
    pub fn group(&self, gid: u32) -> u32 {
        self.groups.get(&gid).copied().unwrap_or(gid)
    }
}

/// Returns the owner and group that a file of `uid` and `gid` gets.
pub fn rewrite_owner(uid: u32, gid: u32, map: &IdMap) -> (u32, u32) {
    (map.user(uid), map.group(gid))
}

/// Rewrites the ids in a POSIX ACL, as its attribute holds it.
///
/// # Errors
/// When it is not an ACL.
pub fn rewrite_acl(blob: &[u8], map: &IdMap) -> Result<Vec<u8>> {
    let rewritten = acl::with_ids(blob, |uid| map.user(uid), |gid| map.group(gid));
    rewritten.context("rewriting the ids in an ACL: it is not an ACL")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> IdMap {
        IdMap {
            users: BTreeMap::from([(1000, 1001), (1001, 1002)]),
            groups: BTreeMap::from([(50, 60)]),
        }
    }

    #[test]
    fn owners_are_rewritten_there_and_back() {
        assert_eq!(rewrite_owner(1000, 50, &map()), (1001, 60));
        assert_eq!(rewrite_owner(1001, 50, &map().reversed()), (1000, 50));
        assert_eq!(rewrite_owner(0, 1000, &map()), (0, 1000));
    }

    #[test]
    fn an_acl_is_rewritten_in_the_order_the_kernel_wants() {
        let text = "user::rwx,user:5:r--,user:1000:---,group::r-x,group:50:r--,group:1000:rwx,\
                    mask::r-x,other::---";
        let blob = acl::from_text(text.as_bytes()).unwrap();
        let there = rewrite_acl(&blob, &map()).unwrap();
        let expected = text
            .replace("user:1000", "user:1001")
            .replace("group:50", "group:60");
        assert_eq!(acl::to_text(&there).unwrap(), expected);
        assert_eq!(rewrite_acl(&there, &map().reversed()).unwrap(), blob);
        let swap = IdMap {
            users: BTreeMap::from([(5, 2000)]),
            ..IdMap::default()
        };
        let swapped = acl::to_text(&rewrite_acl(&blob, &swap).unwrap()).unwrap();
        assert!(swapped.starts_with("user::rwx,user:1000:---,user:2000:r--,group::"));
    }

    #[test]
    fn what_is_not_an_acl_is_not_rewritten() {
        for blob in [&b""[..], b"\x02\0\0\0", b"\x03\0\0\0\x01\0\x07\0\0\0\0\0"] {
            assert!(rewrite_acl(blob, &map()).is_err());
        }
    }

    #[test]
    fn a_map_is_stored_and_read_again() {
        let text = serde_json::to_string(&map()).unwrap();
        assert_eq!(serde_json::from_str::<IdMap>(&text).unwrap(), map());
    }
}
