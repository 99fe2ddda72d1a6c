//! Things that take long to make and depend on nothing under test, kept
//! between runs under a name that holds the hash of all their inputs.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Once;

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};
use va_upgrade::system::files::remove_tree;

use super::tell::{say, short, step};

/// Returns `name`, made from `inputs`; makes it first when it is not there yet.
/// `what` is its name in a sentence.
///
/// `make` writes to the path it is given. Only what it finished gets the final
/// name, so an interrupted run leaves nothing that a later one would trust.
pub fn cached(
    name: &str,
    what: &str,
    inputs: &[&str],
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let dir = directory()?;
    let full_name = format!("{name}-{}", key(inputs));
    let path = dir.join(&full_name);
    let lock =
        File::create(dir.join(format!("{full_name}.lock"))).context("opening the cache's lock")?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .context("waiting for the cache's lock")?;
    if path.exists() {
        return Ok(path);
    }
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        say(&format!(
            "what takes long to make is kept in {}",
            short(&dir)
        ));
    });
    let part = dir.join(format!("{full_name}.part"));
    if part.is_dir() {
        remove_tree(&part)?;
    } else if part.exists() {
        fs::remove_file(&part).with_context(|| format!("removing {}", part.display()))?;
    }
    step(&format!("making {what}"), || {
        make(&part).with_context(|| format!("making {name}"))
    })?;
    fs::rename(&part, &path).with_context(|| format!("naming {}", path.display()))?;
    Ok(path)
}

fn directory() -> Result<PathBuf> {
    let dir = match env::var_os("VA_UPGRADE_CACHE") {
        Some(dir) => PathBuf::from(dir),
        None => {
            PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cache/va-upgrade")
        }
    };
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}

fn key(inputs: &[&str]) -> String {
    let mut hash = Sha256::new();
    for input in inputs {
        hash.update(input.len().to_le_bytes());
        hash.update(input.as_bytes());
    }
    let digest = hash.finalize();
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
