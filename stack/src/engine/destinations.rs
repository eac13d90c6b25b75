//! What is remembered of destinations: the MTU of their path (RFC 1191 §6.3, RFC 8201 §5.2), and Fast Open cookies (RFC 7413
//! §4.1.3). A small table of sets: a destination has four places, and the one that was not used for longest goes. What is
//! forgotten is learned again.

use crate::addr::Ip;
use crate::time::{Instant, SEC};
use crate::wire::tcp::FastOpenCookie;

const SETS: usize = 32;
const WAYS: usize = 4;

/// How long a path's MTU is believed (Linux: net.ipv4.route.mtu_expires).
const MTU_LIFE_US: u64 = 600 * SEC;
/// After a SYN with the option went unanswered, the destination gets none for this long; each further time twice as long,
/// up to 17 hours.
const FAST_OPEN_REST_US: u64 = 60 * SEC;
const FAST_OPEN_DOUBLINGS: u8 = 10;

/// One destination.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Destination {
    ip: Ip,
    /// Zero: the place is free.
    used_at: Instant,
    mtu_until: Instant,
    fast_open_from: Instant,
    mtu: u16,
    /// The size of segments that went with the cookie.
    mss: u16,
    cookie: FastOpenCookie,
    failures: u8,
    _pad: u16,
}

impl Destination {
    const FREE: Destination = Destination {
        ip: Ip::UNSPECIFIED,
        used_at: Instant::ZERO,
        mtu_until: Instant::ZERO,
        fast_open_from: Instant::ZERO,
        mtu: 0,
        mss: 0,
        cookie: FastOpenCookie::REQUEST,
        failures: 0,
        _pad: 0,
    };
}

/// The table.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Destinations {
    sets: [[Destination; WAYS]; SETS],
    /// Whether anything was ever noted: nearly always nothing was, and then nobody searches.
    is_used: bool,
    _pad: [u8; 7],
}

impl Default for Destinations {
    fn default() -> Self {
        Destinations { sets: [[Destination::FREE; WAYS]; SETS], is_used: false, _pad: [0; 7] }
    }
}

fn set_of(ip: &Ip) -> usize {
    let (a, b) = ip.halves();
    ((a ^ b).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59) as usize % SETS
}

impl Destinations {
    fn find(&self, ip: &Ip) -> Option<&Destination> {
        if !self.is_used {
            return None;
        }
        self.sets[set_of(ip)].iter().find(|d| d.used_at.is_set() && d.ip == *ip)
    }

    fn entry(&mut self, ip: &Ip, now: Instant) -> &mut Destination {
        self.is_used = true;
        let set = &mut self.sets[set_of(ip)];
        let known = set.iter().position(|d| d.used_at.is_set() && d.ip == *ip);
        let way = known.unwrap_or_else(|| (0..WAYS).min_by_key(|w| set[*w].used_at).unwrap_or(0));
        if known.is_none() {
            set[way] = Destination { ip: *ip, ..Destination::FREE };
        }
        set[way].used_at = Instant::from_micros(now.micros().max(1));
        &mut set[way]
    }

    /// What the path carries, IP header included, if a router said so lately.
    pub(crate) fn path_mtu(&self, ip: &Ip, now: Instant) -> Option<u16> {
        self.find(ip).filter(|d| d.mtu != 0 && now < d.mtu_until).map(|d| d.mtu)
    }

    pub(crate) fn note_path_mtu(&mut self, ip: &Ip, mtu: u16, now: Instant) {
        let entry = self.entry(ip, now);
        let is_news = entry.mtu == 0 || now >= entry.mtu_until || mtu < entry.mtu;
        // A larger one does not undo a smaller one, before that is forgotten.
        if is_news {
            (entry.mtu, entry.mtu_until) = (mtu, now.after_us(MTU_LIFE_US));
        }
    }

