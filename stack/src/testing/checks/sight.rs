//! What a passive monitor reads off a frame. Its own parser: the stack's is one of the things that are checked.

use crate::addr::{Endpoint, Flow, Ip};
use crate::testing::alloc::vec::Vec;
use crate::wire::checksum::Sum;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// One TCP segment, as seen. `flow` is its sender's: local is where it comes from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sight {
    pub(crate) flow: Flow,
    pub(crate) ip_len: usize,
    /// The two ECN bits of the IP header.
    pub(crate) ecn: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) options_len: usize,
    pub(crate) mss: Option<u16>,
    pub(crate) shift: Option<u8>,
    pub(crate) timestamp: Option<(u32, u32)>,
    pub(crate) sack_permitted: bool,
    pub(crate) sack: Vec<(u32, u32)>,
    pub(crate) payload: Vec<u8>,
}

impl Sight {
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Where its payload starts.
    pub(crate) fn text(&self) -> u32 {
        self.seq.wrapping_add(u32::from(self.has(SYN)))
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(be16(bytes, at)?) << 16 | u32::from(be16(bytes, at + 2)?))
}

/// Reads a frame; `None` when it holds no whole TCP segment with right checksums.
pub(crate) fn look(frame: &[u8]) -> Option<Sight> {
    let packet = frame.get(14..)?;
    let (src, dst, protocol, segment) = match packet.first()? >> 4 {
        4 => network_v4(packet)?,
        6 => network_v6(packet)?,
        _ => return None,
    };
    let pseudo = Sum::pseudo_header(&src, &dst, 6, segment.len() as u16);
    if protocol != 6 || pseudo.add_bytes(segment).fold() != 0xffff {
        return None;
    }
    let ecn = if packet[0] >> 4 == 4 { packet[1] & 3 } else { packet[1] >> 4 & 3 };
    let sight = transport(segment, src, dst)?;
    Some(Sight { ip_len: packet.len(), ecn, ..sight })
}

fn network_v4(packet: &[u8]) -> Option<(Ip, Ip, u8, &[u8])> {
    let header = usize::from(packet[0] & 15) * 4;
    let total = usize::from(be16(packet, 2)?);
    let fragment = be16(packet, 6)? & 0x3fff;
    let sum = Sum::ZERO.add_bytes(packet.get(..header)?).fold();
    if header < 20 || fragment != 0 || sum != 0xffff {
        return None;
    }
    let ip = |at: usize| Some(Ip::v4([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]));
    Some((ip(12)?, ip(16)?, packet[9], packet.get(header..total)?))
}

fn network_v6(packet: &[u8]) -> Option<(Ip, Ip, u8, &[u8])> {
    let total = 40 + usize::from(be16(packet, 4)?);
    let (mut src, mut dst) = (Ip([0; 16]), Ip([0; 16]));
    src.0.copy_from_slice(packet.get(8..24)?);
    dst.0.copy_from_slice(packet.get(24..40)?);
    Some((src, dst, packet[6], packet.get(40..total)?))
}

fn transport(segment: &[u8], src: Ip, dst: Ip) -> Option<Sight> {
    let header = usize::from(*segment.get(12)? >> 4) * 4;
    let mut options = segment.get(20..header)?;
    let mut sight = Sight {
        flow: Flow { local: Endpoint::new(src, be16(segment, 0)?), remote: Endpoint::new(dst, be16(segment, 2)?) },
        seq: be32(segment, 4)?,
        ack: be32(segment, 8)?,
        flags: segment[13],
        window: be16(segment, 14)?,
        options_len: options.len(),
        payload: segment.get(header..)?.to_vec(),
        ..Sight::default()
    };
    while let [kind, rest @ ..] = options {
        let len = match (kind, rest.first()) {
            (0, _) | (2.., None) => break,
            (1, _) => 1,
            (_, Some(len)) => usize::from(*len),
        };
        if *kind != 1 {
            let Some(body) = options.get(2..len) else { break };
            option(&mut sight, *kind, body);
        }
        options = options.get(len..)?;
    }
    Some(sight)
}

fn option(sight: &mut Sight, kind: u8, body: &[u8]) {
    match (kind, body.len()) {
        (2, 2) => sight.mss = be16(body, 0),
        (3, 1) => sight.shift = Some(body[0]),
        (4, 0) => sight.sack_permitted = true,
        (5, _) => {
            let pair = |b: &[u8]| Some((be32(b, 0)?, be32(b, 4)?));
            sight.sack = body.chunks(8).filter_map(pair).collect();
        }
        (8, 8) => sight.timestamp = be32(body, 0).zip(be32(body, 4)),
        _ => {}
    }
}
