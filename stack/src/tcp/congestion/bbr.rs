//! BBR, version 1, as Linux's tcp_bbr behaves: the window and the pace follow a model of the path, its bandwidth (the
//! largest delivery rate of ten round trips) and its round-trip time (the smallest of ten seconds).
//!
//! Modes: STARTUP doubles the pace each round until the bandwidth stops growing; DRAIN empties the queue that made;
//! PROBE_BW cycles the pace around the bandwidth; PROBE_RTT empties the path to see how long it is.
//!
//! Left out: the sampling of token-bucket policers ("long-term bandwidth"). Where Linux draws a random number, the
//! first phase of a cycle comes from sequence numbers, which nobody chose.

use super::max_filter::MaxFilter;
use super::rate::{RateSampler, elapsed, is_before, low, low_ms};
use super::{CWND_MAX, Delivery, Window, initial_window};
use crate::time::{Instant, MS, SEC};

/// Bandwidth is kept in units of 64 octets a second: 32 bits of it are two terabits.
const BW_UNIT: u64 = 64;
/// Gains are in 1/256.
const UNIT: u64 = 256;
/// 2/ln 2 is the smallest that doubles the delivered in each round; and its inverse.
const HIGH_GAIN: u64 = UNIT * 2885 / 1000 + 1;
const DRAIN_GAIN: u64 = UNIT * 1000 / 2885;
const CWND_GAIN: u64 = UNIT * 2;
const PACING_CYCLE: [u64; 8] = [UNIT * 5 / 4, UNIT * 3 / 4, UNIT, UNIT, UNIT, UNIT, UNIT, UNIT];

/// Round trips that the bandwidth is remembered for.
const BW_ROUNDS: u32 = 10;
const MIN_RTT_WINDOW_MS: u32 = 10_000;
const PROBE_RTT_MS: u32 = 200;
/// Segments in flight in PROBE_RTT, and the least otherwise: enough for delayed acknowledgements.
const CWND_MIN_SEGMENTS: u32 = 4;
/// STARTUP ends after three rounds in which the bandwidth did not grow by a quarter.
const FULL_BW_ROUNDS: u8 = 3;
/// Acknowledgements that come in clumps are allowed for with at most this much time, remembered for five to ten rounds.
const EXTRA_ACKED_MAX_US: u64 = 100 * MS;
const EXTRA_ACKED_ROUNDS: u8 = 5;
const EXTRA_ACKED_RESET: u32 = 1 << 30;

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(u8)]
pub(super) enum Mode {
    #[default]
    Startup,
    Drain,
    ProbeBw,
    ProbeRtt,
}

/// What loss recovery does, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(u8)]
enum Repair {
    #[default]
    None,
    /// A loss was found, and no acknowledgement was looked at since.
    Begins,
    Recovery,
    Loss,
}

#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Bbr {
    min_rtt_at_ms: u32,
    /// When PROBE_RTT may end; 0 until the path is empty.
    probe_rtt_until_ms: u32,
    cycle_at_us: u32,
    extra_epoch_at_us: u32,
    /// In the units of the bandwidth; 0 before anything is known.
    pace: u32,
    bandwidth: MaxFilter,
    min_rtt_us: u32,
    /// Round trips, and the delivered count that ends this one.
    rounds: u32,
    round_end: u32,
    /// The window before recovery or PROBE_RTT.
    prior_cwnd: u32,
    full_bw: u32,
    extra_epoch_acked: u32,
    extra_acked: [u32; 2],
    pub(super) mode: Mode,
    repair: Repair,
    cycle: u8,
    full_bw_rounds: u8,
    extra_rounds: u8,
    extra_index: u8,
    has_full_bw: bool,
    is_round_start: bool,
    /// First round of recovery: one segment leaves for each that was delivered.
    conserves: bool,
    probe_rtt_had_round: bool,
    restarts_from_idle: bool,
    has_seen_rtt: bool,
}

