//! `sidestep-rig wire` between two namespaces: what it promises is what arrives, when and in which order.

#[path = "../../xdp-prog/tests/support/netns.rs"]
mod netns;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use netns::{in_fresh_netns, ip, peer_namespace};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::unistd::Pid;

const HERE: (&str, &str) = ("10.78.1.1", "10.78.1.1/24");
const THERE: (&str, &str) = ("10.78.1.2", "10.78.1.2/24");

/// Runs `body` with the sockets of two hosts, each in a namespace of its own, and the wire's two ends in this one.
fn bridged(body: impl FnOnce(&UdpSocket, &UdpSocket) + Send + 'static) {
    in_fresh_netns(|| {
        let ((near, end_near), (far, end_far)) = (host("n", HERE), host("f", THERE));
        near.connect((THERE.0, 9)).expect("connect");
        far.connect((HERE.0, 9)).expect("connect");
        body(&near, &far);
        drop((end_near, end_far));
    });
}

/// A host's socket, which stays in its namespace; the namespace lives as long as the sender that is given back.
fn host(letter: &str, (address, with_length): (&'static str, &str)) -> (UdpSocket, std::sync::mpsc::Sender<()>) {
    let (outer, inner) = (format!("w{letter}"), format!("h{letter}"));
    ip(&format!("link add {outer} type veth peer name {inner}"));
    // The wire carries bytes: what a device would finish on the way would arrive unfinished.
    let status = Command::new("ethtool").args(["-K", &inner, "tx", "off"]).stdout(Stdio::null()).status();
    assert!(status.expect("ethtool runs").success());
    ip(&format!("link set {outer} up"));
    let (give, given) = channel();
    let (hold, held): (_, Receiver<()>) = channel();
    peer_namespace(&inner, with_length, move || {
        let socket = UdpSocket::bind((address, 9)).expect("bind");
        // What the wire delivers shall not be lost in the socket because its reader had no core for a while.
        setsockopt(&socket, RcvBufForce, &(16 << 20)).expect("a large buffer");
        give.send(socket).expect("the test waits");
        let _ = held.recv();
    });
    (given.recv().expect("the host starts"), hold)
}

/// The tool, bridging.
fn start(arguments: &[&str]) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sidestep-rig"))
        .args(["wire", "wn", "wf"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool starts");
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().expect("piped")).read_line(&mut line).expect("a line");
    assert!(line.starts_with("bridging "), "{line}");
    child
}

/// The tool, for a test of order: a frame waits on the CPU from which it was sent into a veth, and a sender that is moved to another may
/// overtake itself. That is true of the wire and of the hosts, which send from this thread: both have one CPU, and may be late.
fn start_in_order(arguments: &[&str]) -> Child {
    const THIS_THREAD: Pid = Pid::from_raw(0);
    let child = start(arguments);
    keep_on_one_cpu(Pid::from_raw(child.id().cast_signed()));
    keep_on_one_cpu(THIS_THREAD);
    child
}

fn keep_on_one_cpu(process: Pid) {
    let allowed = sched_getaffinity(process).expect("its CPUs");
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap_or(false)).expect("at least one");
    let mut one = CpuSet::new();
    one.set(first).expect("it was among them");
    sched_setaffinity(process, &one).expect("one of them");
}

/// Its report: for each direction the counts by their names. Everything that a sound rig never shows must be zero.
fn finish(mut child: Child) -> [HashMap<String, u64>; 2] {
    drop(child.stdin.take());
    let mut text = String::new();
    child.stdout.as_mut().expect("piped").read_to_string(&mut text).expect("a report");
    assert!(child.wait().expect("it ends").success());
    let counts: Vec<HashMap<String, u64>> = text
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().skip(3).collect();
            words.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].parse().expect("a number"))).collect()
        })
        .collect();
    let counts: [HashMap<String, u64>; 2] = counts.try_into().expect("two lines");
    for name in ["toolong", "unfinished", "unsent", "overruns"] {
        assert!(counts.iter().all(|count| count[name] == 0), "{text}");
    }
    counts
}

/// The first frame of a socket asks for a neighbour's address and waits for it.
fn warm_up(near: &UdpSocket, far: &UdpSocket) {
    for (one, other) in [(near, far), (far, near)] {
        other.set_read_timeout(Some(Duration::from_secs(5))).expect("a time limit");
        one.send(b"hello").expect("send");
        other.recv(&mut [0; 8]).expect("it arrives");
    }
}

