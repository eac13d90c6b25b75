//! UDP (RFC 768): datagrams between frames and sockets.
//!
//! - here: a socket's protocol half, its [`Mailbox`], and how a datagram finds it;
//! - [`facts`]: what is kept of a received datagram besides its payload, in its own frame;
//! - `deliver.rs`: arrivals;
//! - `errors.rs`: what routers and hosts say of datagrams, and the error queue;
//! - `coalesce.rs`: several datagrams for one receive (UDP_GRO);
//! - `foreign.rs`: datagrams that are for the kernel after all;
//! - `steered.rs`: which ports have their datagrams come here;
//! - `send.rs`: out of a call into a frame, and the queue of those that wait for the device.
//!
//! What is not for this stack to do stays with the kernel: fragments either way, multicast and broadcast, destinations
//! that are not behind the device or whose MAC is not known. The socket's shadow sends and receives those.

mod coalesce;
mod deliver;
mod errors;
mod facts;
mod foreign;
mod send;
mod steered;
#[cfg(test)]
mod tests;

pub use coalesce::Others;
pub(crate) use deliver::Place;
pub use errors::Reported;
pub use facts::Facts;
pub(crate) use send::SendQueue;
pub use send::{Outgoing, Sent};
pub use steered::{DatagramPorts, PORTS};

use crate::addr::{Endpoint, Flow, Ip, Mac};
use crate::buf::{FRAME_SIZE, FrameId, Frames};
use crate::engine::{Engine, Queue, flow_hash};
use crate::link::{Hop, Tags};
use crate::slab::NONE;
use crate::socket::{Family, Kind, ProcId, Socket, Unconnected};

/// Chains of datagram sockets, by local port.
pub(crate) const PORT_BUCKETS: usize = 256;

/// What UDP keeps of a socket.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Mailbox {
    /// Whom it is connected to; port 0: to nobody.
    pub(crate) remote: Endpoint,
    pub(crate) flags: Flags,
    /// The device's queue that the last datagram came by: answers leave by it.
    rx_queue: u8,
    /// IP_TTL, IP_TOS, IPV6_UNICAST_HOPS, IPV6_TCLASS.
    pub(crate) marks: Marks,
    /// What SO_RCVBUF bounds: what the datagrams that wait are counted with.
    pub(crate) held_bytes: u32,
    /// The way that the last datagram took.
    way: Way,
}

/// What a datagram's IP header says besides addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Marks {
    pub ttl: u8,
    pub tos: u8,
    pub hop_limit: u8,
    pub traffic_class: u8,
    pub cutting: Cutting,
    /// IPV6_MTU: the kernel cuts what is longer, as a packet over IPv6; 0 is the device's own.
    pub ipv6_mtu: u16,
}

/// Whether routers may cut up what is sent over IPv4: IP_MTU_DISCOVER.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Cutting {
    /// Once a router has told of a narrower path (IP_PMTUDISC_WANT).
    #[default]
    ByPath,
    /// IP_PMTUDISC_DO and IP_PMTUDISC_PROBE.
    Never,
    /// IP_PMTUDISC_INTERFACE and IP_PMTUDISC_OMIT.
    Always,
    /// IP_PMTUDISC_DONT: and nobody is told of narrower paths.
    Unasked,
}

/// Facts of a mailbox, a bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub(crate) struct Flags(u8);

impl Flags {
    pub(crate) const RECEIVE_SHUT: Flags = Flags(1);
    pub(crate) const SEND_SHUT: Flags = Flags(2);
    /// SO_REUSEPORT: datagrams are spread over the sockets of one endpoint.
    pub(crate) const SHARES_PORT: Flags = Flags(4);

    /// A router on some way told of a smaller MTU than the device's.
    const NARROW_PATH: Flags = Flags(8);
    /// IP_RECVERR, IPV6_RECVERR.
    const KEEPS_ERRORS_V4: Flags = Flags(16);
    const KEEPS_ERRORS_V6: Flags = Flags(32);
    /// UDP_GRO.
    const COALESCES: Flags = Flags(64);