impl Bbr {
    /// For tools: octets a second, the smallest round trip in microseconds, and both gains in 1/256.
    pub(super) fn told(&self) -> (u64, u32, u32, u32) {
        let rate = u64::from(self.bandwidth.max()) * BW_UNIT;
        (rate, self.min_rtt_us, self.pacing_gain() as u32, self.cwnd_gain() as u32)
    }

    /// The connection stands, or it changes to this algorithm.
    pub(super) fn start(&mut self, window: &mut Window, rate: &RateSampler, now: Instant, srtt_us: u32) {
        window.ssthresh = CWND_MAX;
        self.round_end = rate.delivered();
        (self.min_rtt_us, self.min_rtt_at_ms) = (if srtt_us == 0 { u32::MAX } else { srtt_us }, low_ms(now));
        self.extra_epoch_at_us = low(now);
        self.take_first_rtt(window.cwnd, srtt_us);
    }

    /// Before there is a bandwidth, the window over the round trip stands for it.
    fn take_first_rtt(&mut self, cwnd: u32, srtt_us: u32) {
        self.has_seen_rtt = srtt_us != 0;
        let rtt_us = if self.has_seen_rtt { u64::from(srtt_us) } else { MS };
        self.set_pace(paced(u64::from(cwnd) * SEC / rtt_us, HIGH_GAIN));
    }

    /// Octets a second.
    pub(super) fn pacing_rate(&self) -> Option<u64> {
        (self.pace != 0).then_some(u64::from(self.pace) * BW_UNIT)
    }

    /// One small segment a second always goes.
    fn set_pace(&mut self, rate: u64) {
        self.pace = (rate.max(1500) / BW_UNIT).min(u64::from(u32::MAX)) as u32;
    }

    pub(super) fn on_ack(&mut self, window: &mut Window, rate: &mut RateSampler, d: &Delivery) {
        self.update_bandwidth(rate, d);
        self.update_extra_acked(window.cwnd, d);
        self.update_cycle(d);
        self.check_full_bandwidth(d);
        self.check_drain(window, d);
        self.update_min_rtt(window, rate, d);
        self.set_pacing_rate(window.cwnd, d);
        self.set_cwnd(window, rate, d);
    }

    fn update_bandwidth(&mut self, rate: &RateSampler, d: &Delivery) {
        self.is_round_start = false;
        if d.rate.interval_us == 0 {
            return;
        }
        if !is_before(d.rate.prior_delivered, self.round_end) {
            self.round_end = rate.delivered();
            self.rounds = self.rounds.wrapping_add(1);
            self.is_round_start = true;
            self.conserves = false;
        }
        let bw = u64::from(d.rate.delivered) * (SEC / BW_UNIT) / u64::from(d.rate.interval_us);
        let bw = bw.min(u64::from(u32::MAX)) as u32;
        if !d.rate.is_app_limited || bw >= self.bandwidth.max() {
            self.bandwidth.update(self.rounds, BW_ROUNDS, bw);
        }
    }

    /// How much more than the bandwidth would deliver was acknowledged at times: the window has to leave room for it.
    fn update_extra_acked(&mut self, cwnd: u32, d: &Delivery) {
        if d.delivered == 0 || d.rate.interval_us == 0 {
            return;
        }
        if self.is_round_start {
            self.extra_rounds += 1;
            if self.extra_rounds >= EXTRA_ACKED_ROUNDS {
                self.extra_rounds = 0;
                self.extra_index ^= 1;
                self.extra_acked[usize::from(self.extra_index & 1)] = 0;
            }
        }
        let mut expected = self.octets_in(u64::from(elapsed(self.extra_epoch_at_us, low(d.now))));
        if u64::from(self.extra_epoch_acked) <= expected || self.extra_epoch_acked >= EXTRA_ACKED_RESET {
            (self.extra_epoch_acked, self.extra_epoch_at_us, expected) = (0, low(d.now), 0);
        }
        self.extra_epoch_acked = self.extra_epoch_acked.saturating_add(d.delivered).min(EXTRA_ACKED_RESET);
        let extra = u64::from(self.extra_epoch_acked).saturating_sub(expected).min(u64::from(cwnd)) as u32;
        let slot = &mut self.extra_acked[usize::from(self.extra_index & 1)];
        *slot = extra.max(*slot);
    }

