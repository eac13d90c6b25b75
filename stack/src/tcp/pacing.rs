//! Pacing: data goes out evenly, at the rate that the congestion control or the application asks for.
//!
//! Each segment is charged with the time it takes at that rate; the next may go when that time is over. A timer that is
//! late (the wheel ticks each millisecond) and an application that pauses leave a credit, of [`CREDIT_NS`] at most: so
//! nothing is lost to late timers, and no burst is longer than that. Acknowledgements, SYNs and a FIN alone are not data.

use super::{Algorithm, Context, Tcb};
use crate::time::{Instant, SEC};

/// Two ticks of the timer wheel.
const CREDIT_NS: u64 = 2 * 1_024_000;
/// The first segments of a connection are not paced (as on Linux): nothing is known yet, and they are few.
const FREE_SEGMENTS: u32 = 10;

/// `Options::max_pacing_rate` when there is no limit.
pub(super) const UNLIMITED: u64 = u64::MAX;

impl Tcb {
    /// Octets a second; `None`: as fast as the windows allow.
    ///
    /// With a limit of the application's, Linux paces every algorithm, at twice the window per round trip at most; here
    /// one that does not ask for a pace gets the limit itself.
    #[inline]
    pub(super) fn pace(&self) -> Option<u64> {
        let most = self.options.max_pacing_rate;
        let own = self.congestion.pacing_rate();
        if most == UNLIMITED || most == 0 { own } else { Some(own.map_or(most, |rate| rate.min(most))) }
    }

    /// Whether data has to wait; the timer is then set for when it may go. Until somebody [looks](Tcb::look_at_pace) it does
    /// not: what [`Tcb::wants_transmit`] said holds.
    #[inline]
    pub(super) fn must_wait(&mut self, now: Instant) -> bool {
        self.timers.is_paced |= self.timers.paid_until_ns > ns(now);
        self.timers.is_paced
    }

    /// `octets` of payload go out.
    #[inline]
    pub(super) fn charge(&mut self, cx: &Context<'_, '_>, octets: u32) {
        match self.pace() {
            None => self.timers.paid_until_ns = 0,
            Some(rate) => self.charge_at(rate, cx.now, octets),
        }
    }

    fn charge_at(&mut self, rate: u64, now: Instant, octets: u32) {
        let is_first_flight = self.snd.bytes_acked == 0
            && self.snd.nxt.since(self.snd.iss) <= FREE_SEGMENTS * u32::from(self.snd.mss) + 1;
        if is_first_flight {
            return;
        }
        let cost_ns = u64::from(octets) * (SEC * 1000) / rate.max(1);
        let from = self.timers.paid_until_ns.max(ns(now).saturating_sub(CREDIT_NS));
        self.timers.paid_until_ns = from.saturating_add(cost_ns);
    }

    /// The wait may be over: without asking the timer.
    #[inline]
    pub(super) fn look_at_pace(&mut self, now: Instant) {
        self.timers.is_paced &= self.timers.pace_at() > now;
    }

    /// The application brings something: if nothing waited, and the window had room, it was the application that set the
    /// pace up to now.
    #[inline]
    pub(super) fn note_app_limited(&mut self) {
        let snd = &self.snd;
        let is_dry = snd.unsent() < u32::from(snd.mss) && snd.board.lost == 0;
        if is_dry && snd.flight() < self.congestion.cwnd() {
            self.congestion.rate.mark_app_limited(snd.flight());
        }
    }

    /// SO_MAX_PACING_RATE, in octets a second: counts from now on.
    pub fn set_max_pacing_rate(&mut self, rate: u64) {
        self.options.max_pacing_rate = rate;
        self.forget_pace();
    }

    /// TCP_CONGESTION: counts at once, and keeps the window.
    pub fn set_congestion(&mut self, now: Instant, algorithm: Algorithm) {
        self.options.congestion = algorithm;
        if self.state.is_synchronized() {
            self.congestion.switch(algorithm, now, self.rtt.srtt_us());
            self.forget_pace();
        }
    }

    /// TCP_CC_INFO of BBR: octets a second, smallest round trip in microseconds, pacing and window gain in 1/256.
    pub fn congestion_info(&self) -> Option<(u64, u32, u32, u32)> {
        self.congestion.told()
    }

    /// The pace changes: what was paid at the old one is forgiven.
    pub(super) fn forget_pace(&mut self) {
        (self.timers.paid_until_ns, self.timers.is_paced) = (0, false);
    }

    /// The rate at which data goes out now, for tools; [`u64::MAX`] when it is not paced.
    pub fn pacing_rate(&self) -> u64 {
        self.pace().unwrap_or(UNLIMITED)
    }

    /// How fast the network delivered lately, in octets a second, and whether the application held that down; for tools.
    pub fn delivery_rate(&self) -> (u64, bool) {
        self.congestion.rate.latest()
    }
}

fn ns(now: Instant) -> u64 {
    now.micros().saturating_mul(1000)
}
