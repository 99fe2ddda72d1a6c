//! How names of any bytes stand in JSON.

use serde::Serialize;

use crate::tree::path::hex_unless_text;

/// A path in JSON.
#[derive(Serialize)]
pub struct Name {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
}

impl Name {
    /// Names what lies at `path` in the tree.
    pub fn of(path: &[u8]) -> Name {
        let path = [b"/", path].concat();
        Name {
            path: String::from_utf8_lossy(&path).into_owned(),
            path_hex: hex_unless_text(&path),
        }
    }
}
