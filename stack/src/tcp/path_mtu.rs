//! The path's MTU: what routers say of it (RFC 1191, RFC 8201), and finding it out when they say nothing (RFC 4821).
//!
//! Sizes here are those of the MSS: without IP and TCP header. `tunables.mtu_probing`, as Linux's sysctl: 0, routers are
//! believed and silence is not suspected; 1, full segments that vanish again and again mean a black hole: the size drops, and
//! is then searched upwards; 2, every connection starts small and searches.
//!
//! Deviation: a probe that is lost counts as a loss for congestion control (RFC 4821 §7.6.1 would spare it); there are about
//! eight probes in ten minutes. Its octets go again in segments of the size that works.

use super::timestamps::ms;
use super::{Context, Seq, State, Tcb};

/// Where searching starts (Linux: tcp_base_mss), and what it never goes below. Both families carry the first on any
/// path that follows the rules; the second is for those that do not.
const BASE_MSS: u16 = 1024;
const FLOOR_MSS: u16 = 256;
/// Timeouts in a row before silence is suspected (Linux: tcp_retries1).
const SUSPICIOUS_TIMEOUTS: u8 = 3;
/// A search ends when it would gain less than this (Linux: tcp_probe_threshold), and starts over after this long, for
/// paths change (tcp_probe_interval).
const WORTHWHILE: u16 = 8;
const SEARCH_AGAIN_MS: u32 = 600_000;
/// Segments that have to be queued behind a probe: so that their acknowledgements tell whether it was lost.
const FOLLOWERS: u32 = 3;

/// What is known of the path.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct PathMtu {
    /// What both ends would take, and what may still get through: a router said so, or larger probes were lost.
    most: u16,
    high: u16,
    /// What got through, or is thought to; 0 while nobody searches.
    low: u16,
    /// The size of the probe under way, 0 without one, and where it ends.
    probe: u16,
    probe_end: Seq,
    /// When the search last ended.
    ended_at_ms: u32,
}

impl PathMtu {
    pub(super) const UNKNOWN: PathMtu =
        PathMtu { most: u16::MAX, high: u16::MAX, low: 0, probe: 0, probe_end: Seq(0), ended_at_ms: 0 };

    /// The size to use.
    fn size(&self) -> u16 {
        if self.low == 0 { self.high } else { self.low }
    }
}

/// IP header, and the least that a path may be said to carry: Linux's `min_pmtu`, and IPv6's minimum MTU. Less is an
/// attack.
fn limits(is_v4: bool) -> (u32, u32) {
    if is_v4 { (20, 552) } else { (40, 1280) }
}

impl Tcb {
    /// Both ends said what they take, and that is `most`.
    pub(super) fn settle_path(&mut self, cx: &Context<'_, '_>, most: u16) {
        self.path.most = most;
        self.path.high = self.path.high.min(most);
        if cx.tunables.mtu_probing >= 2 {
            self.path.low = BASE_MSS.min(self.path.high);
        }
        self.use_path_size();
    }

    fn use_path_size(&mut self) {
        self.snd.wire_mss = self.path.size();
        self.settle_mss();
    }

    /// The path carries packets of `mtu` at most. True when that was news.
    pub fn limit_path(&mut self, mtu: u32) -> bool {
        let (header, floor) = limits(self.flow().local.ip.is_v4());
        let mss = mtu.max(floor).saturating_sub(header + 20).min(u32::from(u16::MAX)) as u16;
        self.path.high = self.path.high.min(mss);
        self.path.low = self.path.low.min(mss);
        let is_news = mss < self.snd.wire_mss;
        if is_news {
            self.use_path_size();
        }
        is_news
    }

    /// What the path carries as far as we know, IP header included.
    pub fn path_mtu(&self) -> u16 {
        let (header, _) = limits(self.flow().local.ip.is_v4());
        self.snd.wire_mss.saturating_add(header as u16 + 20)
    }

    /// The retransmission timer expired again. Are full segments vanishing?
    pub(super) fn suspect_black_hole(&mut self, cx: &mut Context<'_, '_>) {
        let front = self.snd.queue.front().map_or(0, |id| cx.frames.meta(id).len);
        if cx.tunables.mtu_probing == 0 || self.timers.retransmits < SUSPICIOUS_TIMEOUTS || front < self.snd.mss {
            return;
        }
        let smaller = if self.path.low == 0 { BASE_MSS } else { BASE_MSS.min(self.path.low / 2).max(FLOOR_MSS) };
        if smaller < self.path.size() {
            cx.counters.mtu_black_holes += 1;
            self.path.low = smaller;
            self.path.probe = 0;
            self.use_path_size();
        }
    }

    /// `n` octets of new data may go: makes the first unsent frame a probe if one is due. Returns its length then.
    pub(super) fn prepare_probe(&mut self, cx: &mut Context<'_, '_>, n: u32) -> u32 {
        if self.path.low == 0 || self.is_probe_pending() {
            return n;
        }
        let Some(size) = self.next_probe(cx) else { return n };
        if !self.may_probe_path(size) || !self.snd.fill_first_unsent(cx.frames, size) {
            return n;
        }
        cx.counters.mtu_probes += 1;
        self.path.probe = size;
        self.path.probe_end = self.snd.nxt + u32::from(size);
        u32::from(size)
    }

    /// Whether a probe is under way. One that was acknowledged raises the size.
    fn is_probe_pending(&mut self) -> bool {
        let is_pending = self.path.probe != 0 && self.path.probe_end.is_after(self.snd.una);
        if self.path.probe != 0 && !is_pending {
            let options = self.snd.wire_mss - self.snd.mss;
            self.path.low = (self.path.probe + options).min(self.path.high);
            self.path.probe = 0;
            self.use_path_size();
        }
        is_pending
    }

    /// The payload of the next probe: in the middle of what is not known.
    fn next_probe(&mut self, cx: &Context<'_, '_>) -> Option<u16> {
        let now = ms(cx.now);
        if self.path.high.saturating_sub(self.path.low) < WORTHWHILE {
            if self.path.ended_at_ms == 0 {
                self.path.ended_at_ms = now.max(1);
            } else if now.wrapping_sub(self.path.ended_at_ms) >= SEARCH_AGAIN_MS {
                (self.path.high, self.path.ended_at_ms) = (self.path.most, 0);
            }
            return None;
        }
        self.path.ended_at_ms = 0;
        let middle = self.path.low + (self.path.high - self.path.low).div_ceil(2);
        let options = self.snd.wire_mss - self.snd.mss;
        Some((middle - options).min(super::sender::Sender::FRAME_ROOM)).filter(|size| *size > self.snd.mss)
    }

    /// Whether window, congestion window and queue have room for a probe and for what has to follow it.
    fn may_probe_path(&self, size: u16) -> bool {
        let needed = u32::from(size) + FOLLOWERS * u32::from(self.snd.mss);
        self.state == State::Established
            && self.is_calm()
            && self.snd.unsent() >= needed
            && self.snd.usable() >= needed
            // A full segment may go; that the probe exceeds the window by the little that it is longer is forgiven.
            && self.congestion.cwnd() >= needed
    }

    /// A frame of `len` octets has to go again in pieces: if it was the probe, the path does not carry that.
    pub(super) fn note_probe_lost(&mut self, len: u16) {
        if self.path.probe == len && len != 0 {
            let options = self.snd.wire_mss - self.snd.mss;
            self.path.high = self.path.low.max(len + options - 1);
            self.path.probe = 0;
        }
    }
}
