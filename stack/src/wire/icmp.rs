//! ICMP errors (RFC 792, RFC 4443): what they say, and of which segment.
//!
//! Only errors about TCP and UDP get here; echo and the rest are the kernel's.

use super::checksum::Sum;
use super::{be16, be32, ipv4, ipv6, udp};
use crate::addr::{Endpoint, Flow, Ip};
use crate::drops::Drop;

/// IP protocol numbers.
pub const PROTOCOL_V4: u8 = 1;
pub const PROTOCOL_V6: u8 = 58;
const PROTOCOL_TCP: u8 = 6;

/// What an error says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    NetUnreachable,
    HostUnreachable,
    ProtocolUnreachable,
    PortUnreachable,
    /// Fragmentation needed, or packet too big. An MTU of 0 comes from routers older than RFC 1191.
    TooBig {
        mtu: u32,
    },
    /// A filter said no.
    Prohibited,
    TimeExceeded,
    ParameterProblem,
}

/// An error about a segment or datagram that we seem to have sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error {
    pub kind: Kind,
    /// The protocol of what is quoted.
    pub protocol: u8,
    /// The flow of what is quoted, seen from its sender: us.
    pub flow: Flow,
    /// The quoted segment's sequence number; means nothing for UDP.
    pub seq: u32,
    /// Type and code as they came, and what the four octets behind them say: the MTU, or where the parameter is.
    pub number: u8,
    pub code: u8,
    pub info: u32,
    /// Where in the message the quoted payload starts, behind eight octets of transport header.
    pub quoted_off: usize,
}

/// Reads an ICMPv4 message.
pub fn parse_v4(message: &[u8]) -> Result<Error, Drop> {
    check_length(message)?;
    if Sum::ZERO.add_bytes(message).fold() != 0xffff {
        return Err(Drop::IcmpChecksum);
    }
    let kind = match (message[0], message[1]) {
        (3, 0 | 6 | 11) => Kind::NetUnreachable,
        (3, 1 | 5 | 7 | 8 | 12) => Kind::HostUnreachable,
        (3, 2) => Kind::ProtocolUnreachable,
        (3, 3) => Kind::PortUnreachable,
        (3, 4) => Kind::TooBig { mtu: u32::from(be16(message, 6)) },
        (3, 9 | 10 | 13) => Kind::Prohibited,
        (11, _) => Kind::TimeExceeded,
        (12, _) => Kind::ParameterProblem,
        _ => return Err(Drop::IpProtocol),
    };
    let info = match kind {
        Kind::TooBig { mtu } => mtu,
        Kind::ParameterProblem => u32::from(message[4]),
        _ => 0,
    };
    let packet = ipv4::parse_quoted(&message[QUOTE..]).map_err(|_| Drop::IcmpMalformed)?;
    error(kind, info, message, packet)
}

/// Reads an ICMPv6 message; its checksum covers a pseudo-header.
pub fn parse_v6(message: &[u8], src: &Ip, dst: &Ip) -> Result<Error, Drop> {
    check_length(message)?;
    let pseudo = Sum::pseudo_header(src, dst, PROTOCOL_V6, message.len() as u16);
    if pseudo.add_bytes(message).fold() != 0xffff {
        return Err(Drop::IcmpChecksum);
    }
    let kind = match (message[0], message[1]) {
        (1, 0) => Kind::NetUnreachable,
        (1, 1 | 5 | 6) => Kind::Prohibited,
        (1, 4) => Kind::PortUnreachable,
        (1, _) => Kind::HostUnreachable,
        (2, _) => Kind::TooBig { mtu: be32(message, 4) },
        (3, _) => Kind::TimeExceeded,
        (4, 1) => Kind::ProtocolUnreachable,
        (4, _) => Kind::ParameterProblem,
        _ => return Err(Drop::IpProtocol),
    };
    let packet = ipv6::parse_quoted(&message[QUOTE..]).map_err(|_| Drop::IcmpMalformed)?;
    error(kind, be32(message, 4), message, packet)
}

