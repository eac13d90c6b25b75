//! Transmission: connections are asked, in turn, for one segment after the other; here the lower headers are added.

use super::{Engine, Queue, TxChecksum, context};
use crate::addr::Flow;
use crate::buf::FrameId;
use crate::ip::tables::{NeighbourState, RouteVerdict};
use crate::ip::{self, Service};
use crate::link::Hop;
use crate::slab::NONE;
use crate::socket::Errno;
use crate::tcp::State;
use crate::time::{Instant, MS};
use crate::wire::checksum::Sum;
use crate::wire::ethernet;

/// A frame to send: `off..off + len` of it, Ethernet header included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct TxFrame {
    pub frame: FrameId,
    pub off: u16,
    pub len: u16,
    /// Where the TCP or UDP header starts, counted from `off`, and where in it the checksum is: for a device that
    /// finishes it.
    pub transport: u8,
    pub checksum: u8,
    /// The queue the flow's frames arrive on.
    pub queue: u8,
}

/// Where the checksum is in a TCP header.
const CHECKSUM_AT: u8 = 16;
/// Segments a connection may send before it is the next one's turn.
const TURN: u32 = 8;
/// How long a connection waits before it asks for its neighbour's MAC again.
const NEIGHBOUR_RETRY_US: u64 = 10 * MS;

/// `Links::mac_generation`: the tables' generation, and whether the MAC is not from them but from the peer's frames.
pub(super) const MAC_GENERATION: u16 = 0x7fff;
pub(super) const MAC_FALLBACK: u16 = 0x8000;

/// Whether a connection's next hop can be addressed.
enum NextHop {
    Known,
    /// The daemon was asked to resolve it.
    Wanted,
    Failed,
}

