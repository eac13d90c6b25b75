//! `sidestep-rig wire`: a bridge between two devices of this namespace that behaves like a long, narrow or bad line.
//!
//! - [`direction`]: what becomes of a frame: queue, bottleneck, delay, loss, reordering, duplication.
//! - [`pool`]: the frames on their way.
//! - [`packet_socket`]: the devices.
//! - [`bridge`]: these together.
//! - [`urgency`]: real-time priority.

mod bridge;
mod direction;
mod packet_socket;
mod pool;
mod urgency;

use std::error::Error;
use std::time::Duration;

use bridge::Wire;
use direction::{Bottleneck, Conditions, Queue, Share};

use crate::ending::Ending;
use crate::quantities::{megabits, milliseconds, parts_per_million, seconds};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

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
pub(crate) fn run(options: &Options) -> Result<String> {
    let mut ending = Ending::new(options.seconds)?;
    let mut wire = Wire::open([&options.a, &options.b], options.conditions())?;
    urgency::hurry();
    eprintln!("bridging {} and {}", options.a, options.b);
    loop {
        wire.take_in()?;
        wire.deliver();
        if wire.is_ended(&mut ending)? {
            return wire.describe();
        }
    }
}
