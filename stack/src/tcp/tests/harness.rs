//! A host is a connection with frames made of vectors; a pair of them shares a wire that may lose, repeat and reorder.

use crate::addr::{Endpoint, Flow, Ip};
use crate::buf::{FRAME_SIZE, FrameId, FrameMeta, FrameShared, Frames, FreeList};
use crate::counters::Counters;
use crate::tcp::{Arrival, Context, Events, ListenVerdict, Options, Seq, State, Tcb, arrive_at_listen};
use crate::time::{Instant, MS};
use crate::tunables::Tunables;
use crate::wire::tcp::{self, Control, Flags, Segment};

pub(super) const MSS: u16 = 1460;
/// Where TCP starts in a received frame: Ethernet and IPv4 in front.
const RX_OFF: usize = 34;

/// Frames made of vectors.
pub(super) struct Memory {
    meta: Vec<FrameMeta>,
    shared: Vec<FrameShared>,
    data: Vec<u8>,
    free: FreeList,
}

impl Memory {
    pub(super) fn new(count: usize) -> Memory {
        let mut memory = Memory {
            meta: vec![FrameMeta::default(); count],
            shared: (0..count).map(|_| FrameShared::default()).collect(),
            data: vec![0; count * FRAME_SIZE],
            free: FreeList::default(),
        };
        (0..count as u32).for_each(|id| memory.frames().push_free(id));
        memory
    }

    pub(super) fn frames(&mut self) -> Frames<'_> {
        Frames::new(&mut self.meta, &self.shared, &mut self.data, &mut self.free, 1)
    }
}

/// Deterministic random numbers (xorshift).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// One end.
pub(super) struct Host {
    pub(super) memory: Memory,
    pub(super) frames_total: u32,
    pub(super) counters: Counters,
    pub(super) tunables: Tunables,
    pub(super) tcb: Tcb,
    /// All events since somebody last looked.
    pub(super) events: Events,
    /// Frames in the transmit ring.
    pub(super) in_ring: Vec<FrameId>,
    /// The ring is stuck: nothing completes.
    pub(super) holds_ring: bool,
}

pub(super) fn flow(ours: u8, theirs: u8) -> Flow {
    let end = |n: u8| Endpoint::new(Ip::v4([10, 0, 0, n]), 1000 + u16::from(n));
    Flow { local: end(ours), remote: end(theirs) }
}

pub(super) fn at_ms(ms: u64) -> Instant {
    Instant::from_micros(ms * MS)
}

impl Host {
    pub(super) fn make(tunables: Tunables, make: impl FnOnce(&mut Context<'_, '_>) -> Tcb, now: Instant) -> Host {
        Host::make_with(4096, tunables, make, now)
    }

    pub(super) fn make_with(
        frames: usize,
        tunables: Tunables,
        make: impl FnOnce(&mut Context<'_, '_>) -> Tcb,
        now: Instant,
    ) -> Host {
        let mut memory = Memory::new(frames);
        let mut counters = Counters::default();
        let tcb = {
            let mut view = memory.frames();
            make(&mut Context { now, frames: &mut view, counters: &mut counters, tunables: &tunables, cookie: None })
        };
        Host {
            memory,
            frames_total: frames as u32,
            counters,
            tunables,
            tcb,
            events: Events::NONE,
            in_ring: Vec::new(),
            holds_ring: false,
        }
    }

    pub(super) fn connecting(now: Instant, iss: u32, options: Option<Options>, tunables: Tunables) -> Host {
        let options = options.unwrap_or(Options::new(&tunables));
        Host::make(tunables, |cx| Tcb::connect(cx, flow(1, 2), iss, 77, MSS, &options), now)
    }

    pub(super) fn with<R>(&mut self, now: Instant, f: impl FnOnce(&mut Tcb, &mut Context<'_, '_>) -> R) -> R {
        let mut frames = self.memory.frames();
        let mut cx =
            Context { now, frames: &mut frames, counters: &mut self.counters, tunables: &self.tunables, cookie: None };
        let result = f(&mut self.tcb, &mut cx);
        self.tcb.snd.check_board(&frames, self.tcb.sack);
        result
    }

