//! Frames for tests, put together header by header.
//!
//! Lengths are filled in by what is put inside; checksums are zero, which nobody here looks at.

/// An Ethernet frame around `payload`.
pub(crate) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `frame` with a VLAN tag of this ethertype in front of its own.
pub(crate) fn tagged(tag: u16, frame: &[u8]) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    out.extend(tag.to_be_bytes());
    out.extend([0, 7]);
    out.extend(&frame[12..]);
    out
}

/// An IPv4 packet; `options` are padded by the caller to a multiple of four.
pub(crate) fn ipv4(source: [u8; 4], destination: [u8; 4], proto: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend([0, 1, 0x40, 0, 64, proto, 0, 0]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// An IPv6 packet; `payload` starts with the header that `next` names.
pub(crate) fn ipv6(source: [u8; 16], destination: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(payload);
    packet
}

/// A TCP header with these flags, and nothing behind it.
pub(crate) fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut header = ports(source, destination);
    header.extend([0; 8]);
    header.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

/// A UDP datagram.
pub(crate) fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = ports(source, destination);
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// An ICMP (either version) error that quotes `packet`.
pub(crate) fn icmp(kind: u8, code: u8, packet: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend(packet);
    message
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes()].concat()
}

/// TCP flag.
pub(crate) const SYN: u8 = 0x02;
/// TCP flag.
pub(crate) const RST: u8 = 0x04;
/// TCP flag.
pub(crate) const ACK: u8 = 0x10;
