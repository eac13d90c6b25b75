//! The record of one connection: RFC 9293's transmission control block, and the two ways it begins and the one it ends.

use super::congestion::Congestion;
use super::ecn::Ecn;
use super::fast_open::FastOpen;
use super::holdup::Holdup;
use super::info::Tally;
use super::path_mtu::PathMtu;
use super::reassembly::Reassembly;
use super::receiver::Receiver;
use super::recovery::{Recovery, Rtt};
use super::sender::Sender;
use super::state::Event;
use super::timers::Timers;
use super::timestamps::Timestamps;
use super::urgent::Urgent;
use super::{Context, Events, Links, Options, Seq, State, TcpError, timestamps};
use crate::addr::Flow;
use crate::buf::FrameList;
use crate::slab::{NONE, SlabItem};
use crate::time::Instant;
use crate::wire::tcp::{Control, Flags, Segment, TIMESTAMP_LEN};

/// What has to be sent besides data.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(transparent)]
pub(super) struct Owed(u8);

impl Owed {
    /// An acknowledgement, at once.
    pub(super) const ACK: Owed = Owed(1);
    /// A SYN, or in SYN-RECEIVED a SYN-ACK.
    pub(super) const SYN: Owed = Owed(2);
    /// An old octet that the peer has to answer: zero-window and keepalive probes.
    pub(super) const PROBE: Owed = Owed(4);
    /// A FIN that was sent and lost, with no data left to carry it.
    pub(super) const FIN_AGAIN: Owed = Owed(8);
    /// An acknowledgement, when data goes or the delay is over: not a reason to send.
    pub(super) const DELAYED_ACK: Owed = Owed(16);

    const URGENT: Owed = Owed(1 | 2 | 4 | 8);

    pub(super) fn add(&mut self, what: Owed) {
        self.0 |= what.0;
    }

    pub(super) fn remove(&mut self, what: Owed) {
        self.0 &= !what.0;
    }

    pub(super) fn has(self, what: Owed) -> bool {
        self.0 & what.0 != 0
    }

    pub(super) fn is_urgent(self) -> bool {
        self.has(Owed::URGENT)
    }

    pub(super) fn clear(&mut self) {
        *self = Owed::default();
    }
}

/// One connection.
#[repr(C)]
#[derive(Clone, Debug)]
pub struct Tcb {
    pub link: Links,
    pub(super) snd: Sender,
    pub(super) rcv: Receiver,
    pub(super) timers: Timers,
    pub(super) congestion: Congestion,
    pub(super) recovery: Recovery,
    pub(super) rtt: Rtt,
    pub(super) ts: Timestamps,
    pub(super) urgent: Urgent,
    pub(super) tally: Tally,
    pub(super) path: PathMtu,
    pub(super) options: Options,
    pub(super) ecn: Ecn,
    flow: Flow,
    pub(super) state: State,
    pub(super) owed: Owed,
    pub(super) fast_open: FastOpen,
    /// A listener made it.
    pub(super) passive: bool,
    /// Before the handshake: we offer selective acknowledgements. After: both agreed (RFC 2018 §2).
    pub(super) sack: bool,
    /// The application ran out of send room and wants to hear when there is some.
    pub(super) wants_room: bool,
    /// What the application has to be told, and what a router said that may turn out to be the reason.
    error: u8,
    soft_error: u8,
    /// In SYN-RECEIVED: the handshake's last ACK came, and data is waited for (TCP_DEFER_ACCEPT).
    pub(super) last_ack_came: bool,
    pub(super) holdup: Holdup,
    /// How often something arrived after what went behind it: for tools.
    pub(super) reord_seen: u16,
}

impl SlabItem for Tcb {
    fn free_link(&mut self) -> &mut u32 {
        &mut self.link.hash_next
    }
}

impl Tcb {
    /// The frames in its queues, received and sent, walked one by one.
    pub(crate) fn frames_held(&self, frames: &crate::buf::Frames<'_>) -> u32 {
        [&self.rcv.queue, &self.rcv.out_of_order.list, &self.snd.queue].into_iter().map(|list| list.walk(frames)).sum()
    }

    /// OPEN, active: SYN-SENT, with a SYN owed. `mss` is what the device carries: MTU − IP header − 20.
    pub fn connect(cx: &mut Context<'_, '_>, flow: Flow, iss: u32, ts_offset: u32, mss: u16, options: &Options) -> Tcb {
        cx.counters.active_opens += 1;
        Tcb::new(cx, State::SynSent, flow, Seq(iss), ts_offset, mss, options)
    }

    /// OPEN, passive: a listener took the SYN `seg`. SYN-RECEIVED, with a SYN-ACK owed.
    pub fn accept_syn(
        cx: &mut Context<'_, '_>,
        flow: Flow,
        seg: &Segment,
        iss: u32,
        ts_offset: u32,
        mss: u16,
        options: &Options,
    ) -> Tcb {
        let mut tcb = Tcb::new(cx, State::SynReceived, flow, Seq(iss), ts_offset, mss, options);
        tcb.passive = true;
        tcb.tally.segs_in = 1;
        tcb.learn_from_syn(cx, seg);
        tcb
    }

