//! A peer that only receives, and a path to it that does to each segment what the test says: the sender's recovery, alone.

use super::harness::*;
use crate::tcp::Seq;
use crate::time::Instant;
use crate::tunables::Tunables;
use crate::wire::tcp::{Flags, SackBlocks, Segment};
use std::collections::BTreeMap;

/// What becomes of a segment on its way to the peer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Arrives,
    Lost,
    /// It takes so many microseconds longer.
    Late(u64),
}

/// A segment of ours, as the path sees it: which one it is of all, its offset in the stream, its length, and how often
/// that offset went before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) at: Instant,
    pub(super) nth: usize,
    pub(super) offset: u32,
    pub(super) len: u32,
    pub(super) times: usize,
}

#[derive(Clone, Debug)]
enum Event {
    Data { offset: u32, len: u32, stamp: Option<u32> },
    Ack { ack: u32, blocks: Vec<(u32, u32)>, stamp: Option<u32> },
}

pub(super) struct Path {
    pub(super) host: Host,
    pub(super) now: Instant,
    pub(super) rtt_us: u64,
    pub(super) sent: Vec<Sent>,
    /// Congestion window and octets in flight, after each acknowledgement.
    pub(super) windows: Vec<(u32, u32)>,
    /// Octets the peer has in order, and what it has beyond them: the newest block first.
    received: u32,
    blocks: Vec<(u32, u32)>,
    sack: bool,
    pub(super) dsack: bool,
    timestamps: bool,
    recent: u32,
    iss: u32,
    under_way: BTreeMap<(u64, usize), Event>,
    count: usize,
    last_len: u32,
}

pub(super) const KIND: [(bool, bool); 4] = [(true, true), (true, false), (false, true), (false, false)];

impl Path {
    pub(super) fn new(sack: bool, timestamps: bool, rtt_ms: u64) -> Path {
        Path::with(sack, timestamps, rtt_ms, OUR_ISS, 1 << 20)
    }

    pub(super) fn with(sack: bool, timestamps: bool, rtt_ms: u64, iss: u32, sndbuf_bytes: u32) -> Path {
        let mut options = wire_options(sack, timestamps);
        options.window_scale = Some(5);
        // Reno's halves are easy to check.
        let tunables = Tunables { congestion: crate::tcp::Algorithm::Reno as u32, ..Tunables::default() };
        let mut host = established_by(tunables, &options, iss, rtt_ms);
        host.tcb.options_mut().sndbuf_bytes = sndbuf_bytes;
        Path {
            host,
            now: at_ms(1000),
            rtt_us: rtt_ms * 1000,
            sent: vec![],
            windows: vec![],
            received: 0,
            blocks: vec![],
            sack,
            dsack: sack,
            timestamps,
            recent: 0,
            iss,
            under_way: BTreeMap::new(),
            count: 0,
            last_len: 0,
        }
    }

    pub(super) fn write(&mut self, n: usize) {
        assert_eq!(self.host.write(self.now, &vec![7; n]), n);
    }

    fn at(&mut self, delay_us: u64, event: Event) {
        self.count += 1;
        self.under_way.insert((self.now.micros() + delay_us, self.count), event);
    }

    fn transmit(&mut self, fate: &mut impl FnMut(&Sent) -> Fate) {
        for seg in self.host.drain(self.now) {
            let offset = seg.seq.since(Seq(self.iss) + 1);
            let times = self.sent.iter().filter(|s| s.offset == offset).count();
            let sent = Sent { at: self.now, nth: self.sent.len(), offset, len: seg.len(), times };
            self.sent.push(sent);
            let late_us = match fate(&sent) {
                Fate::Lost => continue,
                Fate::Arrives => 0,
                Fate::Late(us) => us,
            };
            let stamp = seg.options.timestamp.map(|(value, _)| value);
            self.at(self.rtt_us / 2 + late_us, Event::Data { offset, len: seg.len(), stamp });
        }
    }

