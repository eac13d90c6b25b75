//! Segments that come in fragments: held until they are whole, then handled like any other.
//!
//! The kernel cannot do it, which has no connection for them. Our maximum segment size makes a whole segment fit in a
//! frame, so it is put together in the frame of its first fragment. What a stranger can have held is bounded: so many packets in so
//! many parts, for so long; a packet in overlapping parts is dropped whole (RFC 8200 §4.5, RFC 5722).
//!
//! Deviations: nothing is told to the sender of a packet that stays incomplete (RFC 1122 §3.3.2, RFC 8200 §4.5 ask for an
//! ICMP error; for TCP it would be of no use), and it is held for 30 s, as by Linux, instead of 60.

use super::{Engine, Fate};
use crate::addr::Ip;
use crate::buf::{FRAME_SIZE, FrameId, Pressure};
use crate::drops::Drop;
use crate::ip::{self, ecn};
use crate::link::Received;
use crate::time::{Instant, SEC};
use crate::wire::fragment::{self, Fragment};

/// Packets in the making, and the parts of one.
const PACKETS: usize = 16;
const PARTS: usize = 8;
/// How long a packet is waited for.
const LIFETIME_US: u64 = 30 * SEC;

/// A fragment in its frame: where that starts, its IP header and its payload are.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Part {
    frame: FrameId,
    start: u16,
    network: u16,
    at: u16,
    len: u16,
    offset: u16,
    _pad: u16,
}

/// A packet in the making; one without parts is a free place.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Incomplete {
    until: Instant,
    src: Ip,
    dst: Ip,
    id: u32,
    /// Bytes of payload, once the last part is there; else 0.
    total: u16,
    count: u8,
    /// The whole's mark: CE if one fragment had it (RFC 3168 §5.3), else 0.
    ecn: u8,
    parts: [Part; PARTS],
}

const FREE: Incomplete = Incomplete {
    until: Instant::ZERO,
    src: Ip::UNSPECIFIED,
    dst: Ip::UNSPECIFIED,
    id: 0,
    total: 0,
    count: 0,
    ecn: 0,
    parts: [Part { frame: 0, start: 0, network: 0, at: 0, len: 0, offset: 0, _pad: 0 }; PARTS],
};

/// A stack's packets in the making.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Fragments {
    packets: [Incomplete; PACKETS],
    /// Places that are taken.
    count: u32,
    _pad: u32,
}

impl Fragments {
    pub(crate) const EMPTY: Fragments = Fragments { packets: [FREE; PACKETS], count: 0, _pad: 0 };

    pub(super) fn frames_held(&self) -> u32 {
        self.packets.iter().map(|p| u32::from(p.count)).sum()
    }

    /// When the oldest is given up.
    #[inline]
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.count == 0 {
            return None;
        }
        self.packets.iter().filter(|p| p.count != 0).map(|p| p.until).min()
    }
}

/// Where a fragment is: `start..end` of a frame, from the Ethernet header on, that came by a queue.
#[derive(Clone, Copy)]
pub(super) struct Arrived {
    pub(super) frame: FrameId,
    pub(super) start: u16,
    pub(super) end: usize,
    pub(super) queue: u8,
}

