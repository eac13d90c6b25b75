//! Which ports the kernel's own TCP sockets use: sock_diag(7), or /proc/net/tcp and tcp6 where the kernel has no tcp_diag.
//!
//! The daemon does nothing else meanwhile: `/proc` takes it milliseconds, most of them for text.

mod diag;

use crate::rtnl::errno;
use sidestep_stack::addr::Ip;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

/// A socket of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KernelSocket {
    pub(crate) local: Ip,
    pub(crate) port: u16,
    pub(crate) is_listener: bool,
    pub(crate) is_time_wait: bool,
}

/// States in the kernel's numbers (include/net/tcp_states.h).
const TIME_WAIT: u8 = 6;
const LISTEN: u8 = 10;

/// Reads a line of /proc/net/{tcp,tcp6}: `sl local:port remote:port st …`, addresses as host-order words in hex.
fn parse_line(line: &str) -> Option<KernelSocket> {
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
    // Once it is known to be missing it is not asked again: the kernel would look for the module each time.
    static HAS_NO_DIAG: AtomicBool = AtomicBool::new(false);
    if !HAS_NO_DIAG.load(Relaxed) {
        match diag::tcp() {
            Ok(sockets) => return sockets,
            Err(e) => HAS_NO_DIAG.store(errno(&e) == libc::ENOENT, Relaxed),
        }
    }
    listed_in_proc()
}

fn listed_in_proc() -> Vec<KernelSocket> {
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
    use std::net::{TcpListener, TcpStream};

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
    fn both_sources_say_the_same() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue }; // without IPv6
            let port = listener.local_addr().unwrap().port();
            let client =
                TcpStream::connect(("localhost", port)).or_else(|_| TcpStream::connect(("::1", port))).unwrap();
            let at_port = |sockets: Vec<KernelSocket>, port| -> Vec<_> {
                let mut found: Vec<_> = sockets.into_iter().filter(|s| s.port == port).collect();
                found.sort_by_key(|s| s.is_listener);
                found
            };
            let own = client.local_addr().unwrap().port();
            for port in [port, own] {
                assert_eq!(at_port(diag::tcp().unwrap(), port), at_port(listed_in_proc(), port), "{address}");
            }
            let sockets = at_port(diag::tcp().unwrap(), port);
            assert_eq!(sockets.iter().map(|s| s.is_listener).collect::<Vec<_>>(), [false, true], "{address}");
            // Who closes first keeps the TIME-WAIT.
            drop(client);
            drop(listener.accept().unwrap());
            let time_wait =
                |sockets: Vec<KernelSocket>| at_port(sockets, own).iter().map(|s| s.is_time_wait).collect::<Vec<_>>();
            assert_eq!(
                (time_wait(diag::tcp().unwrap()), time_wait(listed_in_proc())),
                (vec![true], vec![true]),
                "{address}"
            );
        }
    }
}
