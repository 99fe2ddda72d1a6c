//! The wire to the agent inside a guest: a request is one line with a fresh
//! nonce and a script, the answer one line with the same nonce. Lines with any
//! other nonce belong to a request that was given up, often before a reboot.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// What a script did.
#[derive(Debug)]
pub struct Output {
    /// Its exit status.
    pub status: i32,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// A connection to one guest.
pub struct Channel {
    stream: UnixStream,
    received: Vec<u8>,
}

/// Never starts again, so that a guest restored from a snapshot cannot answer
/// what somebody asked it before.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

impl Channel {
    /// Connects to the socket QEMU listens on.
    pub fn connect(socket: &Path) -> Result<Channel> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        Ok(Channel {
            stream,
            received: Vec::new(),
        })
    }

    /// Has the guest run `script` in bash; `None` when it has not answered
    /// before `limit`, as when it is just starting again.
    pub fn request(&mut self, script: &str, limit: Duration) -> Result<Option<Output>> {
        let end = Instant::now() + limit;
        let number = REQUESTS.fetch_add(1, Ordering::Relaxed);
        let nonce = format!("{}-{number}", process::id());
        let line = format!("\n{nonce} {}\n", to_base64(script.as_bytes()));
        match self.stream.write_all(line.as_bytes()) {
            // The guest reads nothing: its buffers are full of earlier requests.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(None);
            }
            other => other.context("sending to the guest")?,
        }
        while Instant::now() < end {
            match self.line()? {
                Some(line) if line.split(' ').next() == Some(&nonce) => {
                    return parse(&line).map(Some);
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Returns the next whole line, or `None` when there is none for now.
    fn line(&mut self) -> Result<Option<String>> {
        let mut buffer = [0; 65536];
        loop {
            if let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the guest is gone: QEMU closed the agent's socket"),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error).context("receiving from the guest"),
            }
        }
    }
}

fn parse(line: &str) -> Result<Output> {
    let fields: Vec<&str> = line.split(' ').collect();
    ensure!(fields.len() == 4, "the agent answered {line:?}");
    let text = |field: &str| -> Result<String> {
        let encoded = field.strip_prefix('=').context("no = before base64")?;
        Ok(String::from_utf8_lossy(&from_base64(encoded)?).into_owned())
    };
    Ok(Output {
        status: fields[1].parse().context("the agent's status")?,
        stdout: text(fields[2])?,
        stderr: text(fields[3])?,
    })
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes bytes as base64 with padding.
pub fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut bits = 0;
        for position in 0..3 {
            bits = bits << 8 | u32::from(group.get(position).copied().unwrap_or(0));
        }
        for position in 0..4 {
            let digit = (bits >> (18 - 6 * position)) & 63;
            let used = position <= group.len();
            text.push(if used {
                char::from(DIGITS[digit as usize])
            } else {
                '='
            });
        }
    }
    text
}

fn from_base64(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut bits: u32 = 0;
    let mut count = 0;
    for byte in text.trim_end_matches('=').bytes() {
        let digit = DIGITS
            .iter()
            .position(|&d| d == byte)
            .context("not base64")?;
        bits = bits << 6 | u32::try_from(digit)?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_survives_every_length_and_byte() {
        let all: Vec<u8> = (0..=255).collect();
        for length in 0..all.len() {
            let bytes = &all[all.len() - length..];
            assert_eq!(from_base64(&to_base64(bytes)).unwrap(), bytes);
        }
        assert_eq!(to_base64(b"M"), "TQ==");
        assert_eq!(to_base64(b"Man\n"), "TWFuCg==");
    }
}
