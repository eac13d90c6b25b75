//! How large the two buffers are: both follow what the connection does, as Linux sizes them, unless the application
//! said how large (SO_RCVBUF, SO_SNDBUF). Of a receive buffer half is window: the other half is what frames cost.

use super::{Context, Seq, Tcb};
use crate::buf::{FRAME_SIZE, Frames, Pressure};
use crate::time::{Instant, MS};
use crate::wire::tcp::Segment;

/// What a queued frame counts at least against the send buffer: so that writes of a byte each do not take all frames.
const FRAME_COST_MIN: u32 = FRAME_SIZE as u32 / 2;
/// Segments that a send buffer has room for at least, twice over (Linux: TCP_INIT_CWND).
const SEGMENTS_MIN: u32 = 10;
/// What Linux counts for a segment besides its payload, before and after rounding up to a power of two: so that
/// SO_SNDBUF tells the numbers that applications know.
const SEGMENT_OVERHEAD: u32 = 640;
const SEGMENT_RECORD: u32 = 256;
/// What TCP_NOTSENT_LOWAT allows is exceeded by less than this.
const LOWAT_STEP: u32 = 32 * 1024;

/// What the receive buffer's size follows: how much the application reads in a round trip, as the receiver sees that
/// (Linux's "dynamic right-sizing"). Times are the clock's low half.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Pace {
    /// The round trip × 8, smoothed; 0 while nothing was measured.
    rtt_x8: u32,
    /// With timestamps the echo that was measured last. Without, where the measure ends that began at `rtt_at`.
    rtt_mark: u32,
    rtt_at: u32,
    /// Since when it is counted what the application reads, and how much it was.
    counted_at: u32,
    copied: u32,
    /// The most it ever read in a round trip.
    pub(super) copied_most: u32,
}

/// Microseconds between two readings of the clock's low half. The later one may be the older by a little: 0 then.
fn elapsed_us(since: u32, now: Instant) -> u32 {
    let elapsed = (now.micros() as u32).wrapping_sub(since);
    if elapsed > u32::MAX / 2 { 0 } else { elapsed }
}

impl Pace {
    pub(super) fn start(&mut self, now: Instant, first_window: u32) {
        *self = Pace { copied_most: first_window, ..Pace::default() };
        (self.counted_at, self.rtt_at) = (now.micros() as u32, now.micros() as u32);
    }

    pub(super) fn rtt_us(&self) -> u32 {
        self.rtt_x8 / 8
    }

    fn smooth(&mut self, us: u32) {
        let us = us.clamp(1, u32::MAX / 16);
        self.rtt_x8 = if self.rtt_x8 == 0 { us * 8 } else { self.rtt_x8 - self.rtt_x8 / 8 + us };
    }

    /// A window of data took this long, which is a round trip or more: the least counts.
    fn take_least(&mut self, us: u32) {
        let us = us.clamp(1, u32::MAX / 16);
        self.rtt_x8 = if self.rtt_x8 == 0 { us * 8 } else { self.rtt_x8.min(us * 8) };
    }

    /// The window for an application that read `copied` octets in a round trip: twice as much, for the sender may double
    /// its rate, and as much more as the last step was.
    fn window(&self, copied: u32, mss: u16) -> u64 {
        let (now, before) = (u64::from(copied), u64::from(self.copied_most.max(1)));
        let window = 2 * now + 16 * u64::from(mss);
        window + 2 * (window * now.saturating_sub(before) / before)
    }
}

impl Tcb {
    /// Both ends are synchronized: the buffers take their first sizes.
    pub(super) fn start_buffers(&mut self, cx: &Context<'_, '_>) {
        let first = self.rcv.space.min(SEGMENTS_MIN * u32::from(self.rcv.own_mss));
        self.rcv.pace.start(cx.now, first);
        self.rcv.pace.rtt_mark = if self.ts.on { 0 } else { self.rcv.edge.0 };
        self.grow_send_buffer(cx.frames, cx.tunables.wmem_bytes[2]);
    }

    /// The receiver's own measure of the round trip, from full segments: a small one may have waited for its sender.
    #[inline]
    pub(super) fn measure_round_trip(&mut self, now: Instant, seg: &Segment) {
        let pace = &mut self.rcv.pace;
        match seg.options.timestamp {
            Some((_, echo)) if self.ts.on => {
                if echo != pace.rtt_mark {
                    pace.rtt_mark = echo;
                    if let Some(us) = self.ts.rtt_us(echo, now) {
                        pace.smooth(us);
                    }
                }
            }
            _ => {
                if !self.rcv.nxt.is_before(Seq(pace.rtt_mark)) {
                    pace.take_least(elapsed_us(pace.rtt_at, now));
                    pace.rtt_at = now.micros() as u32;
                    pace.rtt_mark = self.rcv.edge.0;
                }
            }
        }
    }

    /// The round trip by which reading is judged; 0 is "not known". Timestamps do not tell less than a millisecond:
    /// below, the sender's half may know better.
    fn reading_rtt_us(&self) -> u32 {
        match (self.rcv.pace.rtt_us(), self.rtt.srtt_us()) {
            (0, srtt) => srtt,
            (rtt, srtt) if rtt <= MS as u32 && srtt != 0 => rtt.min(srtt),
            (rtt, _) => rtt,
        }
    }

