//! The TCP header and its options (RFC 9293 §3.1, §3.2; RFC 7323). Checksums are the caller's: they need the IP addresses.

use crate::drops::Drop;
use crate::tcp::Seq;

/// Bytes in a header without options.
pub const HEADER_LEN: usize = 20;
/// Bytes in the longest header.
pub const HEADER_LEN_MAX: usize = 60;
/// Bytes the timestamp option takes in a header, with its padding (RFC 7323 appendix A).
pub const TIMESTAMP_LEN: usize = 12;

/// The control bits of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(transparent)]
pub struct Flags(pub u8);

impl Flags {
    pub const FIN: Flags = Flags(0x01);
    pub const SYN: Flags = Flags(0x02);
    pub const RST: Flags = Flags(0x04);
    pub const PSH: Flags = Flags(0x08);
    pub const ACK: Flags = Flags(0x10);
    pub const URG: Flags = Flags(0x20);
    pub const ECE: Flags = Flags(0x40);
    pub const CWR: Flags = Flags(0x80);

    /// Whether all bits of `other` are set.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any bit of `other` is set.
    pub const fn has_any(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    #[must_use]
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }
}

impl core::ops::BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        self.with(other)
    }
}

/// The blocks of a SACK option (RFC 2018 §3): octets received beyond the acknowledgement, the newest block first.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SackBlocks {
    blocks: [(Seq, Seq); SackBlocks::MAX],
    count: u8,
}

impl SackBlocks {
    /// Most blocks that fit in 40 octets of options; beside a timestamp it is one less.
    pub const MAX: usize = 4;

    /// Adds a block `left..right` behind the others; false when there is no room for one more.
    pub fn push(&mut self, left: Seq, right: Seq) -> bool {
        let has_room = usize::from(self.count) < SackBlocks::MAX;
        if has_room {
            self.blocks[usize::from(self.count)] = (left, right);
            self.count += 1;
        }
        has_room
    }

    /// The blocks as they stand in the option. Nothing is checked: the peer may claim anything.
    pub fn as_slice(&self) -> &[(Seq, Seq)] {
        &self.blocks[..usize::from(self.count)]
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the option with its padding; none without a block.
    fn option_len(&self) -> usize {
        if self.is_empty() { 0 } else { 4 + 8 * usize::from(self.count) }
    }
}

/// A Fast Open cookie (RFC 7413 §4.1.1). Without octets it is the request for one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct FastOpenCookie {
    octets: [u8; FastOpenCookie::MAX],
    len: u8,
}

impl FastOpenCookie {
    pub const MAX: usize = 16;
    /// No octets: please give me one.
    pub const REQUEST: FastOpenCookie = FastOpenCookie { octets: [0; FastOpenCookie::MAX], len: 0 };

    /// A cookie has an even number of octets, 4 to 16, or none at all; anything else is none of ours.
    pub fn new(octets: &[u8]) -> Option<FastOpenCookie> {
        let is_right = octets.is_empty() || octets.len() >= 4 && octets.len().is_multiple_of(2);
        let mut cookie = FastOpenCookie { len: octets.len() as u8, ..FastOpenCookie::default() };
        cookie.octets.get_mut(..octets.len()).filter(|_| is_right)?.copy_from_slice(octets);
        Some(cookie)
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }

    pub fn is_request(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the option with its padding.
    fn option_len(&self) -> usize {
        (2 + usize::from(self.len)).next_multiple_of(4)
    }
}

/// The options of a segment that we understand; all others are skipped.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Options {
    pub mss: Option<u16>,
    pub window_scale: Option<u8>,
    /// TSval and TSecr.
    pub timestamp: Option<(u32, u32)>,
    pub sack_permitted: bool,
    pub sack: SackBlocks,
    pub fast_open: Option<FastOpenCookie>,
}

/// A received segment: its header, and where its payload lies in the frame.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Segment {
    pub seq: Seq,
    pub ack: Seq,
    pub flags: Flags,
    pub window: u16,
    pub urgent: u16,
    pub options: Options,
    /// From the frame's start.
    pub payload_off: u16,
    pub payload_len: u16,
    /// The two bits of explicit congestion notification in its IP header ([`crate::ip::ecn`]).
    pub ecn: u8,
}

impl Segment {
    /// SEG.LEN: octets of sequence space, SYN and FIN included (RFC 9293 §3.4).
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u32 {
        u32::from(self.payload_len) + u32::from(self.flags.0 & 1) + u32::from(self.flags.0 >> 1 & 1)
    }

    /// The sequence number just behind the segment.
    pub fn end(&self) -> Seq {
        self.seq + self.len()
    }

    pub fn has(&self, flags: Flags) -> bool {
        self.flags.has(flags)
    }
}

/// The two ports of a header: all that a flow lookup needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ports {
    pub source: u16,
    pub destination: u16,
}

