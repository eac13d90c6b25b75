//! Out of a call into a frame. A datagram is finished, headers and all, when it is queued; the queue holds those that
//! wait for room in the device's ring.

use super::{Cutting, Flags, Marks, Way};
use crate::addr::{Endpoint, Flow, Ip};
use crate::buf::{FRAME_SIZE, FrameId, FrameList, TX_HEADROOM};
use crate::engine::{Cause, Engine, TxChecksum, TxFrame};
use crate::ip::tables::{NeighbourState, RouteVerdict};
use crate::ip::{self, Service};
use crate::link::Hop;
use crate::socket::readiness::ROOM_CAME;
use crate::socket::{Errno, Family, Kind};
use crate::wire::{ethernet, ipv4, udp};

/// Datagrams of one stack that may wait for the device. The frames are the stack's, which has others to feed.
const QUEUE_MAX: u32 = 256;
/// Free frames that datagrams leave alone, as writes to connections do.
const RESERVED_FRAMES: u32 = 32;
/// What every host takes in one piece, and so every way (RFC 791 §3.1): smaller packets need not be cut.
const PACKET_MIN: u16 = 576;

/// Finished datagrams, oldest first. What a frame of it is, its record says: `off` and `len` from the Ethernet header on,
/// in `flags` where UDP's header starts, and in `seq` the device's queue.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct SendQueue {
    frames: FrameList,
    /// Somebody waits for room.
    is_waited_for: bool,
    /// It is the datagrams' turn, not the connections'.
    goes_next: bool,
    _pad: [u8; 2],
}

impl SendQueue {
    pub(crate) const EMPTY: SendQueue =
        SendQueue { frames: FrameList::EMPTY, is_waited_for: false, goes_next: false, _pad: [0; 2] };

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(crate) fn frames_held(&self) -> u32 {
        self.frames.frames()
    }

    /// Whether the next frame is a datagram: they and the connections' segments take turns.
    #[inline]
    pub(crate) fn takes_turn(&mut self) -> bool {
        if self.is_empty() {
            return false;
        }
        self.goes_next = !self.goes_next;
        self.goes_next
    }
}

/// Where a datagram is to go, and what the call says about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outgoing {
    /// `None`: to whom the socket is connected.
    pub to: Option<Endpoint>,
    /// From this address of ours (IP_PKTINFO, IPV6_PKTINFO).
    pub source: Option<Ip>,
    pub ttl: Option<u8>,
    pub tos: Option<u8>,
}

/// Who sends a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    Queued,
    /// The caller, through the socket's shadow: it must be cut into fragments, or its destination is not ours to reach.
    ByKernel,
}

