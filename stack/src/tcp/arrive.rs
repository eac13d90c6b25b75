//! SEGMENT ARRIVES in the synchronized states (RFC 9293 §3.10.7.4): eight steps, in the RFC's order.
//!
//! Each step looks at one thing and changes one half of the connection. A step that ends the matter says so with a
//! [`Stop`]; `act` is the only place that acts on one. Steps never send: they record what is owed.

use super::state::Event;
use super::tcb::Owed;
use super::{Arrival, Context, Events, Seq, State, Tcb, TcpError, timestamps};
use crate::buf::FrameId;
use crate::drops::Drop;
use crate::wire::tcp::{Control, Flags, Segment, reset_for};

/// Why no further step looks at a segment. The frame was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// Nothing of it is of use.
    Drop(Drop),
    /// The peer has to hear where we are.
    Acknowledge(Drop),
    /// It may be forged: let the peer confirm (RFC 5961).
    Challenge(Drop),
    /// It belongs to some other connection: answer with RST, and stay.
    Refuse(Drop),
    /// The peer reset us.
    Reset,
    /// It can never be delivered: RST, and the connection is over.
    Abort(Drop),
    /// The connection ended in good order.
    Finished(Events),
}

pub(super) type Step = Result<(), Stop>;

/// How often out-of-window segments and challenges of one connection are answered (RFC 5961 §7; Linux:
/// tcp_invalid_ratelimit).
const ANSWER_INTERVAL_MS: u32 = 500;

impl Tcb {
    /// A segment for this connection came; its frame is queued or released, in every case.
    #[inline]
    pub fn arrive(&mut self, cx: &mut Context<'_, '_>, seg: &Segment, frame: FrameId) -> Arrival {
        self.note_segment(cx, seg);
        if self.is_expected(seg) {
            let events = self.arrive_fast(cx, seg, frame);
            return Arrival { events, reply: None };
        }
        self.arrive_slow(cx, seg, frame)
    }

    #[inline]
    pub(super) fn note_segment(&mut self, cx: &Context<'_, '_>, seg: &Segment) {
        self.rcv.last_at_ms = timestamps::ms(cx.now);
        self.tally.segs_in = self.tally.segs_in.wrapping_add(1);
        self.tally.data_segs_in = self.tally.data_segs_in.wrapping_add((seg.payload_len > 0).into());
    }

    /// The full procedure, whatever the state.
    pub(super) fn arrive_slow(&mut self, cx: &mut Context<'_, '_>, seg: &Segment, frame: FrameId) -> Arrival {
        let outcome = match self.state {
            State::Closed => Err(Stop::Refuse(Drop::NoSocket)),
            State::SynSent => self.arrive_in_syn_sent(cx, seg, frame),
            State::SynReceived => self.arrive_in_syn_received(cx, seg, frame),
            _ => self.arrive_synchronized(cx, seg, frame),
        };
        let arrival = match outcome {
            Ok(events) => Arrival { events, reply: None },
            Err(stop) => {
                cx.frames.release(frame);
                self.act(cx, seg, stop)
            }
        };
        self.finish(cx, arrival)
    }

    fn arrive_synchronized(&mut self, cx: &mut Context<'_, '_>, seg: &Segment, frame: FrameId) -> Result<Events, Stop> {
        self.first_sequence_number(cx, seg)?;
        self.second_reset(seg)?;
        // Third, security and precedence: obsolete; it stands here so that the numbers are the RFC's.
        self.fourth_syn(seg)?;
        self.fifth_to_eighth(cx, seg, frame)
    }

    /// The steps that a segment which completes a handshake goes through as well.
    pub(super) fn fifth_to_eighth(
        &mut self,
        cx: &mut Context<'_, '_>,
        seg: &Segment,
        frame: FrameId,
    ) -> Result<Events, Stop> {
        let mut events = self.fifth_ack(cx, seg)?;
        events |= self.sixth_urgent(cx, seg, frame);
        events |= self.seventh_text(cx, seg, frame)?;
        events |= self.eighth_fin(cx, seg);
        Ok(events)
    }

    /// First: is it in the window, and no older than what was seen (RFC 7323 §5.3 R1)?
    ///
    /// Deviation: an empty segment may lie anywhere between our last acknowledgement and the right edge. The RFC would
    /// answer an acknowledgement that data overtook with another acknowledgement; Linux takes it as we do.
    pub(super) fn first_sequence_number(&mut self, cx: &Context<'_, '_>, seg: &Segment) -> Step {
        if self.ts.is_old(seg.options.timestamp, cx.now) && !seg.has(Flags::RST) {
            return Err(Stop::Acknowledge(Drop::PawsRejected));
        }
        if seg.end().is_before(self.rcv.acked) || seg.seq.is_after(self.rcv.edge) {
            return Err(match seg.has(Flags::RST) {
                true => Stop::Drop(Drop::OutsideWindow),
                false => Stop::Acknowledge(Drop::OutsideWindow),
            });
        }
        Ok(())
    }

