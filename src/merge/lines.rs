//! Merges by line, as version control does.

use super::Texts;

/// A comparison takes steps as many as its lines squared at worst, so that longer
/// stretches of change are not looked at.
const MOST_LINES: usize = 12_000;

/// Returns a text with the changes of both sides; none where they are to the same
/// or neighbouring lines, or nobody knows what was changed.
pub fn merge(texts: &Texts<'_>) -> Option<String> {
    let pristine = texts.pristine?;
    if differing(pristine, texts.customer) + differing(pristine, texts.image) > MOST_LINES {
        return None;
    }
    diffy::merge(pristine, texts.customer, texts.image).ok()
}

/// Counts the lines of both between their common beginning and their common end.
fn differing(a: &str, b: &str) -> usize {
    let a: Vec<&str> = a.split_inclusive('\n').collect();
    let b: Vec<&str> = b.split_inclusive('\n').collect();
    let same =
        |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| pairs.take_while(|(a, b)| a == b).count();
    let before = same(&mut a.iter().zip(&b));
    let behind = same(&mut a[before..].iter().rev().zip(b[before..].iter().rev()));
    a.len() + b.len() - 2 * (before + behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(pristine: &str, customer: &str, image: &str) -> Option<String> {
        merge(&Texts {
            pristine: Some(pristine),
            customer,
            image,
        })
    }

    const LOGROTATE: &str = "# see \"man logrotate\" for details\nweekly\n\nrotate 4\n\ncreate\n\
                             dateext\n\n#compress\n\ninclude /etc/logrotate.d\n";

    #[test]
    fn changes_apart_from_each_other_are_both_made() {
        let customer = LOGROTATE.replace("weekly", "daily");
        let image = LOGROTATE.replace("#compress", "compress");
        let both = customer.replace("#compress", "compress");
        assert_eq!(merged(LOGROTATE, &customer, &image), Some(both));
    }

    #[test]
    fn changes_to_one_line_are_left_alone() {
        let customer = LOGROTATE.replace("weekly", "daily");
        let image = LOGROTATE.replace("weekly", "monthly");
        assert_eq!(merged(LOGROTATE, &customer, &image), None);
    }

    #[test]
    fn endings_of_lines_survive() {
        assert_eq!(
            merged("a\r\nb\r\nc", "a1\r\nb\r\nc", "a\r\nb\r\nc2").as_deref(),
            Some("a1\r\nb\r\nc2")
        );
    }

    #[test]
    fn what_would_take_too_long_is_not_looked_at() {
        let long = |word: &str| {
            (0..20_000)
                .map(|n| format!("{word}{n}\n"))
                .collect::<String>()
        };
        assert_eq!(merged(&long("p"), &long("c"), &long("i")), None);
        let (pristine, head) = (long("p"), long("p").replacen("p0\n", "c0\n", 1));
        let tail = long("p").replacen("p19999\n", "i\n", 1);
        let both = merged(&pristine, &head, &tail).unwrap();
        assert!(both.starts_with("c0\n") && both.ends_with("\ni\n"));
    }
}
