//! The octal escapes of blanks and backslashes in fstab(5) and proc(5)'s mountinfo.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Undoes `\040` and its like.
pub fn unescape(word: &str) -> OsString {
    let bytes = word.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes
            .get(at + 1..at + 4)
            .filter(|_| bytes[at] == b'\\')
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_escapes_are_undone() {
        assert_eq!(unescape(r"/mnt/my\040share"), "/mnt/my share");
        assert_eq!(unescape(r"a\134b"), r"a\b");
        assert_eq!(unescape(r"a\04"), r"a\04");
        assert_eq!(unescape(r"a\999"), r"a\999");
    }
}