    /// A segment made of a header and payload arrives.
    pub(super) fn arrive(&mut self, now: Instant, seg: &Segment, payload: &[u8]) -> Arrival {
        let arrival = self.with(now, |tcb, cx| {
            let frame = cx.frames.alloc().expect("a frame to receive into");
            let off = RX_OFF + 32;
            cx.frames.bytes_mut(frame)[off..off + payload.len()].copy_from_slice(payload);
            let seg = Segment { payload_off: off as u16, payload_len: payload.len() as u16, ..*seg };
            tcb.arrive(cx, &seg, frame)
        });
        self.events |= arrival.events;
        arrival
    }

    /// The bytes of a TCP segment arrive.
    pub(super) fn receive(&mut self, now: Instant, bytes: &[u8]) -> Arrival {
        let arrival = self.with(now, |tcb, cx| {
            let Some(frame) = cx.frames.alloc() else { return Arrival::default() };
            cx.frames.bytes_mut(frame)[RX_OFF..RX_OFF + bytes.len()].copy_from_slice(bytes);
            let seg = tcp::parse(bytes, RX_OFF as u16).expect("our own segments parse");
            tcb.arrive(cx, &seg, frame)
        });
        self.events |= arrival.events;
        arrival
    }

    pub(super) fn expire(&mut self, now: Instant) -> Arrival {
        let arrival = self.with(now, |tcb, cx| tcb.handle_deadline(cx));
        self.events |= arrival.events;
        arrival
    }

    /// One outgoing segment, as bytes; its frame is left in the ring until [`Host::complete`].
    pub(super) fn poll_bytes(&mut self, now: Instant) -> Option<Vec<u8>> {
        let wanted = self.tcb.wants_transmit();
        let out = self.with(now, |tcb, cx| {
            let out = tcb.poll_transmit(cx)?;
            assert!(!cx.frames.is_in_tx(out.frame), "a frame in the ring was rewritten");
            let bytes = cx.frames.bytes(out.frame)[usize::from(out.off)..][..usize::from(out.len)].to_vec();
            cx.frames.mark_in_tx(out.frame);
            if !out.keep {
                cx.frames.release(out.frame);
            }
            Some((out.frame, bytes))
        });
        assert!(wanted || out.is_none(), "sent what it did not want to send");
        let (frame, bytes) = out?;
        self.in_ring.push(frame);
        Some(bytes)
    }

    /// The kernel is done with what is in the ring.
    pub(super) fn complete(&mut self) {
        if self.holds_ring {
            return;
        }
        let mut frames = self.memory.frames();
        for id in self.in_ring.drain(..) {
            if frames.shared(id).complete() {
                frames.push_free(id);
            }
        }
    }

    /// All outgoing segments, as bytes.
    pub(super) fn drain_bytes(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(bytes) = self.poll_bytes(now) {
            all.push(bytes);
            assert!(all.len() < 10_000, "sends without end");
        }
        self.complete();
        all
    }

    /// All outgoing segments, parsed; `payload_off` counts from the segment's start.
    pub(super) fn drain(&mut self, now: Instant) -> Vec<Segment> {
        self.drain_bytes(now).iter().map(|b| tcp::parse(b, 0).expect("our own segments parse")).collect()
    }

    pub(super) fn write(&mut self, now: Instant, data: &[u8]) -> usize {
        self.with(now, |tcb, cx| tcb.write(cx, data))
    }

    pub(super) fn read(&mut self, now: Instant, most: usize) -> Vec<u8> {
        let mut out = vec![0; most];
        let n = self.with(now, |tcb, cx| tcb.read(cx, &mut out, false));
        out.truncate(n);
        out
    }

    pub(super) fn close(&mut self, now: Instant) -> Arrival {
        let arrival = self.with(now, |tcb, cx| tcb.close(cx, crate::tcp::Linger::Default));
        self.events |= arrival.events;
        arrival
    }

    pub(super) fn shutdown(&mut self, now: Instant) -> Arrival {
        let arrival = self.with(now, |tcb, cx| tcb.shutdown_send(cx));
        self.events |= arrival.events;
        arrival
    }

