//! Free room in a mounted file system.

use std::path::Path;

use anyhow::{Context, Result};

use crate::system::{Cmd, System};

/// What is free in a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that an unprivileged user may still write.
    pub bytes: u64,
    /// Files that can still be made; `None` where they are made on demand.
    pub inodes: Option<u64>,
}

/// Returns the size of a volume that a tree of `data_bytes` in `inodes` files fits in:
/// with inodes of 512 bytes, a journal, and what a file system keeps for itself.
pub fn needed_bytes(data_bytes: u64, inodes: u64) -> u64 {
    data_bytes + inodes * 512 + (data_bytes / 20).max(64 << 20)
}

/// Returns what is free in the file system mounted at `path`.
///
/// # Errors
/// When stat(1) fails or prints something else.
pub fn free(sys: &dyn System, path: &Path) -> Result<Space> {
    let out = sys.run(
        &Cmd::new("stat")
            .args(["--file-system", "--format=%S %a %c %d"])
            .arg(path),
    )?;
    parse(&out)
        .with_context(|| format!("reading the free space of {} from {out:?}", path.display()))
}

fn parse(text: &str) -> Option<Space> {
    let numbers: Vec<u64> = text
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let [block, blocks, all_inodes, inodes] = numbers[..] else {
        return None;
    };
    Some(Space {
        bytes: block.checked_mul(blocks)?,
        inodes: (all_inodes > 0).then_some(inodes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_blocks_are_counted_in_their_own_size() {
        assert_eq!(
            parse("4096 10 100 7\n"),
            Some(Space {
                bytes: 40960,
                inodes: Some(7)
            })
        );
        assert_eq!(
            parse("4096 10 0 0"),
            Some(Space {
                bytes: 40960,
                inodes: None
            })
        );
        assert_eq!(parse("4096 x 1 1"), None);
    }
}
