//! What is kept of a received datagram besides its payload. It lies in the datagram's own frame, in the room that XDP
//! leaves in front of every packet: no table to size, and nothing to free.

use crate::addr::{Endpoint, Ip};
use crate::time::Instant;

/// What a receiver may want to know of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    pub source: Endpoint,
    /// The address of ours that it was sent to.
    pub destination: Ip,
    /// The hop limit over IPv6, and the traffic class.
    pub ttl: u8,
    pub tos: u8,
    pub arrived: Instant,
}

/// Bytes that they take at the start of a frame.
pub(crate) const FACTS_LEN: usize = 48;

impl Facts {
    pub(crate) fn put(&self, out: &mut [u8]) {
        let out = &mut out[..FACTS_LEN];
        out[..16].copy_from_slice(&self.source.ip.0);
        out[16..32].copy_from_slice(&self.destination.0);
        out[32..40].copy_from_slice(&self.arrived.micros().to_ne_bytes());
        out[40..42].copy_from_slice(&self.source.port.to_ne_bytes());
        out[42..44].copy_from_slice(&[self.ttl, self.tos]);
    }

    pub(crate) fn take(from: &[u8]) -> Facts {
        let from = &from[..FACTS_LEN];
        let mut facts = Facts::default();
        facts.source.ip.0.copy_from_slice(&from[..16]);
        facts.destination.0.copy_from_slice(&from[16..32]);
        let mut micros = [0; 8];
        micros.copy_from_slice(&from[32..40]);
        facts.arrived = Instant::from_micros(u64::from_ne_bytes(micros));
        facts.source.port = u16::from_ne_bytes([from[40], from[41]]);
        (facts.ttl, facts.tos) = (from[42], from[43]);
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_taken() {
        let facts = Facts {
            source: Endpoint::new(Ip([7; 16]), 0x1234),
            destination: Ip::v4([1, 2, 3, 4]),
            ttl: 63,
            tos: 0xb8,
            arrived: Instant::from_micros(0x1122_3344_5566),
        };
        let mut frame = [0xee; 64];
        facts.put(&mut frame);
        assert_eq!(Facts::take(&frame), facts);
        assert_eq!(frame[FACTS_LEN..], [0xee; 16]);
    }
}
