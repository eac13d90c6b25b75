//! The kernel's TCP sockets by sock_diag(7): a question for each IP version, and 72 bytes for each socket (linux/inet_diag.h).

use super::{KernelSocket, LISTEN, TIME_WAIT};
use crate::rtnl::Requests;
use sidestep_stack::addr::Ip;
use std::io;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// The states asked for, a bit each: all up to TCP_NEW_SYN_RECV, but for TCP_CLOSE, in which a socket has no connection.
const STATES: u32 = 0x1ffe & !(1 << 7);
/// Of `struct inet_diag_req_v2`: the six fields before `id`, and those of `id`, all of which may be anything.
const REQUEST_HEAD: usize = 8;
const REQUEST_ID: usize = 48;

pub(super) fn tcp() -> io::Result<Vec<KernelSocket>> {
    let mut requests = Requests::open_sock_diag()?;
    let mut sockets = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        requests.dump_bytes(SOCK_DIAG_BY_FAMILY, &request(family), |answer| sockets.extend(parse(answer)))?;
    }
    Ok(sockets)
}

fn request(family: i32) -> [u8; REQUEST_HEAD + REQUEST_ID] {
    let mut request = [0; REQUEST_HEAD + REQUEST_ID];
    request[0] = family as u8;
    request[1] = libc::IPPROTO_TCP as u8;
    request[4..8].copy_from_slice(&STATES.to_ne_bytes());
    request
}

/// `struct inet_diag_msg`: family, state, two more bytes; the local and the remote port, and the local address, in network order.
fn parse(answer: &[u8]) -> Option<KernelSocket> {
    let (family, state) = (i32::from(*answer.first()?), *answer.get(1)?);
    let port = u16::from_be_bytes(answer.get(4..6)?.try_into().ok()?);
    let local: [u8; 16] = answer.get(8..24)?.try_into().ok()?;
    let local = match family {
        libc::AF_INET => Ip::v4([local[0], local[1], local[2], local[3]]),
        libc::AF_INET6 => Ip(local),
        _ => return None,
    };
    Some(KernelSocket { local, port, is_listener: state == LISTEN, is_time_wait: state == TIME_WAIT })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let mut answer = [0u8; 72];
        answer[..6].copy_from_slice(&[libc::AF_INET as u8, LISTEN, 0, 0, 0x18, 0xeb]);
        answer[8..12].copy_from_slice(&[10, 0, 0, 1]);
        let socket = KernelSocket { local: Ip::v4([10, 0, 0, 1]), port: 6379, is_listener: true, is_time_wait: false };
        assert_eq!(parse(&answer), Some(socket));
        (answer[0], answer[1], answer[23]) = (libc::AF_INET6 as u8, TIME_WAIT, 7);
        let mut local = [0; 16];
        local[..4].copy_from_slice(&[10, 0, 0, 1]);
        local[15] = 7;
        let socket = KernelSocket { local: Ip(local), port: 6379, is_listener: false, is_time_wait: true };
        assert_eq!(parse(&answer), Some(socket));
        (0..24).for_each(|len| assert_eq!(parse(&answer[..len]), None, "{len} bytes"));
        answer[0] = libc::AF_UNIX as u8;
        assert_eq!(parse(&answer), None);
    }
}