/// Reads the ports; `None` when even they are cut off (RFC 792 quotes eight bytes, so an ICMP quote has them and the
/// sequence number).
pub fn ports(tcp: &[u8]) -> Option<Ports> {
    let head = tcp.first_chunk::<4>()?;
    Some(Ports { source: be16(head, 0), destination: be16(head, 2) })
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// NOP, NOP, timestamp kind, timestamp length: how nearly every segment of a live connection begins its options.
const ALIGNED_TIMESTAMP: u32 = 0x0101_080a;

/// Reads a segment. `tcp` is the whole TCP segment, `tcp_off` where it starts in its frame. The checksum was verified. What
/// the IP header says is for the caller to add.
#[inline(always)]
pub fn parse(tcp: &[u8], tcp_off: u16) -> Result<Segment, Drop> {
    let head = tcp.first_chunk::<HEADER_LEN>().ok_or(Drop::TcpMalformed)?;
    let header_len = usize::from(head[12] >> 4) * 4;
    if header_len < HEADER_LEN || header_len > tcp.len() || tcp.len() > usize::from(u16::MAX - tcp_off) {
        return Err(Drop::TcpMalformed);
    }
    Ok(Segment {
        seq: Seq(be32(head, 4)),
        ack: Seq(be32(head, 8)),
        flags: Flags(head[13]),
        window: be16(head, 14),
        urgent: be16(head, 18),
        options: parse_options(&tcp[HEADER_LEN..header_len]),
        payload_off: tcp_off + header_len as u16,
        payload_len: (tcp.len() - header_len) as u16,
        ecn: 0,
    })
}

#[inline]
fn parse_options(bytes: &[u8]) -> Options {
    match bytes.first_chunk::<TIMESTAMP_LEN>() {
        Some(b) if bytes.len() == TIMESTAMP_LEN && be32(b, 0) == ALIGNED_TIMESTAMP => {
            Options { timestamp: Some((be32(b, 4), be32(b, 8))), ..Options::default() }
        }
        _ if bytes.is_empty() => Options::default(),
        _ => walk_options(bytes),
    }
}

/// Options one by one. A malformed length ends the walk: what was read before it counts (as Linux does).
fn walk_options(mut bytes: &[u8]) -> Options {
    let mut options = Options::default();
    while let [kind, rest @ ..] = bytes {
        match (*kind, rest.first()) {
            (0, _) => break,
            (1, _) => {
                bytes = rest;
                continue;
            }
            (_, None) => break,
            (kind, Some(&len)) => {
                let len = usize::from(len);
                let Some(body) = bytes.get(2..len) else { break };
                read_option(&mut options, kind, body);
                bytes = &bytes[len..];
            }
        }
    }
    options
}

fn read_option(options: &mut Options, kind: u8, body: &[u8]) {
    match (kind, body.len()) {
        (2, 2) => options.mss = Some(be16(body, 0)),
        // A shift above 14 counts as 14 (RFC 7323 §2.3).
        (3, 1) => options.window_scale = Some(body[0].min(14)),
        (4, 0) => options.sack_permitted = true,
        (5, 8 | 16 | 24 | 32) => {
            options.sack = SackBlocks::default();
            for block in body.chunks_exact(8) {
                options.sack.push(Seq(be32(block, 0)), Seq(be32(block, 4)));
            }
        }
        (8, 8) => options.timestamp = Some((be32(body, 0), be32(body, 4))),
        (34, _) => options.fast_open = FastOpenCookie::new(body),
        _ => {}
    }
}

/// The header of nearly every outgoing segment: no option but the timestamp.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PlainHeader {
    pub local_port: u16,
    pub remote_port: u16,
    pub seq: Seq,
    pub ack: Seq,
    pub flags: Flags,
    /// As it goes on the wire: already scaled.
    pub window: u16,
    /// Where urgent data ends, counted from `seq`; it counts only with URG.
    pub urgent: u16,
    pub timestamp: Option<(u32, u32)>,
}

impl PlainHeader {
    /// Writes the header, checksum zero, where `out` ends; returns its length.
    #[inline]
    pub fn emit_before(&self, out: &mut [u8]) -> usize {
        let words = |len: usize| {
            let control = (len as u32 / 4) << 28 | u32::from(self.flags.0) << 16 | u32::from(self.window);
            let ports = u32::from(self.local_port) << 16 | u32::from(self.remote_port);
            [ports, self.seq.0, self.ack.0, control, u32::from(self.urgent)]
        };
        if let Some((value, echo)) = self.timestamp {
            let at = out.len() - HEADER_LEN - TIMESTAMP_LEN;
            let out = put(&mut out[at..], words(HEADER_LEN + TIMESTAMP_LEN));
            put(out, [ALIGNED_TIMESTAMP, value, echo]);
            HEADER_LEN + TIMESTAMP_LEN
        } else {
            let at = out.len() - HEADER_LEN;
            put(&mut out[at..], words(HEADER_LEN));
            HEADER_LEN
        }
    }
}

