//! JSON: what a text says, and where in it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::Texts;
use super::choice::{Choices, Entries, Key};

/// Objects that lie deeper are not read; `serde_json` has the same limit.
const DEEPEST: usize = 128;

/// A value and where it stands.
struct Node {
    span: Range<usize>,
    /// The members of an object that has any.
    members: Vec<Member>,
}

struct Member {
    name: String,
    /// The blanks before it.
    gap: Range<usize>,
    /// From its name to the end of its value.
    span: Range<usize>,
    value: Node,
}

/// Returns what a text sets: everything that is no object, by its path.
pub fn entries(text: &str) -> Option<Entries> {
    let root = parse(text)?;
    let mut entries = Entries::new();
    if !root.members.is_empty() {
        flatten(text, &root, &mut Key::new(), &mut entries);
    } else if &text[root.span] != "{}" {
        return None;
    }
    Some(entries)
}

fn flatten(text: &str, node: &Node, path: &mut Key, entries: &mut Entries) {
    if node.members.is_empty() {
        let values = entries.entry(path.clone()).or_default();
        values.push(without_blanks(&text[node.span.clone()]));
    }
    for member in &node.members {
        path.push(member.name.clone());
        flatten(text, &member.value, path, entries);
        path.pop();
    }
}

fn without_blanks(text: &str) -> String {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let is_kept = |c: &char| {
        let is_kept = is_quoted || !c.is_ascii_whitespace();
        is_quoted ^= *c == '"' && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        is_kept
    };
    text.chars().filter(is_kept).collect()
}

/// Returns the image's text with what was chosen of the customer's.
pub fn edit(texts: &Texts<'_>, choices: &Choices) -> Option<String> {
    let (image, customer) = (parse(texts.image)?, parse(texts.customer)?);
    let editor = Editor { texts, choices };
    let object = editor.object(&image, Some(&customer), &mut Key::new());
    let before = &texts.image[..image.span.start];
    Some(format!(
        "{before}{object}{}",
        &texts.image[image.span.end..]
    ))
}

struct Editor<'t> {
    texts: &'t Texts<'t>,
    choices: &'t Choices,
}

impl Editor<'_> {
    fn object(&self, image: &Node, customer: Option<&Node>, path: &mut Key) -> String {
        let ours = self.texts.image;
        let theirs: BTreeMap<&str, &Member> = customer
            .iter()
            .flat_map(|node| node.members.iter().map(|m| (m.name.as_str(), m)))
            .collect();
        let mut members = Vec::new();
        let mut known = BTreeSet::new();
        for member in &image.members {
            path.push(member.name.clone());
            let counterpart = theirs.get(member.name.as_str()).copied();
            if let Some(text) = self.member(member, counterpart, path) {
                members.push(format!("{}{text}", &ours[member.gap.clone()]));
            }
            path.pop();
            known.insert(member.name.as_str());
        }
        let gap = image
            .members
            .first()
            .map(|member| &ours[member.gap.clone()]);
        for member in customer.iter().flat_map(|node| &node.members) {
            path.push(member.name.clone());
            if !known.contains(member.name.as_str()) && self.takes_all(&member.value, path) {
                let theirs = self.texts.customer;
                let gap = gap.unwrap_or(&theirs[member.gap.clone()]);
                members.push(format!("{gap}{}", &theirs[member.span.clone()]));
            }
            path.pop();
        }
        let closing = match image.members.last() {
            Some(last) => &ours[last.span.end..image.span.end],
            None => "}",
        };
        format!("{{{}{closing}", members.join(","))
    }

    /// Returns a member of the image's with the value that was chosen, if it stays.
    fn member(&self, image: &Member, customer: Option<&Member>, path: &mut Key) -> Option<String> {
        let ours = self.texts.image;
        let name = &ours[image.span.start..image.value.span.start];
        if !image.value.members.is_empty() {
            let below = customer.map(|member| &member.value);
            let object = self.object(&image.value, below, path);
            return self
                .stays(&image.value, path)
                .then(|| format!("{name}{object}"));
        }
        if !self.choices.customer.contains(path) {
            return Some(ours[image.span.clone()].to_owned());
        }
        let value = &self.texts.customer[customer?.value.span.clone()];
        Some(format!("{name}{value}"))
    }

    /// Tells whether anything of a node, or new in its place, is in the result.
    fn stays(&self, node: &Node, path: &Key) -> bool {
        let mut behind = self.choices.expected.range(path.clone()..);
        let has_below = behind.next().is_some_and(|(key, _)| key.starts_with(path));
        has_below || node.members.is_empty()
    }

    fn takes_all(&self, node: &Node, path: &mut Key) -> bool {
        if node.members.is_empty() {
            return self.choices.customer.contains(path);
        }
        node.members.iter().all(|member| {
            path.push(member.name.clone());
            let takes = self.takes_all(&member.value, path);
            path.pop();
            takes
        })
    }
}

