//! os-release(5): what a system calls itself.

/// Where the file is, relative to the root, in the order they count.
pub const PATHS: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];

/// What os-release says; empty where it is silent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// `ID`, such as "rocky".
    pub id: String,
    /// The name for people, such as "Rocky Linux 9.4 (Blue Onyx)".
    pub name: String,
    /// `VERSION_ID`, such as "9.4".
    pub version: String,
}

impl OsRelease {
    /// Parses the text of the file.
    pub fn parse(text: &str) -> OsRelease {
        let field = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| name.trim() == key)
                .map(|(_, value)| value.trim().trim_matches(['"', '\'']).to_owned())
                .filter(|value| !value.is_empty())
        };
        OsRelease {
            id: field("ID").unwrap_or_default(),
            name: field("PRETTY_NAME")
                .or_else(|| field("NAME"))
                .unwrap_or_else(|| "the system".into()),
            version: field("VERSION_ID").unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_with_and_without_quotes() {
        let text = "NAME='Rocky Linux'\nID=\"rocky\"\nVERSION_ID=9.4\n";
        assert_eq!(
            OsRelease::parse(text),
            OsRelease {
                id: "rocky".into(),
                name: "Rocky Linux".into(),
                version: "9.4".into()
            }
        );
        assert_eq!(OsRelease::parse("").name, "the system");
    }
}
