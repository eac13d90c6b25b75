//! Fast Open (RFC 7413): data on the SYN, for a peer that proved its address before. What a connection knows of it; who
//! gets a cookie, and how many may be early, is decided in `socket/fast_open.rs`.

use super::tcb::Owed;
use super::{Context, Events, Outgoing, State, Tcb};
use crate::addr::Flow;
use crate::buf::FrameId;
use crate::time::{Instant, SEC};
use crate::wire::tcp::{FastOpenCookie, Flags, Segment};
use core::hash::Hasher;
use siphasher::sip::SipHasher24;

/// The key of cookies changes twice a day; the key before it still counts (RFC 7413 §4.1.2), so a cookie is good for 12 to
/// 24 hours.
const KEY_LIFE_US: u64 = 12 * 3600 * SEC;
/// What options may take from the first segment's room.
const OPTIONS_MAX: u16 = 40;

/// The option that the first SYN, or SYN-ACK, carries.
const OFFERS: u8 = 1;
/// connect() waits for the first write.
const DEFERRED: u8 = 1 << 1;
/// The SYN carried data.
const SENT_DATA: u8 = 1 << 2;
/// A listener took the data of the SYN: the application may have the connection before its handshake is complete.
const EARLY: u8 = 1 << 3;
/// The peer gave us a cookie, which nobody took yet.
const GRANTED: u8 = 1 << 4;
/// The first SYN went unanswered.
const FAILED: u8 = 1 << 5;
/// The data of a SYN was taken by whom it went to; or it was not.
const TAKEN: u8 = 1 << 6;
const NOT_TAKEN: u8 = 1 << 7;

/// A connection's share of Fast Open.
#[derive(Clone, Copy, Default, Debug)]
#[repr(transparent)]
pub(super) struct FastOpen {
    flags: u8,
}

impl FastOpen {
    fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The data of a SYN, ours or the peer's, was taken: for tools.
    pub(super) fn was_taken(&self) -> bool {
        self.is(TAKEN)
    }

    /// The first SYN went unanswered.
    pub(super) fn note_timeout(&mut self) {
        if self.is(OFFERS | SENT_DATA) {
            self.flags |= FAILED;
        }
    }
}

/// The cookie of a client at `now`: a keyed hash of both addresses. With `age` 1, that of the key before.
pub fn fast_open_cookie(secret: &[u64; 2], flow: &Flow, now: Instant, age: u64) -> FastOpenCookie {
    let mut hasher = SipHasher24::new_with_keys(secret[0], secret[1]);
    hasher.write(&flow.remote.ip.0);
    hasher.write(&flow.local.ip.0);
    hasher.write(&(now.micros() / KEY_LIFE_US).wrapping_sub(age).to_be_bytes());
    // The last octet says what is hashed: 0 to 2 are first numbers', offsets' and SYN cookies'.
    hasher.write(&[3]);
    FastOpenCookie::new(&hasher.finish().to_be_bytes()).unwrap_or_default()
}

impl Tcb {
    /// Active: the first SYN carries the option, and waits for data when there is a cookie that is good for that. `mss` is
    /// what the peer took before. Follows [`Tcb::connect`] at once.
    pub fn open_fast(&mut self, has_option: bool, may_carry_data: bool, mss: u16) {
        if has_option {
            self.fast_open.flags |= OFFERS;
        }
        if may_carry_data {
            self.fast_open.flags |= DEFERRED;
            self.owed.remove(Owed::SYN);
            self.timers.stop();
            self.snd.mss = self.snd.mss.min(mss).saturating_sub(OPTIONS_MAX).max(1);
        }
    }

    /// Whether the next SYN or SYN-ACK carries the option: [`Context::cookie`] has to say what is in it. It goes once, for
    /// middleboxes that drop the option would drop all (RFC 7413 §4.1.3.1).
    #[inline]
    pub fn offers_cookie(&self) -> bool {
        self.fast_open.is(OFFERS)
            && matches!(self.state, State::SynSent | State::SynReceived)
            && self.timers.retransmits == 0
    }

    /// Whether connect() waits for the first write.
    pub fn is_deferred(&self) -> bool {
        self.fast_open.is(DEFERRED)
    }