    /// Second: RST. Only one exactly at RCV.NXT is believed (RFC 5961 §3.2).
    pub(super) fn second_reset(&self, seg: &Segment) -> Step {
        match seg.has(Flags::RST) {
            false => Ok(()),
            true if seg.seq == self.rcv.nxt => Err(Stop::Reset),
            true => Err(Stop::Challenge(Drop::RstInvalid)),
        }
    }

    /// Fourth: SYN. It is never right here, but may be forged (RFC 5961 §4.2).
    pub(super) fn fourth_syn(&self, seg: &Segment) -> Step {
        if seg.has(Flags::SYN) { Err(Stop::Challenge(Drop::SynInWindow)) } else { Ok(()) }
    }

    /// Fifth: ACK. It moves SND.UNA, updates the window, and may acknowledge our FIN.
    pub(super) fn fifth_ack(&mut self, cx: &mut Context<'_, '_>, seg: &Segment) -> Result<Events, Stop> {
        self.check_ack(seg)?;
        self.note_echo(cx, seg);
        self.ts.note(seg.options.timestamp, seg.seq, self.rcv.acked, cx.now);
        let window_moved = self.update_window(seg);
        self.timers.probes = 0;
        let is_front = seg.ack == self.snd.una && (self.snd.flight() > 0 || self.recovery.is_probing());
        let is_duplicate = is_front && seg.len() == 0 && !window_moved;
        if !is_duplicate && !seg.ack.is_after(self.snd.una) && seg.options.sack.is_empty() {
            return Ok(Events::NONE);
        }
        let events = self.acknowledge(cx, seg, is_duplicate);
        if self.state == State::Closed {
            return Err(Stop::Finished(events));
        }
        Ok(events)
    }

    /// Is the acknowledgement one that could be meant for us (RFC 5961 §5.2)?
    fn check_ack(&self, seg: &Segment) -> Step {
        if !seg.has(Flags::ACK) {
            return Err(Stop::Drop(Drop::NoAck));
        }
        if seg.ack.is_after(self.snd.nxt) {
            return Err(Stop::Acknowledge(Drop::AckInvalid));
        }
        if seg.ack.is_before(self.snd.una - self.snd.max_wnd) {
            return Err(Stop::Challenge(Drop::AckInvalid));
        }
        Ok(())
    }

    /// SND.WND follows the newest segment (RFC 9293 §3.10.7.4: SND.WL1 and SND.WL2). Whether it changed.
    ///
    /// A new acknowledgement always brings its window with it, though an older segment by its number: SND.WND counts from
    /// SND.UNA, and moving only that would move the right edge of the window (Linux: tcp_may_update_window).
    #[inline]
    pub(super) fn update_window(&mut self, seg: &Segment) -> bool {
        let snd = &mut self.snd;
        let is_newer = seg.ack.is_after(snd.una)
            || snd.wl1.is_before(seg.seq)
            || snd.wl1 == seg.seq && !seg.ack.is_before(snd.wl2);
        if !is_newer || seg.ack.is_before(snd.una) {
            return false;
        }
        let wnd = u32::from(seg.window) << snd.shift;
        let changed = wnd != snd.wnd;
        snd.wnd = wnd;
        snd.max_wnd = snd.max_wnd.max(wnd);
        (snd.wl1, snd.wl2) = (seg.seq, seg.ack);
        changed
    }

    /// Seventh: the text. After CLOSE nobody will ever read it: RST (RFC 9293 §3.6.1, and Linux to the letter).
    pub(super) fn seventh_text(
        &mut self,
        cx: &mut Context<'_, '_>,
        seg: &Segment,
        frame: FrameId,
    ) -> Result<Events, Stop> {
        if seg.payload_len == 0 {
            cx.frames.release(frame);
            return Ok(Events::NONE);
        }
        let text_end = seg.seq + u32::from(seg.payload_len);
        let is_closing = matches!(self.state, State::FinWait1 | State::FinWait2);
        if is_closing && self.rcv.is_shutdown && text_end.is_after(self.rcv.nxt) {
            return Err(Stop::Abort(Drop::DataAfterClose));
        }
        if !self.state.may_receive() {
            // Behind the peer's FIN, or sent again: the RFC says to ignore it, but a lost acknowledgement has to go again.
            self.owed.add(Owed::ACK);
            cx.frames.release(frame);
            return Ok(Events::NONE);
        }
        self.note_marks(cx, seg);
        Ok(self.take_text(cx, seg, frame))
    }

