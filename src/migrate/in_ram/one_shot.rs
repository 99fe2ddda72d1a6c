//! The one start of the environment by the old GRUB: armed in its environment block,
//! put into its configuration, and taken out of it again. Works on GRUB's directory
//! wherever that is mounted, so the environment takes it out by the same code.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::place::{CONFIG, CUSTOM, DIR, ENV, STARTED, remove_file};
use super::script::{self, Rest};
use crate::boot::state::grubenv;
use crate::system::files;

/// GRUB's word for a start that is to come; afterwards it is another.
const ARMED: &str = "armed";
const VARIABLE: &str = "va_migrate";

/// Has the GRUB in `grub` start the environment with the kernel arguments `args`, once.
/// The last write is the one that counts.
///
/// # Errors
/// When a file cannot be written, or has been changed for another start.
pub fn arm(grub: &Path, args: &[String]) -> Result<()> {
    let lines = script::render(args)?;
    let config = read(&grub.join(CONFIG))?.context("GRUB's configuration is gone")?;
    let file = match script::reads_custom(&config) {
        true => grub.join(CUSTOM),
        false => grub.join(CONFIG),
    };
    let text = script::add(read(&file)?.as_deref(), &lines)
        .with_context(|| format!("changing {}", file.display()))?;
    // GRUB writes the blocks that the file has, so all of them are written.
    let block = grubenv::render(&[(VARIABLE, ARMED.to_owned())])?;
    files::write_atomic(&grub.join(DIR).join(ENV), &block, 0o600)?;
    replace(&file, &text)?;
    ensure!(
        read(&file)?.as_deref() == Some(&text[..]),
        "{} does not read back as written",
        file.display()
    );
    Ok(())
}

/// Takes the start out of the configuration of the GRUB in `grub`, if it is there;
/// returns whether it was.
///
/// # Errors
/// When a file cannot be written.
pub fn disarm(grub: &Path) -> Result<bool> {
    let mut was_there = false;
    for path in [grub.join(CUSTOM), grub.join(CONFIG)] {
        let Some(rest) = read(&path)?.and_then(|text| script::remove(&text)) else {
            continue;
        };
        was_there = true;
        match rest {
            Rest::Text(text) => replace(&path, &text)?,
            Rest::Nothing => drop(remove_file(&path)?),
        }
    }
    files::sync_dir(grub)?;
    Ok(was_there)
}

/// Tells whether the start that belongs to our directory `dir` is still to come: neither
/// GRUB nor the environment has noted it.
pub fn is_armed(dir: &Path) -> bool {
    let block = fs::read(dir.join(ENV)).unwrap_or_default();
    let armed = (VARIABLE.to_owned(), ARMED.to_owned());
    let is_to_come = grubenv::parse(&block).is_ok_and(|found| found.contains(&armed));
    is_to_come && !dir.join(STARTED).exists()
}

/// Notes in our directory `dir` that the environment has started for its order.
///
/// # Errors
/// When it has before, or that cannot be made durable.
pub fn note_start(dir: &Path) -> Result<()> {
    let path = dir.join(STARTED);
    let made = File::options().write(true).create_new(true).open(&path);
    let file = match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("this order was started before; prepare it anew")
        }
        other => other.with_context(|| format!("making {}", path.display()))?,
    };
    file.sync_all()?;
    files::sync_dir(dir)
}

/// Replaces the file at `path` whole. Its owner, mode, attributes and time stay, so that
/// nothing tells a file that was restored from one that was never changed.
fn replace(path: &Path, text: &[u8]) -> Result<()> {
    let Ok(old) = fs::symlink_metadata(path) else {
        return files::write_atomic(path, text, 0o600);
    };
    // A system without a policy gives a new file no label.
    let attributes = Attributes::read(path);
    files::write_atomic(path, text, old.permissions().mode() & 0o7777)?;
    let keep = || -> Result<()> {
        chown(path, Some(old.uid()), Some(old.gid()))?;
        attributes?.give(path)?;
        let file = File::options().write(true).open(path)?;
        Ok(file.set_modified(old.modified()?)?)
    };
    keep().with_context(|| format!("keeping owner and attributes of {}", path.display()))
}

/// The extended attributes of a file.
struct Attributes(Vec<(OsString, Vec<u8>)>);

impl Attributes {
    fn read(path: &Path) -> Result<Attributes> {
        let mut found = Vec::new();
        for name in xattr::list(path)? {
            if let Some(value) = xattr::get(path, &name)? {
                found.push((name, value));
            }
        }
        Ok(Attributes(found))
    }

    /// Gives them to the file at `path`, where it has not the same.
    fn give(&self, path: &Path) -> Result<()> {
        for (name, value) in &self.0 {
            if xattr::get(path, name)?.as_deref() != Some(value) {
                xattr::set(path, name, value)?;
            }
        }
        Ok(())
    }
}

/// Reads a file that may be absent; a link is refused, since it would be replaced.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let context = || format!("reading {}", path.display());
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(context),
        Ok(meta) => {
            ensure!(meta.is_file(), "{} is no regular file", path.display());
            fs::read(path).map(Some).with_context(context)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGS: [&str; 4] = [
        include_str!("../../../tests/data/grub-debian-11.cfg"),
        include_str!("../../../tests/data/grub-centos-7.cfg"),
        include_str!("../../../tests/data/grub-rocky-9.cfg"),
        "set default=0\nmenuentry 'made by hand' { linux /vmlinuz }",
    ];

    #[test]
    fn both_files_are_as_before_once_it_is_disarmed() {
        for (config, custom) in CONFIGS
            .iter()
            .flat_map(|it| [(it, None), (it, Some("set a=b\n"))])
        {
            let dir = tempfile::tempdir().unwrap();
            let grub = dir.path();
            fs::create_dir(grub.join(DIR)).unwrap();
            fs::write(grub.join(CONFIG), config).unwrap();
            fs::set_permissions(grub.join(CONFIG), PermissionsExt::from_mode(0o640)).unwrap();
            if let Some(text) = custom {
                fs::write(grub.join(CUSTOM), text).unwrap();
            }
            let before = fs::metadata(grub.join(CONFIG)).unwrap();
            arm(grub, &["a=b".into()]).unwrap();
            let block = fs::read(grub.join(DIR).join(ENV)).unwrap();
            assert_eq!(
                grubenv::parse(&block).unwrap(),
                [(VARIABLE.to_owned(), ARMED.to_owned())]
            );
            let is_custom = script::reads_custom(config.as_bytes());
            assert_eq!(
                fs::read_to_string(grub.join(CONFIG)).unwrap() == **config,
                is_custom
            );
            assert!(arm(grub, &[]).is_err(), "there are no two starts");
            assert!(disarm(grub).unwrap());
            assert!(!disarm(grub).unwrap());
            assert_eq!(fs::read_to_string(grub.join(CONFIG)).unwrap(), **config);
            let after = fs::metadata(grub.join(CONFIG)).unwrap();
            assert_eq!(after.modified().unwrap(), before.modified().unwrap());
            assert_eq!(after.permissions(), before.permissions());
            let found = fs::read_to_string(grub.join(CUSTOM)).ok();
            assert_eq!(found.as_deref(), custom);
        }
    }

    #[test]
    fn an_order_starts_once() {
        let dir = tempfile::tempdir().unwrap();
        note_start(dir.path()).unwrap();
        let error = note_start(dir.path()).unwrap_err();
        assert!(error.to_string().contains("started before"), "{error}");
    }
}