    /// What the bandwidth delivers in a time.
    fn octets_in(&self, us: u64) -> u64 {
        u64::from(self.bandwidth.max()).saturating_mul(us.min(3600 * SEC)) / (SEC / BW_UNIT)
    }

    /// The bandwidth-delay product, times a gain.
    fn bdp(&self, gain: u64, mss: u32) -> u64 {
        if self.min_rtt_us == u32::MAX {
            return u64::from(initial_window(mss));
        }
        (self.octets_in(u64::from(self.min_rtt_us)) * gain).div_ceil(UNIT)
    }

    /// What may be in flight with a gain: also what lies in the transmit ring, a receiver's batch and a timer's tick.
    fn inflight(&self, gain: u64, mss: u32) -> u64 {
        self.bdp(gain, mss) + self.burst_room(mss)
    }

    fn burst_room(&self, mss: u32) -> u64 {
        let mss = u64::from(mss);
        let probing = if self.mode == Mode::ProbeBw && self.cycle == 0 { 2 * mss } else { 0 };
        3 * (u64::from(self.pace) * BW_UNIT / 1024).clamp(2 * mss, (1 << 16).max(2 * mss)) + probing
    }

    fn update_cycle(&mut self, d: &Delivery) {
        if self.mode != Mode::ProbeBw {
            return;
        }
        let gain = PACING_CYCLE[usize::from(self.cycle & 7)];
        let is_full_length = elapsed(self.cycle_at_us, low(d.now)) > self.min_rtt_us;
        let in_flight = u64::from(d.prior_in_flight);
        let is_over = match gain {
            UNIT => is_full_length,
            // Up: until the queue it makes is seen, or something is lost.
            up if up > UNIT => is_full_length && (d.lost > 0 || in_flight >= self.inflight(up, d.mss)),
            // Down: until that queue is gone.
            _ => is_full_length || in_flight <= self.inflight(UNIT, d.mss),
        };
        if is_over {
            self.cycle = (self.cycle + 1) & 7;
            self.cycle_at_us = low(d.now);
        }
    }

    fn check_full_bandwidth(&mut self, d: &Delivery) {
        if self.has_full_bw || !self.is_round_start || d.rate.is_app_limited {
            return;
        }
        let max = self.bandwidth.max();
        if u64::from(max) >= u64::from(self.full_bw) * 5 / 4 {
            (self.full_bw, self.full_bw_rounds) = (max, 0);
            return;
        }
        self.full_bw_rounds += 1;
        self.has_full_bw = self.full_bw_rounds >= FULL_BW_ROUNDS;
    }

    fn check_drain(&mut self, window: &mut Window, d: &Delivery) {
        if self.mode == Mode::Startup && self.has_full_bw {
            self.mode = Mode::Drain;
            window.ssthresh = self.inflight(UNIT, d.mss).min(u64::from(CWND_MAX)) as u32;
        }
        if self.mode == Mode::Drain && u64::from(d.in_flight) <= self.inflight(UNIT, d.mss) {
            self.enter_probe_bw(d.now, d.nxt);
        }
    }

    /// The cycle starts anywhere but in the phase that drains: there is nothing to drain.
    fn enter_probe_bw(&mut self, now: Instant, salt: u32) {
        let chosen = ((u64::from(salt.wrapping_mul(0x9e37_79b1)) * 7) >> 32) as u8;
        self.mode = Mode::ProbeBw;
        self.cycle = (8 - chosen) & 7;
        self.cycle_at_us = low(now);
    }