    pub(super) fn state(&self) -> State {
        self.tcb.state()
    }

    /// Frames that are neither free nor in the ring.
    pub(super) fn frames_held(&mut self) -> u32 {
        self.holds_ring = false;
        self.complete();
        let total = self.frames_total;
        let mut frames = self.memory.frames();
        frames.collect_returned();
        total - frames.free_count()
    }

    pub(super) fn take_events(&mut self) -> Events {
        core::mem::take(&mut self.events)
    }
}

/// A plain ACK segment, as the peer of [`established`] would send it.
pub(super) fn segment(seq: u32, ack: u32, flags: Flags) -> Segment {
    Segment { seq: Seq(seq), ack: Seq(ack), flags, window: 60_000, ..Segment::default() }
}

pub(super) const OUR_ISS: u32 = 1000;
pub(super) const PEER_ISS: u32 = 5000;

/// A connection that a peer without options opened: SND.NXT = 1001, RCV.NXT = 5001, MSS 1460, at 1 s.
pub(super) fn established() -> Host {
    established_with(Tunables { timestamps: 0, congestion: crate::tcp::Algorithm::Reno as u32, ..Tunables::default() })
}

pub(super) fn established_with(tunables: Tunables) -> Host {
    established_by(tunables, &wire_options(false, false), OUR_ISS, 0)
}

/// What a peer's segment carries: its SYN the MSS and the offer of SACK, all of them a timestamp.
pub(super) fn wire_options(sack: bool, timestamps: bool) -> tcp::Options {
    tcp::Options {
        mss: Some(MSS),
        sack_permitted: sack,
        timestamp: timestamps.then_some((1, 0)),
        ..tcp::Options::default()
    }
}

/// A connection that a peer with these options opened over a path of this round trip; it stands at 1 s.
pub(super) fn established_by(tunables: Tunables, options: &tcp::Options, iss: u32, rtt_ms: u64) -> Host {
    let (start, now) = (at_ms(1000 - rtt_ms), at_ms(1000));
    let syn = Segment { options: *options, ..segment(PEER_ISS, 0, Flags::SYN) };
    assert_eq!(arrive_at_listen(&syn), ListenVerdict::Syn);
    let own = Options::new(&tunables);
    let mut host =
        Host::make_with(8192, tunables, |cx| Tcb::accept_syn(cx, flow(2, 1), &syn, iss, 0, MSS, &own), start);
    let syn_ack = host.drain(start);
    assert_eq!(syn_ack.len(), 1);
    assert_eq!(syn_ack[0].flags, Flags::SYN | Flags::ACK);
    let mut ack = segment(PEER_ISS + 1, iss.wrapping_add(1), Flags::ACK);
    ack.options.timestamp = options.timestamp.map(|(value, _)| (value + 1, syn_ack[0].options.timestamp.unwrap().0));
    host.arrive(now, &ack, b"");
    assert!(host.take_events().has(Events::CONNECTED));
    assert_eq!(host.state(), State::Established);
    assert!(!host.tcb.wants_transmit());
    host
}

/// How the wire behaves, in percent and microseconds.
#[derive(Clone, Copy)]
pub(super) struct Wire {
    pub(super) loss: u64,
    pub(super) repeat: u64,
    pub(super) delay_us: u64,
    pub(super) jitter_us: u64,
}

impl Wire {
    pub(super) const CLEAN: Wire = Wire { loss: 0, repeat: 0, delay_us: 100, jitter_us: 0 };
}

/// Two ends and the wire between them. End 0 opened.
pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) hosts: [Host; 2],
    pub(super) wire: Wire,
    pub(super) random: Random,
    /// Segments under way: when they arrive, in which order they were sent, where to.
    in_flight: Vec<(Instant, u64, usize, Vec<u8>)>,
    sent: u64,
    pub(super) segments: u64,
    /// Longer segments vanish without a word.
    pub(super) longest: usize,
}

impl Pair {
    /// Both ends connected over a clean wire.
    pub(super) fn connected(seed: u64, tunables: Tunables) -> Pair {
        let mut pair = Pair::opening(seed, tunables, Wire::CLEAN);
        while pair.hosts[1].state() != State::Established {
            assert!(pair.step(), "the handshake stalled");
        }
        pair
    }

