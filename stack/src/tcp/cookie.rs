//! SYN cookies (RFC 4987 §3.6): a listener that can keep no more half-open connections lets the SYN-ACK remember them.
//!
//! The first sequence number is a keyed hash of the flow, the peer's first number and the time, beside three bits that
//! name the MSS. What else a SYN agrees on does not fit; it stands in the low bits of our timestamp, which the peer echoes
//! (as on Linux). A peer without timestamps keeps its MSS, and neither scales windows nor gets SACK.

use super::timestamps::ms;
use super::{Seq, Tcb};
use crate::addr::{Endpoint, Flow, Ip};
use crate::time::{Instant, SEC};
use crate::wire::tcp::{Flags, Header, Options, Segment};
use core::hash::Hasher;
use siphasher::sip::SipHasher24;

/// Cookies carry the period they were made in. One is good in its own period and the two after: 128 to 192 seconds, longer
/// than a patient peer's handshake, and short enough that a stolen one is soon stale.
const PERIOD_US: u64 = 64 * SEC;
const PERIODS: u64 = 3;
/// How long after its last cookie a listener still looks for one in a stray acknowledgement.
pub const COOKIE_LIFE_US: u64 = PERIOD_US * PERIODS;

/// The sizes that a cookie can name: the largest that is not above what the peer said.
const MSS_V4: [u16; 8] = [64, 536, 1024, 1220, 1300, 1400, 1440, 1460];
const MSS_V6: [u16; 8] = [64, 536, 1220, 1280, 1340, 1400, 1420, 1440];
const MSS_BITS: u32 = 3;

/// The low bits of a timestamp: the peer's window shift (15: none), whether it takes SACK, whether it takes ECN.
const SHIFT_MASK: u32 = 0xf;
const NO_SHIFT: u32 = 0xf;
const SACK_BIT: u32 = 1 << 4;
const ECN_BIT: u32 = 1 << 5;
const STAMP_BITS: u32 = 6;

fn sizes(remote: &Ip) -> &'static [u16; 8] {
    if remote.is_v4() { &MSS_V4 } else { &MSS_V6 }
}

fn hash(secret: &[u64; 2], flow: &Flow, irs: Seq, period: u64, size: u32) -> u32 {
    let mut hasher = SipHasher24::new_with_keys(secret[0], secret[1]);
    for Endpoint { ip, port } in [flow.local, flow.remote] {
        hasher.write(&ip.0);
        hasher.write(&port.to_be_bytes());
    }
    hasher.write(&irs.0.to_be_bytes());
    hasher.write(&period.to_be_bytes());
    // The last octet says what is hashed: 0 and 1 are `isn.rs`'s.
    hasher.write(&[size as u8, 2]);
    hasher.finish() as u32
}

fn cookie(secret: &[u64; 2], flow: &Flow, irs: Seq, period: u64, size: u32) -> u32 {
    hash(secret, flow, irs, period, size) << MSS_BITS | size
}

/// The first sequence number that stands for the SYN `syn` of a flow.
pub fn make_cookie(secret: &[u64; 2], flow: &Flow, syn: &Segment, now: Instant) -> u32 {
    let mss = syn.options.mss.unwrap_or(536);
    let size = sizes(&flow.remote.ip).iter().rposition(|&s| s <= mss).unwrap_or(0) as u32;
    cookie(secret, flow, syn.seq, now.micros() / PERIOD_US, size)
}

/// The SYN that `ack`, the last segment of a handshake, stands for: as much of it as the cookie and the echoed timestamp
/// tell. `None` when it answers no cookie of ours, or one too old.
pub fn read_cookie(secret: &[u64; 2], flow: &Flow, ack: &Segment, ts_offset: u32, now: Instant) -> Option<Segment> {
    let (irs, given) = (ack.seq - 1, (ack.ack - 1).0);
    let size = given & ((1 << MSS_BITS) - 1);
    let period = now.micros() / PERIOD_US;
    // Another caller's clock may have been a little ahead, in the next period already.
    let newest = period + 1;
    let is_ours = |age: u64| newest.checked_sub(age).is_some_and(|p| cookie(secret, flow, irs, p, size) == given);
    if !(0..=PERIODS).any(is_ours) {
        return None;
    }
    let mss = Some(sizes(&flow.remote.ip)[size as usize]);
    let mut options = Options { mss, timestamp: ack.options.timestamp, ..Options::default() };
    let mut flags = Flags::SYN;
    if let Some((_, echo)) = ack.options.timestamp {
        let bits = echo.wrapping_sub(ts_offset);
        options.window_scale = (bits & SHIFT_MASK != NO_SHIFT).then_some((bits & SHIFT_MASK).min(14) as u8);
        options.sack_permitted = bits & SACK_BIT != 0;
        if bits & ECN_BIT != 0 {
            flags = flags | Flags::ECE | Flags::CWR;
        }
    }
    // The window comes with the acknowledgement itself.
    Some(Segment { seq: irs, flags, window: 0, options, ..Segment::default() })
}

