//! What a program that failed said, apart from how it was called.

use anyhow::Error;

use crate::system::Exited;

/// Returns what a program said at last, or why it could not: without its
/// command, which names files that only this process knows.
pub fn last_words(error: &Error) -> String {
    match error.downcast_ref::<Exited>() {
        Some(exited) => exited.words.trim_end_matches('.').to_owned(),
        None => error.root_cause().to_string(),
    }
}

/// Returns what mount(8) gave as the reason, without its own paths.
pub fn mount_reason(error: &Error) -> String {
    let words = last_words(error);
    let words = words
        .split_once("; dmesg(1)")
        .map_or(&*words, |(words, _)| words);
    let reason = words
        .strip_prefix("mount: ")
        .and_then(|words| words.split_once(": "))
        .map_or(words, |(_, reason)| reason);
    let words = reason.split(' ').map(|word| {
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
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use anyhow::anyhow;

    use super::*;

    fn exited(words: &str) -> Error {
        let status = ExitStatus::from_raw(32 << 8);
        let words = words.to_owned();
        Error::new(Exited { status, words }).context("`mount -t xfs /proc/7/fd/3 /mnt/tree`")
    }

    #[test]
    fn paths_of_this_process_are_not_repeated() {
        let error = exited(
            "mount: /mnt/tree: cannot mount /dev/loop0 read-only.; dmesg(1) may have more \
             information after failed mount system call.",
        );
        assert_eq!(mount_reason(&error), "cannot mount it read-only");
        assert_eq!(last_words(&exited("no: way.")), "no: way");
        let killed = anyhow!("killed after 9 seconds").context("`x 'a: b'`");
        assert_eq!(last_words(&killed), "killed after 9 seconds");
    }
}
