//! `info --files`: a line for each name in a bundle.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};

use anyhow::{Context, Result};
use serde::Serialize;

use super::name::Name;
use crate::bundle::{Bundle, Entry, Visitor, visit};
use crate::cli::Session;
use crate::progress::{Progress, Silent};
use crate::stderr::{printable, printable_json};
use crate::tree::meta::{Kind, Mtime};
use crate::tree::path::{hex_unless_text, show_whole};

/// Prints the names in `bundle` as they come.
pub fn run(session: &Session, bundle: &mut Bundle, json: bool) -> Result<()> {
    let stdout = io::stdout();
    // On a terminal the lines themselves show how far it is.
    let progress: &dyn Progress = match stdout.is_terminal() {
        true => &Silent,
        false => &session.ui,
    };
    let mut printer = Printer {
        out: BufWriter::new(stdout.lock()),
        json,
    };
    let visited = visit(bundle, &mut printer, progress);
    progress.finish();
    match visited.and_then(|()| Ok(printer.out.flush()?)) {
        // A reader that went away early has seen what it wanted.
        Err(error) if is_broken_pipe(&error) => {
            // What is left in the buffer has nowhere to go.
            drop(printer.out.into_parts());
            Ok(())
        }
        other => other,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}

struct Printer<W: Write> {
    out: BufWriter<W>,
    json: bool,
}

impl<W: Write> Visitor for Printer<W> {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        let line = match self.json {
            true => {
                let line = serde_json::to_string(&Line::of(entry)).context("rendering JSON")?;
                printable_json(&line)
            }
            false => printable(&text(entry)),
        };
        writeln!(self.out, "{line}").context("writing to standard output")
    }

    fn data(&mut self, _offset: u64, _data: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Renders a line for people.
fn text(entry: &Entry) -> String {
    let meta = entry.meta;
    let owner = format!("{}:{}", meta.uid, meta.gid);
    let size = match meta.kind {
        Kind::Char | Kind::Block => format!("{},{}", meta.device.0, meta.device.1),
        _ => meta.size_bytes.to_string(),
    };
    let target = match meta.kind {
        _ if entry.is_hard_link => format!(" link to /{}", show_whole(entry.link_end)),
        Kind::Symlink => format!(" -> {}", show_whole(entry.link_end)),
        _ => String::new(),
    };
    format!(
        "{} {owner:>11} {size:>11} {} /{}{target}",
        mode(entry),
        utc(meta.mtime.seconds),
        show_whole(entry.path)
    )
}

/// Renders type and permissions as `ls` does; `h` is a hard link.
fn mode(entry: &Entry) -> String {
    let kind = match entry.meta.kind {
        _ if entry.is_hard_link => 'h',
        Kind::File => '-',
        Kind::Dir => 'd',
        Kind::Symlink => 'l',
        Kind::Char => 'c',
        Kind::Block => 'b',
        Kind::Fifo => 'p',
    };
    let mode = entry.meta.mode;
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        });
    }
    text
}

