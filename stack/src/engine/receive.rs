//! A frame's way in: link, network, checksum, then one lookup that leads to a connection, a TIME-WAIT, a listener or
//! nobody.

use super::flows::Entry;
use super::fragments::Arrived;
use super::transmit::{MAC_FALLBACK, MAC_GENERATION};
use super::{Engine, context};
use crate::addr::{Endpoint, Flow};
use crate::buf::FrameId;
use crate::drops::Drop;
use crate::ip::{self, Packet};
use crate::link::{self, Hop};
use crate::socket::{QUEUE_DEPARTED, QUEUE_NONE, QUEUE_SYN};
use crate::tcp::{IcmpKind, ListenVerdict, Seq, TimeWaitVerdict, arrive_at_listen};
use crate::time::Instant;
use crate::udp::Place;
use crate::wire::checksum::Sum;
use crate::wire::icmp;
use crate::wire::tcp::{self, Flags, Segment, reset_for};
use crate::wire::udp;

/// What happened to an accepted frame.
#[derive(Clone, Copy)]
pub(crate) enum Fate {
    /// Somebody else owns it now.
    Taken,
    /// It has served.
    Done,
}

/// Where a segment came from, besides its flow.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) flow: Flow,
    pub(crate) hop: Hop,
    pub(crate) queue: u8,
}

