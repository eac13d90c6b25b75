//! The two ends and the frames between them: taken in, given their fate, handed over when they are due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sidestep_xdp::rig::is_victim;

use super::Result;
use super::direction::{Conditions, Direction};
use super::packet_socket::{BATCH, PacketSocket, Received};
use super::pool::{Chunk, FRAME_MAX, Pool};
use crate::ending::Ending;

/// Frames on their way at most, both directions together: 64 MiB, enough for 100 ms at a gigabit.
const FRAMES_MAX: u32 = 32_768;
/// A frame that is due this soon goes now, and we sleep at least twice as long: by our own doing no delay is off by more, either
/// way, and wake-ups are bounded. A wake-up costs more than a frame here.
const GRAIN: Duration = Duration::from_micros(100);

/// One end: the frames that come in here go out at the other.
struct End {
    name: String,
    socket: PacketSocket,
    /// What becomes of the frames that come in here.
    inward: Direction,
    troubles: Troubles,
}

/// What a sound rig never shows.
#[derive(Default)]
struct Troubles {
    /// Longer than a chunk: a bundle that the sender's device did not cut.
    too_long: u64,
    /// Forwarded, and wrong at the other end.
    unfinished: u64,
    /// Refused by the device.
    unsent: u64,
}

/// A frame on its way, ordered by its time and then by its coming.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Travelling {
    at_ns: u64,
    number: u64,
    chunk: Chunk,
    len: usize,
    to: usize,
}

/// Both ends and everything between them.
pub(crate) struct Wire {
    ends: [End; 2],
    pool: Pool,
    travelling: BinaryHeap<Reverse<Travelling>>,
    started: Instant,
    numbers: u64,
    received: Vec<Received>,
}

impl Wire {
    pub(crate) fn open(names: [&str; 2], conditions: Conditions) -> Result<Self> {
        let end = |name: &str, index| -> Result<End> {
            let socket = PacketSocket::open(name).map_err(|error| format!("cannot open {name}: {error}"))?;
            let inward = Direction::new(conditions, index);
            Ok(End { name: name.to_owned(), socket, inward, troubles: Troubles::default() })
        };
        Ok(Self {
            ends: [end(names[0], 0)?, end(names[1], 1)?],
            pool: Pool::new(FRAMES_MAX),
            travelling: BinaryHeap::new(),
            started: Instant::now(),
            numbers: 0,
            received: Vec::with_capacity(BATCH),
        })
    }

    /// Takes all frames that are there. With the pool empty they wait in the sockets, and what finds these full is an overrun.
    pub(crate) fn take_in(&mut self) -> Result<()> {
        for from in 0..2 {
            let mut has_more = true;
            while has_more {
                has_more = self.ends[from].socket.receive(&mut self.pool, &mut self.received)?;
                let clock = Clock::now(self.started);
                let mut received = std::mem::take(&mut self.received);
                for frame in received.drain(..) {
                    self.admit(from, frame, clock.at(frame.stamp));
                }
                self.received = received;
            }
        }
        Ok(())
    }

    fn admit(&mut self, from: usize, frame: Received, came_ns: u64) {
        let Received { chunk, len, is_unfinished, .. } = frame;
        let End { inward, troubles, .. } = &mut self.ends[from];
        if len > FRAME_MAX {
            troubles.too_long += 1;
            return self.pool.give_back(chunk);
        }
        troubles.unfinished += u64::from(is_unfinished);
        let is_spared = !is_tcp_or_udp(&self.pool.bytes(chunk)[..len]);
        let Some(arrival) = inward.admit(came_ns, len, is_spared) else {
            return self.pool.give_back(chunk);
        };
        self.send_off(chunk, len, arrival.at_ns, 1 - from);
        // A pool without room for the twin has other worries.
        if let Some(twin) = arrival.is_twin.then(|| self.pool.copy(chunk, len)).flatten() {
            self.send_off(twin, len, arrival.at_ns, 1 - from);
        }
    }

    fn send_off(&mut self, chunk: Chunk, len: usize, at_ns: u64, to: usize) {
        let number = self.numbers;
        self.numbers += 1;
        self.travelling.push(Reverse(Travelling { at_ns, number, chunk, len, to }));
    }

    /// Hands over everything that is due.
    pub(crate) fn deliver(&mut self) {
        let soon_ns = self.now_ns() + GRAIN.as_nanos() as u64;
        let mut batches = [Batch::default(), Batch::default()];
        while let Some(Reverse(frame)) = self.travelling.peek().copied().filter(|Reverse(frame)| frame.at_ns <= soon_ns)
        {
            self.travelling.pop();
            let batch = &mut batches[frame.to];
            batch.push(frame.chunk, frame.len);
            if batch.is_full() {
                self.flush(frame.to, batch);
            }
        }
        for (to, batch) in batches.iter_mut().enumerate() {
            self.flush(to, batch);
        }
    }

