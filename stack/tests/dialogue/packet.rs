//! Frames as the peer writes and reads them. Nothing of the stack's own wire code is used: two mistakes that agree would not
//! show.

use std::fmt;

/// The control bits, by the letters scripts use, from bit 0 on.
const FLAGS: &[u8] = b"FSRPAUEW";
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;

pub(crate) fn flags_from(letters: &str) -> Option<u8> {
    let bit = |letter: u8| FLAGS.iter().position(|f| *f == letter).map(|at| 1u8 << at);
    match letters {
        "." => Some(0),
        _ => letters.bytes().try_fold(0, |flags, letter| Some(flags | bit(letter)?)),
    }
}

pub(crate) fn flags_text(flags: u8) -> String {
    let letters = FLAGS.iter().enumerate().filter(|(bit, _)| flags & 1 << bit != 0);
    let text: String = letters.map(|(_, letter)| char::from(*letter)).collect();
    if text.is_empty() { ".".into() } else { text }
}

/// An IP address of either family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Addr {
    V4([u8; 4]),
    V6([u8; 16]),
}

/// One segment in full: absolute numbers, option list as octets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Packet {
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    /// The two ECN bits of the IP header.
    pub(crate) ecn: u8,
    /// Of the IP header; IPv4 alone.
    pub(crate) ip_options: Vec<u8>,
    /// The checksum is off by one.
    pub(crate) is_damaged: bool,
}

/// The Internet checksum.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn pseudo_header(src: Addr, dst: Addr, protocol: u8, len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for addr in [src, dst] {
        match addr {
            Addr::V4(octets) => out.extend_from_slice(&octets),
            Addr::V6(octets) => out.extend_from_slice(&octets),
        }
    }
    out.extend_from_slice(&(len as u32).to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, protocol]);
    out
}