impl Tcb {
    /// The SYN-ACK of a connection that is not kept: all that is to be remembered of the peer's `syn` goes into it.
    pub fn cookie_syn_ack(&mut self, syn: &Segment, now: Instant) -> Header {
        // Without timestamps ECN would be forgotten as well.
        let ecn = if self.ts.on { self.ecn_of_syn() } else { Flags::default() };
        Header {
            local_port: self.flow().local.port,
            remote_port: self.flow().remote.port,
            seq: self.snd.iss,
            ack: self.rcv.nxt,
            flags: Flags::SYN | Flags::ACK | ecn,
            window: self.rcv.syn_window(true),
            mss: Some(self.rcv.own_mss),
            // Without timestamps the peer's shift would be forgotten: then nobody scales.
            window_scale: (self.rcv.scaling && self.ts.on).then_some(self.rcv.shift),
            timestamp: self.ts.on.then(|| (self.cookie_stamp(syn, ecn, now), self.ts.recent)),
            sack_permitted: self.sack && self.ts.on,
            ..Header::default()
        }
    }

    /// A connection that a cookie made: its SYN-ACK went when frames were less scarce perhaps, and offered all that a SYN-ACK
    /// can. That stands (RFC 9293 §3.8.6).
    pub fn keep_cookie_window(&mut self) {
        let offered = (self.options.rcvbuf_bytes / 2).min(self.rcv.space_max).min(u32::from(u16::MAX));
        self.rcv.edge = self.rcv.edge.later(self.rcv.nxt + offered);
    }

    /// Our timestamp of this moment, its low bits replaced; never one of the future, which the next segment would be
    /// older than.
    fn cookie_stamp(&self, syn: &Segment, ecn: Flags, now: Instant) -> u32 {
        let shift = syn.options.window_scale.filter(|_| self.rcv.scaling).map_or(NO_SHIFT, u32::from);
        let ecn = if ecn.has(Flags::ECE) { ECN_BIT } else { 0 };
        let bits = shift | ecn | if self.sack { SACK_BIT } else { 0 };
        let clock = ms(now);
        let stamp = clock >> STAMP_BITS << STAMP_BITS | bits;
        let stamp = if stamp > clock { stamp.wrapping_sub(1 << STAMP_BITS) } else { stamp };
        stamp.wrapping_add(self.ts.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u64; 2] = [3, 4];

    fn flow(v6: bool) -> Flow {
        let ip = |n: u8| if v6 { Ip([n; 16]) } else { Ip::v4([10, 0, 0, n]) };
        Flow { local: Endpoint::new(ip(1), 80), remote: Endpoint::new(ip(2), 4000) }
    }

    fn syn(mss: Option<u16>) -> Segment {
        Segment {
            seq: Seq(77),
            flags: Flags::SYN,
            options: Options { mss, ..Options::default() },
            ..Segment::default()
        }
    }

    fn answer(cookie: u32) -> Segment {
        Segment { seq: Seq(78), ack: Seq(cookie) + 1, flags: Flags::ACK, ..Segment::default() }
    }

    #[test]
    fn the_size_survives_rounded_down() {
        let now = Instant::from_micros(SEC);
        for (v6, said, kept) in
            [(false, 1460, 1460), (false, 1459, 1440), (false, 9000, 1460), (false, 20, 64), (true, 1440, 1440)]
        {
            let cookie = make_cookie(&SECRET, &flow(v6), &syn(Some(said)), now);
            let read = read_cookie(&SECRET, &flow(v6), &answer(cookie), 0, now).expect("our own cookie");
            assert_eq!((read.seq, read.options.mss), (Seq(77), Some(kept)));
            assert_eq!(
                (read.options.window_scale, read.options.sack_permitted),
                (None, false),
                "no timestamp, no options"
            );
        }
        let cookie = make_cookie(&SECRET, &flow(false), &syn(None), now);
        assert_eq!(read_cookie(&SECRET, &flow(false), &answer(cookie), 0, now).unwrap().options.mss, Some(536));
    }

    #[test]
    fn a_cookie_is_good_for_its_flow_its_number_and_its_time_only() {
        let made = Instant::from_micros(100 * PERIOD_US + 5);
        let cookie = make_cookie(&SECRET, &flow(false), &syn(Some(1460)), made);
        let is_good = |secret: &[u64; 2], flow: &Flow, seg: &Segment, after_us: u64| {
            read_cookie(secret, flow, seg, 0, made.after_us(after_us)).is_some()
        };
        let (mine, good) = (flow(false), answer(cookie));
        assert!(is_good(&SECRET, &mine, &good, 0));
        assert!(is_good(&SECRET, &mine, &good, 2 * PERIOD_US));
        assert!(!is_good(&SECRET, &mine, &good, 3 * PERIOD_US), "stale");
        assert!(
            read_cookie(&SECRET, &mine, &good, 0, Instant::from_micros(made.micros() - 20)).is_some(),
            "an older clock"
        );
        assert!(!is_good(&[3, 5], &mine, &good, 0));
        assert!(!is_good(&SECRET, &Flow { remote: Endpoint::new(mine.remote.ip, 4001), ..mine }, &good, 0));
        assert!(!is_good(&SECRET, &mine, &Segment { seq: Seq(79), ..good }, 0));
        // One guess in 2^28: none of these.
        let guesses = (1..100_000u32).filter(|n| is_good(&SECRET, &mine, &answer(cookie.wrapping_add(n * 7919)), 0));
        assert_eq!(guesses.count(), 0);
    }
}