    /// The peer takes a segment and answers at once.
    fn take(&mut self, offset: u32, len: u32, stamp: Option<u32>) {
        self.last_len = len;
        let (left, right) = (offset, offset + len);
        let mut blocks = vec![];
        let is_known = |r: u32, b: &[(u32, u32)]| right <= r || b.iter().any(|&(l, e)| l <= left && right <= e);
        if self.dsack && is_known(self.received, &self.blocks) {
            blocks.push((left, right));
        }
        if left <= self.received {
            self.recent = stamp.unwrap_or(0);
        }
        let mut merged = (left, right);
        self.blocks.retain(|&(l, r)| {
            let touches = l <= merged.1 && merged.0 <= r;
            if touches {
                merged = (merged.0.min(l), merged.1.max(r));
            }
            !touches
        });
        if merged.0 <= self.received {
            self.received = self.received.max(merged.1);
        } else {
            self.blocks.insert(0, merged);
        }
        let received = self.received;
        self.blocks.retain(|&(_, r)| r > received);
        let most = if self.timestamps { 3 } else { 4 };
        if self.sack {
            blocks.extend(&self.blocks);
            blocks.truncate(most);
        } else {
            blocks.clear();
        }
        let event = Event::Ack { ack: received, blocks, stamp: self.timestamps.then_some(self.recent) };
        self.at(self.rtt_us / 2, event);
    }

    pub(super) fn acknowledge(&mut self, ack: u32, blocks: &[(u32, u32)], stamp: Option<u32>) {
        let base = Seq(self.iss) + 1;
        let mut seg = Segment { window: u16::MAX, ..segment(PEER_ISS + 1, (base + ack).0, Flags::ACK) };
        let mut sack = SackBlocks::default();
        blocks.iter().for_each(|&(l, r)| assert!(sack.push(base + l, base + r)));
        seg.options.sack = sack;
        seg.options.timestamp = stamp.map(|echo| ((self.now.micros() / 1000) as u32 + 5, echo));
        self.host.arrive(self.now, &seg, b"");
        let info = self.host.tcb.info(self.now);
        self.windows.push((info.snd_cwnd, self.host.tcb.snd.pipe()));
    }

    /// The peer loses its mind: what it has beyond the acknowledgement is gone.
    pub(super) fn renege(&mut self) {
        self.blocks.clear();
    }

    /// The next thing happens; false when nothing will before `end`.
    pub(super) fn step(&mut self, end: Instant, fate: &mut impl FnMut(&Sent) -> Fate) -> bool {
        self.transmit(fate);
        let arrival = self.under_way.keys().next().map(|&(at, _)| Instant::from_micros(at));
        let next = [arrival, self.host.tcb.deadline()].into_iter().flatten().min();
        let Some(next) = next.filter(|&at| at <= end) else { return false };
        self.now = self.now.max(next);
        if arrival == Some(next) {
            match self.under_way.pop_first().unwrap().1 {
                Event::Data { offset, len, stamp } => self.take(offset, len, stamp),
                Event::Ack { ack, blocks, stamp } => self.acknowledge(ack, &blocks, stamp),
            }
        } else {
            self.host.expire(self.now);
        }
        self.transmit(fate);
        true
    }

    /// Until all is acknowledged; how long that took, in round trips times ten.
    pub(super) fn run(&mut self, mut fate: impl FnMut(&Sent) -> Fate) -> u64 {
        let start = self.now;
        self.transmit(&mut fate);
        while self.host.tcb.unacked_bytes() > 0 {
            assert!(self.step(start.after_us(3_600_000_000), &mut fate), "nothing will ever happen");
        }
        self.now.since_us(start) * 10 / self.rtt_us
    }

    /// Until all is acknowledged and nothing is under way.
    pub(super) fn run_dry(&mut self, mut fate: impl FnMut(&Sent) -> Fate) {
        self.run(&mut fate);
        while !self.under_way.is_empty() {
            assert!(self.step(Instant::from_micros(u64::MAX), &mut fate));
        }
    }

    /// Data sent more than once.
    pub(super) fn resent(&self) -> usize {
        self.sent.iter().filter(|s| s.times > 0).count()
    }
}
