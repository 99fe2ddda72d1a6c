//! release.yaml: what a release engineer says about a bundle.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::bundle::format::index::check_words;
use crate::bundle::format::manifest::{check_product, check_version};
use crate::cpu::CpuLevel;
use crate::failure::{Class, Classify};
use crate::input;
use crate::tree::glob::Glob;
use crate::yaml::{self, Shape};

const MAX_BYTES: u64 = 1 << 20;
const MAX_PATTERNS: usize = 1000;

/// The content of release.yaml.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The product; an appliance refuses bundles of another one.
    #[serde(default)]
    pub product: String,
    /// The version of this release.
    #[serde(default)]
    pub version: String,
    /// The oldest version that may be upgraded to this one.
    #[serde(default)]
    pub min_version: Option<String>,
    /// What the system demands of the CPU; found from the tree when absent.
    #[serde(default)]
    pub cpu_level: Option<CpuLevel>,
    /// Patterns of what is not packed; docs/interface.md says what never is.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// The largest bundle that may come out, in bytes.
    #[serde(default)]
    pub size_limit: Option<u64>,
    /// What the release is, for people.
    #[serde(default)]
    pub description: Option<String>,
    /// What else is to be said of it, by name.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
}

impl Release {
    /// Loads a release.yaml; each of `settings`, a name and a value, replaces or
    /// adds a field.
    ///
    /// # Errors
    /// Class [`Class::Usage`] when it cannot be read or says something unusable.
    pub fn load(path: &Path, settings: &[(String, String)]) -> Result<Release> {
        let read = || -> Result<Release> {
            let text = input::read_text(path, MAX_BYTES)?;
            Release::parse_with(&text, settings)
        };
        read()
            .with_context(|| format!("reading {}", path.display()))
            .class(Class::Usage)
    }

    /// Parses the text of a release.yaml.
    ///
    /// # Errors
    /// When a field is missing, unknown or out of its bounds.
    pub fn parse(text: &str) -> Result<Release> {
        Release::parse_with(text, &[])
    }

    fn parse_with(text: &str, settings: &[(String, String)]) -> Result<Release> {
        // The parser quotes what it did not expect, and a key given by mistake
        // must not be quoted.
        let shape = yaml::shape(text)?;
        ensure!(
            shape == Shape::Mapping,
            "it holds no settings; it needs lines such as `product: acme` and `version: 9.4.1`"
        );
        let mut release: Release = yaml::parse(text)?;
        for (name, value) in settings {
            release
                .set(name, value)
                .with_context(|| format!("setting {name}"))?;
        }
        release.check()?;
        Ok(release)
    }

    /// Sets a field of one value.
    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "product" => self.product = value.to_owned(),
            "version" => self.version = value.to_owned(),
            "min_version" => self.min_version = Some(value.to_owned()),
            "cpu_level" => self.cpu_level = Some(value.parse()?),
            "size_limit" => self.size_limit = Some(value.parse()?),
            "description" => self.description = Some(value.to_owned()),
            _ => match name.strip_prefix("meta.") {
                Some(name) => drop(self.meta.insert(name.to_owned(), value.to_owned())),
                None => bail!(
                    "it is none of product, version, min_version, cpu_level, size_limit, \
                     description and meta.NAME"
                ),
            },
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        check_product(&self.product)?;
        check_version("version", &self.version)?;
        if let Some(version) = &self.min_version {
            check_version("min_version", version)?;
        }
        ensure!(
            self.exclude.len() <= MAX_PATTERNS,
            "exclude has {} patterns, more than {MAX_PATTERNS}",
            self.exclude.len()
        );
        self.globs()?;
        ensure!(
            self.size_limit != Some(0),
            "size_limit is 0; leave it out for no limit"
        );
        check_words(self.description.as_deref(), &self.meta)
    }

    /// Compiles the exclude patterns.
    ///
    /// # Errors
    /// When one is malformed; [`Release::parse`] has checked that.
    pub fn globs(&self) -> Result<Vec<Glob>> {
        self.exclude
            .iter()
            .map(|pattern| Glob::new(pattern).context("reading exclude"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_given_by_mistake_is_not_quoted() {
        for (text, word) in [
            (
                "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQ\n-----END PRIVATE KEY-----\n",
                "private key",
            ),
            ("MC4CAQAwBQ", "product: acme"),
        ] {
            let error = format!("{:#}", Release::parse(text).unwrap_err());
            assert!(!error.contains("MC4CAQAwBQ"), "{error}");
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_full_release_is_read() {
        let text = "product: ACME Gateway\nversion: 9.4.1\nmin_version: 7.10\n\
                    cpu_level: x86-64-v2\nexclude: ['/var/cache/*']\nsize_limit: 2147483648\n";
        // Text even where YAML would see a number, or 7.10 would be 7.1.
        let release = Release::parse(text).unwrap();
        assert_eq!(release.min_version.as_deref(), Some("7.10"));
        assert_eq!(release.cpu_level, Some(CpuLevel::V2));
        assert_eq!(release.size_limit, Some(2_147_483_648));
    }

    #[test]
    fn unusable_releases_are_refused_by_name() {
        for (text, word) in [
            ("version: '1'", "product"),
            ("product: A", "version"),
            ("{product: A, version: '1', colour: red}", "colour"),
            ("{product: '', version: '1'}", "product"),
            ("{product: \"a\\nb\", version: '1'}", "product"),
            ("{product: A, version: '1 2'}", "version"),
            (
                "{product: A, version: '1', min_version: '/'}",
                "min_version",
            ),
            ("{product: A, version: '1', exclude: ['[']}", "exclude"),
            ("{product: A, version: '1', size_limit: 0}", "size_limit"),
            ("{product: A, version: '1', cpu_level: v2}", "v2"),
        ] {
            let error = format!("{:#}", Release::parse(text).unwrap_err());
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_pipeline_sets_fields_and_meta_by_name() {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let settings = [
            set("version", "7.10"),
            set("cpu_level", "x86-64-v3"),
            set("meta.commit", "1a2b"),
        ];
        let text = "product: A\ndescription: two lines\nmeta: {pipeline: '12'}\n";
        let release = Release::parse_with(text, &settings).unwrap();
        assert_eq!(release.version, "7.10");
        assert_eq!(release.cpu_level, Some(CpuLevel::V3));
        assert_eq!(release.meta["commit"], "1a2b");
        assert_eq!(release.meta["pipeline"], "12");
        for (name, value, word) in [
            ("colour", "red", "none of product"),
            ("size_limit", "many", "size_limit"),
            ("version", "", "version"),
        ] {
            let error = Release::parse_with("{product: A, version: '1'}", &[set(name, value)]);
            let text = format!("{:#}", error.unwrap_err());
            assert!(text.contains(word), "{text}");
        }
    }
}