/// Sends numbers; slowly enough for any queue, so that only the wire decides what arrives.
fn send_numbers(socket: &UdpSocket, count: u32) {
    for number in 0..count {
        socket.send(&number.to_be_bytes()).expect("send");
        if number % 16 == 15 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Sends numbers one way, and gives them in the order of their coming.
fn pass(from: &UdpSocket, to: &UdpSocket, count: u32) -> Vec<u32> {
    thread::scope(|scope| {
        let reader = scope.spawn(|| receive_numbers(to));
        send_numbers(from, count);
        reader.join().expect("the reader ends")
    })
}

/// The numbers in the order of their coming, until none came for a while.
fn receive_numbers(socket: &UdpSocket) -> Vec<u32> {
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a time limit");
    let mut word = [0; 4];
    let mut numbers = Vec::new();
    while let Ok(4) = socket.recv(&mut word) {
        numbers.push(u32::from_be_bytes(word));
    }
    numbers
}

#[test]
fn the_delay_is_exact_in_both_directions() {
    bridged(|near, far| {
        for (delay_ms, text) in [(0.5, "0.5"), (10.0, "10")] {
            let wire = start(&["--delay-ms", text]);
            warm_up(near, far);
            for (one, other) in [(near, far), (far, near)] {
                let mut delays_ms: Vec<f64> = (0..41)
                    .map(|_| {
                        let sent = Instant::now();
                        one.send(b"now").expect("send");
                        other.recv(&mut [0; 8]).expect("it arrives");
                        sent.elapsed().as_secs_f64() * 1000.0
                    })
                    .collect();
                delays_ms.sort_by(f64::total_cmp);
                // Early is the wire's fault alone; late may be the machine's, which is shared: so the median.
                assert!(delays_ms[0] > delay_ms - 0.2, "{delays_ms:?}");
                assert!(delays_ms[20] < delay_ms + 0.5, "{delays_ms:?}");
            }
            finish(wire);
        }
    });
}

#[test]
fn nothing_is_lost_and_all_is_in_order_when_nothing_is_asked_for() {
    bridged(|near, far| {
        let wire = start_in_order(&["--delay-ms", "2"]);
        warm_up(near, far);
        assert!(pass(near, far, 2000).into_iter().eq(0..2000));
        let [there, _] = finish(wire);
        assert!(there["seen"] >= 2001 && there["lost"] + there["taildropped"] == 0, "{there:?}");
    });
}

#[test]
fn loss_is_the_share_asked_for_in_each_direction_and_the_same_again_by_seed() {
    bridged(|near, far| {
        let run = |seed| {
            let wire = start_in_order(&["--delay-ms", "1", "--loss", "10", "--seed", seed]);
            let arrived = [(near, far), (far, near)].map(|(one, other)| pass(one, other, 3000));
            let counts = finish(wire);
            for (arrived, count) in arrived.iter().zip(&counts) {
                assert!((230..370).contains(&count["lost"]), "{count:?}");
                assert_eq!(arrived.len() as u64, 3000 - count["lost"]);
                assert!(arrived.is_sorted());
            }
            arrived
        };
        let first = run("5");
        assert!(first == run("5"), "the same seed, another loss");
        assert!(first != run("6"), "another seed, the same loss");
        assert!(first[0] != first[1], "each direction has dice of its own");
    });
}

#[test]
fn the_bottleneck_paces_and_its_queue_ends() {
    bridged(|near, far| {
        let wire = start(&["--delay-ms", "1", "--rate-mbit", "8", "--queue-packets", "50"]);
        warm_up(near, far);
        let started = Instant::now();
        // 1000 bytes on the wire, a millisecond each.
        for number in 0..200_u32 {
            let mut frame = [0; 1000 - 42];
            frame[..4].copy_from_slice(&number.to_be_bytes());
            near.send(&frame).expect("send");
        }
        let mut count = 0;
        let mut last = Duration::ZERO;
        far.set_read_timeout(Some(Duration::from_millis(300))).expect("a time limit");
        while far.recv(&mut [0; 1000]).is_ok() {
            (count, last) = (count + 1, started.elapsed());
        }
        let [there, _] = finish(wire);
        // A frame of somebody else (a neighbour's) may have been among those that found no place.
        assert!((200..=there["seen"]).contains(&(count + there["taildropped"])), "{count} of {there:?}");
        assert!(count >= 50 && there["taildropped"] > 0, "{count} of {there:?}");
        let expected = Duration::from_millis(count + 1);
        assert!(last > expected - Duration::from_millis(1) && last < expected + Duration::from_millis(100), "{last:?}");
    });
}

#[test]
fn late_and_double_frames_arrive_as_counted() {
    bridged(|near, far| {
        let wire = start(&["--delay-ms", "3", "--reorder", "5", "--reorder-ms", "4", "--duplicate", "5"]);
        warm_up(near, far);
        let arrived = pass(near, far, 2000);
        let [there, _] = finish(wire);
        assert_eq!(arrived.len() as u64, 2000 + there["duplicated"]);
        assert!((50..150).contains(&there["duplicated"]) && (50..150).contains(&there["reordered"]), "{there:?}");
        assert!(!arrived.is_sorted());
        let mut once = arrived;
        once.sort_unstable();
        once.dedup();
        assert!(once.into_iter().eq(0..2000));
    });
}

#[test]
fn errors_are_one_clear_line() {
    in_fresh_netns(|| {
        let output = Command::new(env!("CARGO_BIN_EXE_sidestep-rig"))
            .args(["wire", "nosuchdev0", "nosuchdev1", "--delay-ms", "1"])
            .output()
            .expect("the tool starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert!(text.starts_with("sidestep-rig: ") && text.contains("nosuchdev0"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    });
}
