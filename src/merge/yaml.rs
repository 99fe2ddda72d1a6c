//! YAML, as netplan and cloud-init have it.
//!
//! What a text says is read by the program's YAML parser; where its mappings stand is
//! told from indentation, for plain block style alone. Where the two disagree, as with
//! aliases or mappings in braces, the merged text says something else than was decided
//! and is not used.

use serde_yaml::Value;

use super::choice::{Entries, Key};
use super::units::{Cutter, Doc, Kind, is_comment};

/// Returns what a text sets: every scalar and list by its path.
pub fn entries(text: &str) -> Option<Entries> {
    let mut entries = Entries::new();
    match serde_yaml::from_str(text).ok()? {
        Value::Null => {}
        Value::Mapping(map) => flatten(Value::Mapping(map), &mut Key::new(), &mut entries)?,
        _ => return None,
    }
    Some(entries)
}

fn flatten(value: Value, path: &mut Key, entries: &mut Entries) -> Option<()> {
    match value {
        Value::Mapping(map) if !map.is_empty() => {
            for (key, value) in map {
                path.push(match key {
                    Value::String(key) => key,
                    key => shown(&key)?,
                });
                flatten(value, path, entries)?;
                path.pop();
            }
        }
        value => entries
            .entry(path.clone())
            .or_default()
            .push(shown(&value)?),
    }
    Some(())
}

fn shown(value: &Value) -> Option<String> {
    let text = serde_yaml::to_string(value).ok()?;
    Some(text.trim_end().to_owned())
}

/// Cuts a text into the keys of its mappings in block style.
pub fn parse(text: &str) -> Doc<'_> {
    let mut cutter = Cutter::new(text);
    let mut above: Vec<(usize, String)> = Vec::new();
    while let Some(line) = cutter.line() {
        if is_comment(line, &['#']) {
            cutter.skip(line);
            continue;
        }
        let Some((name, value)) = split(line) else {
            cutter.take_unknown(line);
            continue;
        };
        let indent = indent(line);
        while above.last().is_some_and(|(outer, _)| *outer >= indent) {
            above.pop();
        }
        let depth = above.len();
        above.push((indent, name.to_owned()));
        let key = above.iter().map(|(_, name)| name.clone()).collect();
        if value.is_empty() && has_mapping(&cutter, line) {
            cutter.take(line, Kind::Heading, key, depth, String::new());
        } else {
            let setting = cutter.ahead(length(&cutter, line, value));
            cutter.take(setting, Kind::Entry, key, depth, String::new());
        }
    }
    cutter.finish()
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Takes a `key: value` apart; the value is empty where only a comment follows.
fn split(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let (name, rest) = match line.chars().next()? {
        '-' | '?' | '%' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' => return None,
        quote @ ('"' | '\'') => {
            let end = line[1..].find(quote)?;
            (
                &line[1..=end],
                line[end + 2..].trim_start().strip_prefix(':')?,
            )
        }
        _ => match line.find(": ") {
            Some(at) => (line[..at].trim_end(), &line[at + 1..]),
            None => (line.strip_suffix(':')?, ""),
        },
    };
    let value = rest.trim();
    Some((name, if value.starts_with('#') { "" } else { value }))
}

/// Tells whether the lines behind a key without a value are a mapping below it.
fn has_mapping(cutter: &Cutter<'_>, line: &str) -> bool {
    let mut below = cutter
        .lines_after(line)
        .filter(|line| !is_comment(line, &['#']));
    below
        .next()
        .is_some_and(|next| indent(next) > indent(line) && split(next).is_some())
}

/// Returns how many bytes a setting takes, its list or block of text with it.
fn length(cutter: &Cutter<'_>, first: &str, value: &str) -> usize {
    let outer = indent(first);
    let is_text = value.starts_with(['|', '>']);
    let is_braced = value.starts_with(['[', '{']);
    let mut length = first.len();
    let mut at = length;
    for line in cutter.lines_after(first) {
        at += line.len();
        let trimmed = line.trim();
        let is_deeper = indent(line) > outer;
        if trimmed.is_empty() || (trimmed.starts_with('#') && !(is_text && is_deeper)) {
            continue;
        }
        let is_item = value.is_empty() && trimmed.starts_with('-') && trimmed != "---";
        let is_closing = is_braced && trimmed.starts_with([']', '}']);
        if !is_deeper && !(indent(line) == outer && (is_item || is_closing)) {
            break;
        }
        length = at;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::tests::{case, conflicts};

    const NETPLAN: &str = "\
# This file is generated from information provided by the datasource.
network:
  version: 2
  renderer: networkd   # not NetworkManager
  ethernets:
    # the first card
    eth0:
      dhcp4: true
      optional: true
";

    const FIXED: &str = "    eth0:
      dhcp4: false
      addresses:
      - 192.0.2.5/24   # by hand
      - '2001:db8::5/64'
      nameservers: {addresses: [8.8.8.8, 1.1.1.1]}
      optional: true
";

    #[test]
    fn a_fixed_address_is_merged_with_a_new_default() {
        let customer = NETPLAN.replace(
            "    eth0:\n      dhcp4: true\n      optional: true\n",
            FIXED,
        );
        let image = NETPLAN.replace(
            "true\n      optional",
            "true\n      wakeonlan: true\n      optional",
        ) + "    # the second card\n    eth1:\n      dhcp4: true\n";
        let merged = case(Format::Yaml, NETPLAN, &customer, &image, &[]);
        for line in customer.lines().chain(image.lines()) {
            let is_kept =
                line != "      dhcp4: true" || merged.contains("eth1:\n      dhcp4: true");
            assert!(
                merged.lines().any(|l| l == line) && is_kept,
                "{line}\n{merged}"
            );
        }
    }

    #[test]
    fn a_card_comes_with_all_of_its_settings() {
        let card = "    # uplink\n    eth7:\n      addresses: [\n        10.0.0.1/8\n      ]\n      mtu: 9000\n";
        let customer = format!("{NETPLAN}{card}");
        let image = NETPLAN.replace("      optional: true\n", "      optional: false\n");
        let merged = case(Format::Yaml, NETPLAN, &customer, &image, &[]);
        assert_eq!(merged, format!("{image}{card}"));
        let names = ["network/ethernets/eth7"];
        assert_eq!(
            case(Format::Yaml, NETPLAN, &customer, &image, &names),
            merged
        );
    }

    #[test]
    fn mappings_in_braces_are_not_edited() {
        let pristine = "a: {b: 1, c: 1}\n";
        let (text, found) = conflicts(
            Format::Yaml,
            pristine,
            "a: {b: 2, c: 1}\n",
            "a: {b: 1, c: 2}\n",
        );
        assert_eq!(text, "a: {b: 2, c: 1}\n");
        assert_eq!(found, ["*: - | -"]);
    }
}