    fn flush(&mut self, to: usize, batch: &mut Batch) {
        let mut frames = batch.frames();
        while !frames.is_empty() {
            let mut done = self.ends[to].socket.send(&self.pool, frames);
            if done == 0 {
                self.ends[to].troubles.unsent += 1;
                done = 1;
            }
            frames = &frames[done..];
        }
        for (chunk, _) in batch.frames() {
            self.pool.give_back(*chunk);
        }
        batch.len = 0;
    }

    /// Sleeps until a frame comes or is due. While frames are travelling only the next one's time counts: what comes meanwhile
    /// is stamped by the kernel and has a delay of its own to wait for.
    pub(crate) fn is_ended(&self, ending: &mut Ending) -> Result<bool> {
        let Some(Reverse(next)) = self.travelling.peek() else {
            return Ok(ending.wait(&self.ends.each_ref().map(|end| end.socket.as_fd()), None)?);
        };
        let left = Duration::from_nanos(next.at_ns.saturating_sub(self.now_ns()));
        // Half a grain early, because waking up takes time as well.
        let pause = left.saturating_sub(GRAIN / 2).min(self.nap()).max(2 * GRAIN);
        Ok(ending.wait(&[], Some(pause))?)
    }

    /// How long frames may wait in the sockets: less than any delay, and not so long that the sockets fill.
    fn nap(&self) -> Duration {
        (self.delay() / 2).min(Duration::from_millis(1))
    }

    fn delay(&self) -> Duration {
        self.ends[0].inward.delay()
    }

    fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// What was seen and done, a line for each direction.
    pub(crate) fn describe(&self) -> Result<String> {
        let [there, back] = [0, 1].map(|from| describe(&self.ends[from], &self.ends[1 - from]));
        Ok(format!("{}\n{}", there?, back?))
    }
}

/// The frames of one `sendmmsg`.
struct Batch {
    frames: [(Chunk, usize); BATCH],
    len: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self { frames: [(Chunk::NONE, 0); BATCH], len: 0 }
    }
}

impl Batch {
    fn push(&mut self, chunk: Chunk, len: usize) {
        self.frames[self.len] = (chunk, len);
        self.len += 1;
    }

    fn is_full(&self) -> bool {
        self.len == BATCH
    }

    fn frames(&self) -> &[(Chunk, usize)] {
        &self.frames[..self.len]
    }
}

/// Both clocks at one moment: the kernel stamps frames with the time of day, delays run on one that nobody sets.
struct Clock {
    now_ns: u64,
    time_of_day: Duration,
}

impl Clock {
    fn now(started: Instant) -> Self {
        let time_of_day = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { now_ns: started.elapsed().as_nanos() as u64, time_of_day }
    }

    /// A stamp on our clock. One from the future or from long ago means that somebody set the time of day: then it is now.
    fn at(&self, stamp: Duration) -> u64 {
        let age = self.time_of_day.checked_sub(stamp).filter(|age| *age < Duration::from_secs(1)).unwrap_or_default();
        self.now_ns.saturating_sub(age.as_nanos() as u64)
    }
}

/// Whether the dice are thrown for this frame: TCP or UDP over IP. The wire has no VLANs.
fn is_tcp_or_udp(frame: &[u8]) -> bool {
    let ethertype = frame.get(12..14).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
    let protocol = if ethertype == [0x86, 0xdd] { frame.get(20) } else { frame.get(23) };
    protocol.is_some_and(|protocol| is_victim(ethertype, *protocol))
}

fn describe(from: &End, to: &End) -> Result<String> {
    let tally = from.inward.tally;
    let Troubles { too_long, unfinished, .. } = from.troubles;
    Ok(format!(
        "{} to {} seen {} taildropped {} lost {} reordered {} duplicated {} toolong {too_long} unfinished {unfinished} \
         unsent {} overruns {}",
        from.name,
        to.name,
        tally.seen,
        tally.tail_dropped,
        tally.lost,
        tally.reordered,
        tally.duplicated,
        to.troubles.unsent,
        from.socket.overruns()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tcp_and_udp_are_at_risk() {
        let mut frame = [0; 60];
        assert!(!is_tcp_or_udp(&frame) && !is_tcp_or_udp(&[]));
        (frame[12], frame[13], frame[23]) = (8, 0, 6);
        assert!(is_tcp_or_udp(&frame));
        frame[23] = 1;
        assert!(!is_tcp_or_udp(&frame));
        (frame[12], frame[13], frame[20]) = (0x86, 0xdd, 17);
        assert!(is_tcp_or_udp(&frame));
        assert!(!is_tcp_or_udp(&frame[..20]));
    }

    #[test]
    fn stamps_become_times_on_our_clock() {
        let clock = Clock { now_ns: 5_000_000_000, time_of_day: Duration::from_secs(100) };
        assert_eq!(clock.at(Duration::from_millis(99_999)), 4_999_000_000);
        for odd in [Duration::from_secs(101), Duration::ZERO] {
            assert_eq!(clock.at(odd), 5_000_000_000, "{odd:?}");
        }
    }
}
