//! The one thing that a router of the model says: that a packet was too big.

use super::alloc::vec::Vec;
use crate::addr::Ip;
use crate::wire::checksum::Sum;
use crate::wire::ethernet;

const ROUTER_V4: [u8; 4] = [10, 0, 0, 254];
/// What of the packet is quoted: enough for any header.
const QUOTE_MAX: usize = 128;

/// The answer to a frame that does not fit: to its sender, about it.
pub(crate) fn too_big(frame: &[u8], mtu: u16) -> Option<Vec<u8>> {
    let packet = frame.get(ethernet::HEADER_LEN..)?;
    let mut out = Vec::new();
    out.extend_from_slice(frame.get(6..12)?);
    out.extend_from_slice(&[2, 0, 0, 0, 0, 254]);
    out.extend_from_slice(&frame[12..14]);
    match packet.first()? >> 4 {
        4 => too_big_v4(packet, mtu, &mut out)?,
        6 => too_big_v6(packet, mtu, &mut out)?,
        _ => return None,
    }
    Some(out)
}

fn too_big_v4(packet: &[u8], mtu: u16, out: &mut Vec<u8>) -> Option<()> {
    let quote = &packet[..packet.len().min(QUOTE_MAX)];
    let mut message = Vec::from([3, 4, 0, 0, 0, 0]);
    message.extend_from_slice(&mtu.to_be_bytes());
    message.extend_from_slice(quote);
    let sum = Sum::ZERO.add_bytes(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut header = [0; 20];
    (header[0], header[8], header[9]) = (0x45, 64, 1);
    header[2..4].copy_from_slice(&(20 + message.len() as u16).to_be_bytes());
    header[12..16].copy_from_slice(&ROUTER_V4);
    header[16..20].copy_from_slice(packet.get(12..16)?);
    let sum = Sum::ZERO.add_bytes(&header).checksum();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    out.extend_from_slice(&header);
    out.append(&mut message);
    Some(())
}

fn too_big_v6(packet: &[u8], mtu: u16, out: &mut Vec<u8>) -> Option<()> {
    let quote = &packet[..packet.len().min(QUOTE_MAX)];
    let (mut router, mut sender) = (Ip([0; 16]), Ip([0; 16]));
    (router.0[0], router.0[15]) = (0xfd, 254);
    sender.0.copy_from_slice(packet.get(8..24)?);
    let mut message = Vec::from([2, 0, 0, 0, 0, 0]);
    message.extend_from_slice(&mtu.to_be_bytes());
    message.extend_from_slice(quote);
    let sum = Sum::pseudo_header(&router, &sender, 58, message.len() as u16).add_bytes(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut header = [0; 40];
    (header[0], header[6], header[7]) = (0x60, 58, 64);
    header[4..6].copy_from_slice(&(message.len() as u16).to_be_bytes());
    header[8..24].copy_from_slice(&router.0);
    header[24..40].copy_from_slice(&sender.0);
    out.extend_from_slice(&header);
    out.append(&mut message);
    Some(())
}