    fn update_min_rtt(&mut self, window: &mut Window, rate: &mut RateSampler, d: &Delivery) {
        let is_expired = elapsed(self.min_rtt_at_ms, low_ms(d.now)) > MIN_RTT_WINDOW_MS;
        if let Some(rtt_us) = d.rtt_us.map(|us| us.max(1)).filter(|&us| us < self.min_rtt_us || is_expired) {
            (self.min_rtt_us, self.min_rtt_at_ms) = (rtt_us, low_ms(d.now));
        }
        if is_expired && !self.restarts_from_idle && self.mode != Mode::ProbeRtt {
            self.mode = Mode::ProbeRtt;
            self.save_cwnd(window.cwnd);
            self.probe_rtt_until_ms = 0;
        }
        if self.mode == Mode::ProbeRtt {
            self.probe_rtt(window, rate, d);
        }
        if d.delivered > 0 {
            self.restarts_from_idle = false;
        }
    }

    fn probe_rtt(&mut self, window: &mut Window, rate: &mut RateSampler, d: &Delivery) {
        // What is delivered now tells nothing of the bandwidth.
        rate.mark_app_limited(d.in_flight);
        if self.probe_rtt_until_ms == 0 {
            if d.in_flight <= CWND_MIN_SEGMENTS * d.mss {
                self.probe_rtt_until_ms = low_ms(d.now).wrapping_add(PROBE_RTT_MS).max(1);
                self.probe_rtt_had_round = false;
                self.round_end = rate.delivered();
            }
            return;
        }
        self.probe_rtt_had_round |= self.is_round_start;
        if self.probe_rtt_had_round {
            self.end_probe_rtt(window, d.now, d.nxt);
        }
    }

    fn end_probe_rtt(&mut self, window: &mut Window, now: Instant, salt: u32) {
        if self.probe_rtt_until_ms == 0 || is_before(low_ms(now), self.probe_rtt_until_ms) {
            return;
        }
        self.min_rtt_at_ms = low_ms(now);
        window.cwnd = window.cwnd.max(self.prior_cwnd);
        if self.has_full_bw {
            self.enter_probe_bw(now, salt);
        } else {
            self.mode = Mode::Startup;
        }
    }

    fn pacing_gain(&self) -> u64 {
        match self.mode {
            Mode::Startup => HIGH_GAIN,
            Mode::Drain => DRAIN_GAIN,
            Mode::ProbeBw => PACING_CYCLE[usize::from(self.cycle & 7)],
            Mode::ProbeRtt => UNIT,
        }
    }

    fn cwnd_gain(&self) -> u64 {
        match self.mode {
            Mode::Startup | Mode::Drain => HIGH_GAIN,
            Mode::ProbeBw => CWND_GAIN,
            Mode::ProbeRtt => UNIT,
        }
    }

    fn set_pacing_rate(&mut self, cwnd: u32, d: &Delivery) {
        if !self.has_seen_rtt && d.srtt_us != 0 {
            self.take_first_rtt(cwnd, d.srtt_us);
        }
        self.pace_with(self.pacing_gain());
    }

    /// Before the bandwidth is known, the pace does not fall.
    fn pace_with(&mut self, gain: u64) {
        let rate = paced(u64::from(self.bandwidth.max()) * BW_UNIT, gain);
        if self.has_full_bw || rate > u64::from(self.pace) * BW_UNIT {
            self.set_pace(rate);
        }
    }

    fn set_cwnd(&mut self, window: &mut Window, rate: &RateSampler, d: &Delivery) {
        if d.delivered > 0 {
            let conserved = self.repair_cwnd(window, rate, d);
            if !conserved {
                self.grow_cwnd(window, rate, d);
            }
        }
        if self.mode == Mode::ProbeRtt {
            window.cwnd = window.cwnd.min(CWND_MIN_SEGMENTS * d.mss);
        }
    }