impl Engine<'_> {
    /// Sends a datagram of `len` bytes, which `fill` writes. EAGAIN: there is no room now.
    pub(crate) fn send_datagram(
        &mut self,
        index: u32,
        out: &Outgoing,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Sent, Errno> {
        let to = self.recipient(index, out)?;
        let error = self.take_error_of(index);
        if error.is_set() {
            return Err(error);
        }
        if self.own(index).mailbox.flags.has(Flags::SEND_SHUT) {
            return Err(Errno::EPIPE);
        }
        let Some((way, source)) =
            self.way_of(index, &to.ip, out.source).filter(|_| self.fits_frame(index, &to.ip, len))
        else {
            self.state.counters.kernel_datagrams += 1;
            return Ok(Sent::ByKernel);
        };
        if !self.has_datagram_room() {
            self.want_room(index);
            return Err(Errno::EAGAIN);
        }
        let frame = self.frames.alloc().ok_or(Errno::EAGAIN)?;
        fill(&mut self.frames.bytes_mut(frame)[TX_HEADROOM..TX_HEADROOM + len]);
        let flow = Flow { local: Endpoint::new(source, self.own(index).local.port), remote: to };
        self.finish_datagram(index, frame, len as u16, &flow, &way, out);
        self.state.datagrams.frames.push_back(&mut self.frames, frame);
        self.state.counters.tx_datagrams += 1;
        Ok(Sent::Queued)
    }

    fn recipient(&self, index: u32, out: &Outgoing) -> Result<Endpoint, Errno> {
        let mailbox = &self.own(index).mailbox;
        match out.to {
            Some(to) if to.port == 0 => Err(Errno::EINVAL),
            Some(to) => Ok(to),
            None if mailbox.is_connected() => Ok(mailbox.remote),
            None => Err(Errno::EDESTADDRREQ),
        }
    }

    /// The way to a destination, and the address to send from; `None` when the kernel has to send.
    fn way_of(&mut self, index: u32, to: &Ip, source: Option<Ip>) -> Option<(Way, Ip)> {
        let (socket, own) = (&self.sockets[index], self.own(index));
        let fits_family =
            if to.is_v4() { socket.family == Family::V4 || !socket.v6only } else { socket.family == Family::V6 };
        if !fits_family || own.local.port == 0 || to.is_link_local_v6() {
            return None;
        }
        let bound = Some(own.local.ip).filter(|ip| !ip.is_unspecified());
        let known = own.mailbox.way;
        let way = if known.destination == *to && known.generation == self.state.net.generation() {
            known
        } else {
            self.find_way(to).inspect(|way| self.own_mut(index).mailbox.way = *way)?
        };
        match source.filter(|ip| !ip.is_unspecified()).or(bound) {
            None => self.state.net.addresses().get(usize::from(way.source)).map(|address| (way, address.ip)),
            Some(ip) => (ip.is_v4() == to.is_v4() && self.state.net.is_local(&ip)).then_some((way, ip)),
        }
    }

    fn find_way(&mut self, to: &Ip) -> Option<Way> {
        let net = &mut self.state.net;
        let RouteVerdict::Via { next_hop, src, tags } = net.route(to) else { return None };
        let (state, mac) = net.neighbour(&next_hop, tags);
        if state == NeighbourState::Reachable {
            let source = net.addresses().iter().position(|address| address.ip == src)?;
            let (hop, generation) = (Hop::new(mac, tags), net.generation());
            return Some(Way { destination: *to, hop, source: source as u16, generation });
        }
        // The kernel sends meanwhile, and finds the neighbour by that; it is asked all the same, because it may know it
        // already while our table does not. A subnet's broadcast address has no MAC to find.
        let is_broadcast = net.addresses().iter().any(|a| a.ip.is_v4() && is_subnet_broadcast(to, &a.ip, a.bits));
        if state == NeighbourState::Unknown && !is_broadcast {
            net.want(&next_hop, tags);
        }
        None
    }

    /// Whether the datagram goes in one frame and one packet.
    pub(super) fn fits_frame(&self, index: u32, to: &Ip, len: usize) -> bool {
        let packet = ip::header_len(to) + udp::HEADER_LEN + len;
        let mtu = match self.own(index).mailbox.marks.ipv6_mtu {
            own if own != 0 && !to.is_v4() => own.min(self.state.config.mtu),
            _ => self.state.config.mtu,
        };
        len <= FRAME_SIZE - TX_HEADROOM && packet <= usize::from(mtu)
    }

    pub(crate) fn has_datagram_room(&self) -> bool {
        self.state.datagrams.frames.frames() < QUEUE_MAX && self.frames.free_count() > RESERVED_FRAMES
    }

    /// Whether `n` datagrams at once would find room.
    pub(crate) fn has_room_for_datagrams(&self, n: u32) -> bool {
        self.state.datagrams.frames.frames().saturating_add(n) <= QUEUE_MAX
            && self.frames.free_count() >= RESERVED_FRAMES.saturating_add(n)
    }

    /// A sender found no room: it is told when there is some.
    pub(crate) fn note_datagram_waits(&mut self) {
        self.state.datagrams.is_waited_for = true;
        self.state.starved |= self.frames.free_count() <= RESERVED_FRAMES;
    }

    /// Puts the headers in front of the payload, and into the frame's record what is to be sent.
    fn finish_datagram(&mut self, index: u32, frame: FrameId, len: u16, flow: &Flow, way: &Way, out: &Outgoing) {
        let is_v4 = flow.remote.ip.is_v4();
        let mailbox = &self.own(index).mailbox;
        let Marks { ttl, tos, hop_limit, traffic_class, cutting, .. } = mailbox.marks;
        let queue = mailbox.rx_queue;
        let (ttl, tos) = if is_v4 { (ttl, tos) } else { (hop_limit, traffic_class) };
        let service = Service { ttl: out.ttl.unwrap_or(ttl), tos: out.tos.unwrap_or(tos) };
        let network_len = ip::header_len(&flow.remote.ip);
        let datagram_len = len + udp::HEADER_LEN as u16;
        let is_narrow = mailbox.flags.has(Flags::NARROW_PATH) && network_len as u16 + datagram_len > PACKET_MIN;
        let may_fragment = match cutting {
            Cutting::ByPath => is_narrow,
            Cutting::Never => false,
            Cutting::Always | Cutting::Unasked => true,
        };
        let ether_len = ethernet::HEADER_LEN + way.hop.tags.len();
        let headers = ether_len + network_len;
        let off = TX_HEADROOM - udp::HEADER_LEN - headers;
        let in_full = self.state.config.tx_checksum == TxChecksum::Full;
        let total = headers + usize::from(datagram_len);
        let bytes = &mut self.frames.bytes_mut(frame)[off..off + total];
        let (front, datagram) = bytes.split_at_mut(headers);
        udp::emit(flow.local.port, flow.remote.port, len, datagram);
        udp::seal(&flow.local.ip, &flow.remote.ip, datagram, in_full);
        let (ether, network) = front.split_at_mut(ether_len);
        ip::transmit_datagram(flow, service, datagram_len, network);
        if is_v4 && may_fragment {
            self.state.identification = self.state.identification.wrapping_add(1).max(1);
            ipv4::allow_fragments(network, self.state.identification);
        }
        let ethertype = if is_v4 { ethernet::IPV4 } else { ethernet::IPV6 };
        let Hop { mac, tags, .. } = way.hop;
        ethernet::emit(&ethernet::Header { dst: mac, src: self.state.config.mac, tags, ethertype }, ether);
        let meta = self.frames.meta_mut(frame);
        (meta.off, meta.len, meta.flags) = (off as u16, total as u16, headers as u16);
        meta.seq = u32::from(queue);
    }

    /// The next datagram for the device.
    pub(crate) fn poll_datagram(&mut self) -> Option<TxFrame> {
        let frame = self.state.datagrams.frames.pop_front(&mut self.frames)?;
        let meta = self.frames.meta(frame);
        let ready = TxFrame {
            frame,
            off: meta.off,
            len: meta.len,
            transport: meta.flags as u8,
            checksum: udp::CHECKSUM_AT as u8,
            queue: meta.seq as u8,
        };
        self.frames.mark_in_tx(frame);
        self.frames.release(frame);
        if self.state.datagrams.is_waited_for && self.state.datagrams.frames.frames() <= QUEUE_MAX / 2 {
            self.feed_datagram_senders();
        }
        Some(ready)
    }

    /// Tells those whose datagrams found no room that there is some again.
    pub(crate) fn feed_datagram_senders(&mut self) {
        if !self.has_datagram_room() || !core::mem::take(&mut self.state.datagrams.is_waited_for) {
            return;
        }
        for index in 0..self.sockets.used() {
            let socket = &mut self.sockets[index];
            if socket.kind == Kind::Datagram && core::mem::take(&mut socket.wants_room) {
                self.note_signal(index, Cause::Out);
                self.announce(index, ROOM_CAME);
            }
        }
    }
}

/// Whether `to` is the broadcast address of the subnet that `ours`, with a prefix of `bits` of 128, is in. Subnets of two
/// addresses and of one have none (RFC 3021).
fn is_subnet_broadcast(to: &Ip, ours: &Ip, bits: u8) -> bool {
    let (to, ours) = (u128::from_be_bytes(to.0), u128::from_be_bytes(ours.0));
    let hosts = if (96..127).contains(&bits) { u128::MAX >> bits } else { 0 };
    hosts != 0 && to == ours | hosts
}
