//! sudoers(5): the last rule that fits wins, so that no line may change its place.

use std::collections::HashMap;

use super::{Texts, lines};

/// How a line goes on in the next one.
const CONTINUED: &str = "\\\n";

/// Stands for it while texts are merged; no text that is merged has it.
const JOINED: &str = "\0";

/// Returns a text with the changes of both sides, where they are apart and set nothing
/// two ways.
pub fn merge(texts: &Texts<'_>) -> Option<String> {
    let join = |text: &str| text.replace(CONTINUED, JOINED);
    let pristine = texts.pristine.map(join);
    let (customer, image) = (join(texts.customer), join(texts.image));
    let merged = lines::merge(&Texts {
        pristine: pristine.as_deref(),
        customer: &customer,
        image: &image,
    })?;
    let (customer, image) = (settings(&customer), settings(&image));
    let is_one_sides = |(name, count)| {
        let of = |side: &HashMap<_, _>| side.get(&name).copied().unwrap_or(0);
        count <= of(&customer).max(of(&image))
    };
    let is_sound = settings(&merged).into_iter().all(is_one_sides);
    is_sound.then(|| merged.replace(JOINED, CONTINUED))
}

/// Counts how often each default and alias is set.
fn settings(text: &str) -> HashMap<(&str, &str), usize> {
    let mut counts = HashMap::new();
    for line in text.lines() {
        let Some((kind, rest)) = line.trim().split_once(char::is_whitespace) else {
            continue;
        };
        if kind.starts_with("Defaults") || kind.ends_with("_Alias") {
            let is_name = |c: char| c.is_alphanumeric() || c == '_';
            let rest = rest.trim_start_matches(|c: char| !is_name(c));
            let name = rest.split(|c| !is_name(c)).next().unwrap_or_default();
            *counts.entry((kind, name)).or_default() += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "Defaults\tenv_reset\nDefaults\tmail_badpass\n\
        Defaults\tsecure_path=\"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"\n\
        \n# User privilege specification\nroot\tALL=(ALL:ALL) ALL\n\n\
        # Allow members of group sudo to execute any command\n%sudo\tALL=(ALL:ALL) ALL\n\n\
        @includedir /etc/sudoers.d\n";

    fn merged(pristine: &str, customer: &str, image: &str) -> Option<String> {
        merge(&Texts {
            pristine: Some(pristine),
            customer,
            image,
        })
    }

    #[test]
    fn lines_stay_where_they_are() {
        let admin = "admin ALL=(ALL) ALL, \\\n    !/bin/su\n";
        let customer = DEBIAN.replace("\n@include", &format!("{admin}\n@include"));
        let image = DEBIAN.replace("\tmail_badpass\n", "\tmail_badpass\nDefaults\tuse_pty\n");
        let both = image.replace("\n@include", &format!("{admin}\n@include"));
        assert_eq!(merged(DEBIAN, &customer, &image), Some(both));
    }

    #[test]
    fn a_line_that_goes_on_is_one_line() {
        let pristine = "a\nroot ALL= \\\n  /bin/a, \\\n  /bin/b, \\\n  /bin/c\nb\n";
        let customer = pristine.replace("/bin/a", "/bin/x");
        let image = pristine.replace("/bin/c", "/bin/y");
        assert_eq!(merged(pristine, &customer, &image), None);
    }

    #[test]
    fn one_default_is_not_set_two_ways() {
        let customer = format!("Defaults timestamp_timeout=5\n{DEBIAN}");
        let image = format!("{DEBIAN}Defaults timestamp_timeout = 0\n");
        assert_eq!(merged(DEBIAN, &customer, &image), None);
    }
}
