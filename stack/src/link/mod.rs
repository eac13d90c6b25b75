//! The link: Ethernet frames to and from the device's own address.

use crate::addr::Mac;
use crate::drops::Drop;
use crate::wire::ethernet;

pub use crate::wire::ethernet::Tags;

/// Which network protocol a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    V4,
    V6,
}

/// The next stop on the link: whom a frame is addressed to, and on which VLAN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Hop {
    pub mac: Mac,
    _pad: u16,
    pub tags: Tags,
}

impl Hop {
    pub const fn new(mac: Mac, tags: Tags) -> Hop {
        Hop { mac, _pad: 0, tags }
    }

    /// Whether it names anybody.
    pub fn is_known(&self) -> bool {
        self.mac != Mac::default()
    }
}

/// A frame that is for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    pub family: Family,
    /// Who sent it: the way back, should no route say better.
    pub from: Hop,
    /// Where the network header starts in the frame.
    pub network: usize,
}

/// Accepts a frame that is addressed to `ours` (or to a group) and carries IP.
#[inline]
pub fn receive(frame: &[u8], ours: Mac) -> Result<Received, Drop> {
    let header = ethernet::parse(frame).ok_or(Drop::LinkTooShort)?;
    if header.dst != ours && header.dst.0[0] & 1 == 0 {
        return Err(Drop::LinkNotOurs);
    }
    let family = match header.ethertype {
        ethernet::IPV4 => Family::V4,
        ethernet::IPV6 => Family::V6,
        ethernet::VLAN | ethernet::QINQ => return Err(Drop::LinkTagged), // A third one.
        _ => return Err(Drop::LinkNotIp),
    };
    Ok(Received { family, from: Hop::new(header.src, header.tags), network: header.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_for_us_is_named() {
        let ours = Mac([2, 0, 0, 0, 0, 1]);
        let frame = |dst: Mac, ethertype| {
            let mut f = [0; 60];
            let src = Mac([2, 0, 0, 0, 0, 9]);
            ethernet::emit(&ethernet::Header { dst, src, tags: Tags::NONE, ethertype }, &mut f);
            receive(&f, ours)
        };
        let from = Hop::new(Mac([2, 0, 0, 0, 0, 9]), Tags::NONE);
        assert_eq!(frame(ours, ethernet::IPV4), Ok(Received { family: Family::V4, from, network: 14 }));
        assert!(frame(Mac([0x33, 0x33, 0, 0, 0, 1]), ethernet::IPV6).is_ok());
        assert_eq!(frame(Mac([2, 0, 0, 0, 0, 2]), ethernet::IPV4), Err(Drop::LinkNotOurs));
        assert_eq!(frame(ours, ethernet::VLAN), Err(Drop::LinkNotIp), "a tag with nothing behind it");
        assert_eq!(frame(ours, 0x0806), Err(Drop::LinkNotIp));
        assert_eq!(receive(&[0; 13], ours), Err(Drop::LinkTooShort));
    }
}
