//! Datagrams that XDP steered here by their port, and that no socket of this stack takes: the kernel may have one for them,
//! bound to another address of the same port. The daemon gives them to it. There they go to that socket, or their sender
//! gets the ICMP error that is due.

use super::Place;
use crate::buf::{FRAME_SIZE, FrameId};
use crate::drops::Drop;
use crate::engine::{Engine, Fate};
use crate::ip::Packet;
use crate::wire::udp;

/// Datagrams that wait for the daemon; more are lost.
const FOREIGN_MAX: u32 = 64;

impl Engine<'_> {
    /// Keeps the packet for the daemon, finished as for a host that trusts no device with checksums.
    pub(super) fn keep_for_kernel(&mut self, place: Place, packet: &Packet) -> Result<Fate, Drop> {
        let are_scarce = self.frames.allowance() != u32::MAX;
        if are_scarce || self.state.foreign_datagrams.frames() >= FOREIGN_MAX {
            return Err(Drop::NoMailbox);
        }
        let start = usize::from(place.off);
        let end = packet.payload_off + packet.payload_len;
        let bytes = &mut self.frames.bytes_mut(place.frame)[start..start + end];
        let payload = &mut bytes[packet.payload_off..];
        let len = udp::HEADER_LEN + usize::from(udp::parse(payload)?.payload_len);
        let datagram = &mut payload[..len];
        let field = &mut datagram[udp::CHECKSUM_AT..udp::HEADER_LEN];
        let has_one = *field != [0, 0];
        if has_one {
            field.fill(0);
            udp::seal(&packet.src, &packet.dst, datagram, true);
        }
        let meta = self.frames.meta_mut(place.frame);
        (meta.off, meta.len) = ((start + place.network) as u16, (end - place.network) as u16);
        self.state.foreign_datagrams.push_back(&mut self.frames, place.frame);
        self.state.counters.foreign_datagrams += 1;
        Ok(Fate::Taken)
    }

    /// Whether the daemon has some to give to the kernel.
    pub fn has_foreign_datagrams(&self) -> bool {
        !self.state.foreign_datagrams.is_empty()
    }

    /// Gives the oldest to `take`, from its IP header on.
    pub fn take_foreign_datagram<T>(&mut self, take: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let frame: FrameId = self.state.foreign_datagrams.pop_front(&mut self.frames)?;
        debug_assert!(self.frames.payload(frame).len() < FRAME_SIZE);
        let taken = take(self.frames.payload(frame));
        self.frames.release(frame);
        Some(taken)
    }
}