/// Renders a time as ISO 8601 in UTC, in whole seconds.
fn utc(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Returns the date that is `days` after 1970-01-01. Counts in eras of 400
/// years, which all have the same length, and in years that begin in March.
fn date(days: i64) -> (i64, i64, i64) {
    const ERA_DAYS: i64 = 146_097;
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// A line for programs.
#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    path: Name,
    #[serde(rename = "type")]
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<(u64, u64)>,
    xattrs: Vec<String>,
}

impl Line {
    fn of(entry: &Entry) -> Line {
        let meta = entry.meta;
        let target = match meta.kind {
            _ if entry.is_hard_link => Some([b"/", entry.link_end].concat()),
            Kind::Symlink => Some(entry.link_end.to_vec()),
            _ => None,
        };
        Line {
            path: Name::of(entry.path),
            kind: match entry.is_hard_link {
                true => "hardlink",
                false => meta.kind.name(),
            },
            mode: format!("{:04o}", meta.mode),
            uid: meta.uid,
            gid: meta.gid,
            size: meta.size_bytes,
            mtime: precise(meta.mtime),
            target_hex: target.as_deref().and_then(hex_unless_text),
            target: target.map(|target| String::from_utf8_lossy(&target).into_owned()),
            device: matches!(meta.kind, Kind::Char | Kind::Block).then_some(meta.device),
            xattrs: entry.xattrs.iter().map(|x| show_whole(&x.name)).collect(),
        }
    }
}

/// Renders a time with its nanoseconds, if it has any.
fn precise(mtime: Mtime) -> String {
    let whole = utc(mtime.seconds);
    match mtime.nanoseconds {
        0 => whole,
        part => whole.replace('Z', &format!(".{part:09}Z")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::meta::Meta;
    use crate::tree::xattrs::Xattr;

    fn entry<'a>(meta: &'a Meta, path: &'a [u8], target: &'a [u8]) -> Entry<'a> {
        Entry {
            path,
            link_end: target,
            is_hard_link: meta.kind == Kind::File && !target.is_empty(),
            meta,
            xattrs: &[],
        }
    }

    #[test]
    fn times_are_shown_as_dates() {
        for (seconds, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_800, "10000-01-01T00:00:00Z"),
            (-62_167_219_200, "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), shown);
        }
        // Whatever an archive says is shown somehow.
        assert!(!utc(i64::MAX).is_empty() && !utc(i64::MIN).is_empty());
    }

    #[test]
    fn every_kind_of_entry_is_one_line() {
        let meta = Meta {
            mode: 0o6751,
            uid: 1000,
            gid: 4_000_000_000,
            size_bytes: 5 << 30,
            ..Meta::default()
        };
        let of = |kind, mode| Meta {
            kind,
            mode,
            device: (8, 17),
            ..Meta::default()
        };
        let time = "1970-01-01T00:00:00Z";
        for (meta, path, target, line) in [
            (
                meta,
                &b"a \xff\n"[..],
                &b""[..],
                format!(r"-rwsr-s--x 1000:4000000000  5368709120 {time} /a \xff\n"),
            ),
            (
                of(Kind::Dir, 0o1777),
                b"",
                b"",
                format!("drwxrwxrwt         0:0           0 {time} /"),
            ),
            (
                of(Kind::Symlink, 0o777),
                b"bin",
                b"usr/bin",
                format!("lrwxrwxrwx         0:0           0 {time} /bin -> usr/bin"),
            ),
            (
                of(Kind::File, 0o4644),
                b"b",
                b"a",
                format!("hrwSr--r--         0:0           0 {time} /b link to /a"),
            ),
            (
                of(Kind::Block, 0o660),
                b"sdb1",
                b"",
                format!("brw-rw----         0:0        8,17 {time} /sdb1"),
            ),
        ] {
            assert_eq!(text(&entry(&meta, path, target)), line);
        }
    }

    #[test]
    fn a_name_that_is_not_text_comes_as_hex_too() {
        let meta = Meta {
            mtime: Mtime {
                seconds: -1,
                nanoseconds: 5,
            },
            ..Meta::default()
        };
        let xattr = Xattr {
            name: b"user.\xff".to_vec(),
            value: Vec::new(),
        };
        let odd = Entry {
            xattrs: &[xattr],
            ..entry(&meta, b"\xff", b"")
        };
        assert_eq!(
            serde_json::to_string(&Line::of(&odd)).unwrap(),
            "{\"path\":\"/\u{fffd}\",\"path_hex\":\"2fff\",\"type\":\"file\",\"mode\":\"0000\",\
             \"uid\":0,\"gid\":0,\"size\":0,\"mtime\":\"1969-12-31T23:59:59.000000005Z\",\
             \"xattrs\":[\"user.\\\\xff\"]}"
        );
    }
}