    pub(crate) fn has(self, flag: Flags) -> bool {
        self.0 & flag.0 != 0
    }

    pub(crate) fn put(&mut self, flag: Flags, on: bool) {
        self.0 = self.0 & !flag.0 | if on { flag.0 } else { 0 };
    }
}

/// A way that was looked up: to whom, by which neighbour, from which address of ours (its place in the table). Good while
/// the tables' generation is the same; zeroed, for no destination.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Way {
    destination: Ip,
    hop: Hop,
    source: u16,
    generation: u16,
}

impl Mailbox {
    pub(crate) const EMPTY: Mailbox = Mailbox {
        remote: Endpoint::new(Ip::UNSPECIFIED, 0),
        flags: Flags(0),
        rx_queue: 0,
        held_bytes: 0,
        marks: Marks { ttl: 64, tos: 0, hop_limit: 64, traffic_class: 0, cutting: Cutting::ByPath, ipv6_mtu: 0 },
        way: Way { destination: Ip::UNSPECIFIED, hop: Hop::new(Mac([0; 6]), Tags::NONE), source: 0, generation: 0 },
    };

    pub(crate) fn is_connected(&self) -> bool {
        self.remote.port != 0
    }
}

fn bucket(port: u16) -> usize {
    usize::from(port) % PORT_BUCKETS
}

/// How well a socket fits a datagram's flow; `None`: not at all. Linux's weights (`compute_score`): an address that was
/// bound and a peer that was connected to count more than the family.
fn score(socket: &Socket, own: &Unconnected, flow: &Flow) -> Option<u32> {
    let Unconnected { local, mailbox, .. } = own;
    if local.port != flow.local.port {
        return None;
    }
    let is_own_family = (socket.family == Family::V4) == flow.local.ip.is_v4();
    let mut score = if is_own_family { 2 } else { 1 };
    if !local.ip.is_unspecified() {
        if local.ip != flow.local.ip {
            return None;
        }
        score += 4;
    } else if !is_own_family && (socket.family == Family::V4 || socket.v6only || local.ip.is_v4()) {
        return None;
    }
    if mailbox.is_connected() {
        if mailbox.remote != flow.remote {
            return None;
        }
        score += 8;
    }
    Some(score)
}