impl Engine<'_> {
    /// The next frame to send, marked as being with the kernel; `None` when there is nothing (or no frame) to send.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<TxFrame> {
        if let Some(ready) = self.state.control.pop() {
            self.frames.mark_in_tx(ready.frame);
            self.frames.release(ready.frame);
            return Some(self.count_transmit(ready));
        }
        if self.state.datagrams.takes_turn()
            && let Some(ready) = self.poll_datagram()
        {
            return Some(self.count_transmit(ready));
        }
        while self.state.transmit.head != NONE {
            let conn = self.state.transmit.head;
            match self.next_hop(conn) {
                NextHop::Known => {}
                NextHop::Wanted => {
                    self.wait_for_neighbour(now, conn);
                    continue;
                }
                NextHop::Failed => {
                    self.pop_transmit();
                    self.arm_timer(now, conn);
                    self.fail_unreachable(now, conn);
                    continue;
                }
            }
            let cookie = if self.conns[conn].offers_cookie() { self.cookie_for(now, conn) } else { None };
            let cx = &mut context!(self, now);
            if cookie.is_some() {
                cx.cookie = cookie;
            }
            let tcb = &mut self.conns[conn];
            let Some(out) = tcb.poll_transmit(cx) else {
                self.arm_timer(now, conn); // It may wait for a frame, for its pace, or for the ring.
                if self.frames.free_count() == 0 && self.conns[conn].wants_transmit() {
                    return None; // It has its turn when frames come back.
                }
                self.pop_transmit();
                continue;
            };
            let (flow, hop, queue, ttl) = (*tcb.flow(), tcb.link.hop, tcb.link.rx_queue, tcb.options().ttl);
            self.end_turn(now, conn);
            let service = self.service(out.tos, ttl);
            let ready = self.finish_frame(
                &flow,
                hop,
                service,
                TxFrame { frame: out.frame, off: out.off, len: out.len, queue, ..TxFrame::default() },
            );
            self.frames.mark_in_tx(out.frame);
            if !out.keep {
                self.frames.release(out.frame);
            }
            return Some(self.count_transmit(ready));
        }
        let ready = self.poll_datagram()?;
        Some(self.count_transmit(ready))
    }

    /// After a segment of the connection at the front: does it stay, go to the back, or leave the list?
    fn end_turn(&mut self, now: Instant, conn: u32) {
        self.arm_timer(now, conn);
        self.state.turn += 1;
        if !self.conns[conn].wants_transmit() {
            self.pop_transmit();
        } else if self.state.turn >= TURN && self.state.transmit.len > 1 {
            self.pop_transmit();
            self.push_transmit(conn);
        }
    }

    fn count_transmit(&mut self, frame: TxFrame) -> TxFrame {
        self.state.counters.tx_frames += 1;
        self.state.counters.tx_bytes += u64::from(frame.len);
        frame
    }

    /// `ttl` 0 is the tunables'.
    pub(crate) fn service(&self, tos: u8, ttl: u8) -> Service {
        Service { tos, ttl: if ttl == 0 { self.state.tunables.ttl as u8 } else { ttl } }
    }

    /// Completes a TCP segment that lies in a frame: its checksum, and the IP and Ethernet headers in front of it.
    pub(crate) fn finish_frame(&mut self, flow: &Flow, hop: Hop, service: Service, segment: TxFrame) -> TxFrame {
        let config = &self.state.config;
        let ether_len = ethernet::HEADER_LEN + hop.tags.len();
        let headers = ether_len + ip::header_len(&flow.remote.ip);
        let (off, len) = (usize::from(segment.off) - headers, usize::from(segment.len) + headers);
        let bytes = &mut self.frames.bytes_mut(segment.frame)[off..off + len];
        let (front, tcp) = bytes.split_at_mut(headers);
        let pseudo = Sum::pseudo_header(&flow.local.ip, &flow.remote.ip, ip::TCP, segment.len);
        let checksum = match config.tx_checksum {
            TxChecksum::Full => pseudo.add_bytes(tcp).checksum(),
            TxChecksum::PseudoHeader => pseudo.fold(),
        };
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        let (ether, network) = front.split_at_mut(ether_len);
        ip::transmit(flow, service, segment.len, network);
        let ethertype = if flow.remote.ip.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 };
        ethernet::emit(&ethernet::Header { dst: hop.mac, src: config.mac, tags: hop.tags, ethertype }, ether);
        TxFrame { off: off as u16, len: len as u16, transport: headers as u8, checksum: CHECKSUM_AT, ..segment }
    }

    /// Makes sure that the connection's cached MAC is as fresh as the tables. One comparison, unless they changed.
    #[inline]
    fn next_hop(&mut self, conn: u32) -> NextHop {
        if self.conns[conn].link.mac_generation & MAC_GENERATION == self.state.net.generation() {
            return NextHop::Known;
        }
        self.resolve(conn)
    }

    fn resolve(&mut self, conn: u32) -> NextHop {
        let net = &mut self.state.net;
        let remote = self.conns[conn].flow().remote.ip;
        let link = &mut self.conns[conn].link;
        let next_hop = match net.route(&remote) {
            RouteVerdict::Via { next_hop, tags, .. } => Some((next_hop, tags)),
            RouteVerdict::NotOurs | RouteVerdict::Unreachable => None,
        };
        let (state, hop) = match next_hop {
            Some((ip, tags)) => {
                let (state, mac) = net.neighbour(&ip, tags);
                (state, Hop::new(mac, tags))
            }
            None => (NeighbourState::Failed, Hop::default()),
        };
        if state == NeighbourState::Reachable {
            (link.hop, link.mac_generation) = (hop, net.generation());
            return NextHop::Known;
        }
        if let (NeighbourState::Unknown, Some((ip, tags))) = (state, next_hop) {
            net.want(&ip, tags);
        }
        if link.hop.is_known() {
            // The peer was heard from: the way back is where its frames come from.
            link.mac_generation = net.generation() | MAC_FALLBACK;
            return NextHop::Known;
        }
        if state == NeighbourState::Failed { NextHop::Failed } else { NextHop::Wanted }
    }

    /// Moves the connection at the front to those that wait for the daemon.
    fn wait_for_neighbour(&mut self, now: Instant, conn: u32) {
        self.state.counters.drops.count(crate::drops::Drop::NeighbourUnresolved);
        self.pop_transmit();
        self.arm_timer(now, conn);
        self.state.daemon_told = false;
        if self.state.waiting.is_empty() {
            self.state.waiting_until = now.after_us(NEIGHBOUR_RETRY_US);
            self.state.waiting_generation = self.state.net.generation();
        }
        self.conns[conn].link.in_transmit = true;
        let mut waiting = self.state.waiting;
        self.push_by_transmit_link(&mut waiting, conn);
        self.state.waiting = waiting;
    }

    pub(super) fn waiting_deadline(&self) -> Option<Instant> {
        (!self.state.waiting.is_empty()).then_some(self.state.waiting_until)
    }

    /// Lets those that wait for a neighbour try again: when the tables changed, or after a while.
    pub(super) fn retry_waiting(&mut self, now: Instant) {
        let changed = self.state.waiting_generation != self.state.net.generation();
        if self.state.waiting.is_empty() || (now < self.state.waiting_until && !changed) {
            return;
        }
        let mut conn = core::mem::replace(&mut self.state.waiting, Queue::EMPTY).head;
        while conn != NONE {
            let next = self.conns[conn].link.transmit_next;
            self.conns[conn].link.in_transmit = false;
            self.push_transmit(conn);
            conn = next;
        }
    }

    /// The daemon found no way to the peer of a connection that never heard from it: connect() fails as on Linux.
    fn fail_unreachable(&mut self, now: Instant, conn: u32) {
        self.state.counters.drops.count(crate::drops::Drop::NoRoute);
        if self.conns[conn].state() != State::SynSent {
            return;
        }
        let socket = self.conns[conn].link.socket;
        if socket != NONE {
            self.sockets[socket].error = Errno::EHOSTUNREACH;
        }
        self.abort_connection(now, conn);
    }

    /// Puts a connection at the back of those that may have something to send.
    pub(crate) fn push_transmit(&mut self, conn: u32) {
        if !self.conns[conn].link.in_transmit {
            self.append_transmit(conn);
        }
    }

    pub(super) fn append_transmit(&mut self, conn: u32) {
        self.conns[conn].link.in_transmit = true;
        let mut list = self.state.transmit;
        self.push_by_transmit_link(&mut list, conn);
        self.state.transmit = list;
    }

    fn push_by_transmit_link(&mut self, list: &mut Queue, conn: u32) {
        self.conns[conn].link.transmit_next = NONE;
        match list.tail {
            NONE => list.head = conn,
            tail => self.conns[tail].link.transmit_next = conn,
        }
        list.tail = conn;
        list.len += 1;
    }

    fn pop_transmit(&mut self) {
        let list = &mut self.state.transmit;
        let link = &mut self.conns[list.head].link;
        list.head = link.transmit_next;
        if list.head == NONE {
            list.tail = NONE;
        }
        list.len -= 1;
        (link.in_transmit, link.transmit_next) = (false, NONE);
        self.state.turn = 0;
    }

    /// Takes a connection out of whichever of the two lists it is in. It walks them: connections seldom end with
    /// something to send.
    pub(crate) fn forget_transmit(&mut self, conn: u32) {
        if !core::mem::take(&mut self.conns[conn].link.in_transmit) {
            return;
        }
        let lists = [self.state.transmit, self.state.waiting].map(|list| self.without(list, conn));
        [self.state.transmit, self.state.waiting] = lists;
        self.conns[conn].link.transmit_next = NONE;
    }

    fn without(&mut self, mut list: Queue, conn: u32) -> Queue {
        let (mut before, mut at) = (NONE, list.head);
        while at != NONE && at != conn {
            (before, at) = (at, self.conns[at].link.transmit_next);
        }
        if at == NONE {
            return list;
        }
        let next = self.conns[conn].link.transmit_next;
        match before {
            NONE => list.head = next,
            before => self.conns[before].link.transmit_next = next,
        }
        if next == NONE {
            list.tail = before;
        }
        list.len -= 1;
        list
    }
}