    /// The cookie for a destination and the segment size that goes with it; the cookie is a request when there is none.
    /// `None`: it is not to be tried now.
    pub(crate) fn fast_open(&self, ip: &Ip, now: Instant) -> Option<(FastOpenCookie, u16)> {
        match self.find(ip) {
            Some(d) if now < d.fast_open_from => None,
            Some(d) => Some((d.cookie, d.mss)),
            None => Some((FastOpenCookie::REQUEST, 0)),
        }
    }

    pub(crate) fn note_cookie(&mut self, ip: &Ip, cookie: FastOpenCookie, mss: u16, now: Instant) {
        let entry = self.entry(ip, now);
        (entry.cookie, entry.mss) = (cookie, mss);
    }

    /// A Fast Open handshake went well, or its first SYN went unanswered.
    pub(crate) fn note_fast_open(&mut self, ip: &Ip, has_failed: bool, now: Instant) {
        if !has_failed && self.find(ip).is_none() {
            return;
        }
        let entry = self.entry(ip, now);
        if has_failed {
            entry.fast_open_from = now.after_us(FAST_OPEN_REST_US << entry.failures.min(FAST_OPEN_DOUBLINGS));
        }
        entry.failures = if has_failed { entry.failures.saturating_add(1) } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u32) -> Ip {
        Ip::v4(n.to_be_bytes())
    }

    #[test]
    fn a_path_s_mtu_is_believed_for_ten_minutes_and_only_shrinks() {
        let (mut table, now) = (Destinations::default(), Instant::from_micros(SEC));
        assert_eq!(table.path_mtu(&ip(1), now), None);
        table.note_path_mtu(&ip(1), 1300, now);
        table.note_path_mtu(&ip(1), 1400, now);
        table.note_path_mtu(&ip(2), 1200, now);
        assert_eq!(table.path_mtu(&ip(1), now.after_us(599 * SEC)), Some(1300));
        assert_eq!(table.path_mtu(&ip(1), now.after_us(600 * SEC)), None);
        table.note_path_mtu(&ip(1), 1400, now.after_us(601 * SEC));
        assert_eq!(table.path_mtu(&ip(1), now.after_us(700 * SEC)), Some(1400));
    }

    #[test]
    fn it_is_bounded_and_what_was_not_used_for_longest_goes() {
        let (mut table, start) = (Destinations::default(), Instant::from_micros(SEC));
        for n in 0..10_000 {
            table.note_path_mtu(&ip(n), 1300, start.after_us(u64::from(n)));
        }
        let known: Vec<_> = (0..10_000).filter(|n| table.path_mtu(&ip(*n), start.after_us(SEC)).is_some()).collect();
        assert_eq!(known.len(), SETS * WAYS);
        assert!(known.iter().all(|n| *n > 9000), "{known:?}");
    }

    #[test]
    fn failures_rest_longer_each_time() {
        let (mut table, now) = (Destinations::default(), Instant::from_micros(SEC));
        let cookie = FastOpenCookie::new(&[7; 8]).unwrap();
        table.note_cookie(&ip(1), cookie, 1460, now);
        assert_eq!(table.fast_open(&ip(1), now), Some((cookie, 1460)));
        table.note_fast_open(&ip(1), true, now);
        assert_eq!(table.fast_open(&ip(1), now.after_us(59 * SEC)), None);
        assert_eq!(table.fast_open(&ip(1), now.after_us(60 * SEC)), Some((cookie, 1460)));
        table.note_fast_open(&ip(1), true, now);
        assert_eq!(table.fast_open(&ip(1), now.after_us(119 * SEC)), None);
        table.note_fast_open(&ip(1), false, now.after_us(120 * SEC));
        table.note_fast_open(&ip(1), true, now.after_us(120 * SEC));
        assert!(table.fast_open(&ip(1), now.after_us(180 * SEC)).is_some(), "success starts over");
        for _ in 0..300 {
            table.note_fast_open(&ip(1), true, now);
        }
        assert!(table.fast_open(&ip(1), now.after_us(18 * 3600 * SEC)).is_some());
        table.note_fast_open(&ip(9), false, now);
        assert_eq!(table.fast_open(&ip(9), now), Some((FastOpenCookie::REQUEST, 0)));
    }
}
