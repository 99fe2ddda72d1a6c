//! What a program that failed said, apart from how it was called.

/// Returns what a program said at last, without its command and exit status,
/// which name files that only this process knows.
pub fn last_words(text: &str) -> &str {
    let said = text
        .rsplit_once("exit status: ")
        .map_or(text, |(_, said)| said);
    let words = said.split_once(": ").map_or(said, |(_, words)| words);
    words.trim_end_matches('.')
}

/// Returns what mount(8) gave as the reason, without its own paths.
pub fn mount_reason(text: &str) -> String {
    let words = last_words(text);
    let words = words
        .split_once("; dmesg(1)")
        .map_or(words, |(words, _)| words);
    let words = match words
        .strip_prefix("mount: ")
        .and_then(|w| w.split_once(": "))
    {
        Some((_, reason)) => reason,
        None => words,
    };
    let words = words.split(' ').map(|word| {
        let is_own = word.starts_with("/dev/loop") || word.starts_with("/proc/");
        if is_own { "it" } else { word }
    });
    words
        .collect::<Vec<_>>()
        .join(" ")
        .trim_end_matches('.')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_this_process_are_not_repeated() {
        let text = "mounting /proc/7/fd/3 on /mnt/tree: `mount -t xfs /proc/7/fd/3 /mnt/tree`: \
                    exit status: 32: mount: /mnt/tree: cannot mount /dev/loop0 read-only.; \
                    dmesg(1) may have more information after failed mount system call.";
        assert_eq!(mount_reason(text), "cannot mount it read-only");
        assert_eq!(
            last_words("`x 'a: b'`: exit status: 1: no: way."),
            "no: way"
        );
        assert_eq!(
            last_words("killed after 9 seconds"),
            "killed after 9 seconds"
        );
    }
}