impl Engine<'_> {
    /// The sockets of a local port, the one bound last first.
    fn mailboxes_of(&self, port: u16) -> impl Iterator<Item = u32> {
        let mut at = self.state.mailboxes[bucket(port)];
        core::iter::from_fn(move || {
            let index = (at != NONE).then_some(at)?;
            at = self.own(index).listener_next;
            Some(index)
        })
        .filter(move |index| self.own(*index).local.port == port)
    }

    /// Whether a datagram socket of this stack has the local port.
    pub fn has_mailbox(&self, port: u16) -> bool {
        self.mailboxes_of(port).next().is_some()
    }

    /// Whether anybody but this process has one.
    pub fn has_mailbox_of_others(&self, port: u16, holder: ProcId) -> bool {
        self.mailboxes_of(port).any(|index| self.is_held_by_others(index, holder))
    }

    /// The socket for a datagram: the best fit; among equals that share the port the flow's hash decides, else the one
    /// that was bound last has it, as on Linux.
    fn find_mailbox(&self, flow: &Flow) -> Option<u32> {
        let mut best: Option<(u32, u32)> = None;
        let mut equals = 0;
        for index in self.mailboxes_of(flow.local.port) {
            match score(&self.sockets[index], self.own(index), flow) {
                Some(score) if best.is_none_or(|(_, b)| score > b) => (best, equals) = (Some((index, score)), 1),
                Some(score) if best.is_some_and(|(_, b)| score == b) => equals += 1,
                _ => {}
            }
        }
        let (first, best) = best?;
        if equals == 1 || !self.own(first).mailbox.flags.has(Flags::SHARES_PORT) {
            return Some(first);
        }
        let choice = flow_hash(&self.state.config.hash_secret, flow) as usize % equals;
        let is_equal = |index: &u32| score(&self.sockets[*index], self.own(*index), flow) == Some(best);
        self.mailboxes_of(flow.local.port).filter(is_equal).nth(choice)
    }

    /// Puts a socket that has its local endpoint where datagrams find it.
    pub(crate) fn link_mailbox(&mut self, index: u32) {
        let port = self.own(index).local.port;
        self.own_mut(index).listener_next = core::mem::replace(&mut self.state.mailboxes[bucket(port)], index);
        self.steer_here(port);
    }

    pub(crate) fn unlink_mailbox(&mut self, index: u32) {
        let bucket = bucket(self.own(index).local.port);
        self.state.mailboxes[bucket] = self.without_bound(self.state.mailboxes[bucket], index);
    }

    /// Calls `f` with the flow of every connected datagram socket of a local port: what the daemon pins before the port's
    /// buckets move.
    pub fn datagram_flows_of_port(&self, port: u16, mut f: impl FnMut(&Flow)) {
        for index in self.mailboxes_of(port) {
            let own = self.own(index);
            if own.mailbox.is_connected() {
                f(&Flow { local: own.local, remote: own.mailbox.remote });
            }
        }
    }

    /// The socket's end: nothing arrives any more, what waited is gone.
    pub(crate) fn close_mailbox(&mut self, index: u32) {
        debug_assert!(self.sockets[index].kind == Kind::Datagram);
        let port = self.own(index).local.port;
        if port != 0 {
            self.unlink_mailbox(index);
            if !self.has_mailbox(port) {
                self.steer_away(port);
            }
        }
        while let Some(frame) = self.pop_received(index).or_else(|| self.pop_error(index)) {
            self.frames.release(frame);
        }
    }

    /// Puts a datagram behind those that wait.
    fn push_received(&mut self, index: u32, frame: FrameId) {
        let own = &mut self.unconnected[self.sockets[index].unconnected];
        own.mailbox.held_bytes += charge_of(self.frames.meta(frame).len);
        append(&mut own.accept_queue, &mut self.frames, frame);
    }

    /// Takes the oldest datagram.
    pub(crate) fn pop_received(&mut self, index: u32) -> Option<FrameId> {
        let own = &mut self.unconnected[self.sockets[index].unconnected];
        let frame = take_first(&mut own.accept_queue, &self.frames)?;
        own.mailbox.held_bytes -= charge_of(self.frames.meta(frame).len);
        Some(frame)
    }
}

/// What a datagram of so many octets counts against SO_RCVBUF: what Linux counts one with that comes over veth (its
/// `truesize`), and never more, so that a program's buffer holds at least as many here. A frame is taken by each all the
/// same: how many a stack can have is bounded by the frames' own rules.
const fn charge_of(len: u16) -> u32 {
    if len <= SMALL {
        832
    } else if len <= MIDDLING {
        1280
    } else {
        FRAME_SIZE as u32
    }
}

const SMALL: u16 = 192;
const MIDDLING: u16 = 704;

/// Datagrams of a socket, and its errors, are queues of frames, linked through their records.
fn append(queue: &mut Queue, frames: &mut Frames<'_>, frame: FrameId) {
    frames.meta_mut(frame).next = NONE;
    match queue.tail {
        NONE => queue.head = frame,
        tail => frames.meta_mut(tail).next = frame,
    }
    queue.tail = frame;
    queue.len += 1;
}

fn take_first(queue: &mut Queue, frames: &Frames<'_>) -> Option<FrameId> {
    let frame = Some(queue.head).filter(|head| *head != NONE)?;
    queue.head = frames.meta(frame).next;
    if queue.head == NONE {
        queue.tail = NONE;
    }
    queue.len -= 1;
    Some(frame)
}
