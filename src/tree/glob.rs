//! The patterns of `exclude:` in release.yaml.
//!
//! A pattern that starts with `/` is matched from the root of the tree, any
//! other one from every directory. `*` and `?` stay within a name, `**` does
//! not, `[a-z]` and `[!a-z]` match one byte, `\` takes the next byte literally.

use anyhow::{Result, ensure};

/// One compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
    anchored: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    Any,
    Within,
    Across,
    Class {
        negated: bool,
        ranges: Vec<(u8, u8)>,
    },
}

impl Glob {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// When it is empty, too long or has an open bracket.
    pub fn new(pattern: &str) -> Result<Glob> {
        ensure!(
            pattern.len() <= 1024,
            "pattern {pattern:.40?}... is longer than 1024 bytes"
        );
        let anchored = pattern.starts_with('/');
        let body = pattern.trim_matches('/').as_bytes();
        ensure!(!body.is_empty(), "pattern {pattern:?} is empty");
        let mut tokens = Vec::new();
        let mut at = 0;
        while let Some(&byte) = body.get(at) {
            at += 1;
            let token = match byte {
                b'?' => Token::Any,
                b'*' if body.get(at) == Some(&b'*') => {
                    at += 1;
                    Token::Across
                }
                b'*' => Token::Within,
                b'\\' if at < body.len() => {
                    at += 1;
                    Token::Byte(body[at - 1])
                }
                b'[' => {
                    let (class, length) = parse_class(&body[at..], pattern)?;
                    at += length;
                    class
                }
                byte => Token::Byte(byte),
            };
            tokens.push(token);
        }
        Ok(Glob { tokens, anchored })
    }

    /// Tells whether `path`, relative to the root of the tree, matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        // One row of the table of (token, position) pairs at a time, so that no
        // pattern takes more than its length times the path's.
        let mut row = vec![false; path.len() + 1];
        row[0] = true;
        if !self.anchored {
            // It may begin with any name of the path.
            for (i, byte) in path.iter().enumerate() {
                row[i + 1] = *byte == b'/';
            }
        }
        for token in &self.tokens {
            let mut next = vec![false; path.len() + 1];
            match token {
                Token::Within | Token::Across => {
                    let crosses = *token == Token::Across;
                    let mut live = false;
                    for i in 0..=path.len() {
                        if i > 0 && path[i - 1] == b'/' && !crosses {
                            live = false;
                        }
                        live |= row[i];
                        next[i] = live;
                    }
                }
                single => {
                    for (i, byte) in path.iter().enumerate() {
                        next[i + 1] = row[i] && single.takes(*byte);
                    }
                }
            }
            row = next;
        }
        row[path.len()]
    }
}

impl Token {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Token::Byte(own) => *own == byte,
            Token::Any => byte != b'/',
            Token::Class { negated, ranges } => {
                let inside = ranges.iter().any(|(a, b)| (*a..=*b).contains(&byte));
                byte != b'/' && inside != *negated
            }
            Token::Within | Token::Across => false,
        }
    }
}

fn parse_class(body: &[u8], pattern: &str) -> Result<(Token, usize)> {
    let negated = matches!(body.first(), Some(b'!' | b'^'));
    let start = usize::from(negated);
    let end = body
        .iter()
        .skip(start + 1)
        .position(|b| *b == b']')
        .map(|i| i + start + 1);
    ensure!(end.is_some(), "pattern {pattern:?} has an open [");
    let end = end.unwrap_or_default();
    let inner = &body[start..end];
    let mut ranges = Vec::new();
    let mut i = 0;
    while i < inner.len() {
        if i + 2 < inner.len() && inner[i + 1] == b'-' {
            ranges.push((inner[i], inner[i + 2]));
            i += 3;
        } else {
            ranges.push((inner[i], inner[i]));
            i += 1;
        }
    }
    Ok((Token::Class { negated, ranges }, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_documented() {
        for (pattern, path, expected) in [
            ("/var/cache/*", "var/cache/apt", true),
            ("/var/cache/*", "var/cache/apt/x", false),
            ("/var/cache/**", "var/cache/apt/x", true),
            ("/cache", "var/cache", false),
            ("cache", "var/cache", true),
            ("cache/", "cache", true),
            ("*.log", "var/log/a.log", true),
            ("*.log", "var/log/a.log.1", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[!a-c]x", "zx", true),
            ("[]]x", "]x", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("/a/**/z", "a/b/c/z", true),
            ("*a*a*a*a*a*a*a*a*b", &"a".repeat(2000), false),
        ] {
            let glob = Glob::new(pattern).unwrap();
            assert_eq!(glob.matches(path.as_bytes()), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn bad_patterns_are_refused() {
        for pattern in ["", "/", "[abc", &"x".repeat(2000)] {
            assert!(Glob::new(pattern).is_err(), "{pattern}");
        }
    }
}