    /// Eighth: FIN, once everything before it is here; it may have come with an earlier segment.
    pub(super) fn eighth_fin(&mut self, cx: &mut Context<'_, '_>, seg: &Segment) -> Events {
        if seg.has(Flags::FIN) {
            self.rcv.note_fin(seg.end() - 1);
        }
        if !self.rcv.reach_fin() {
            if seg.has(Flags::FIN) {
                // Early or again: say where we are. In TIME-WAIT the wait starts over.
                self.owed.add(Owed::ACK);
                if self.state == State::TimeWait {
                    self.timers.alive_at = cx.now.after_us(cx.tunables.time_wait_us);
                }
            }
            return Events::NONE;
        }
        let events = self.transit(cx, Event::PeerFin) | Events::PEER_FIN;
        if self.state == State::CloseWait {
            // The application will likely close as well: our FIN can carry the acknowledgement (as on Linux).
            self.delay_ack(cx, cx.tunables.delayed_ack_us);
        } else {
            self.owed.add(Owed::ACK);
        }
        events
    }

    /// The one place where a step's verdict becomes deeds.
    fn act(&mut self, cx: &mut Context<'_, '_>, seg: &Segment, stop: Stop) -> Arrival {
        match stop {
            Stop::Drop(reason) => {
                cx.counters.drops.count(reason);
                Arrival::default()
            }
            Stop::Acknowledge(reason) => {
                cx.counters.drops.count(reason);
                self.note_repeated(cx, seg);
                // Data is answered every time: its sender waits for it. All else might be an echo of our own answers.
                if seg.payload_len > 0 && !seg.has(Flags::SYN) || self.may_answer(cx) {
                    self.owed.add(Owed::ACK);
                }
                Arrival::default()
            }
            Stop::Challenge(reason) => {
                cx.counters.drops.count(reason);
                Arrival { events: self.challenge(cx), reply: None }
            }
            Stop::Refuse(reason) => {
                cx.counters.drops.count(reason);
                Arrival { events: Events::NONE, reply: reset_for(seg) }
            }
            Stop::Reset => {
                cx.counters.resets_received += 1;
                let error = self.error_of_reset();
                let reset = if error.is_some() { Events::RESET } else { Events::NONE };
                Arrival { events: self.end(cx, error) | reset, reply: None }
            }
            Stop::Abort(reason) => {
                cx.counters.drops.count(reason);
                let reply = Some(self.reset_segment_at(cx, seg.ack));
                Arrival { events: self.end(cx, Some(TcpError::Reset)), reply }
            }
            Stop::Finished(events) => Arrival { events, reply: None },
        }
    }

    /// What Linux reports for a RST, by state (tcp_reset). In TIME-WAIT both sides are done: that is no error, the peer only
    /// has forgotten already.
    fn error_of_reset(&self) -> Option<TcpError> {
        match self.state {
            State::SynSent => Some(TcpError::Refused),
            State::CloseWait => Some(TcpError::Pipe),
            State::TimeWait => None,
            _ => Some(TcpError::Reset),
        }
    }

    fn reset_segment_at(&self, cx: &Context<'_, '_>, seq: Seq) -> Control {
        Control { seq, ..self.reset_segment(cx) }
    }

    /// Owes a challenge ACK, if the connection has not just sent one.
    fn challenge(&mut self, cx: &mut Context<'_, '_>) -> Events {
        if !self.may_answer(cx) {
            cx.counters.drops.count(Drop::ChallengeLimited);
            return Events::NONE;
        }
        cx.counters.challenge_acks += 1;
        let goes_anyway = self.owed.has(Owed::ACK);
        self.owed.add(Owed::ACK);
        if goes_anyway { Events::NONE } else { Events::CHALLENGE }
    }

    /// The challenge ACK that is owed is not sent: the stack as a whole sends too many (RFC 5961 §7).
    pub fn withdraw_challenge(&mut self) {
        self.owed.remove(Owed::ACK);
    }

    /// The rate limit of answers to what may be forged or echoed.
    fn may_answer(&mut self, cx: &Context<'_, '_>) -> bool {
        let now = timestamps::ms(cx.now);
        let may = self.rcv.answered_at_ms == 0 || now.wrapping_sub(self.rcv.answered_at_ms) >= ANSWER_INTERVAL_MS;
        if may {
            self.rcv.answered_at_ms = now.max(1);
        }
        may
    }

    /// After the steps: timers that follow from them, and the acknowledgement that cannot wait because the connection's
    /// record may be replaced by a [`super::TimeWait`].
    pub(super) fn finish(&mut self, cx: &mut Context<'_, '_>, mut arrival: Arrival) -> Arrival {
        if arrival.events.has(Events::TIME_WAIT) && self.owed.has(Owed::ACK) {
            arrival.reply = Some(Control {
                seq: self.snd.nxt,
                ack: self.rcv.nxt,
                flags: Flags::ACK,
                window: self.rcv.offer_window(cx.frames.allowance(), self.sack),
                timestamp: self.ts.option(cx.now),
            });
            self.note_ack_sent(false);
        }
        self.arm_persist(cx);
        arrival
    }
}