impl Packet {
    fn tcp(&self, src: Addr, dst: Addr) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let mut out = Vec::new();
        out.extend_from_slice(&self.src_port.to_be_bytes());
        out.extend_from_slice(&self.dst_port.to_be_bytes());
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.ack.to_be_bytes());
        out.extend_from_slice(&[((20 + options.len()) as u8 / 4) << 4, self.flags]);
        out.extend_from_slice(&self.window.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.urgent.to_be_bytes());
        out.extend_from_slice(&options);
        out.extend_from_slice(&self.payload);
        let sum = checksum(&[&pseudo_header(src, dst, 6, out.len()), &out]);
        out[16..18].copy_from_slice(&(sum ^ u16::from(self.is_damaged)).to_be_bytes());
        out
    }

    /// The frame, from the Ethernet header on.
    pub(crate) fn frame(&self, src: Addr, dst: Addr, macs: ([u8; 6], [u8; 6])) -> Vec<u8> {
        let mut frame = ip_frame(src, dst, macs, 6, self.ecn, &self.tcp(src, dst));
        if !self.ip_options.is_empty() {
            add_ip_options(&mut frame, &self.ip_options);
        }
        frame
    }

    /// Reads a frame, and checks its checksums.
    pub(crate) fn parse(frame: &[u8]) -> Result<Packet, String> {
        let (src, dst, ecn, tcp) = match (frame[12], frame[13]) {
            (8, 0) => {
                let ip = &frame[14..];
                if checksum(&[&ip[..20]]) != 0 {
                    return Err("IPv4 header checksum".into());
                }
                let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
                let at = |n: usize| Addr::V4([ip[n], ip[n + 1], ip[n + 2], ip[n + 3]]);
                (at(12), at(16), ip[1] & 3, &ip[20..total])
            }
            (0x86, 0xdd) => {
                let ip = &frame[14..];
                let at = |n: usize| Addr::V6(ip[n..n + 16].try_into().expect("16 octets"));
                let total = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
                (at(8), at(24), ip[1] >> 4 & 3, &ip[40..total])
            }
            _ => return Err("neither IPv4 nor IPv6".into()),
        };
        if checksum(&[&pseudo_header(src, dst, 6, tcp.len()), tcp]) != 0 {
            return Err("TCP checksum".into());
        }
        let be16 = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let be32 = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
        if tcp[12] & 15 != 0 {
            return Err("reserved bits are set".into());
        }
        let header = usize::from(tcp[12] >> 4) * 4;
        Ok(Packet {
            src_port: be16(0),
            dst_port: be16(2),
            seq: be32(4),
            ack: be32(8),
            flags: tcp[13],
            window: be16(14),
            urgent: be16(18),
            options: tcp[20..header].to_vec(),
            payload: tcp[header..].to_vec(),
            ecn,
            ..Packet::default()
        })
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

fn ip_frame(src: Addr, dst: Addr, macs: ([u8; 6], [u8; 6]), protocol: u8, ecn: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&macs.1);
    out.extend_from_slice(&macs.0);
    match (src, dst) {
        (Addr::V4(src), Addr::V4(dst)) => {
            out.extend_from_slice(&[8, 0, 0x45, ecn]);
            out.extend_from_slice(&(20 + payload.len() as u16).to_be_bytes());
            out.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
            out.extend_from_slice(&src);
            out.extend_from_slice(&dst);
            let sum = checksum(&[&out[14..34]]);
            out[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        (Addr::V6(src), Addr::V6(dst)) => {
            out.extend_from_slice(&[0x86, 0xdd, 0x60, ecn << 4, 0, 0]);
            out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
            out.extend_from_slice(&[protocol, 64]);
            out.extend_from_slice(&src);
            out.extend_from_slice(&dst);
        }
        _ => panic!("two families in one packet"),
    }
    out.extend_from_slice(payload);
    out
}

/// Puts options (whole words of them) behind the IPv4 header of a frame.
fn add_ip_options(frame: &mut Vec<u8>, options: &[u8]) {
    frame.splice(34..34, options.iter().copied());
    frame[14] += (options.len() / 4) as u8;
    let total = u16::from_be_bytes([frame[16], frame[17]]) + options.len() as u16;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame[24..26].copy_from_slice(&[0, 0]);
    let sum = checksum(&[&frame[14..34 + options.len()]]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// An ICMP error about `quoted`, a segment that went from `ours` to `theirs`. `kind` is type and code of the family; `word`
/// the second word of the header.
pub(crate) fn icmp_frame(
    theirs: Addr,
    ours: Addr,
    macs: ([u8; 6], [u8; 6]),
    kind: (u8, u8),
    word: u32,
    quoted: &Packet,
) -> Vec<u8> {
    let inside = quoted.frame(ours, theirs, macs);
    let (protocol, quote) = match ours {
        Addr::V4(_) => (1, &inside[14..14 + 20 + 8]),
        Addr::V6(_) => (58, &inside[14..14 + 40 + 20]),
    };
    let mut message = vec![kind.0, kind.1, 0, 0];
    message.extend_from_slice(&word.to_be_bytes());
    message.extend_from_slice(quote);
    let sum = match ours {
        Addr::V4(_) => checksum(&[&message]),
        Addr::V6(_) => checksum(&[&pseudo_header(theirs, ours, 58, message.len()), &message]),
    };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip_frame(theirs, ours, macs, protocol, 0, &message)
}

/// One option of a segment, its values relative: what scripts write and what they see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Opt {
    Mss(u16),
    WindowScale(u8),
    SackPermitted,
    Sack(Vec<(u32, u32)>),
    Timestamp(u32, u32),
    FastOpen(Vec<u8>),
    Other(Vec<u8>),
}

/// The options of a header, one by one; padding is skipped.
pub(crate) fn read_options(mut bytes: &[u8]) -> Vec<Opt> {
    let mut out = Vec::new();
    let be32 = |b: &[u8]| u32::from_be_bytes([b[0], b[1], b[2], b[3]]);
    while let [kind, rest @ ..] = bytes {
        match kind {
            0 => break,
            1 => {
                bytes = rest;
                continue;
            }
            _ => {}
        }
        let len = usize::from(rest.first().copied().unwrap_or(0));
        let Some(body) = bytes.get(2..len) else {
            out.push(Opt::Other(bytes.to_vec()));
            break;
        };
        out.push(match (kind, body.len()) {
            (2, 2) => Opt::Mss(u16::from_be_bytes([body[0], body[1]])),
            (3, 1) => Opt::WindowScale(body[0]),
            (4, 0) => Opt::SackPermitted,
            (5, _) => Opt::Sack(body.chunks_exact(8).map(|b| (be32(b), be32(&b[4..]))).collect()),
            (8, 8) => Opt::Timestamp(be32(body), be32(&body[4..])),
            (34, _) => Opt::FastOpen(body.to_vec()),
            _ => Opt::Other(bytes[..len].to_vec()),
        });
        bytes = &bytes[len..];
    }
    out
}

/// An option as octets.
pub(crate) fn write_option(option: &Opt, out: &mut Vec<u8>) {
    match option {
        Opt::Mss(mss) => {
            out.extend_from_slice(&[2, 4]);
            out.extend_from_slice(&mss.to_be_bytes());
        }
        Opt::WindowScale(shift) => out.extend_from_slice(&[1, 3, 3, *shift]),
        Opt::SackPermitted => out.extend_from_slice(&[1, 1, 4, 2]),
        Opt::Sack(blocks) => {
            out.extend_from_slice(&[1, 1, 5, 2 + 8 * blocks.len() as u8]);
            for (left, right) in blocks {
                out.extend_from_slice(&left.to_be_bytes());
                out.extend_from_slice(&right.to_be_bytes());
            }
        }
        Opt::Timestamp(value, echo) => {
            out.extend_from_slice(&[1, 1, 8, 10]);
            out.extend_from_slice(&value.to_be_bytes());
            out.extend_from_slice(&echo.to_be_bytes());
        }
        Opt::FastOpen(cookie) => {
            out.extend_from_slice(&[34, 2 + cookie.len() as u8]);
            out.extend_from_slice(cookie);
        }
        Opt::Other(bytes) => out.extend_from_slice(bytes),
    }
}

impl fmt::Display for Opt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Opt::Mss(mss) => write!(f, "mss {mss}"),
            Opt::WindowScale(shift) => write!(f, "wscale {shift}"),
            Opt::SackPermitted => write!(f, "sackOK"),
            Opt::Sack(blocks) => {
                write!(f, "sack")?;
                blocks.iter().try_for_each(|(left, right)| write!(f, " {}:{}", *left as i32, *right as i32))
            }
            Opt::Timestamp(value, echo) => write!(f, "ts {} {}", *value as i32, *echo as i32),
            Opt::FastOpen(cookie) => {
                write!(f, "fo ")?;
                cookie.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
            Opt::Other(bytes) => write!(f, "raw {bytes:02x?}"),
        }
    }
}
