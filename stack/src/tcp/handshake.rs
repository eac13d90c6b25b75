//! SEGMENT ARRIVES in SYN-SENT (RFC 9293 §3.10.7.3) and SYN-RECEIVED (the parts of §3.10.7.4 that are its own).

use super::arrive::{Step, Stop};
use super::state::Event;
use super::tcb::Owed;
use super::{Context, Events, Seq, State, Tcb};
use crate::buf::FrameId;
use crate::drops::Drop;
use crate::wire::tcp::{Flags, Segment};

impl Tcb {
    /// SYN-SENT: the RFC's five steps.
    pub(super) fn arrive_in_syn_sent(
        &mut self,
        cx: &mut Context<'_, '_>,
        seg: &Segment,
        frame: FrameId,
    ) -> Result<Events, Stop> {
        // First, ACK: it can only be for our SYN.
        let acks_syn = seg.has(Flags::ACK);
        if acks_syn && !self.acks_our_syn(seg) {
            return Err(Stop::Refuse(Drop::AckInvalid));
        }
        // Second, RST: believed when it acknowledges our SYN.
        if seg.has(Flags::RST) {
            return Err(if acks_syn { Stop::Reset } else { Stop::Drop(Drop::RstInvalid) });
        }
        // Third, security: obsolete. Fourth, SYN. (Fifth: neither SYN nor RST is dropped.)
        if !seg.has(Flags::SYN) {
            return Err(Stop::Drop(Drop::NoAck));
        }
        self.learn_from_syn(cx, seg);
        if !acks_syn {
            // Simultaneous open: our SYN goes again, with an acknowledgement.
            self.transit(cx, Event::SynCrossed);
            self.owed.add(Owed::SYN);
            cx.frames.release(frame);
            return Ok(Events::NONE);
        }
        let events = self.synchronize(cx, seg) | self.settle_syn_data(cx, seg);
        self.owed.add(Owed::ACK);
        // "If there are other controls or text in the segment, continue at the sixth step."
        let rest = without_syn(seg);
        Ok(events | self.seventh_text(cx, &rest, frame)? | self.eighth_fin(cx, &rest))
    }

    /// SYN-RECEIVED: steps one, two and four with a difference each; a good ACK makes it ESTABLISHED, and the segment goes
    /// on from step five.
    pub(super) fn arrive_in_syn_received(
        &mut self,
        cx: &mut Context<'_, '_>,
        seg: &Segment,
        frame: FrameId,
    ) -> Result<Events, Stop> {
        let is_their_syn = seg.has(Flags::SYN) && seg.seq == self.rcv.irs && !seg.has(Flags::RST);
        if is_their_syn && !seg.has(Flags::ACK) {
            // Their SYN again: our SYN-ACK was lost.
            self.owed.add(Owed::SYN);
            return Err(Stop::Drop(Drop::Duplicate));
        }
        // The SYN-ACK of a simultaneous open counts as the ACK it carries (RFC 9293 figure 8).
        let stripped = is_their_syn.then(|| without_syn(seg));
        let seg = stripped.as_ref().unwrap_or(seg);
        self.first_sequence_number(cx, seg)?;
        self.second_reset(seg)?;
        self.fourth_syn(seg)?;
        self.fifth_ack_of_syn(seg)?;
        self.defer(seg)?;
        let connected = self.synchronize(cx, seg);
        if stripped.is_some() {
            self.owed.add(Owed::ACK);
        }
        Ok(connected | self.fifth_to_eighth(cx, seg, frame)?)
    }

    /// TCP_DEFER_ACCEPT: a bare ACK is not looked at; the peer's data will acknowledge as well.
    fn defer(&mut self, seg: &Segment) -> Step {
        let is_due = self.passive && !self.is_early() && self.timers.retransmits < self.options.defer_accept;
        if is_due && seg.len() == 0 {
            self.last_ack_came = true;
            return Err(Stop::Drop(Drop::AckDeferred));
        }
        Ok(())
    }

    /// Fifth, in SYN-RECEIVED: an ACK that is not for our SYN belongs to another connection.
    fn fifth_ack_of_syn(&self, seg: &Segment) -> Step {
        match seg.has(Flags::ACK) {
            false => Err(Stop::Drop(Drop::NoAck)),
            true if !self.acks_our_syn(seg) => Err(Stop::Refuse(Drop::AckInvalid)),
            true => Ok(()),
        }
    }

    /// Our SYN is acknowledged and theirs is here: ESTABLISHED, and what follows from it.
    fn synchronize(&mut self, cx: &mut Context<'_, '_>, seg: &Segment) -> Events {
        let is_unmeasured = self.is_handshake_unmeasured();
        let was_resent = self.timers.retransmits > 0;
        let sent_at = self.snd.last_sent_at;
        let from_syn = (!was_resent && sent_at.is_set() && !is_unmeasured)
            .then(|| cx.now.since_us(sent_at).min(u64::from(u32::MAX)) as u32);
        let from_echo = || seg.options.timestamp.and_then(|(_, echo)| self.ts.rtt_us(echo, cx.now));
        if let Some(us) = from_syn.or_else(from_echo) {
            self.take_rtt(cx, us, None);
        }
        if was_resent {
            self.rtt.distrust();
        }
        if self.timers.retransmits > 1 {
            self.congestion.distrust(u32::from(self.snd.mss));
        }
        self.congestion.start(cx.now, self.rtt.srtt_us());
        self.owed.remove(Owed::SYN);
        self.snd.una = self.snd.iss + 1;
        self.timers.note_progress();
        self.timers.backoff = 0;
        self.timers.stop_retransmit();
        let shift = if seg.has(Flags::SYN) { 0 } else { self.snd.shift };
        self.snd.wnd = u32::from(seg.window) << shift;
        self.snd.max_wnd = self.snd.wnd;
        (self.snd.wl1, self.snd.wl2) = (seg.seq, seg.ack);
        // Our SYN.
        self.tally.delivered = 1;
        self.note_repaired(cx.now);
        self.start_buffers(cx);
        if self.snd.flight() > 0 {
            // Data went before the handshake was complete.
            self.timers.arm_retransmit(cx.now, self.rto_us(cx));
        }
        let mut events = self.transit(cx, Event::Synchronized) | Events::CONNECTED | Events::WRITABLE;
        if self.snd.fin != super::sender::Fin::None {
            events |= self.transit(cx, Event::Close);
        }
        if self.state == State::Established {
            self.arm_keepalive(cx.now);
        }
        events
    }
}

/// The segment without its SYN: what is behind it.
pub(super) fn without_syn(seg: &Segment) -> Segment {
    Segment { seq: seg.seq + 1, flags: seg.flags.without(Flags::SYN), ..*seg }
}

impl Tcb {
    /// An acknowledgement of our SYN, and perhaps of data that went with it or soon after.
    fn acks_our_syn(&self, seg: &Segment) -> bool {
        seg.ack.is_after(self.snd.iss) && !seg.ack.is_after(self.snd.nxt)
    }

    /// Whether the segment, in SYN-RECEIVED, is the handshake's last.
    pub fn would_complete(&self, seg: &Segment) -> bool {
        self.acks_our_syn(seg) && seg.seq == self.rcv.nxt
    }

    /// The sequence number of our SYN.
    pub(super) fn syn_seq(&self) -> Seq {
        self.snd.iss
    }

    /// Whether a SYN-ACK went unanswered: who comes now may have its place.
    pub fn is_half_open_stale(&self) -> bool {
        self.state == State::SynReceived && self.timers.retransmits > 0 && !self.last_ack_came
    }
}