    /// End 0 sent its SYN, end 1 made a connection of it.
    pub(super) fn opening(seed: u64, tunables: Tunables, wire: Wire) -> Pair {
        let mut random = Random(seed * 2 + 1);
        (0..5).for_each(|_| {
            random.next();
        });
        let now = at_ms(1000);
        let (iss, peer_iss) = (random.next() as u32, random.next() as u32);
        let mut client = Host::connecting(now, iss, None, tunables);
        let syn = client.drain_bytes(now).remove(0);
        let seg = tcp::parse(&syn, 0).unwrap();
        let options = Options::new(&tunables);
        let server = Host::make(tunables, |cx| Tcb::accept_syn(cx, flow(2, 1), &seg, peer_iss, 99, MSS, &options), now);
        let mut pair = Pair {
            now,
            hosts: [client, server],
            wire,
            random,
            in_flight: Vec::new(),
            sent: 0,
            segments: 0,
            longest: usize::MAX,
        };
        pair.transmit();
        pair
    }

    /// Everything that wants to go goes onto the wire.
    pub(super) fn transmit(&mut self) {
        for from in 0..2 {
            for bytes in self.hosts[from].drain_bytes(self.now) {
                self.send(from, &bytes);
            }
        }
    }

    pub(super) fn send(&mut self, from: usize, bytes: &[u8]) {
        self.segments += 1;
        if bytes.len() > self.longest {
            return;
        }
        let copies = if self.random.chance(self.wire.repeat) { 2 } else { 1 };
        for _ in 0..copies {
            if self.random.chance(self.wire.loss) {
                continue;
            }
            let jitter = if self.wire.jitter_us == 0 { 0 } else { self.random.below(self.wire.jitter_us) };
            self.sent += 1;
            self.in_flight.push((self.now.after_us(self.wire.delay_us + jitter), self.sent, 1 - from, bytes.to_vec()));
        }
    }

    fn reply(&mut self, from: usize, control: Option<Control>) {
        if let Some(control) = control {
            let flow = *self.hosts[from].tcb.flow();
            let mut bytes = vec![0; tcp::HEADER_LEN_MAX];
            let len = control.emit(flow.local.port, flow.remote.port, &mut bytes);
            bytes.truncate(len);
            self.send(from, &bytes);
        }
    }

    /// The next thing happens: a segment arrives or a deadline comes. False when nothing will ever happen again.
    pub(super) fn step(&mut self) -> bool {
        let arrival = (0..self.in_flight.len()).min_by_key(|&i| (self.in_flight[i].0, self.in_flight[i].1));
        let deadline = (0..2).filter_map(|i| self.hosts[i].tcb.deadline().map(|at| (at, i))).min_by_key(|&(at, _)| at);
        match (arrival, deadline) {
            (None, None) => return false,
            (Some(i), d) if d.is_none_or(|(at, _)| self.in_flight[i].0 <= at) => {
                let (at, _, to, bytes) = self.in_flight.swap_remove(i);
                self.now = self.now.max(at);
                let arrival = self.hosts[to].receive(self.now, &bytes);
                self.reply(to, arrival.reply);
            }
            (_, Some((at, i))) => {
                self.now = self.now.max(at);
                let arrival = self.hosts[i].expire(self.now);
                self.reply(i, arrival.reply);
            }
            (Some(_), None) => unreachable!("a segment under way is always due before no deadline"),
        }
        self.transmit();
        true
    }

    /// Until the wire is empty and what is owed is sent; timers later than `ms` from now do not fire.
    pub(super) fn settle(&mut self, ms: u64) {
        let end = self.now.after_us(ms * MS);
        self.transmit();
        for _ in 0..100_000 {
            let next_deadline = self.hosts.iter().filter_map(|h| h.tcb.deadline()).min();
            let next_arrival = self.in_flight.iter().map(|p| p.0).min();
            let next = [next_deadline, next_arrival].into_iter().flatten().min();
            if next.is_none_or(|at| at > end) {
                self.now = end;
                return;
            }
            self.step();
        }
        panic!("never settles");
    }
}
