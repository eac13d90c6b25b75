//! `sidestep-rig wire`: a bridge between two devices of this namespace that behaves like a long, narrow or bad line.
//!
//! - [`direction`]: what becomes of a frame: queue, bottleneck, delay, loss, reordering, duplication.
//! - [`pool`]: the frames on their way.
//! - [`packet_socket`]: the devices.

mod direction;
mod packet_socket;
mod pool;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::error::Error;
use std::fmt;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use direction::{Bottleneck, Conditions, Direction, Queue, Share};
use packet_socket::{BATCH, PacketSocket, Received};
use pool::{Chunk, FRAME_MAX, Pool};
use sidestep_xdp::rig::is_victim;

use crate::ending::Ending;
use crate::quantities::{megabits, milliseconds, parts_per_million, seconds};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Frames on their way at most, both directions together: 64 MiB, enough for 100 ms at a gigabit.
const FRAMES_MAX: u32 = 32_768;
/// A frame that is due this soon goes now, and we sleep at least twice as long: no delay is off by more either way, and wake-ups
/// are bounded. A wake-up costs more than a frame here.
const GRAIN: Duration = Duration::from_micros(100);

/// Join two devices of this namespace by a line with delay, a bottleneck, loss, reordering and duplication.
///
/// The same in both directions. Runs until SIGINT, SIGTERM, the end of standard input (if that is a pipe) or --seconds, then
/// prints what it saw and did, a line for each direction. ARP, neighbour discovery and ICMP are delayed, but never lost.
///
/// Give it two veth ends of a namespace of its own. Turn off segmentation and checksum offload on the other ends (ethtool -K DEV
/// tso off gso off gro off tx off): the wire carries frames as they are, and an unfinished checksum would arrive as a wrong one.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// One device.
    #[arg(value_name = "DEV_A")]
    a: String,
    /// The other.
    #[arg(value_name = "DEV_B")]
    b: String,
    /// How long a frame is on its way, in each direction.
    #[arg(long, value_name = "D", value_parser = milliseconds)]
    delay_ms: Duration,
    /// How many frames of a hundred to lose after the bottleneck; decimals down to 0.0001 count.
    #[arg(long, value_name = "P", value_parser = parts_per_million, default_value = "0")]
    loss: u32,
    /// The rate of the bottleneck; without, there is none.
    #[arg(long, value_name = "R", value_parser = megabits)]
    rate_mbit: Option<u64>,
    /// How many frames wait for the bottleneck; more are dropped.
    #[arg(long, value_name = "N", default_value_t = 100, requires = "rate_mbit")]
    queue_packets: usize,
    /// Instead, how long a frame waits for the bottleneck; one that would wait longer is dropped.
    #[arg(long, value_name = "N", value_parser = milliseconds, requires = "rate_mbit", conflicts_with = "queue_packets")]
    queue_ms: Option<Duration>,
    /// How many frames of a hundred arrive late, after some that were sent later.
    #[arg(long, value_name = "P", value_parser = parts_per_million, default_value = "0")]
    reorder: u32,
    /// How late.
    #[arg(long, value_name = "N", value_parser = milliseconds, default_value = "1")]
    reorder_ms: Duration,
    /// How many frames of a hundred arrive twice.
    #[arg(long, value_name = "P", value_parser = parts_per_million, default_value = "0")]
    duplicate: u32,
    /// Decides, with a frame's number in its direction, about its fate: the same seed, the same numbers.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Stop after this time.
    #[arg(long, value_name = "T", value_parser = seconds)]
    seconds: Option<Duration>,
}

impl Options {
    fn conditions(&self) -> Conditions {
        let queue = self.queue_ms.map_or(Queue::Packets(self.queue_packets), Queue::Time);
        Conditions {
            delay: self.delay_ms,
            bottleneck: self.rate_mbit.map(|bits_per_second| Bottleneck { bits_per_second, queue }),
            loss: Share::of_a_million(self.loss),
            duplicate: Share::of_a_million(self.duplicate),
            reorder: Share::of_a_million(self.reorder),
            late: self.reorder_ms,
            seed: self.seed,
        }
    }
}

/// The whole tool.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let mut ending = Ending::new(options.seconds)?;
    let mut wire = Wire::open(options)?;
    hurry();
    eprintln!("bridging {} and {}", options.a, options.b);
    loop {
        wire.take_in()?;
        wire.deliver();
        if wire.is_ended(&mut ending)? {
            return wire.report();
        }
    }
}

/// Delays are only as exact as our wake-ups. Without the right to real-time priority the wire still works, less exactly.
fn hurry() {
    // SAFETY: the parameters live for the call; both calls change nothing but this thread's scheduling.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
        libc::sched_setscheduler(0, libc::SCHED_FIFO, &libc::sched_param { sched_priority: 1 });
    }
}

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

struct Wire {
    ends: [End; 2],
    pool: Pool,
    travelling: BinaryHeap<Reverse<Travelling>>,
    started: Instant,
    numbers: u64,
    received: Vec<Received>,
}

impl Wire {
    fn open(options: &Options) -> Result<Self> {
        let conditions = options.conditions();
        let end = |name: &str, index| -> Result<End> {
            let socket = PacketSocket::open(name).map_err(|error| format!("cannot open {name}: {error}"))?;
            let inward = Direction::new(conditions, index);
            Ok(End { name: name.to_owned(), socket, inward, troubles: Troubles::default() })
        };
        Ok(Self {
            ends: [end(&options.a, 0)?, end(&options.b, 1)?],
            pool: Pool::new(FRAMES_MAX),
            travelling: BinaryHeap::new(),
            started: Instant::now(),
            numbers: 0,
            received: Vec::with_capacity(BATCH),
        })
    }

    /// Takes all frames that are there. With the pool empty they wait in the sockets, and what finds these full is an overrun.
    fn take_in(&mut self) -> Result<()> {
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
    fn deliver(&mut self) {
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
    fn is_ended(&self, ending: &mut Ending) -> Result<bool> {
        let Some(Reverse(next)) = self.travelling.peek() else {
            return Ok(ending.wait(&self.ends.each_ref().map(|end| end.socket.as_fd()), None)?);
        };
        let left = Duration::from_nanos(next.at_ns.saturating_sub(self.now_ns()));
        let pause = left.min(self.nap()).max(2 * GRAIN);
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

    fn report(&self) -> Result<Report> {
        let lines = [0, 1].map(|from| describe(&self.ends[from], &self.ends[1 - from]));
        let [a, b] = lines;
        Ok(Report { lines: [a?, b?] })
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

/// What was seen and done, a line for each direction.
pub(crate) struct Report {
    lines: [String; 2],
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [there, back] = &self.lines;
        write!(f, "{there}\n{back}")
    }
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
