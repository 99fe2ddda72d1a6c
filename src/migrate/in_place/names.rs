//! The names of the volume group and its volumes in the settings.
//!
//! They are written down, not changed: the old system's GRUB menu, initramfs and fstab
//! name the root by its volume group, in ways that no two of them read alike.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result, anyhow};

use crate::appliance::Appliance;
use crate::config::Config;
use crate::failure::{Class, Classify};
use crate::paths::CONFIG_FILE;

/// Returns the text of the settings as they are; empty where there are none.
///
/// # Errors
/// When they cannot be read.
pub fn current(appliance: &Appliance) -> Result<String> {
    match fs::read_to_string(appliance.at(CONFIG_FILE)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        other => other.with_context(|| format!("reading {CONFIG_FILE}")),
    }
}

/// Returns the text of settings that name the group and volumes of `wanted`; `None`
/// where `text` does.
///
/// # Errors
/// Class `Refused` when `text` names others.
pub fn named(text: &str, wanted: &Config) -> Result<Option<String>> {
    let is_named = |text: &str| {
        let config = Config::parse(text)?;
        anyhow::Ok(config.vg == wanted.vg && config.volumes == wanted.volumes)
    };
    if is_named(text)? {
        return Ok(None);
    }
    let mut after = text.to_owned();
    if !after.is_empty() && !after.ends_with('\n') {
        after.push('\n');
    }
    let volumes = &wanted.volumes;
    // JSON's strings and maps are YAML's, too.
    let quoted = |name: &str| serde_json::to_string(name);
    after += &format!(
        "vg: {}\nvolumes: {{root: {}, back: {}, data: {}, image: {}}}\n",
        quoted(&wanted.vg)?,
        quoted(&volumes.root)?,
        quoted(&volumes.back)?,
        quoted(&volumes.data)?,
        quoted(&volumes.image)?,
    );
    match is_named(&after) {
        Ok(true) => Ok(Some(after)),
        _ => Err(anyhow!(
            "{CONFIG_FILE} names other volumes than {}/{}, which runs; take `vg` and the root of \
             `volumes` out of it",
            wanted.vg,
            volumes.root
        ))
        .class(Class::Refused),
    }
}

/// Looks whether the settings can name the volumes.
///
/// # Errors
/// As for [`named`].
pub fn check(named_appliance: &Appliance, group: &str) -> Result<((), String)> {
    let message = match named(&current(named_appliance)?, named_appliance.config)? {
        None => format!("{CONFIG_FILE} names the volumes of {group}"),
        Some(_) => format!("{CONFIG_FILE} will name the volumes of {group}"),
    };
    Ok(((), message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::class_of;

    fn wanted(vg: &str, root: &str) -> Config {
        let mut config = Config {
            vg: vg.to_owned(),
            ..Config::default()
        };
        config.volumes.root = root.to_owned();
        config
    }

    #[test]
    fn names_are_added_behind_what_is_there_and_only_where_they_are_missing() {
        let after = named("product: acme", &wanted("vg0", "my-root"))
            .unwrap()
            .unwrap();
        assert_eq!(
            after,
            "product: acme\nvg: \"vg0\"\nvolumes: {root: \"my-root\", back: \"back\", \
             data: \"data\", image: \"image\"}\n"
        );
        assert_eq!(named(&after, &wanted("vg0", "my-root")).unwrap(), None);
        assert_eq!(named("", &Config::default()).unwrap(), None);
        assert_eq!(named("# only words\n", &Config::default()).unwrap(), None);
        assert!(named("", &wanted("1e3", "yes")).unwrap().is_some());
    }

    #[test]
    fn settings_that_name_other_volumes_are_not_touched() {
        let error = named("vg: other\n", &wanted("vg0", "root")).unwrap_err();
        assert_eq!(class_of(&error), Class::Refused);
        assert!(format!("{error:#}").contains("vg0/root"), "{error:#}");
    }
}