    /// The application read `n` octets. Once in a round trip the window is reconsidered.
    #[inline]
    pub(super) fn note_read(&mut self, cx: &Context<'_, '_>, n: u32) {
        self.rcv.pace.copied = self.rcv.pace.copied.saturating_add(n);
        let rtt_us = self.reading_rtt_us();
        if rtt_us != 0 && elapsed_us(self.rcv.pace.counted_at, cx.now) >= rtt_us {
            self.grow_window(cx);
        }
    }

    fn grow_window(&mut self, cx: &Context<'_, '_>) {
        let rcv = &mut self.rcv;
        let copied = core::mem::take(&mut rcv.pace.copied);
        rcv.pace.counted_at = cx.now.micros() as u32;
        if copied <= rcv.pace.copied_most {
            return;
        }
        let wanted = rcv.pace.window(copied, rcv.own_mss).min(u64::from(self.options.clamp(rcv.space_max))) as u32;
        rcv.pace.copied_most = copied;
        // When frames are few, nobody gets more.
        if !self.options.rcvbuf_locked && wanted > rcv.space && cx.frames.pressure() == Pressure::None {
            rcv.space = wanted;
            self.options.rcvbuf_bytes = self.options.rcvbuf_bytes.max(wanted.saturating_mul(2));
        }
    }

    /// SO_RCVBUF, doubled already: a larger limit counts at once, a smaller one for what is not offered yet.
    pub fn set_receive_buffer(&mut self, bytes: u32) {
        self.options.rcvbuf_bytes = bytes;
        self.options.rcvbuf_locked = true;
        self.rcv.space_max = bytes / 2;
        self.rcv.space = self.options.clamp(bytes / 2);
    }

    /// TCP_WINDOW_CLAMP: what is offered already is not taken back.
    pub fn clamp_window(&mut self, bytes: u32) {
        self.options.window_clamp_bytes = bytes;
        self.rcv.space = self.options.clamp(self.options.rcvbuf_bytes / 2);
    }

    /// TCP_WINDOW_CLAMP of who set none: what the buffer allows, less the segment that Linux reserves.
    pub fn largest_window(&self) -> u32 {
        (self.options.rcvbuf_bytes / 2).saturating_sub(u32::from(self.snd.mss))
    }

    /// The send buffer holds twice what may be in the network: one half is there, the other is what comes next. `most` is
    /// tcp_wmem's last number.
    pub(super) fn grow_send_buffer(&mut self, frames: &Frames<'_>, most: u32) {
        if self.options.sndbuf_locked || frames.pressure() != Pressure::None {
            return;
        }
        let mss = u32::from(self.snd.wire_mss);
        let segment = (mss + SEGMENT_OVERHEAD).next_power_of_two() + SEGMENT_RECORD;
        let segments = (self.congestion.cwnd() / u32::from(self.snd.mss).max(1)).max(SEGMENTS_MIN);
        let wanted = (2 * u64::from(segments) * u64::from(segment)).min(u64::from(most)) as u32;
        self.options.sndbuf_bytes = self.options.sndbuf_bytes.max(wanted);
    }

    /// Acknowledgements made room, and the application waits for some: that the buffer grows may be the rest of it. Not
    /// when the network and not the buffer holds the sender back.
    pub(super) fn check_send_buffer(&mut self, cx: &Context<'_, '_>) {
        if self.snd.flight() < self.congestion.cwnd() {
            self.grow_send_buffer(cx.frames, cx.tunables.wmem_bytes[2]);
        }
    }

    /// What the send queue counts against the send buffer.
    fn send_used(&self) -> u32 {
        self.snd.queue.bytes().max(self.snd.queue.frames() * FRAME_COST_MIN)
    }

    #[inline]
    fn buffer_room(&self, frames: &Frames<'_>) -> u32 {
        let limit = match frames.allowance() {
            u32::MAX => self.options.sndbuf_bytes,
            allowance => self.scarce_limit(frames, allowance),
        };
        limit.saturating_sub(self.send_used())
    }

    /// When frames are few, one connection may not hold many; the last are for those whose peer has taken all so far.
    #[cold]
    fn scarce_limit(&self, frames: &Frames<'_>, allowance: u32) -> u32 {
        let took_all = self.snd.bytes_acked > 0 && self.snd.queue.is_empty();
        if frames.pressure() == Pressure::Exhausted && !took_all {
            return 0;
        }
        self.options.sndbuf_bytes.min(allowance)
    }

    /// TCP_NOTSENT_LOWAT: octets that wait to be sent for the first time, at which no more are taken.
    fn lowat_room(&self) -> u32 {
        self.options.notsent_lowat_bytes.saturating_sub(self.snd.unsent())
    }

    /// Octets that a frame of the send queue carries: a segment.
    #[inline]
    pub(crate) fn frame_payload(&self) -> u16 {
        self.snd.mss
    }

    /// Bytes that may be written now.
    #[inline]
    pub fn send_room(&self, frames: &Frames<'_>) -> u32 {
        match self.lowat_room() {
            0 => 0,
            room => self.buffer_room(frames).min(room.max(LOWAT_STEP)),
        }
    }

    /// The application waits for room: the acknowledgement that makes some says [`super::Events::WRITABLE`].
    pub(crate) fn want_room(&mut self) {
        self.wants_room = true;
    }

    /// Whether there is room enough to call it writable: at least half of what is used (Linux: sk_stream_is_writeable),
    /// and less unsent than TCP_NOTSENT_LOWAT. Deviation: that sending lowered the latter is told with the next
    /// acknowledgement.
    pub fn is_writable(&self, frames: &Frames<'_>) -> bool {
        self.buffer_room(frames) >= self.send_used().div_ceil(2).max(1) && self.lowat_room() > 0
    }
}