impl Engine<'_> {
    /// A packet that is a fragment.
    #[cold]
    pub(super) fn handle_fragment(&mut self, now: Instant, place: &Arrived, received: &Received) -> Result<Fate, Drop> {
        let network = usize::from(place.start) + received.network;
        let bytes = self.frames.bytes(place.frame).get(network..place.end).ok_or(Drop::IpMalformed)?;
        let fragment = fragment::parse(bytes, received.family)?;
        if fragment.protocol != ip::TCP {
            return Err(Drop::IpFragment);
        }
        let part = Part {
            frame: place.frame,
            start: place.start,
            network: network as u16,
            at: (network + fragment.at) as u16,
            len: fragment.len,
            offset: fragment.offset,
            _pad: 0,
        };
        if fragment.offset == 0 && !fragment.more {
            // Whole by itself, whatever else has its number (RFC 6946 §4).
            self.finish(now, &part, &fragment, usize::from(fragment.len), 0, place.queue);
            return Ok(Fate::Taken);
        }
        if self.frames.pressure() >= Pressure::Critical {
            return Err(Drop::FramePressure);
        }
        self.expire_fragments(now);
        let index = self.place_for(now, &fragment);
        self.keep_part(index, &part, &fragment)?;
        self.put_together(now, index, place.queue);
        Ok(Fate::Taken)
    }

    /// Where the fragment's packet is in the making; or a place for it, if need be that of the oldest.
    fn place_for(&mut self, now: Instant, fragment: &Fragment) -> usize {
        let is_same =
            |p: &Incomplete| p.count != 0 && p.id == fragment.id && p.src == fragment.src && p.dst == fragment.dst;
        let packets = &self.state.fragments.packets;
        if let Some(index) = packets.iter().position(is_same) {
            return index;
        }
        let (mut index, mut oldest) = (0, Instant::from_micros(u64::MAX));
        for (i, packet) in packets.iter().enumerate() {
            let age = if packet.count == 0 { Instant::ZERO } else { packet.until };
            if age < oldest {
                (index, oldest) = (i, age);
            }
        }
        if self.state.fragments.packets[index].count != 0 {
            self.give_up(index, Drop::FragmentsIncomplete);
        }
        let until = now.after_us(LIFETIME_US);
        self.state.fragments.packets[index] =
            Incomplete { until, src: fragment.src, dst: fragment.dst, id: fragment.id, ..FREE };
        index
    }

    /// Puts a part to the others, if it goes with them. One that does not is the end of all.
    fn keep_part(&mut self, index: usize, part: &Part, fragment: &Fragment) -> Result<(), Drop> {
        let packet = &mut self.state.fragments.packets[index];
        let parts = &packet.parts[..usize::from(packet.count)];
        if parts.iter().any(|p| (p.offset, p.len) == (part.offset, part.len)) {
            return Err(Drop::Duplicate);
        }
        let end = fragment.end();
        let total = if fragment.more { usize::from(packet.total) } else { end };
        let ends_differ = !fragment.more && packet.total != 0;
        let overlaps = |p: &Part| {
            let (from, to) = (usize::from(p.offset), usize::from(p.offset) + usize::from(p.len));
            from < end && usize::from(part.offset) < to
        };
        let beyond = |to: usize| total != 0 && to > total;
        let is_wrong = parts.len() == PARTS
            || ends_differ
            || beyond(end)
            || parts.iter().any(|p| overlaps(p) || beyond(usize::from(p.offset) + usize::from(p.len)));
        if is_wrong {
            self.give_up(index, Drop::FragmentsOverlap);
            return Err(Drop::FragmentsOverlap);
        }
        self.state.fragments.count += u32::from(packet.count == 0);
        packet.parts[usize::from(packet.count)] = *part;
        packet.count += 1;
        packet.total = total as u16;
        if fragment.tos & ecn::MASK == ecn::CE {
            packet.ecn = ecn::CE;
        }
        Ok(())
    }

    /// Handles the packet if nothing is missing. Parts do not overlap, so their sum says so.
    fn put_together(&mut self, now: Instant, index: usize, queue: u8) {
        let packet = self.state.fragments.packets[index];
        let parts = &packet.parts[..usize::from(packet.count)];
        let total = usize::from(packet.total);
        if total == 0 || parts.iter().map(|p| usize::from(p.len)).sum::<usize>() != total {
            return;
        }
        let Some(first) = parts.iter().find(|p| p.offset == 0) else { return };
        let network = usize::from(first.network);
        let family = if packet.src.is_v4() { crate::link::Family::V4 } else { crate::link::Family::V6 };
        let end = usize::from(first.at) + usize::from(first.len);
        let header = fragment::parse(&self.frames.bytes(first.frame)[network..end], family);
        let (Ok(header), true) = (header, usize::from(first.at) + total <= FRAME_SIZE) else {
            return self.give_up(index, Drop::FragmentsTooLong);
        };
        for part in parts.iter().filter(|p| p.offset != 0) {
            self.frames.copy_bytes((part.frame, part.at), (first.frame, first.at + part.offset), part.len);
            self.frames.release(part.frame);
        }
        self.forget(index);
        self.finish(now, first, &header, total, packet.ecn, queue);
    }

    /// The packet that is whole in the frame of its first fragment goes its way.
    fn finish(&mut self, now: Instant, first: &Part, header: &Fragment, total: usize, mark: u8, queue: u8) {
        let network = usize::from(first.network);
        let bytes = &mut self.frames.bytes_mut(first.frame)[network..];
        let len = network - usize::from(first.start) + fragment::make_whole(bytes, header, total, mark);
        self.state.counters.reassembled += 1;
        let result = self.receive(now, first.frame, first.start, len as u16, queue);
        self.settle(first.frame, result);
    }

    /// Lets go of what is too old.
    pub(super) fn expire_fragments(&mut self, now: Instant) {
        if self.state.fragments.count == 0 {
            return;
        }
        for index in 0..PACKETS {
            let packet = &self.state.fragments.packets[index];
            if packet.count != 0 && packet.until <= now {
                self.give_up(index, Drop::FragmentsIncomplete);
            }
        }
    }

    fn give_up(&mut self, index: usize, reason: Drop) {
        let packet = self.state.fragments.packets[index];
        for part in &packet.parts[..usize::from(packet.count)] {
            self.frames.release(part.frame);
        }
        self.state.counters.drops.count(reason);
        self.forget(index);
    }

    fn forget(&mut self, index: usize) {
        let fragments = &mut self.state.fragments;
        fragments.count = fragments.count.saturating_sub(u32::from(fragments.packets[index].count != 0));
        fragments.packets[index] = FREE;
    }
}