    /// The SYN goes now, with what was written.
    pub fn end_deferral(&mut self, cx: &Context<'_, '_>) {
        if self.is_deferred() {
            self.fast_open.flags &= !DEFERRED;
            self.owed.add(Owed::SYN);
            self.timers.arm_retransmit(cx.now, self.rto_us(cx));
        }
    }

    /// The SYN with the first of the data, once; when that is not answered, a bare one goes (RFC 7413 §4.1.3.1).
    pub(super) fn send_syn_data(&mut self, cx: &mut Context<'_, '_>, flags: Flags) -> Option<Outgoing> {
        if self.state != State::SynSent || self.timers.retransmits > 0 || self.fast_open.is(SENT_DATA) {
            return None;
        }
        let id = self.snd.next_unsent()?;
        self.snd.note_sent(cx.frames, id, cx.now);
        self.fast_open.flags |= SENT_DATA;
        Some(self.send_on_syn(cx, id, flags))
    }

    /// The SYN-ACK came: what it says of cookies, and of the data that our SYN carried.
    pub(super) fn settle_syn_data(&mut self, cx: &mut Context<'_, '_>, seg: &Segment) -> Events {
        if self.fast_open.is(OFFERS) && seg.options.fast_open.is_some_and(|cookie| !cookie.is_request()) {
            self.fast_open.flags |= GRANTED;
        }
        let mut events = Events::NONE;
        if seg.ack.is_after(self.snd.una) {
            cx.counters.fast_open_active += 1;
            self.fast_open.flags |= TAKEN;
            events = self.acknowledge(cx, seg, false);
            // It went with the SYN, which counted already.
            self.tally.delivered = 1;
        }
        if self.snd.flight() > 0 {
            // Not taken: it goes again at once. The peer's policy, not the network's state.
            cx.counters.fast_open_active_failed += 1;
            self.fast_open.flags |= NOT_TAKEN;
            self.resend_longer_than(cx, 0);
        }
        events
    }

    /// Active: the SYN-ACK that just came brought a cookie, for segments of this size; told once.
    pub fn take_granted(&mut self) -> Option<u16> {
        let is_granted = self.fast_open.is(GRANTED);
        self.fast_open.flags &= !GRANTED;
        is_granted.then_some(self.snd.wire_mss)
    }

    /// Active: whether the first SYN went unanswered, once the handshake is over, one way or the other; `None` when it was
    /// one as ever.
    pub fn has_fast_open_failed(&self) -> Option<bool> {
        (self.fast_open.is(OFFERS | SENT_DATA) && !self.passive).then(|| self.fast_open.is(FAILED))
    }

    /// Why data did not go with our SYN, or in vain: Linux's number in `struct tcp_info`.
    pub(super) fn fast_open_failure(&self) -> u8 {
        let fast_open = &self.fast_open;
        match (fast_open.is(SENT_DATA), fast_open.is(NOT_TAKEN), fast_open.is(FAILED)) {
            _ if self.passive || !fast_open.is(OFFERS) => 0,
            (false, ..) => 1,
            (true, true, false) => 2,
            (true, _, true) => 3,
            _ => 0,
        }
    }

    /// Passive: the SYN-ACK gives the peer a cookie.
    pub fn grant_cookie(&mut self) {
        self.fast_open.flags |= OFFERS;
    }

    /// Passive: the SYN brought a good cookie. Its data is taken, and the application may read and write before the handshake
    /// is complete (RFC 7413 §4.2.2). The frame is queued or released.
    pub fn open_early(&mut self, cx: &mut Context<'_, '_>, syn: &Segment, frame: FrameId) -> Events {
        self.fast_open.flags |= EARLY;
        if syn.payload_len == 0 {
            cx.frames.release(frame);
            return Events::NONE;
        }
        self.fast_open.flags |= TAKEN;
        self.take_text(cx, &super::handshake::without_syn(syn), frame)
    }

    /// Whether the application has the connection though its handshake is not complete.
    pub fn is_early(&self) -> bool {
        self.fast_open.is(EARLY) && self.state == State::SynReceived
    }

    /// Whether the connection was early; told once.
    pub fn take_early(&mut self) -> bool {
        let was = self.fast_open.is(EARLY);
        self.fast_open.flags &= !EARLY;
        was
    }

    /// Whether its data left before the handshake was complete: then no time from SYN to ACK was measured.
    pub(super) fn is_handshake_unmeasured(&self) -> bool {
        self.fast_open.is(EARLY)
    }
}