    fn grow_cwnd(&self, window: &mut Window, rate: &RateSampler, d: &Delivery) {
        let extra = if self.has_full_bw {
            u64::from(self.extra_acked[0].max(self.extra_acked[1])).min(self.octets_in(EXTRA_ACKED_MAX_US))
        } else {
            0
        };
        let target = self.inflight(self.cwnd_gain(), d.mss) + extra;
        let grown = u64::from(window.cwnd) + u64::from(d.delivered);
        let cwnd = if self.has_full_bw {
            grown.min(target)
        } else if u64::from(window.cwnd) < target || rate.delivered() < initial_window(d.mss) {
            grown
        } else {
            u64::from(window.cwnd)
        };
        window.cwnd = cwnd.clamp(u64::from(CWND_MIN_SEGMENTS * d.mss), u64::from(CWND_MAX)) as u32;
    }

    /// Recovery: in its first round what leaves is what was delivered. True: that is the window.
    fn repair_cwnd(&mut self, window: &mut Window, rate: &RateSampler, d: &Delivery) -> bool {
        // Segments may be short: octets are conserved, but a window is a segment at least (Linux counts segments).
        let conserved = d.in_flight.saturating_add(d.delivered).max(d.mss).min(CWND_MAX);
        if d.lost > 0 {
            window.cwnd = window.cwnd.saturating_sub(d.lost).max(d.mss);
        }
        if self.repair == Repair::Begins && d.is_recovering {
            self.repair = Repair::Recovery;
            self.conserves = true;
            self.round_end = rate.delivered();
            window.cwnd = conserved;
        } else if self.repair != Repair::None && !d.is_recovering {
            self.leave_recovery(window);
        }
        if self.conserves {
            window.cwnd = window.cwnd.max(conserved);
        }
        self.conserves
    }

    /// Fast recovery begins. The window falls with the acknowledgements that follow.
    pub(super) fn on_loss(&mut self, cwnd: u32) {
        self.save_cwnd(cwnd);
        self.repair = Repair::Begins;
    }

    pub(super) fn on_timeout(&mut self, cwnd: u32) {
        self.save_cwnd(cwnd);
        self.repair = Repair::Loss;
        (self.full_bw, self.conserves) = (0, false);
    }

    /// Recovery is over, or was for nothing: the window of before.
    pub(super) fn leave_recovery(&mut self, window: &mut Window) {
        if self.repair != Repair::None {
            (self.repair, self.conserves) = (Repair::None, false);
            window.cwnd = window.cwnd.max(self.prior_cwnd);
        }
    }

    /// The last loss was none: what it said of a full path is forgotten too.
    pub(super) fn undo(&mut self, window: &mut Window) {
        (self.full_bw, self.full_bw_rounds) = (0, 0);
        self.leave_recovery(window);
    }

    /// Sending starts again with nothing in flight.
    pub(super) fn on_restart(&mut self, window: &mut Window, rate: &RateSampler, now: Instant) {
        // The times are short: after a long silence they would look like the future.
        self.cycle_at_us = low(now);
        if !rate.is_app_limited() {
            return;
        }
        self.restarts_from_idle = true;
        (self.extra_epoch_at_us, self.extra_epoch_acked) = (low(now), 0);
        match self.mode {
            // The queue is empty: no more than the bandwidth.
            Mode::ProbeBw => self.pace_with(UNIT),
            Mode::ProbeRtt => self.end_probe_rtt(window, now, self.rounds),
            Mode::Startup | Mode::Drain => {}
        }
    }

    fn save_cwnd(&mut self, cwnd: u32) {
        let is_first = self.repair == Repair::None && self.mode != Mode::ProbeRtt;
        self.prior_cwnd = if is_first { cwnd } else { self.prior_cwnd.max(cwnd) };
    }
}

/// A pace is a hundredth lower than the rate it aims at, so that no queue builds up from nothing but rounding.
fn paced(rate: u64, gain: u64) -> u64 {
    rate.saturating_mul(gain) / UNIT * 99 / 100
}

#[cfg(test)]
#[path = "bbr_tests.rs"]
mod tests;