fn check_length(message: &[u8]) -> Result<(), Drop> {
    if message.len() < 8 { Err(Drop::IcmpMalformed) } else { Ok(()) }
}

/// Where the quote starts, and what it has to hold of the transport's header.
const QUOTE: usize = 8;
const TRANSPORT: usize = 8;

fn error(kind: Kind, info: u32, message: &[u8], packet: ipv4::Packet) -> Result<Error, Drop> {
    let start = QUOTE + packet.payload_off;
    let quoted_off = start + TRANSPORT;
    let segment = message.get(start..quoted_off).ok_or(Drop::IcmpMalformed)?;
    if packet.protocol != PROTOCOL_TCP && packet.protocol != udp::PROTOCOL {
        return Err(Drop::IcmpNoFlow);
    }
    let flow = Flow {
        local: Endpoint::new(packet.src, be16(segment, 0)),
        remote: Endpoint::new(packet.dst, be16(segment, 2)),
    };
    let (number, code) = (message[0], message[1]);
    Ok(Error { kind, protocol: packet.protocol, flow, seq: be32(segment, 4), number, code, info, quoted_off })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frag_needed() -> Vec<u8> {
        let mut m = vec![3, 4, 0, 0, 0, 0, 0x05, 0x14];
        m.resize(8 + 20, 0);
        ipv4::emit(
            &Ip::v4([10, 0, 0, 1]),
            &Ip::v4([10, 0, 0, 2]),
            6,
            ipv4::Service { tos: 0, ttl: 9 },
            1400,
            &mut m[8..],
        );
        m.extend_from_slice(&[0x1f, 0x90, 0, 80, 1, 2, 3, 4]);
        seal(&mut m);
        m
    }

    fn seal(m: &mut [u8]) {
        m[2..4].copy_from_slice(&[0, 0]);
        let sum = Sum::ZERO.add_bytes(m).checksum();
        m[2..4].copy_from_slice(&sum.to_be_bytes());
    }

    #[test]
    fn fragmentation_needed() {
        let e = parse_v4(&frag_needed()).unwrap();
        assert_eq!((e.kind, e.seq), (Kind::TooBig { mtu: 1300 }, 0x0102_0304));
        assert_eq!((e.number, e.code, e.info, e.quoted_off), (3, 4, 1300, 36));
        assert_eq!(e.flow.local, Endpoint::new(Ip::v4([10, 0, 0, 1]), 8080));
        assert_eq!(e.flow.remote, Endpoint::new(Ip::v4([10, 0, 0, 2]), 80));
    }

    #[test]
    fn truncations_and_corruption_are_named() {
        let whole = frag_needed();
        for len in 0..whole.len() {
            let mut m = whole[..len].to_vec();
            if len >= 8 {
                seal(&mut m);
            }
            assert_eq!(parse_v4(&m), Err(Drop::IcmpMalformed), "length {len}");
        }
        let mut m = whole;
        m[9] ^= 1;
        assert_eq!(parse_v4(&m), Err(Drop::IcmpChecksum));
    }

    #[test]
    fn packet_too_big_v6() {
        let (src, dst) = (Ip([0x20; 16]), Ip([0xfd; 16]));
        let mut m = vec![2, 0, 0, 0, 0, 0, 0x05, 0x00];
        m.resize(8 + 40, 0);
        ipv6::emit(&dst, &src, 6, ipv4::Service { tos: 0, ttl: 9 }, 1400, &mut m[8..]);
        m.extend_from_slice(&[0, 80, 0x1f, 0x90, 0, 0, 0, 7]);
        let sum = Sum::pseudo_header(&src, &dst, PROTOCOL_V6, m.len() as u16).add_bytes(&m).checksum();
        m[2..4].copy_from_slice(&sum.to_be_bytes());
        let e = parse_v6(&m, &src, &dst).unwrap();
        assert_eq!((e.kind, e.seq), (Kind::TooBig { mtu: 1280 }, 7));
        assert_eq!((e.number, e.code, e.info, e.quoted_off), (2, 0, 1280, 56));
        assert_eq!(e.flow.local, Endpoint::new(dst, 80));
    }
}
