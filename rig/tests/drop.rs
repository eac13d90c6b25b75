//! `sidestep-rig drop` on a veth pair of its own: what it says it dropped did not arrive, and it is gone when it ends.

#[path = "../../xdp-prog/tests/support/netns.rs"]
mod netns;

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use netns::{in_fresh_netns, ip, peer_namespace};

const HERE: &str = "10.78.0.1";
const THERE: &str = "10.78.0.2";

/// A veth pair with an echo server at the far end, which answers until it hears an empty datagram.
fn wired(body: impl FnOnce(UdpSocket) + Send + 'static) {
    in_fresh_netns(|| {
        ip("link add sst0 type veth peer name sst1");
        ip("addr add 10.78.0.1/24 dev sst0");
        ip("link set sst0 up");
        let (tell, told) = std::sync::mpsc::channel();
        let peer = peer_namespace("sst1", "10.78.0.2/24", move || {
            let socket = UdpSocket::bind((THERE, 7)).expect("bind");
            socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
            tell.send(()).expect("the test waits");
            let mut buffer = [0; 64];
            while let Ok((len @ 1.., from)) = socket.recv_from(&mut buffer) {
                socket.send_to(&buffer[..len], from).expect("echo");
            }
        });
        told.recv().expect("the peer starts");
        let socket = UdpSocket::bind((HERE, 0)).expect("bind");
        socket.connect((THERE, 7)).expect("connect");
        let end = socket.try_clone().expect("a second handle");
        body(socket);
        end.send(&[]).expect("the end");
        peer.join().expect("the peer ends");
    });
}

/// The tool, attached.
fn start(arguments: &[&str]) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sidestep-rig"))
        .args(["drop", "sst0"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool starts");
    let mut line = String::new();
    let stderr = child.stderr.as_mut().expect("piped");
    BufReader::new(stderr).read_line(&mut line).expect("a line");
    assert!(line.starts_with("dropping "), "{line}");
    child
}

/// Its report, as (ingress seen, dropped, egress seen, dropped).
fn finish(mut child: Child) -> [u64; 4] {
    drop(child.stdin.take());
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("piped");
    stdout.read_to_string(&mut line).expect("a report");
    assert!(child.wait().expect("it ends").success());
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let expected = format!(
        "ingress seen {} dropped {} egress seen {} dropped {}\n",
        numbers[0], numbers[1], numbers[2], numbers[3]
    );
    assert_eq!(line, expected);
    [numbers[0], numbers[1], numbers[2], numbers[3]]
}

/// How long to wait for an echo that will come, however busy the machine is.
const SURELY: Duration = Duration::from_secs(5);
/// How long to wait for an echo that may have been dropped.
const BRIEFLY: Duration = Duration::from_millis(5);

/// Sends one at a time, and counts the echoes.
fn exchange(socket: &UdpSocket, count: u64, patience: Duration) -> u64 {
    socket.set_read_timeout(Some(patience)).expect("a time limit");
    let mut buffer = [0; 64];
    (0..count)
        .filter(|number| {
            let word = number.to_be_bytes();
            socket.send(&word).expect("send");
            // A late echo of an earlier word is not this word's.
            while let Ok(len) = socket.recv(&mut buffer) {
                if buffer[..len] == word {
                    return true;
                }
            }
            false
        })
        .count() as u64
}

#[test]
fn everything_and_nothing() {
    wired(|socket| {
        assert_eq!(exchange(&socket, 5, SURELY), 5, "the wire itself loses nothing");
        let all = start(&["--percent", "100"]);
        assert_eq!(exchange(&socket, 20, BRIEFLY), 0);
        let [_, _, seen, dropped] = finish(all);
        assert!(seen >= 20 && seen == dropped, "{dropped} of {seen}");
        let none = start(&["--percent", "0"]);
        assert_eq!(exchange(&socket, 20, SURELY), 20);
        assert_eq!(finish(none), [20, 0, 20, 0]);
    });
}

#[test]
fn a_share_in_both_directions_and_the_same_again_by_seed() {
    wired(|socket| {
        let run = || {
            let tool = start(&["--percent", "30", "--seed", "7"]);
            let echoed = exchange(&socket, 300, BRIEFLY);
            // The last echo may still be on its way.
            thread::sleep(Duration::from_millis(100));
            let counted = finish(tool);
            let [ingress_seen, ingress_dropped, egress_seen, egress_dropped] = counted;
            assert_eq!(egress_seen, 300);
            assert_eq!(ingress_seen, egress_seen - egress_dropped);
            assert!(echoed <= ingress_seen - ingress_dropped, "{echoed} echoes, {counted:?}");
            assert!((60..120).contains(&egress_dropped), "{counted:?}");
            counted
        };
        assert_eq!(run(), run());
    });
}

#[test]
fn a_killed_tool_leaves_nothing_behind() {
    wired(|socket| {
        let mut tool = start(&["--percent", "100"]);
        assert_eq!(exchange(&socket, 3, BRIEFLY), 0);
        tool.kill().expect("kill");
        tool.wait().expect("it ends");
        assert_eq!(exchange(&socket, 5, SURELY), 5);
    });
}

#[test]
fn it_ends_by_itself_after_its_time() {
    wired(|_socket| {
        let mut tool = start(&["--percent", "1", "--seconds", "0.2"]);
        let held_open = tool.stdin.take();
        assert!(tool.wait().expect("it ends").success());
        drop(held_open);
    });
}

#[test]
fn errors_are_one_clear_line() {
    in_fresh_netns(|| {
        let output = Command::new(env!("CARGO_BIN_EXE_sidestep-rig"))
            .args(["drop", "nosuchdev0", "--percent", "1"])
            .output()
            .expect("the tool starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert!(text.starts_with("sidestep-rig: ") && text.contains("nosuchdev0"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    });
}
