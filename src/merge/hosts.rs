//! hosts(5): an address and its names, each name a setting of its own.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::choice::Entries;
use super::units::{Cutter, Doc, Kind, is_comment, squeezed};

/// Cuts a text into addresses.
pub fn parse(text: &str) -> Doc<'_> {
    let mut cutter = Cutter::new(text);
    while let Some(line) = cutter.line() {
        if is_comment(line, &['#']) {
            cutter.skip(line);
            continue;
        }
        let line_of = squeezed(line);
        let end = line_of.find([' ', '#']).unwrap_or(line_of.len());
        let (address, names) = (&line_of[..end], line_of[end..].trim_start());
        let key = vec![address.to_ascii_lowercase()];
        cutter.take(line, Kind::Entry, key, 0, names.to_owned());
    }
    cutter.finish()
}

/// Joins the names of an address that both sides changed: what either added stays, what
/// either took away goes. That is the customer's line then, and `pristine` made to
/// agree with the image.
pub fn join(mut pristine: Option<&mut Entries>, customer: &mut Doc<'_>, image: &Entries) {
    let theirs = customer.entries();
    let mut joined = BTreeMap::new();
    for (address, names) in image {
        let before = pristine.as_deref().map(|entries| entries.get(address));
        let is_both = before.is_none_or(|b| b != theirs.get(address) && b != Some(names));
        let Some(customers) = theirs.get(address).filter(|c| is_both && *c != names) else {
            continue;
        };
        let before = before.flatten().map(Vec::as_slice).unwrap_or_default();
        joined.insert(address.clone(), union(before, customers, names));
        if let Some(entries) = pristine.as_deref_mut() {
            entries.insert(address.clone(), names.clone());
        }
    }
    let mut seen = BTreeSet::new();
    for unit in &mut customer.units {
        let Some(line) = joined.get(&unit.key) else {
            continue;
        };
        let written = unit.text.trim_start();
        let shown = written.split([' ', '\t', '#']).next().unwrap_or_default();
        unit.text = Cow::Owned(format!("{shown}\t{line}\n"));
        unit.value.clone_from(line);
        if !seen.insert(unit.key.clone()) {
            // The first line has it all; the comments stay.
            unit.kind = Kind::Unknown;
            unit.text = Cow::Borrowed("");
        }
    }
}

fn union(pristine: &[String], customer: &[String], image: &[String]) -> String {
    let words = |lines: &[String]| {
        let names = lines
            .iter()
            .map(|line| line.split('#').next().unwrap_or_default());
        names
            .flat_map(str::split_whitespace)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (before, ours) = (words(pristine), words(image));
    let before: BTreeSet<&String> = before.iter().collect();
    let kept: BTreeSet<&String> = ours.iter().collect();
    let theirs = words(customer);
    let still = theirs
        .iter()
        .filter(|name| kept.contains(name) || !before.contains(name));
    let added = ours.iter().filter(|name| !before.contains(name));
    let mut seen = BTreeSet::new();
    let names = still.chain(added).filter(|name| seen.insert(*name));
    let mut line = names.map(String::as_str).collect::<Vec<_>>().join(" ");
    for remark in customer.iter().filter_map(|line| line.split_once('#')) {
        line += &format!(" #{}", remark.1);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::tests::{case, conflicts};

    const DEBIAN: &str = "127.0.0.1\tlocalhost\n127.0.1.1\tappliance\n\n\
        # The following lines are desirable for IPv6 capable hosts\n\
        ::1     localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\n";

    #[test]
    fn names_of_both_sides_come_together() {
        let customer = DEBIAN
            .replace(
                "127.0.1.1\tappliance\n",
                "127.0.1.1\tvpn.site vpn\n10.0.0.9 db\n",
            )
            .replace("127.0.0.1\tlocalhost", "127.0.0.1\tlocalhost cache");
        let image = DEBIAN.replace("127.0.0.1\tlocalhost", "127.0.0.1\tlocalhost localhost4");
        let merged = case(Format::Hosts, DEBIAN, &customer, &image, &[]);
        assert_eq!(
            merged,
            customer.replace("localhost cache", "localhost cache localhost4")
        );
    }

    #[test]
    fn a_remark_is_no_name() {
        let customer = "10.0.0.1#old\n10.0.0.2 b # ours\n";
        let image = "10.0.0.1 a\n10.0.0.2 b c\n";
        let merged = case(Format::Hosts, "10.0.0.2 b\n", customer, image, &[]);
        assert_eq!(merged, "10.0.0.1\ta #old\n10.0.0.2\tb c # ours\n");
    }

    #[test]
    fn a_comment_between_lines_of_one_address_is_kept() {
        let customer = "10.0.0.1 b\n# the second\n10.0.0.1 c\n";
        let merged = case(Format::Hosts, "10.0.0.2 x\n", customer, "10.0.0.1 a\n", &[]);
        assert_eq!(merged, "10.0.0.1\tb c a\n# the second\n");
    }

    #[test]
    fn an_address_that_the_customer_took_out_is_a_conflict_when_the_image_changed_it() {
        let customer = DEBIAN.replace("127.0.1.1\tappliance\n", "");
        let image = DEBIAN.replace("appliance", "appliance2");
        let (text, found) = conflicts(Format::Hosts, DEBIAN, &customer, &image);
        assert_eq!(text, customer);
        assert_eq!(found, ["127.0.1.1: - | appliance2"]);
    }
}
