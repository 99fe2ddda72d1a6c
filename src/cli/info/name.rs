//! How names of any bytes stand in JSON.

use serde::Serialize;

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
            path_hex: hex(&path),
        }
    }
}

/// Renders what is not UTF-8; text needs no such help.
pub fn hex(bytes: &[u8]) -> Option<String> {
    let is_text = str::from_utf8(bytes).is_ok();
    (!is_text).then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
