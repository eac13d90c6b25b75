//! How fast one connection is, in virtual time: a small grid of loss and round-trip time, committed as text. A change of
//! the protocol shows up as a change of this text.
//!
//! `SIDESTEP_BLESS=1 cargo test -p sidestep-stack throughput` writes it anew; then it goes into the commit that is the
//! reason.

use super::alloc::format;
use super::alloc::string::String;
use super::alloc::vec;
use super::content::{SERVER_PORT, Side, octet};
use super::link::LinkConfig;
use super::network::{Network, Nobody};
use super::{Host, HostConfig};
use crate::addr::{Endpoint, Ip};
use crate::socket::{Errno, Family, SocketId};
use crate::tcp::{Algorithm, Options};
use crate::time::{Instant, MS, SEC};
use crate::tunables::Tunables;

/// One transfer: how much, by which algorithm, over which path.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    algorithm: Algorithm,
    octets: usize,
    seed: u64,
    round_trip_us: u64,
    /// Losses in a thousand, and whether acknowledgements are lost as well.
    loss: u32,
    loses_acks: bool,
    queue_bytes: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// From connect() to the last octet; and octets read in the first [`STARTUP_US`].
    took_us: u64,
    started: usize,
    rto_expiries: u64,
    retransmits: u64,
}

/// By then every algorithm here has found out what the path can do.
const STARTUP_US: u64 = 2 * SEC;

/// Losses in a thousand, and round-trip times.
const LOSSES: [u32; 4] = [0, 1, 10, 30];
const ROUND_TRIPS_US: [u64; 3] = [MS, 20 * MS, 100 * MS];
/// The bottleneck: 100 Mbit/s with a queue of 100 packets.
const KBIT_PER_S: u64 = 100_000;
const QUEUE_BYTES: u64 = 150_000;
/// Each cell is the mean of so many transfers of so many octets.
const SEEDS: u64 = 3;
const OCTETS: usize = 2_000_000;
const PROC: u16 = 1;

/// Longest time for one transfer.
const LIMIT_US: u64 = 600 * SEC;

/// The table for one congestion control.
fn table(algorithm: Algorithm) -> String {
    let mut text = format!("{}, Mbit/s\n  loss", algorithm.name());
    for round_trip in ROUND_TRIPS_US {
        text += &format!("{:>9} ms", round_trip / MS);
    }
    for loss in LOSSES {
        text += &format!("\n{:>4}.{} %", loss / 10, loss % 10);
        for round_trip in ROUND_TRIPS_US {
            let cell = |seed| Transfer { loss, ..Transfer::plain(algorithm, seed + 1, round_trip) };
            let took: u64 = (0..SEEDS).map(|seed| cell(seed).run().took_us).sum();
            let kbit_per_s = SEEDS * OCTETS as u64 * 8 * 1000 / took.max(1);
            text += &format!("{:>9}.{:02}", kbit_per_s / 1000, kbit_per_s % 1000 / 10);
        }
    }
    text + "\n"
}

impl Transfer {
    fn plain(algorithm: Algorithm, seed: u64, round_trip_us: u64) -> Transfer {
        Transfer {
            algorithm,
            octets: OCTETS,
            seed,
            round_trip_us,
            loss: 0,
            loses_acks: false,
            queue_bytes: QUEUE_BYTES,
        }
    }

    fn network(&self) -> Network {
        let tunables = Tunables {
            congestion: self.algorithm as u32,
            rmem_bytes: [4096, 8 << 20, 8 << 20],
            wmem_bytes: [4096, 8 << 20, 8 << 20],
            reassembly_frames: 4096,
            ..Tunables::default()
        };
        let host = |n| HostConfig { frames: 8192, tunables, ..HostConfig::nth(n) };
        let mut network = Network::new(self.seed, &[host(1), host(2)]);
        let plain = LinkConfig { delay_us: self.round_trip_us / 4, ..LinkConfig::default() };
        let back = LinkConfig { loss: if self.loses_acks { self.loss } else { 0 }, ..plain };
        let there = LinkConfig { loss: self.loss, kbit_per_s: KBIT_PER_S, queue_bytes: self.queue_bytes, ..plain };
        for (attachment, up) in network.attachments.iter_mut().zip([back, there]) {
            attachment.down.config = plain;
            attachment.up.config = up;
        }
        network
    }

    fn run(&self) -> Outcome {
        let mut network = self.network();
        let began = network.now();
        let limit = began.after_us(LIMIT_US);
        let (listener, client) = open(&mut network);
        let (mut server, mut sent, mut received, mut started) = (None, 0, 0, 0);
        while received < self.octets {
            assert!(network.now() < limit, "only {received} octets in {LIMIT_US} us");
            let now = network.now();
            server = server.or_else(|| network.hosts[0].engine().accept(now, listener, PROC).ok().map(|(s, _)| s));
            sent += write(&mut network.hosts[1], now, client, sent, self.octets);
            if let Some(server) = server {
                received += read_all(&mut network.hosts[0], now, server, received);
            }
            if now.since_us(began) < STARTUP_US {
                started = received;
            }
            network.step(limit, &mut Nobody);
        }
        let counters = *network.hosts[1].engine().counters();
        Outcome {
            took_us: network.now().since_us(began),
            started,
            rto_expiries: counters.rto_expiries,
            retransmits: counters.retransmits,
        }
    }
}