    fn new(
        cx: &mut Context<'_, '_>,
        state: State,
        flow: Flow,
        iss: Seq,
        ts_offset: u32,
        mss: u16,
        options: &Options,
    ) -> Tcb {
        let mss = if options.mss_clamp == 0 { mss } else { mss.min(options.mss_clamp) };
        let most = if options.rcvbuf_locked { options.rcvbuf_bytes } else { cx.tunables.rmem_bytes[2] } / 2;
        let mut tcb = Tcb {
            link: Links::default(),
            snd: Sender::new(iss, mss),
            rcv: Receiver::new(mss, options.rcvbuf_bytes / 2, options.clamp(most), cx.frames.allowance()),
            timers: Timers::default(),
            congestion: Congestion::default(),
            recovery: Recovery::new(iss),
            rtt: Rtt::new(cx.tunables),
            ts: Timestamps::new(ts_offset, cx.tunables.timestamps != 0),
            urgent: Urgent::default(),
            tally: Tally::default(),
            fast_open: FastOpen::default(),
            path: PathMtu::UNKNOWN,
            options: *options,
            ecn: Ecn::new(cx.tunables.ecn, state, iss),
            flow,
            state,
            owed: Owed::SYN,
            passive: false,
            sack: cx.tunables.sack != 0,
            wants_room: false,
            error: 0,
            soft_error: 0,
            last_ack_came: false,
            holdup: Holdup::Idle,
            reord_seen: 0,
        };
        tcb.rcv.scaling = cx.tunables.window_scaling != 0;
        tcb.rcv.last_at_ms = timestamps::ms(cx.now);
        tcb.timers.arm_retransmit(cx.now, tcb.rtt.rto_us());
        tcb
    }

    /// Takes what the peer's SYN (or SYN-ACK) says: first sequence number, window, options.
    pub(super) fn learn_from_syn(&mut self, cx: &Context<'_, '_>, seg: &Segment) {
        let options = &seg.options;
        self.rcv.start(seg.seq, options.window_scale.is_some());
        self.sack &= options.sack_permitted;
        self.agree_on_ecn(seg);
        self.ts.agree(options.timestamp, cx.now);
        self.snd.shift = if self.rcv.scaling { options.window_scale.unwrap_or(0) } else { 0 };
        // RFC 9293 §3.7.1: the MSS without the option. Linux's floor keeps a hostile peer from one-byte segments.
        let unsaid = if self.flow.remote.ip.is_v4() { 536 } else { 1220 };
        self.settle_path(cx, options.mss.unwrap_or(unsaid).clamp(64, self.rcv.own_mss.max(64)));
        self.congestion = Congestion::new(self.options.congestion, u32::from(self.snd.mss));
        // The window field of a SYN is never scaled (RFC 7323 §2.2).
        self.snd.wnd = u32::from(seg.window);
        self.snd.max_wnd = self.snd.wnd;
        self.snd.wl1 = seg.seq;
        self.snd.wl2 = seg.ack;
    }

