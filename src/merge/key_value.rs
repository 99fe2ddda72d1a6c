//! `key=value`: settings that a shell reads, and sysctl.d(5).

use super::units::{Cutter, Doc, Kind, is_comment};

/// A quoted value that goes on for longer is taken for a stray quote.
const MOST_QUOTED_LINES: usize = 100;

/// Cuts a text into settings.
pub fn parse(text: &str) -> Doc<'_> {
    let mut cutter = Cutter::new(text);
    while let Some(line) = cutter.line() {
        if is_comment(line, &['#', ';']) {
            cutter.skip(line);
            continue;
        }
        let setting = cutter.ahead(length(&cutter, line));
        match split(setting) {
            Some((key, value)) => cutter.take(setting, Kind::Entry, vec![key], 0, value),
            None => cutter.take_unknown(line),
        }
    }
    cutter.finish()
}

/// Returns how many bytes a setting takes: a quoted value may have several lines.
fn length(cutter: &Cutter<'_>, line: &str) -> usize {
    let value = line
        .split_once('=')
        .map_or("", |(_, value)| value.trim_start());
    let Some(quote) = value.chars().next().filter(|c| ['"', '\''].contains(c)) else {
        return line.len();
    };
    let mut is_open = false;
    let mut bytes = 0;
    for (number, line) in cutter.lines_after("").take(MOST_QUOTED_LINES).enumerate() {
        let value = if number == 0 { value } else { line };
        let mut is_escaped = false;
        for c in value.chars() {
            is_open ^= c == quote && !is_escaped;
            is_escaped = c == '\\' && quote == '"' && !is_escaped;
        }
        bytes += line.len();
        if !is_open {
            return bytes;
        }
    }
    line.len()
}

fn split(setting: &str) -> Option<(String, String)> {
    let setting = setting.trim();
    let (name, value) = match setting.split_once('=') {
        Some((name, value)) => (name.trim_end(), value.trim()),
        // sysctl.d(5): a name with a dash and no value is left out of patterns.
        None if setting.starts_with('-') => (setting, ""),
        None => return None,
    };
    let name = name.strip_prefix("export ").unwrap_or(name).trim();
    let key = canonical(name);
    if key.is_empty() || key.contains(char::is_whitespace) {
        return None;
    }
    let value = match name.starts_with('-') {
        true => format!("{value} (errors ignored)"),
        false => value.to_owned(),
    };
    Some((key, value))
}

/// Spells a name of sysctl with dots between its parts: where the first of dots and
/// slashes is a slash, slashes part it and dots belong to a part (sysctl.d(5)).
pub fn canonical(name: &str) -> String {
    let name = name.trim_start_matches('-').trim_start();
    let is_slashed = name.chars().find(|c| ['.', '/'].contains(c)) == Some('/');
    let swap = |c| match c {
        '/' => '.',
        '.' => '/',
        c => c,
    };
    if is_slashed {
        name.chars().map(swap).collect()
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::tests::{case, conflicts};

    const SYSCTL: &str = "# sysctl settings are defined through files in\n\
        # /usr/lib/sysctl.d/, /run/sysctl.d/, and /etc/sysctl.d/.\n\
        net.ipv4.ip_forward = 0\nkernel.sysrq=16\n-net.ipv4.conf.all.rp_filter = 1\n";

    #[test]
    fn settings_of_sysctl_are_merged_in_either_spelling() {
        let customer = SYSCTL.replace("net.ipv4.ip_forward = 0", "net/ipv4/ip_forward = 1");
        let image = SYSCTL.replace(
            "ip_forward = 0\nkernel.sysrq=16",
            "ip_forward = 0\nkernel.sysrq=0",
        );
        let merged = case(Format::KeyValue, SYSCTL, &customer, &image, &[]);
        assert_eq!(merged, customer.replace("sysrq=16", "sysrq=0"));
        let merged = case(Format::KeyValue, SYSCTL, &customer, &image, &["net/ipv4/*"]);
        assert_eq!(merged, customer.replace("sysrq=16", "sysrq=0"));
        let merged = case(Format::KeyValue, SYSCTL, &customer, &image, &["kernel.*"]);
        assert_eq!(merged, image);
    }

    #[test]
    fn a_variable_may_have_several_lines() {
        let pristine = "# options\nDAEMON_OPTS=\"-a \\\n  -b\"\nSTART=yes\n";
        let customer = "# options\nDAEMON_OPTS=\"-a \\\n  -b \\\n  -c\"\nSTART=yes\n";
        let image = "# options\nDAEMON_OPTS=\"-a \\\n  -b\"\nSTART=no\n";
        let merged = case(Format::KeyValue, pristine, customer, image, &[]);
        assert_eq!(merged, customer.replace("yes", "no"));
    }

    #[test]
    fn a_setting_changed_twice_stays_the_customers() {
        let found = conflicts(Format::KeyValue, "A=1\nB=1\n", "A=2\nB=1\n", "A=3\nB=2\n");
        assert_eq!(
            found,
            ("A=2\nB=2\n".to_owned(), vec!["A: 2 | 3".to_owned()])
        );
    }

    #[test]
    fn a_script_among_settings_is_not_taken_apart() {
        let pristine = "A=1\nB=1\n";
        let customer = "if true; then\nA=2\nfi\nB=1\n";
        let (text, found) = conflicts(Format::KeyValue, pristine, customer, "A=3\nB=2\n");
        assert_eq!(
            (text.as_str(), found.as_slice()),
            (customer, &["*: - | -".to_owned()][..])
        );
    }
}
