//! Sections of `key=value`: systemd.syntax(7), nm-settings-keyfile(5), other INI.
//!
//! A value is never cut: `;` parts the items of a list. A key that stands there
//! several times, as `ExecStart=` does, is one setting with several values.

use super::choice::Key;
use super::units::{Cutter, Doc, Kind, is_comment};

const COMMENTS: [char; 2] = ['#', ';'];

/// Cuts a text into sections and settings.
pub fn parse(text: &str) -> Doc<'_> {
    let mut cutter = Cutter::new(text);
    let mut section = Key::new();
    while let Some(line) = cutter.line() {
        let trimmed = line.trim();
        if is_comment(line, &COMMENTS) {
            cutter.skip(line);
        } else if let Some(name) = heading(trimmed) {
            section = vec![name.to_owned()];
            cutter.take(line, Kind::Heading, section.clone(), 0, String::new());
        } else if trimmed.starts_with('[') {
            cutter.take_unknown(line);
        } else {
            let setting = cutter.ahead(length(&cutter, line));
            let (name, value) = split(setting.trim());
            if name.is_empty() {
                cutter.take_unknown(line);
                continue;
            }
            let mut key = section.clone();
            key.push(name);
            cutter.take(setting, Kind::Entry, key, section.len(), value);
        }
    }
    cutter.finish()
}

fn heading(line: &str) -> Option<&str> {
    line.strip_prefix('[')?.strip_suffix(']')
}

/// Returns how many bytes a setting takes: a line goes on behind a backslash, comments
/// between not counted, and in lines that are indented and set nothing.
fn length(cutter: &Cutter<'_>, first: &str) -> usize {
    let mut length = first.len();
    let mut at = length;
    let goes_on = |line: &str| line.trim_end().ends_with('\\');
    let mut is_open = goes_on(first);
    for line in cutter.lines_after(first) {
        at += line.len();
        let is_aside = line.trim_start().starts_with(COMMENTS);
        if is_open && is_aside {
            continue;
        }
        let is_indented = line.starts_with([' ', '\t']) && !line.trim().is_empty();
        let is_more =
            is_indented && !is_aside && !line.contains('=') && heading(line.trim()).is_none();
        if !is_open && !is_more {
            break;
        }
        is_open = goes_on(line);
        length = at;
    }
    length
}

fn split(setting: &str) -> (String, String) {
    let pair = setting.split_once('=').or_else(|| setting.split_once(':'));
    let (name, value) = pair.unwrap_or((setting, ""));
    (name.trim().to_owned(), value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::tests::{case, conflicts};

    const KEYFILE: &str = "[connection]\nid=eth0\ntype=ethernet\ninterface-name=eth0\n\n\
        [ipv4]\nmethod=auto\n\n[ipv6]\naddr-gen-mode=default\nmethod=auto\n\n[proxy]\n";

    #[test]
    fn lists_of_a_keyfile_are_carried_whole() {
        let fixed = "address1=192.0.2.5/24,192.0.2.1\naddresses=1.2.3.4/24;\n\
                     dns=8.8.8.8;1.1.1.1;\nmethod=manual\n\n[ipv6]";
        let customer = KEYFILE.replace("method=auto\n\n[ipv6]", fixed);
        let image = KEYFILE
            .replace("[ipv4]\n", "[ipv4]\ndhcp-client-id=mac\n")
            .replace("addr-gen-mode=default", "addr-gen-mode=eui64");
        let merged = case(Format::Ini, KEYFILE, &customer, &image, &[]);
        let expected = image.replace("method=auto\n\n[ipv6]", fixed);
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&merged), sorted(&expected), "{merged}");
        let only = case(Format::Ini, KEYFILE, &customer, KEYFILE, &["ipv4/dns"]);
        assert_eq!(
            only,
            KEYFILE
                .replace("[ipv4]\n", "[ipv4]\ndns=8.8.8.8;1.1.1.1;\n")
                .replace(
                    "dns=8.8.8.8;1.1.1.1;\nmethod=auto",
                    "method=auto\ndns=8.8.8.8;1.1.1.1;"
                )
        );
    }

    const UNIT: &str = "[Unit]\nDescription=App\n\n[Service]\n# twice\nExecStart=\n\
        ExecStart=/usr/bin/app \\\n  # first\n  --one \\\n  --two\nRestart=no\n\n\
        [Install]\nWantedBy=multi-user.target\n";

    #[test]
    fn a_list_of_a_unit_is_one_setting() {
        let customer = UNIT.replace("--two", "--three");
        let image = UNIT.replace("  --two\nRestart=no", "  --two\nRestart=always");
        let merged = case(Format::Ini, UNIT, &customer, &image, &[]);
        assert_eq!(merged, customer.replace("Restart=no", "Restart=always"));
    }

    #[test]
    fn a_section_comes_with_its_comment_and_goes_when_it_is_empty() {
        let customer = UNIT
            .replace("\n[Install]\nWantedBy=multi-user.target\n", "")
            .replace("Restart=no", "Restart=no\n\n# ours\n[X-Site]\nOwner=us");
        let image = UNIT.replace("Restart=no", "Restart=always");
        let merged = case(Format::Ini, UNIT, &customer, &image, &[]);
        assert!(
            merged.ends_with("Restart=always\n\n# ours\n[X-Site]\nOwner=us\n\n")
                || merged.ends_with("Restart=always\n\n# ours\n[X-Site]\nOwner=us\n"),
            "{merged}"
        );
    }

    #[test]
    fn endings_of_lines_and_an_open_end_survive() {
        let pristine = "[a]\r\nx=1\r\ny=1";
        let (text, _) = conflicts(
            Format::Ini,
            pristine,
            "[a]\nx=2\ny=1\nz=1\n",
            "[a]\r\nx=1\r\ny=2",
        );
        assert_eq!(text, "[a]\r\nx=2\r\ny=2\r\nz=1");
    }
}