impl From<&PlainHeader> for Header {
    fn from(plain: &PlainHeader) -> Header {
        let PlainHeader { local_port, remote_port, seq, ack, flags, window, urgent, timestamp } = *plain;
        Header { local_port, remote_port, seq, ack, flags, window, urgent, timestamp, ..Header::default() }
    }
}

/// The header of an outgoing segment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Header {
    pub local_port: u16,
    pub remote_port: u16,
    pub seq: Seq,
    pub ack: Seq,
    pub flags: Flags,
    /// As it goes on the wire: already scaled.
    pub window: u16,
    /// Where urgent data ends, counted from `seq`; it counts only with URG.
    pub urgent: u16,
    pub mss: Option<u16>,
    pub window_scale: Option<u8>,
    pub timestamp: Option<(u32, u32)>,
    pub sack_permitted: bool,
    /// At most three beside a timestamp.
    pub sack: SackBlocks,
    pub fast_open: Option<FastOpenCookie>,
}

impl Header {
    /// Bytes this header takes.
    pub fn len(&self) -> usize {
        HEADER_LEN
            + if self.mss.is_some() { 4 } else { 0 }
            + if self.window_scale.is_some() { 4 } else { 0 }
            + if self.timestamp.is_some() { TIMESTAMP_LEN } else { 0 }
            + if self.sack_permitted && self.timestamp.is_none() { 4 } else { 0 }
            + self.sack.option_len()
            + self.fast_open.map_or(0, |cookie| cookie.option_len())
    }

    pub fn is_empty(&self) -> bool {
        false
    }
}

/// Writes header and options to the start of `out` (at least [`Header::len`] bytes) with a zero checksum; returns its length.
pub fn emit(header: &Header, out: &mut [u8]) -> usize {
    let len = header.len();
    let control = (len as u32 / 4) << 28 | u32::from(header.flags.0) << 16 | u32::from(header.window);
    let ports = u32::from(header.local_port) << 16 | u32::from(header.remote_port);
    let mut out = put(out, [ports, header.seq.0, header.ack.0, control, u32::from(header.urgent)]);
    if let Some(mss) = header.mss {
        out = put(out, [0x0204_0000 | u32::from(mss)]);
    }
    if let Some(shift) = header.window_scale {
        out = put(out, [0x0103_0300 | u32::from(shift)]);
    }
    match (header.sack_permitted, header.timestamp) {
        // In place of the timestamp's padding, so that a SYN has room for the longest Fast Open cookie.
        (true, Some((value, echo))) => out = put(out, [0x0402_080a, value, echo]),
        (true, None) => out = put(out, [0x0101_0402]),
        (false, Some((value, echo))) => out = put(out, [ALIGNED_TIMESTAMP, value, echo]),
        (false, None) => {}
    }
    if !header.sack.is_empty() {
        out = put(out, [0x0101_0500 | (header.sack.option_len() as u32 - 2)]);
        for (left, right) in header.sack.as_slice() {
            out = put(out, [left.0, right.0]);
        }
    }
    if let Some(cookie) = &header.fast_open {
        put_fast_open(out, cookie);
    }
    len
}

/// Kind 34, behind NOPs that make the header end on a word.
fn put_fast_open(out: &mut [u8], cookie: &FastOpenCookie) {
    let (padded, octets) = (cookie.option_len(), cookie.as_slice());
    let (padding, option) = out[..padded].split_at_mut(padded - 2 - octets.len());
    padding.fill(1);
    (option[0], option[1]) = (34, 2 + octets.len() as u8);
    option[2..].copy_from_slice(octets);
}

#[inline]
fn put<const N: usize>(out: &mut [u8], words: [u32; N]) -> &mut [u8] {
    let (here, rest) = out.split_at_mut(4 * N);
    for (bytes, word) in here.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    rest
}

/// One segment without data and without a connection behind it: a RST, a TIME-WAIT acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Control {
    pub seq: Seq,
    pub ack: Seq,
    pub flags: Flags,
    pub window: u16,
    pub timestamp: Option<(u32, u32)>,
}

impl Control {
    /// Writes the segment, checksum zero; returns its length.
    pub fn emit(&self, local_port: u16, remote_port: u16, out: &mut [u8]) -> usize {
        let Control { seq, ack, flags, window, timestamp } = *self;
        emit(&Header { local_port, remote_port, seq, ack, flags, window, timestamp, ..Header::default() }, out)
    }
}

/// The RST that answers a segment which belongs to nobody (RFC 9293 §3.10.7.1); a RST is never answered.
pub fn reset_for(seg: &Segment) -> Option<Control> {
    if seg.has(Flags::RST) {
        return None;
    }
    Some(if seg.has(Flags::ACK) {
        Control { seq: seg.ack, flags: Flags::RST, ..Control::default() }
    } else {
        Control { ack: seg.end(), flags: Flags::RST | Flags::ACK, ..Control::default() }
    })
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