/// Reads a text that `serde_json` finds sound.
fn parse(text: &str) -> Option<Node> {
    serde_json::from_str::<serde_json::Value>(text).ok()?;
    let mut reader = Reader { text, at: 0 };
    reader.blanks();
    reader.value(0)
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) -> Range<usize> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
        start..self.at
    }

    fn value(&mut self, depth: usize) -> Option<Node> {
        let start = self.at;
        let mut members = Vec::new();
        match self.peek()? {
            b'{' if depth < DEEPEST => members = self.members(depth)?,
            b'{' => return None,
            b'[' => self.array()?,
            b'"' => self.string()?,
            _ => self.word(),
        }
        let span = start..self.at;
        Some(Node { span, members })
    }

    fn members(&mut self, depth: usize) -> Option<Vec<Member>> {
        let mut members = Vec::new();
        self.at += 1;
        loop {
            let gap = self.blanks();
            match self.peek()? {
                b'}' => {
                    self.at += 1;
                    return Some(members);
                }
                b',' => {
                    self.at += 1;
                    continue;
                }
                _ => {}
            }
            let start = self.at;
            self.string()?;
            let name = serde_json::from_str(&self.text[start..self.at]).ok()?;
            self.blanks();
            self.at += 1;
            self.blanks();
            let value = self.value(depth + 1)?;
            let span = start..self.at;
            members.push(Member {
                name,
                gap,
                span,
                value,
            });
        }
    }

    fn array(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'[' => depth += 1,
                b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Some(());
            }
        }
    }

    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(())
    }

    fn word(&mut self) {
        let is_end = |byte: u8| byte.is_ascii_whitespace() || b",]}".contains(&byte);
        while self.peek().is_some_and(|byte| !is_end(byte)) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::tests::{case, conflicts};

    const DOCKER: &str = "{\n  \"log-driver\": \"json-file\",\n  \"log-opts\": {\n    \
        \"max-size\": \"10m\"\n  },\n  \"ipv6\": false\n}\n";

    #[test]
    fn order_and_blanks_of_the_image_stay() {
        let customer = DOCKER
            .replace("\"10m\"", "\"50m\",\n    \"max-file\": \"3\"")
            .replace(
                "\"ipv6\": false",
                "\"ipv6\": false,\n  \"dns\": [\"8.8.8.8\", \"1.1.1.1\"]",
            );
        let image = DOCKER
            .replace(
                "  \"log-driver\"",
                "  \"live-restore\": true,\n  \"log-driver\"",
            )
            .replace("false\n", "true\n");
        let merged = case(Format::Json, DOCKER, &customer, &image, &[]);
        let expected = "{\n  \"live-restore\": true,\n  \"log-driver\": \"json-file\",\n  \
            \"log-opts\": {\n    \"max-size\": \"50m\",\n    \"max-file\": \"3\"\n  },\n  \
            \"ipv6\": true,\n  \"dns\": [\"8.8.8.8\", \"1.1.1.1\"]\n}\n";
        assert_eq!(merged, expected);
        let only = case(Format::Json, DOCKER, &customer, DOCKER, &["log-opts/*"]);
        assert_eq!(
            only,
            DOCKER.replace("\"10m\"", "\"50m\",\n    \"max-file\": \"3\"")
        );
    }

    #[test]
    fn large_numbers_and_removed_members_are_exact() {
        let pristine = "{\"a\":1,\"b\":2,\"o\":{\"x\":1}}";
        let customer = "{\"a\":12345678901234567890123,\"b\":2}";
        let (text, _) = conflicts(
            Format::Json,
            pristine,
            customer,
            "{\"a\":1,\"b\":3,\"o\":{\"x\":1}}",
        );
        assert_eq!(text, "{\"a\":12345678901234567890123,\"b\":3}");
    }

    #[test]
    fn what_is_no_json_is_taken_whole() {
        let (text, found) = conflicts(Format::Json, "{}", "// no\n{\"a\": 1}", "{\"b\": 1}");
        assert_eq!(
            (text.as_str(), found[0].as_str()),
            ("// no\n{\"a\": 1}", "*: - | -")
        );
    }
}
