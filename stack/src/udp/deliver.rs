//! Arrivals: a datagram to the queue of its socket.

use super::facts::FACTS_LEN;
use super::{Facts, Flags};
use crate::addr::{Endpoint, Flow};
use crate::buf::{FRAME_SIZE, FrameId};
use crate::drops::Drop;
use crate::engine::{Cause, Engine, Fate};
use crate::ip::{self, Packet};
use crate::socket::readiness::DATA_CAME;
use crate::time::Instant;
use crate::wire::udp;

/// Where an arriving datagram lies in its frame.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) frame: FrameId,
    /// Of the Ethernet header, in the frame.
    pub(crate) off: u16,
    /// Of the IP header, from the Ethernet header on.
    pub(crate) network: usize,
    /// The device's queue.
    pub(crate) queue: u8,
}

/// Time to live, or hop limit.
pub(super) fn ttl_of(header: &[u8], is_v4: bool) -> u8 {
    if is_v4 { header[8] } else { header[7] }
}

impl Engine<'_> {
    /// A datagram for us: `packet` was found in the frame.
    pub(crate) fn handle_datagram(&mut self, now: Instant, place: Place, packet: &Packet) -> Result<Fate, Drop> {
        let start = usize::from(place.off);
        let bytes = &self.frames.bytes(place.frame)[start..];
        let payload = &bytes[packet.payload_off..packet.payload_off + packet.payload_len];
        let header = udp::parse(payload)?;
        let datagram = &payload[..udp::HEADER_LEN + usize::from(header.payload_len)];
        if !udp::is_checksum_right(&packet.src, &packet.dst, datagram, self.state.config.device_is_virtual) {
            return Err(Drop::UdpChecksum);
        }
        if !ip::is_possible_source(&packet.src) {
            return Err(Drop::IpBadSource);
        }
        if !self.state.net.is_local(&packet.dst) {
            return Err(Drop::IpNotLocal);
        }
        let ttl = ttl_of(&bytes[place.network..], packet.dst.is_v4());
        self.state.counters.rx_datagrams += 1;
        let source = Endpoint::new(packet.src, header.source);
        let flow = Flow { local: Endpoint::new(packet.dst, header.destination), remote: source };
        let Some(index) = self.find_mailbox(&flow) else { return self.keep_for_kernel(place, packet) };
        self.check_room(index)?;
        let payload_off = start + packet.payload_off + udp::HEADER_LEN;
        if start < FACTS_LEN {
            return Err(Drop::NoFrame); // No room for the facts: XDP leaves five times as much.
        }
        Facts { source, destination: packet.dst, ttl, tos: packet.tos, arrived: now }
            .put(self.frames.bytes_mut(place.frame));
        let meta = self.frames.meta_mut(place.frame);
        (meta.off, meta.len) = (payload_off as u16, header.payload_len);
        self.own_mut(index).mailbox.rx_queue = place.queue;
        self.push_received(index, place.frame);
        self.note_signal(index, Cause::In);
        self.announce(index, DATA_CAME);
        Ok(Fate::Taken)
    }

    /// SO_RCVBUF bounds what a socket holds, each datagram counted with what Linux would add to it; as there, the one that
    /// crosses the bound is still taken. When frames are few, a socket that holds its share of them gets no more.
    fn check_room(&mut self, index: u32) -> Result<(), Drop> {
        let own = &mut self.unconnected[self.sockets[index].unconnected];
        let in_frames = own.accept_queue.len.saturating_mul(FRAME_SIZE as u32);
        let reason = if own.mailbox.held_bytes > own.options.rcvbuf_bytes {
            Drop::MailboxFull
        } else if in_frames != 0 && in_frames >= self.frames.allowance() {
            Drop::FramePressure
        } else {
            return Ok(());
        };
        own.backlog = own.backlog.wrapping_add(1);
        Err(reason)
    }

    /// Whether a reader need not wait: nothing will come any more.
    pub(crate) fn is_mailbox_shut(&self, index: u32) -> bool {
        self.own(index).mailbox.flags.has(Flags::RECEIVE_SHUT)
    }
}