    /// Works out how much payload a segment takes: the MSS counts options, payload does not.
    pub(super) fn settle_mss(&mut self) {
        let options = if self.ts.on { TIMESTAMP_LEN as u16 } else { 0 };
        self.snd.mss = (self.snd.wire_mss - options).min(Sender::FRAME_ROOM);
        self.congestion.hold_a_segment(u32::from(self.snd.mss));
    }

    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Changes take effect at once; ask [`Tcb::wants_transmit`] afterwards. Keepalive has its own setter.
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// ISS and IRS: which connection of its flow it is.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn initial_numbers(&self) -> (Seq, Seq) {
        (self.snd.iss, self.rcv.irs)
    }

    /// Whether a listener made it.
    pub fn is_passive(&self) -> bool {
        self.passive
    }

    /// The pending error, which stays.
    pub fn error(&self) -> Option<TcpError> {
        TcpError::from_code(self.error)
    }

    /// The pending error, if there is one; it is gone afterwards.
    pub fn take_error(&mut self) -> Option<TcpError> {
        TcpError::from_code(core::mem::take(&mut self.error))
    }

    pub(super) fn note_soft_error(&mut self, error: TcpError) {
        self.soft_error = error as u8;
    }

    /// The peer answers: whatever a router said is over.
    #[inline]
    pub(super) fn forget_soft_error(&mut self) {
        self.soft_error = 0;
    }

    pub(super) fn soft_error(&self) -> Option<TcpError> {
        TcpError::from_code(self.soft_error)
    }

    /// Moves along the table and says what the socket layer has to know of it.
    pub(super) fn transit(&mut self, cx: &mut Context<'_, '_>, event: Event) -> Events {
        let from = self.state;
        self.state = from.after(event);
        match self.state {
            to if to == from => Events::NONE,
            State::Closed => self.end(cx, None),
            State::TimeWait => {
                cx.counters.time_wait_made += 1;
                self.timers.stop();
                self.timers.alive_at = cx.now.after_us(cx.tunables.time_wait_us);
                Events::TIME_WAIT
            }
            State::FinWait2 if self.is_orphan() && self.options.fin_timeout_ms == Options::NO_FIN_WAIT => {
                self.end(cx, None)
            }
            State::FinWait2 => {
                self.start_fin_timeout(cx.now);
                Events::NONE
            }
            _ => Events::NONE,
        }
    }

    /// The connection is over, for whatever reason: all ends come through here. What was received stays readable.
    pub(super) fn end(&mut self, cx: &mut Context<'_, '_>, error: Option<TcpError>) -> Events {
        self.state = State::Closed;
        self.note_repaired(cx.now);
        self.timers.stop();
        self.owed.clear();
        self.snd.forget(cx.frames);
        self.rcv.out_of_order.clear(cx.frames);
        self.note_holdup(cx.now);
        match error {
            None => Events::CLOSED,
            Some(error) => {
                self.error = error as u8;
                Events::CLOSED | Events::ERROR
            }
        }
    }

    /// Whether the application let go of the connection.
    pub(super) fn is_orphan(&self) -> bool {
        self.link.orphan
    }

    /// The RST that tells the peer.
    pub(super) fn reset_segment(&self, cx: &Context<'_, '_>) -> Control {
        Control {
            seq: self.snd.acceptable_seq(),
            ack: self.rcv.nxt,
            flags: Flags::RST | Flags::ACK,
            window: 0,
            timestamp: self.ts.option(cx.now),
        }
    }

    /// The RST for the peer of what may once have been a connection: its record may be half-written, so numbers are taken
    /// as they stand, and nothing is computed from them. The peer of a TIME-WAIT is done, that of a SYN-SENT not there.
    /// What was to be sent last may not have left: so there is another one, for a peer that has nothing of it.
    pub fn farewells(&self) -> [Option<Control>; 2] {
        let is_heard = !matches!(self.state, State::Closed | State::SynSent | State::TimeWait);
        let reset = |seq| Control { seq, ack: self.rcv.nxt, flags: Flags::RST | Flags::ACK, ..Control::default() };
        let unsent = (self.snd.una != self.snd.nxt).then(|| reset(self.snd.una));
        if is_heard { [Some(reset(self.snd.nxt)), unsent] } else { [None, None] }
    }

    /// Fills the record with anything: for tests of who does not trust it.
    #[cfg(test)]
    pub(crate) fn scramble(&mut self, random: &mut impl FnMut() -> u64) {
        use crate::addr::{Endpoint, Ip, Mac};
        const STATES: [State; 4] = [State::Closed, State::Established, State::SynReceived, State::TimeWait];
        let n = random();
        let any_ip = Ip(core::array::from_fn(|_| random() as u8));
        let mut ip = |host: u8| if random().is_multiple_of(4) { any_ip } else { Ip::v4([10, 0, 0, host]) };
        let (local, remote) = (Endpoint::new(ip(1), n as u16 & 3), Endpoint::new(ip(2), (n >> 2) as u16 & 3));
        self.flow = Flow { local, remote };
        self.state = STATES[(n >> 4) as usize % STATES.len()];
        (self.snd.nxt, self.rcv.nxt) = (Seq(random() as u32), Seq(random() as u32));
        (self.snd.una, self.snd.wnd, self.snd.shift) = (Seq(random() as u32), random() as u32, random() as u8);
        let link = &mut self.link;
        link.hop.mac = Mac(core::array::from_fn(|i| if i == 0 { 2 * (n >> 8 & 1) as u8 } else { random() as u8 }));
        (link.rx_queue, link.hash_next) = (random() as u8, random() as u32);
        (link.wheel_slot, link.wheel_next, link.transmit_next) = (random() as u16, random() as u32, random() as u32);
        (link.socket, link.listener, link.queue) = (random() as u32, random() as u32, random() as u8);
    }

    /// The record leaves its slot. What stays there until its deadline is a connection that is over: it holds no frame, and no
    /// [farewell](Tcb::farewell) is said for it.
    pub(crate) fn move_out(&mut self, deadline: Instant) -> Tcb {
        let tcb = Tcb { link: self.link.without_places(), ..self.clone() };
        self.state = State::Closed;
        self.timers.stop();
        self.timers.alive_at = deadline;
        self.owed.clear();
        (self.snd.queue, self.snd.next_unsent) = (FrameList::EMPTY, NONE);
        (self.rcv.queue, self.rcv.out_of_order) = (FrameList::EMPTY, Reassembly::EMPTY);
        tcb
    }

    /// Calls `f` with every list of frames that the connection holds.
    pub(crate) fn for_each_frame_list(&self, f: impl FnMut(&FrameList)) {
        [&self.snd.queue, &self.rcv.queue, &self.rcv.out_of_order.list].into_iter().for_each(f);
    }

    /// Gives all frames back. Before the slot goes.
    pub fn release_all(&mut self, cx: &mut Context<'_, '_>) {
        self.snd.forget(cx.frames);
        self.rcv.out_of_order.clear(cx.frames);
        self.rcv.queue.clear(cx.frames);
    }
}
