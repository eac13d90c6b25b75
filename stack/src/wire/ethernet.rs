//! Ethernet II, with up to two VLAN tags (IEEE 802.1Q, 802.1ad).

use super::be16;
use crate::addr::Mac;

/// Bytes of the header.
pub const HEADER_LEN: usize = 14;
pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
pub const VLAN: u16 = 0x8100;
pub const QINQ: u16 = 0x88a8;

/// Bytes of one tag.
pub const TAG_LEN: usize = 4;

/// The VLAN tags of a frame: none, one, or two. Priorities are neither kept nor sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Tags(u32);

/// Of a tag's sixteen bits here: it is there; it is a service tag (802.1ad); and its VLAN id.
const TAG: u32 = 1 << 12;
const SERVICE_TAG: u32 = 1 << 13;
const VLAN_ID: u32 = 0xfff;

impl Tags {
    /// An untagged frame.
    pub const NONE: Tags = Tags(0);

    /// These tags with one more behind them, as a VLAN device upon a VLAN device has them. `None`: two are there.
    #[must_use]
    pub fn with(self, vlan: u16, is_service: bool) -> Option<Tags> {
        if self.0 >> 16 != 0 {
            return None;
        }
        let service = if is_service { SERVICE_TAG } else { 0 };
        Some(Tags(self.0 << 16 | TAG | service | u32::from(vlan) & VLAN_ID))
    }

    /// Bytes they take in a frame.
    #[inline]
    pub fn len(self) -> usize {
        match self.0 {
            0 => 0,
            1..=0xffff => TAG_LEN,
            _ => 2 * TAG_LEN,
        }
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// From the outside in.
    fn each(self) -> impl Iterator<Item = (u16, u16)> {
        let ethertype = |tag: u32| if tag & SERVICE_TAG != 0 { QINQ } else { VLAN };
        [self.0 >> 16, self.0 & 0xffff]
            .into_iter()
            .filter(|t| *t != 0)
            .map(move |t| (ethertype(t), (t & VLAN_ID) as u16))
    }
}

impl core::fmt::Debug for Tags {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.each().map(|(_, vlan)| vlan)).finish()
    }
}

/// An Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub dst: Mac,
    pub src: Mac,
    pub tags: Tags,
    pub ethertype: u16,
}

impl Header {
    /// Bytes it takes.
    #[inline]
    pub fn len(&self) -> usize {
        HEADER_LEN + self.tags.len()
    }

    pub fn is_empty(&self) -> bool {
        false
    }
}

/// `None` when the frame ends within its header. A third tag is an ethertype that nobody knows.
#[inline]
pub fn parse(frame: &[u8]) -> Option<Header> {
    let h = frame.get(..HEADER_LEN)?;
    let header = Header {
        dst: Mac([h[0], h[1], h[2], h[3], h[4], h[5]]),
        src: Mac([h[6], h[7], h[8], h[9], h[10], h[11]]),
        tags: Tags::NONE,
        ethertype: be16(h, 12),
    };
    if is_tag(header.ethertype) { parse_tags(header, frame) } else { Some(header) }
}

fn is_tag(ethertype: u16) -> bool {
    ethertype == VLAN || ethertype == QINQ
}

fn parse_tags(mut header: Header, frame: &[u8]) -> Option<Header> {
    while is_tag(header.ethertype) {
        let tag = frame.get(header.len()..header.len() + TAG_LEN)?;
        let Some(tags) = header.tags.with(be16(tag, 0), header.ethertype == QINQ) else { break };
        (header.tags, header.ethertype) = (tags, be16(tag, 2));
    }
    Some(header)
}

/// Writes the header to the first bytes of `out`, [`Header::len`] of them.
#[inline]
pub fn emit(header: &Header, out: &mut [u8]) {
    out[..6].copy_from_slice(&header.dst.0);
    out[6..12].copy_from_slice(&header.src.0);
    let mut at = 12;
    if !header.tags.is_empty() {
        for (ethertype, vlan) in header.tags.each() {
            out[at..at + 2].copy_from_slice(&ethertype.to_be_bytes());
            out[at + 2..at + 4].copy_from_slice(&vlan.to_be_bytes());
            at += TAG_LEN;
        }
    }
    out[at..at + 2].copy_from_slice(&header.ethertype.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_go_there_and_back() {
        let one = Tags::NONE.with(100, false).unwrap();
        let two = Tags::NONE.with(7, true).unwrap().with(4095, false).unwrap();
        for (tags, len, first) in [(Tags::NONE, 14, IPV4), (one, 18, VLAN), (two, 22, QINQ)] {
            let header = Header { dst: Mac([1; 6]), src: Mac([2; 6]), tags, ethertype: IPV4 };
            let mut bytes = [0xee; 64];
            emit(&header, &mut bytes);
            assert_eq!((parse(&bytes), header.len(), be16(&bytes, 12)), (Some(header), len, first));
            assert!(parse(&bytes[..len - 1]).is_none(), "cut within the header");
        }
        assert_eq!(two.with(1, false), None);
    }

    #[test]
    fn priorities_are_dropped_and_a_third_tag_is_unknown() {
        let mut bytes = [0; 64];
        let header = Header { dst: Mac([1; 6]), src: Mac([2; 6]), tags: Tags::NONE, ethertype: VLAN };
        emit(&header, &mut bytes);
        bytes[14..26].copy_from_slice(&[0xe0, 9, 0x81, 0, 0, 8, 0x81, 0, 0, 7, 8, 0]);
        let parsed = parse(&bytes).unwrap();
        assert_eq!(parsed.tags, Tags::NONE.with(9, false).unwrap().with(8, false).unwrap());
        assert_eq!((parsed.ethertype, parsed.len()), (VLAN, 22));
    }
}