fn open(network: &mut Network) -> (SocketId, SocketId) {
    let (now, remote) = (network.now(), network.endpoint(0, false, SERVER_PORT));
    let mut engine = network.hosts[0].engine();
    let options = Options::new(engine.tunables());
    let local = Endpoint::new(Ip::UNSPECIFIED_V4, SERVER_PORT);
    let listener = engine.listen(local, false, 1, &options, PROC).expect("a listener");
    let mut engine = network.hosts[1].engine();
    let client = engine.open_stream(Family::V4, false, PROC).expect("a socket");
    assert_eq!(engine.connect(now, client, None, remote), Err(Errno::EINPROGRESS));
    (listener, client)
}

fn write(host: &mut Host, now: Instant, socket: SocketId, from: usize, total: usize) -> usize {
    let room = host.engine().send_room(socket).unwrap_or(0) as usize;
    let end = total.min(from + room.min(65_536));
    let data: super::alloc::vec::Vec<u8> = (from..end).map(|at| octet(1, Side::Client, at as u64)).collect();
    host.engine().send(now, socket, &data).unwrap_or(0)
}

/// What filled a hole may bring much at once.
fn read_all(host: &mut Host, now: Instant, socket: SocketId, from: usize) -> usize {
    let (mut data, mut at) = (vec![0; 65_536], from);
    while let Some(n) = host.engine().recv(now, socket, &mut data, false).ok().filter(|n| *n > 0) {
        for (i, byte) in data[..n].iter().enumerate() {
            assert_eq!(*byte, octet(1, Side::Client, (at + i) as u64), "octet {}", at + i);
        }
        at += n;
    }
    at - from
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test asks whether to write its snapshot")]
fn throughput_is_what_was_committed() {
    let names = ["reno", "cubic", "bbr"];
    let mut text = String::from("One transfer of 2 MB over 100 Mbit/s with a queue of 100 packets, in virtual time.\n");
    for algorithm in names.iter().filter_map(|name| Algorithm::by_name(name)) {
        text += "\n";
        text += &table(algorithm);
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/testing/throughput.snapshot");
    if std::env::var_os("SIDESTEP_BLESS").is_some() {
        std::fs::write(path, &text).expect("the snapshot can be written");
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(text == committed, "throughput changed; if that is meant, SIDESTEP_BLESS=1 writes the snapshot:\n{text}");
}

/// Kbit/s after [`STARTUP_US`], of a long transfer.
fn rate_after_startup(transfer: Transfer) -> u64 {
    let long = Transfer { octets: 30_000_000, ..transfer };
    let outcome = long.run();
    (long.octets - outcome.started) as u64 * 8000 / (outcome.took_us - STARTUP_US)
}

#[test]
fn bbr_fills_a_link_that_loses() {
    for round_trip_us in [20 * MS, 100 * MS] {
        for loss in [0, 10] {
            let transfer = Transfer { loss, ..Transfer::plain(Algorithm::Bbr, 1, round_trip_us) };
            let rate = rate_after_startup(transfer);
            assert!(rate >= 85_000, "{rate} kbit/s of {KBIT_PER_S}: {transfer:?}");
        }
    }
}

#[test]
fn a_queue_of_one_bandwidth_delay_product_is_enough_for_the_others() {
    for algorithm in [Algorithm::Cubic, Algorithm::Reno] {
        for round_trip_us in [20 * MS, 100 * MS] {
            let queue_bytes = KBIT_PER_S * round_trip_us / 8000;
            let transfer = Transfer { queue_bytes, ..Transfer::plain(algorithm, 1, round_trip_us) };
            let rate = rate_after_startup(transfer);
            assert!(rate >= 90_000, "{rate} kbit/s of {KBIT_PER_S}: {transfer:?}");
        }
    }
}

/// With SACK at both ends only the last thing in flight can be lost so that nothing tells of it.
#[test]
fn random_losses_are_hardly_ever_repaired_by_the_timer() {
    for algorithm in [Algorithm::Cubic, Algorithm::Reno, Algorithm::Bbr] {
        for loss in [10, 30] {
            let one = |seed| Transfer { loss, loses_acks: true, ..Transfer::plain(algorithm, seed, 20 * MS) }.run();
            let all: super::alloc::vec::Vec<Outcome> = (1..=10).map(one).collect();
            let timeouts: u64 = all.iter().map(|outcome| outcome.rto_expiries).sum();
            let retransmits: u64 = all.iter().map(|outcome| outcome.retransmits).sum();
            assert!(retransmits >= 100 && timeouts <= 1, "{algorithm:?}, {loss}: {timeouts} of {retransmits}");
        }
    }
}
