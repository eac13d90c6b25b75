//! Which ports the kernel's own TCP sockets use: /proc/net/tcp and tcp6.

use sidestep_stack::addr::Ip;

/// A socket of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KernelSocket {
    pub(crate) local: Ip,
    pub(crate) port: u16,
    pub(crate) is_listener: bool,
    pub(crate) is_time_wait: bool,
}

/// Reads a line of /proc/net/{tcp,tcp6}: `sl local:port remote:port st …`, addresses as host-order words in hex.
pub(crate) fn parse_line(line: &str) -> Option<KernelSocket> {
    const TIME_WAIT: u8 = 0x06;
    const LISTEN: u8 = 0x0a;
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    let state = u8::from_str_radix(fields.nth(1)?, 16).ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = [0u8; 16];
    if !address.is_ascii() || address.len() != 8 && address.len() != 32 {
        return None;
    }
    let words = address.len() / 8;
    for i in 0..words {
        let word = u32::from_str_radix(&address[8 * i..8 * i + 8], 16).ok()?;
        bytes[4 * i..4 * i + 4].copy_from_slice(&word.to_ne_bytes());
    }
    let local = match words {
        1 => Ip::v4([bytes[0], bytes[1], bytes[2], bytes[3]]),
        _ => Ip(bytes),
    };
    Some(KernelSocket { local, port, is_listener: state == LISTEN, is_time_wait: state == TIME_WAIT })
}

/// Every TCP socket in this namespace, TIME-WAIT and half-open ones included.
pub(crate) fn tcp() -> Vec<KernelSocket> {
    let read = |table| std::fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default();
    ["tcp", "tcp6"].map(read).iter().flat_map(|text| text.lines().filter_map(parse_line)).collect()
}

/// Whether the kernel has connections on `port` that may come over a device.
pub(crate) fn has_connections(sockets: &[KernelSocket], port: u16) -> bool {
    sockets.iter().any(|s| s.port == port && !s.is_listener && !s.local.is_loopback())
}

/// Whether somebody listens on `port`.
pub(crate) fn has_listener(sockets: &[KernelSocket], port: u16) -> bool {
    sockets.iter().any(|s| s.port == port && s.is_listener)
}

/// How many: not those in TIME-WAIT.
pub(crate) fn established(sockets: &[KernelSocket], port: u16) -> u32 {
    let counts = |s: &&KernelSocket| s.port == port && !s.is_listener && !s.is_time_wait && !s.local.is_loopback();
    sockets.iter().filter(counts).count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let line =
            "   0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0";
        let socket = parse_line(line).unwrap();
        assert_eq!((socket.local, socket.port, socket.is_listener), (Ip::v4([127, 0, 0, 1]), 6379, true));
        let line = " 12: 0100000A:0050 0200000A:C350 01 00000000:00000000 02:000A 0 0 0 1 1";
        let socket = parse_line(line).unwrap();
        assert_eq!((socket.local, socket.port, socket.is_listener), (Ip::v4([10, 0, 0, 1]), 80, false));
        let line = "0: B80D01200000000000000000 01000000:1F90 0 01";
        assert_eq!(parse_line(line), None);
        let line = "0: B80D0120000000000000000001000000:1F90 00000000000000000000000000000000:0000 06";
        let socket = parse_line(line).unwrap();
        assert_eq!(socket.local.0, [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        for junk in ["", "sl local_address rem_address st", "0: zz:0 a 1", "0: é0007F:1 x 0A", "0: 0100007F:18EB"] {
            assert_eq!(parse_line(junk), None, "{junk}");
        }
    }

    #[test]
    fn connections_over_loopback_do_not_count() {
        let on = |local, port, is_listener| KernelSocket { local, port, is_listener, is_time_wait: false };
        let sockets = [
            on(Ip::v4([127, 0, 0, 1]), 80, false),
            on(Ip::UNSPECIFIED, 80, true),
            on(Ip::v4([10, 0, 0, 1]), 81, false),
        ];
        assert!(!has_connections(&sockets, 80));
        assert!(has_connections(&sockets, 81));
    }

    #[test]
    fn this_machine_can_be_read() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(tcp().iter().any(|s| s.port == port && s.is_listener));
    }
}
