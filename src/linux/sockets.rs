//! Sockets that wait for others to speak first, from the kernel's tables
//! `/proc/net/{tcp,tcp6,udp,udp6}` (Linux, Documentation/networking/proc_net_tcp.rst).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The state of a socket of TCP that listens, and of one of UDP with no other end
/// (`TCP_LISTEN` and `TCP_CLOSE` of the kernel's `tcp_states.h`).
const LISTENING: [(&str, &str); 2] = [("tcp", "0A"), ("udp", "07")];

/// From here on the kernel gives ports of UDP to whoever asks a question (`ip_local_port_range`).
const FIRST_PASSING_PORT: u16 = 32768;

/// A port that somebody listens on.
#[derive(Debug, PartialEq, Eq)]
pub struct Listener {
    /// The port.
    pub port: u16,
    /// The address it is bound to.
    pub address: IpAddr,
}

/// Reads a line of the table of `protocol`, `tcp` or `udp`; `None` for whatever
/// else than a listener, and for ports of UDP that come and go.
pub fn parse_line(protocol: &str, line: &str) -> Option<Listener> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    if !LISTENING.contains(&(protocol, state)) {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    if protocol == "udp" && port >= FIRST_PASSING_PORT {
        return None;
    }
    Some(Listener {
        port,
        address: parse_address(address)?,
    })
}

/// Reads an address of one or four words, each as this machine has it in memory.
fn parse_address(hex: &str) -> Option<IpAddr> {
    if !hex.is_ascii() {
        return None;
    }
    let word = |at: usize| {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        Some(word.to_le_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            let bytes: [u8; 16] = words.try_into().ok()?;
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_told_from_connections_and_questions() {
        let cases = [
            (
                "tcp",
                "0: 00000000:0016 00000000:0000 0A 0 0",
                Some((22, "0.0.0.0")),
            ),
            (
                "tcp",
                "1: 0100007F:0019 00000000:0000 0A 0 0",
                Some((25, "127.0.0.1")),
            ),
            ("tcp", "2: 0F02000A:0016 0202000A:D431 01 0 0", None),
            (
                "udp",
                "3: 00000000:007B 00000000:0000 07 0 0",
                Some((123, "0.0.0.0")),
            ),
            ("udp", "4: 00000000:D431 00000000:0000 07 0 0", None),
            (
                "tcp",
                "5: 00000000000000000000000001000000:0016 00:0 0A",
                Some((22, "::1")),
            ),
            (
                "tcp",
                "6: 0000000000000000FFFF00000100007F:0016 00:0 0A",
                Some((22, "127.0.0.1")),
            ),
            ("tcp", "sl  local_address rem_address   st tx_queue", None),
            ("tcp", "7: 00000000:10016 00000000:0000 0A", None),
            (
                "tcp",
                "8: \u{e9}\u{e9}\u{e9}\u{e9}:0016 00000000:0000 0A",
                None,
            ),
            ("tcp", "", None),
        ];
        for (protocol, line, wanted) in cases {
            let found = parse_line(protocol, line);
            let found = found.map(|it| (it.port, it.address.to_string()));
            let wanted = wanted.map(|(port, address)| (port, address.to_owned()));
            assert_eq!(found, wanted, "{line}");
        }
    }
}