impl Engine<'_> {
    /// A frame arrived: `off..off + len` of it, from the Ethernet header on. It is the engine's from now on.
    pub fn handle_frame(&mut self, now: Instant, frame: FrameId, off: u16, len: u16, rx_queue: u8) {
        self.state.counters.rx_frames += 1;
        self.state.counters.rx_bytes += u64::from(len);
        let result = self.receive(now, frame, off, len, rx_queue);
        self.settle(frame, result);
    }

    /// What becomes of a frame after that.
    pub(super) fn settle(&mut self, frame: FrameId, result: Result<Fate, Drop>) {
        match result {
            Ok(Fate::Taken) => {}
            Ok(Fate::Done) => self.frames.release(frame),
            Err(reason) => {
                self.state.counters.drops.count(reason);
                self.frames.release(frame);
            }
        }
    }

    pub(super) fn receive(
        &mut self,
        now: Instant,
        frame: FrameId,
        off: u16,
        len: u16,
        rx_queue: u8,
    ) -> Result<Fate, Drop> {
        let end = usize::from(off) + usize::from(len);
        let bytes = self.frames.bytes(frame).get(usize::from(off)..end).ok_or(Drop::LinkTooShort)?;
        let received = link::receive(bytes, self.state.config.mac)?;
        if !self.state.net.has_vlan(received.from.tags) {
            return Err(Drop::LinkForeignVlan);
        }
        let packet = match ip::receive(bytes, received.network, received.family) {
            Ok(packet) => packet,
            Err(Drop::IpFragment) => {
                let place = Arrived { frame, start: off, end, queue: rx_queue };
                return self.handle_fragment(now, &place, &received);
            }
            Err(reason) => return Err(reason),
        };
        let payload = &bytes[packet.payload_off..packet.payload_off + packet.payload_len];
        let place = Place { frame, off, network: received.network, queue: rx_queue };
        match packet.protocol {
            ip::TCP => {
                let mut seg = tcp::parse(payload, off + packet.payload_off as u16)?;
                seg.ecn = packet.tos & ip::ecn::MASK;
                if !self.is_checksum_right(&packet, payload) {
                    return Err(Drop::TcpChecksum);
                }
                let ports = tcp::ports(payload).ok_or(Drop::TcpMalformed)?;
                let flow = Flow {
                    local: Endpoint::new(packet.dst, ports.destination),
                    remote: Endpoint::new(packet.src, ports.source),
                };
                self.state.counters.rx_segments += 1;
                self.handle_segment(now, &Origin { flow, hop: received.from, queue: rx_queue }, &seg, frame)
            }
            udp::PROTOCOL => self.handle_datagram(now, place, &packet),
            icmp::PROTOCOL_V4 if packet.dst.is_v4() => {
                let error = icmp::parse_v4(payload)?;
                self.handle_icmp(now, place, &packet, &error)
            }
            icmp::PROTOCOL_V6 if !packet.dst.is_v4() => {
                let error = icmp::parse_v6(payload, &packet.src, &packet.dst)?;
                self.handle_icmp(now, place, &packet, &error)
            }
            _ => Err(Drop::IpProtocol),
        }
    }

    /// In full; or, on a virtual device, the bare pseudo-header sum that a sender leaves who expected hardware to
    /// finish it (DESIGN §7). That form is tried first there: it needs no pass over the payload.
    #[inline(always)]
    fn is_checksum_right(&self, packet: &Packet, segment: &[u8]) -> bool {
        let pseudo = Sum::pseudo_header(&packet.src, &packet.dst, ip::TCP, segment.len() as u16);
        let field = u16::from_be_bytes([segment[16], segment[17]]);
        (self.state.config.device_is_virtual && field == pseudo.fold()) || pseudo.add_bytes(segment).fold() == 0xffff
    }

    #[inline(always)]
    fn handle_segment(&mut self, now: Instant, origin: &Origin, seg: &Segment, frame: FrameId) -> Result<Fate, Drop> {
        match self.lookup(&origin.flow) {
            Some(Entry::Connection(conn)) => self.arrive_at_connection(now, conn, origin, seg, frame),
            Some(Entry::TimeWait(index)) => self.arrive_at_time_wait(now, index, origin, seg, frame),
            None => self.arrive_at_listener(now, origin, seg, frame, None),
        }
    }

    #[inline]
    fn arrive_at_connection(
        &mut self,
        now: Instant,
        conn: u32,
        origin: &Origin,
        seg: &Segment,
        frame: FrameId,
    ) -> Result<Fate, Drop> {
        let link = &mut self.conns[conn].link;
        if link.mac_generation & MAC_FALLBACK != 0 || link.mac_generation & MAC_GENERATION == 0 {
            link.hop = origin.hop;
        }
        link.rx_queue = origin.queue;
        if link.queue != QUEUE_NONE {
            self.arrive_at_queue(now, conn, origin, seg)?;
        }
        let arrival = self.conns[conn].arrive(&mut context!(self, now), seg, frame);
        if seg.has(Flags::SYN) {
            self.keep_cookie(now, conn, seg);
        }
        self.after(now, conn, arrival);
        Ok(Fate::Taken)
    }

    /// Before anybody accepted the connection: whether the segment may be looked at now.
    fn arrive_at_queue(&mut self, now: Instant, conn: u32, origin: &Origin, seg: &Segment) -> Result<(), Drop> {
        match self.conns[conn].link.queue {
            QUEUE_SYN if !seg.has(Flags::RST) && seg.has(Flags::ACK) => self.admit_last_ack(now, conn, origin, seg),
            QUEUE_DEPARTED => Err(Drop::Departed),
            _ => Ok(()),
        }
    }

    fn arrive_at_time_wait(
        &mut self,
        now: Instant,
        index: u32,
        origin: &Origin,
        seg: &Segment,
        frame: FrameId,
    ) -> Result<Fate, Drop> {
        let at = self.state.clock.read(now);
        match self.time_waits[index].arrive(at, &self.state.tunables, seg) {
            TimeWaitVerdict::Drop => Ok(Fate::Done),
            TimeWaitVerdict::Ack(control) => {
                self.reply(&origin.flow, origin.hop, origin.queue, &control);
                Ok(Fate::Done)
            }
            TimeWaitVerdict::Reuse { iss_above } => {
                self.state.counters.time_wait_reused += 1;
                self.end_time_wait(index);
                self.arrive_at_listener(now, origin, seg, frame, Some(iss_above))
            }
            TimeWaitVerdict::Gone => {
                self.end_time_wait(index);
                Ok(Fate::Done)
            }
        }
    }

    /// A segment without a connection: for a listener, or for nobody.
    fn arrive_at_listener(
        &mut self,
        now: Instant,
        origin: &Origin,
        seg: &Segment,
        frame: FrameId,
        iss_above: Option<u32>,
    ) -> Result<Fate, Drop> {
        if !ip::is_possible_source(&origin.flow.remote.ip) {
            return Err(Drop::IpBadSource);
        }
        if !self.state.net.is_local(&origin.flow.local.ip) {
            return Err(Drop::IpNotLocal);
        }
        let Some(listener) = self.find_listener(&origin.flow) else {
            let local = origin.flow.local;
            let is_syn = seg.has(Flags::SYN) && !seg.has(Flags::ACK);
            if is_syn && (self.has_left_port(local.port) || self.may_be_elsewhere(now, local)) {
                return Err(Drop::SynElsewhere);
            }
            let reset = reset_for(seg).ok_or(Drop::RstForNobody)?;
            return Err(self.reset_for_nobody(now, origin, &reset));
        };
        match arrive_at_listen(seg) {
            ListenVerdict::Syn => self.arrive_syn(now, listener, origin, seg, frame, iss_above),
            ListenVerdict::Reset(reset) => {
                if let Some(fate) = self.arrive_cookie(now, listener, origin, seg, frame)? {
                    return Ok(fate);
                }
                Err(self.reset_for_nobody(now, origin, &reset))
            }
            ListenVerdict::Ignore(reason) => Err(reason),
        }
    }

    fn reset_for_nobody(&mut self, now: Instant, origin: &Origin, reset: &tcp::Control) -> Drop {
        self.reply(&origin.flow, origin.hop, origin.queue, reset);
        if self.was_just_reset(now, &origin.flow) { Drop::AfterReset } else { Drop::NoSocket }
    }

    fn handle_icmp(&mut self, now: Instant, place: Place, packet: &Packet, error: &icmp::Error) -> Result<Fate, Drop> {
        if error.protocol == udp::PROTOCOL {
            return self.handle_datagram_error(now, place, packet, error);
        }
        let Some(Entry::Connection(conn)) = self.lookup(&error.flow) else { return Err(Drop::IcmpNoFlow) };
        if self.conns[conn].link.queue == QUEUE_DEPARTED {
            return Err(Drop::Departed);
        }
        let is_v4 = error.flow.remote.ip.is_v4();
        let kind = match error.kind {
            icmp::Kind::NetUnreachable => IcmpKind::NetUnreachable,
            icmp::Kind::HostUnreachable => IcmpKind::HostUnreachable,
            icmp::Kind::PortUnreachable => IcmpKind::PortUnreachable,
            icmp::Kind::ProtocolUnreachable if is_v4 => IcmpKind::ProtocolUnreachable,
            icmp::Kind::TooBig { mtu } => IcmpKind::TooBig { mtu },
            icmp::Kind::Prohibited if !is_v4 => IcmpKind::Prohibited,
            icmp::Kind::Prohibited | icmp::Kind::TimeExceeded => IcmpKind::HostUnreachable,
            icmp::Kind::ProtocolUnreachable | icmp::Kind::ParameterProblem => IcmpKind::ParameterProblem,
        };
        let before = self.conns[conn].path_mtu();
        let arrival = self.conns[conn].handle_icmp(&mut context!(self, now), kind, Seq(error.seq));
        let mtu = self.conns[conn].path_mtu();
        if mtu < before {
            self.state.destinations.note_path_mtu(&error.flow.remote.ip, mtu, now);
        }
        self.after(now, conn, arrival);
        Ok(Fate::Done)
    }
}
