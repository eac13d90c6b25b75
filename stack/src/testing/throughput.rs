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
            let took: u64 = (0..SEEDS).map(|seed| transfer(seed + 1, loss, round_trip, algorithm)).sum();
            let kbit_per_s = SEEDS * OCTETS as u64 * 8 * 1000 / took.max(1);
            text += &format!("{:>9}.{:02}", kbit_per_s / 1000, kbit_per_s % 1000 / 10);
        }
    }
    text + "\n"
}

/// Microseconds from connect() to the last octet.
fn transfer(seed: u64, loss: u32, round_trip_us: u64, algorithm: Algorithm) -> u64 {
    let tunables = Tunables {
        congestion: algorithm as u32,
        rmem_bytes: [4096, 8 << 20, 8 << 20],
        wmem_bytes: [4096, 8 << 20, 8 << 20],
        reassembly_frames: 4096,
        ..Tunables::default()
    };
    let host = |n| HostConfig { frames: 8192, tunables, ..HostConfig::nth(n) };
    let mut network = Network::new(seed, &[host(1), host(2)]);
    for (i, attachment) in network.attachments.iter_mut().enumerate() {
        let plain = LinkConfig { delay_us: round_trip_us / 4, ..LinkConfig::default() };
        attachment.down.config = plain;
        attachment.up.config = match i {
            0 => plain,
            _ => LinkConfig { loss, kbit_per_s: KBIT_PER_S, queue_bytes: QUEUE_BYTES, ..plain },
        };
    }
    let began = network.now();
    let limit = began.after_us(LIMIT_US);
    let (listener, client) = open(&mut network);
    let (mut server, mut sent, mut received) = (None, 0, 0);
    while received < OCTETS {
        assert!(network.now() < limit, "only {received} octets in {LIMIT_US} us");
        let now = network.now();
        server = server.or_else(|| network.hosts[0].engine().accept(now, listener, PROC).ok().map(|(s, _)| s));
        sent += write(&mut network.hosts[1], now, client, sent);
        received += server.map_or(0, |s| read(&mut network.hosts[0], now, s, received));
        network.step(limit, &mut Nobody);
    }
    network.now().since_us(began)
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

fn write(host: &mut Host, now: Instant, socket: SocketId, from: usize) -> usize {
    let room = host.engine().send_room(socket).unwrap_or(0) as usize;
    let end = OCTETS.min(from + room.min(65_536));
    let data: super::alloc::vec::Vec<u8> = (from..end).map(|at| octet(1, Side::Client, at as u64)).collect();
    host.engine().send(now, socket, &data).unwrap_or(0)
}

fn read(host: &mut Host, now: Instant, socket: SocketId, from: usize) -> usize {
    let mut data = vec![0; 65_536];
    let n = host.engine().recv(now, socket, &mut data, false).unwrap_or(0);
    for (i, byte) in data[..n].iter().enumerate() {
        assert_eq!(*byte, octet(1, Side::Client, (from + i) as u64), "octet {}", from + i);
    }
    n
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
