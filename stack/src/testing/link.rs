//! One direction of a wire: what becomes of a frame on it.

use super::Random;
use super::alloc::vec::Vec;
use crate::wire::checksum::Sum;

/// What one direction does to frames. Chances in a thousand; zero is "never", for sizes "no limit".
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkConfig {
    pub delay_us: u64,
    /// Up to so much is added. Frames keep their order all the same, unless `reorder` says otherwise.
    pub jitter_us: u64,
    pub loss: u32,
    pub burst: Burst,
    /// A frame is held back for up to four delays, and others overtake it.
    pub reorder: u32,
    pub duplicate: u32,
    /// One bit behind the Ethernet header is flipped. (A real wire has a checksum in front of that.)
    pub corrupt: u32,
    /// The bottleneck, and the queue in front of it: what does not fit is dropped.
    pub kbit_per_s: u64,
    pub queue_bytes: u64,
    /// Frames that meet a longer queue are marked, if they are ECN-capable (RFC 3168 §5).
    pub mark_above_bytes: u64,
    /// Largest IP packet, and whether its sender hears of it when one is larger.
    pub mtu: u16,
    pub tells_too_big: bool,
}

/// Gilbert and Elliott's two states: in the bad one, `loss` of a thousand frames are lost. Chances are per frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Burst {
    pub enter: u32,
    pub leave: u32,
    pub loss: u32,
}

/// What became of a frame: when it arrives, perhaps twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passage {
    At(u64),
    Twice(u64, u64),
    Lost(&'static str),
    /// Larger than this MTU; the sender is to be told.
    TooBig(u16),
}

/// One direction, with its state.
#[derive(Clone, Debug, Default)]
pub struct Link {
    pub config: LinkConfig,
    /// Nothing passes.
    pub is_down: bool,
    in_burst: bool,
    /// When the bottleneck is done with what it has, in nanoseconds; and the latest arrival in order.
    busy_until_ns: u64,
    last_at: u64,
}

const ETHERNET: usize = crate::wire::ethernet::HEADER_LEN;

impl Link {
    pub fn new(config: LinkConfig) -> Link {
        Link { config, ..Link::default() }
    }

    /// A frame enters at `now_us`. It may come out changed.
    pub fn carry(&mut self, now_us: u64, random: &mut Random, bytes: &mut [u8]) -> Passage {
        let LinkConfig { delay_us, jitter_us, loss, reorder, duplicate, corrupt, mtu, tells_too_big, .. } = self.config;
        if self.is_down {
            return Passage::Lost("link is down");
        }
        if mtu != 0 && bytes.len() > usize::from(mtu) + ETHERNET {
            return if tells_too_big { Passage::TooBig(mtu) } else { Passage::Lost("too big, and nobody says so") };
        }
        if random.chance(loss) || self.is_lost_in_burst(random) {
            return Passage::Lost("lost");
        }
        let Some(leaves_at) = self.pass_bottleneck(now_us, bytes) else { return Passage::Lost("queue is full") };
        if random.chance(corrupt) && bytes.len() > ETHERNET {
            let bit = random.below((bytes.len() - ETHERNET) as u64 * 8) as usize;
            bytes[ETHERNET + bit / 8] ^= 1 << (bit % 8);
        }
        let mut at = leaves_at + delay_us + if jitter_us == 0 { 0 } else { random.below(jitter_us + 1) };
        if random.chance(reorder) {
            at += random.below(delay_us * 4 + 1);
        } else {
            at = at.max(self.last_at);
            self.last_at = at;
        }
        if random.chance(duplicate) {
            return Passage::Twice(at, at + random.below(delay_us * 4 + 1));
        }
        Passage::At(at)
    }

    fn is_lost_in_burst(&mut self, random: &mut Random) -> bool {
        let Burst { enter, leave, loss } = self.config.burst;
        if random.chance(if self.in_burst { leave } else { enter }) {
            self.in_burst = !self.in_burst;
        }
        self.in_burst && random.chance(loss)
    }

    /// When the last bit leaves the queue; `None` when the queue is full.
    fn pass_bottleneck(&mut self, now_us: u64, bytes: &mut [u8]) -> Option<u64> {
        let LinkConfig { kbit_per_s, queue_bytes, mark_above_bytes, .. } = self.config;
        if kbit_per_s == 0 {
            return Some(now_us);
        }
        let now_ns = now_us * 1000;
        let waiting_ns = self.busy_until_ns.saturating_sub(now_ns);
        let waiting_bytes = waiting_ns * kbit_per_s / 8_000_000;
        if queue_bytes != 0 && waiting_bytes + bytes.len() as u64 > queue_bytes {
            return None;
        }
        if mark_above_bytes != 0 && waiting_bytes > mark_above_bytes {
            mark_congestion(bytes);
        }
        self.busy_until_ns = now_ns + waiting_ns + bytes.len() as u64 * 8_000_000 / kbit_per_s;
        Some(self.busy_until_ns.div_ceil(1000))
    }
}

/// CE instead of ECT (RFC 3168 §5): in IPv4's type of service, or IPv6's traffic class.
fn mark_congestion(frame: &mut [u8]) {
    let Some(ip) = frame.get_mut(ETHERNET..).filter(|ip| ip.len() >= 20) else { return };
    if ip[0] >> 4 == 6 {
        let is_capable = ip[1] & 0x30 != 0;
        ip[1] |= if is_capable { 0x30 } else { 0 };
    } else if ip[1] & 3 != 0 {
        ip[1] |= 3;
        ip[10..12].fill(0);
        let header = usize::from(ip[0] & 15) * 4;
        let sum = Sum::ZERO.add_bytes(&ip[..header.clamp(20, 60).min(ip.len())]).checksum();
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The arrivals of a passage.
impl Passage {
    pub fn arrivals(self) -> Vec<u64> {
        match self {
            Passage::At(at) => super::alloc::vec![at],
            Passage::Twice(at, again) => super::alloc::vec![at, again],
            Passage::Lost(_) | Passage::TooBig(_) => Vec::new(),
        }
    }
}
