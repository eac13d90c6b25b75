//! The committed object in a real kernel: it loads, attaches natively, and decides as `steer.rs` says.
//!
//! Each test runs on a thread with a network namespace of its own, which goes when the thread does. Without root there is nothing to
//! be tested: the tests say so and pass.

#[path = "support/frames.rs"]
mod frames;
#[path = "support/netns.rs"]
mod netns;
#[path = "support/kernel.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use aya::programs::{Xdp, XdpMode};
use frames::{ACK, RST, SYN};
use netns::{in_fresh_netns, ip, peer_namespace};
use sidestep_xdp::maps::{
    BlockEntry, FlowKey, PORT_HAS_FLOWS, PORT_KERNEL_FLOWS, PortEntry, PortState, Proto, Verdict, ipv4_mapped,
};
use sidestep_xdp::steer::bucket_of;
use support::{Steer, xsk};

const LOCAL: [u8; 4] = [10, 77, 0, 1];
const REMOTE: [u8; 4] = [10, 77, 0, 2];
const LOCAL6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const REMOTE6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const CLIENT: u16 = 40_000;
const ON: PortEntry = PortEntry::new(PortState::On, 0, 3);

fn tcp4(port: u16, flags: u8) -> Vec<u8> {
    frames::ethernet(0x0800, &frames::ipv4(REMOTE, LOCAL, 6, &[], &frames::tcp(CLIENT, port, flags)))
}

fn key4(port: u16) -> FlowKey {
    FlowKey::new(Proto::Tcp, ipv4_mapped(LOCAL), port, ipv4_mapped(REMOTE), CLIENT)
}

/// A program that knows its addresses and serves port 80 of both protocols through stack 5.
fn serving() -> Steer {
    let mut steer = Steer::load();
    steer.configure(1, 0);
    steer.local(ipv4_mapped(LOCAL));
    steer.local(LOCAL6);
    steer.policy(Proto::Tcp, 80, ON);
    steer.policy(Proto::Udp, 80, ON);
    steer.buckets(3, 5);
    steer
}

#[test]
fn an_unconfigured_program_passes_everything() {
    in_fresh_netns(|| {
        let mut steer = Steer::load();
        steer.expect(&tcp4(80, SYN), Verdict::PassNotConfigured);
    });
}

#[test]
fn every_way_to_a_stack_redirects_to_its_socket() {
    in_fresh_netns(|| {
        let mut steer = serving();
        let mut sockets = Vec::new();
        for stack in [5, 6, 7] {
            sockets.push(xsk());
            steer.xsk(stack, sockets.last().expect("just pushed"));
        }
        steer.expect(&tcp4(80, SYN), Verdict::RedirectBucket);
        let udp = frames::udp(CLIENT, 80, b"x");
        let udp6 = frames::ipv6(REMOTE6, LOCAL6, 17, &udp);
        steer.expect(&frames::ethernet(0x86dd, &udp6), Verdict::RedirectBucket);
        steer.flow(&key4(80), 6);
        steer.expect(&tcp4(80, ACK), Verdict::RedirectFlow);
        steer.ephemeral(33_000, BlockEntry::new(7, false));
        steer.expect(&tcp4(33_000, ACK), Verdict::RedirectEphemeral);
        let udp = frames::udp(CLIENT, 33_001, b"x");
        let udp = frames::ethernet(0x0800, &frames::ipv4(REMOTE, LOCAL, 17, &[], &udp));
        steer.expect(&udp, Verdict::PassPolicyOff);
        steer.datagram_port(33_001, 7 + 1);
        steer.expect(&udp, Verdict::RedirectEphemeral);
        steer.datagram_port(33_001, 1 << 32);
        steer.expect(&udp, Verdict::PassPolicyOff);
        let mut first = tcp4(80, ACK);
        first[20] = 0x20;
        let mut last = first.clone();
        last[20..22].copy_from_slice(&[0, 3]);
        steer.expect(&last, Verdict::PassFragment);
        steer.expect(&first, Verdict::RedirectFragment);
        steer.expect(&last, Verdict::RedirectFragment);
        steer.expect(&last, Verdict::PassFragment);
        let mut first =
            frames::ipv6(REMOTE6, LOCAL6, 44, &[&[6, 0, 0, 1, 0, 0, 0, 9], &frames::tcp(CLIENT, 80, ACK)[..]].concat());
        steer.expect(&frames::ethernet(0x86dd, &first), Verdict::RedirectFragment);
        first[42..44].copy_from_slice(&[0, 24]);
        steer.expect(&frames::ethernet(0x86dd, &first), Verdict::RedirectFragment);
        steer.expect(&frames::ethernet(0x86dd, &first), Verdict::PassFragment);
        let sent = frames::ipv4(LOCAL, REMOTE, 6, &[], &frames::tcp(80, CLIENT, ACK));
        let error = frames::ipv4([10, 9, 9, 9], LOCAL, 1, &[], &frames::icmp(3, 4, &sent));
        steer.expect(&frames::ethernet(0x0800, &error), Verdict::RedirectIcmp);
    });
}

#[test]
fn a_stack_without_a_socket_leaves_the_packet_to_the_kernel() {
    in_fresh_netns(|| serving().expect(&tcp4(80, SYN), Verdict::PassRedirectFailed));
}

#[test]
fn only_the_bucket_of_the_flow_counts() {
    in_fresh_netns(|| {
        let mut steer = serving();
        steer.bucket(3, bucket_of(&key4(80)), 0);
        steer.expect(&tcp4(80, SYN), Verdict::PassNoStack);
    });
}

#[test]
fn what_is_not_ours_passes() {
    in_fresh_netns(|| {
        let mut steer = serving();
        steer.expect(&frames::ethernet(0x0806, &[0; 46]), Verdict::PassNotIp);
        steer.expect(&tcp4(81, SYN), Verdict::PassPolicyOff);
        steer.expect(&frames::tagged(0x8100, &tcp4(80, SYN)), Verdict::PassTagged);
        let forwarded = frames::ipv4(REMOTE, [10, 77, 0, 9], 6, &[], &frames::tcp(CLIENT, 80, SYN));
        steer.expect(&frames::ethernet(0x0800, &forwarded), Verdict::PassNotLocal);
        let mut fragment = tcp4(81, SYN);
        fragment[20] = 0x20;
        steer.expect(&fragment, Verdict::PassFragment);
        steer.expect(&tcp4(80, SYN)[..50], Verdict::PassMalformed);
        let ping = frames::ipv4(REMOTE, LOCAL, 1, &[], &frames::icmp(8, 0, &[]));
        steer.expect(&frames::ethernet(0x0800, &ping), Verdict::PassIcmp);
        let gre = frames::ipv4(REMOTE, LOCAL, 47, &[], &[0; 8]);
        steer.expect(&frames::ethernet(0x0800, &gre), Verdict::PassProtocol);
        let chain = [[60, 0, 1, 4, 0, 0, 0, 0]; 5].concat();
        let odd = frames::ipv6(REMOTE6, LOCAL6, 60, &chain);
        steer.expect(&frames::ethernet(0x86dd, &odd), Verdict::PassOptionsOdd);
    });
}

/// The same frames to the program in the kernel and to `steer.rs` on the host, cut at every length.
#[test]
fn truncated_frames_pass_at_every_length() {
    in_fresh_netns(|| {
        let mut steer = serving();
        let inner = frames::ipv6(LOCAL6, REMOTE6, 6, &frames::tcp(80, CLIENT, ACK));
        let error = frames::ethernet(0x86dd, &frames::ipv6(REMOTE6, LOCAL6, 58, &frames::icmp(2, 0, &inner)));
        for frame in [tcp4(80, SYN), error] {
            // The kernel's test run takes nothing shorter than an Ethernet header.
            for len in 14..frame.len() {
                let before = steer.counters();
                assert_eq!(steer.run(&frame[..len]), support::XDP_PASS, "cut at {len}");
                assert_eq!(steer.counted_since(&before), [Verdict::PassMalformed], "cut at {len}");
            }
        }
    });
}

/// A port switched on under a live kernel connection, switched off again, and the connection never notices.
#[test]
fn live_kernel_connections_stay_with_the_kernel() {
    in_fresh_netns(|| {
        ip("link add sst0 type veth peer name sst1");
        ip("addr add 10.77.0.1/24 dev sst0");
        ip("link set sst0 up");
        let mut steer = serving();
        let program: &mut Xdp = steer.program();
        program.attach("sst0", XdpMode::Driver).expect("native XDP on veth");

        let listener = TcpListener::bind((Ipv4Addr::from(LOCAL), 80)).expect("listen");
        let peer = peer_namespace("sst1", "10.77.0.2/24", || {
            let mut stream = TcpStream::connect((Ipv4Addr::from(LOCAL), 80)).expect("connect");
            let mut word = [0; 4];
            while stream.read_exact(&mut word).is_ok() {
                stream.write_all(&word).expect("echo");
            }
        });
        steer.policy(Proto::Tcp, 80, PortEntry::default());
        let (mut stream, _) = listener.accept().expect("accept");
        let mut round_trip = |steer: &Steer, expected: Verdict| {
            let before = steer.counters();
            stream.write_all(b"ping").expect("send");
            stream.read_exact(&mut [0; 4]).expect("the echo comes back");
            let counted = steer.counted_since(&before);
            assert!(counted.contains(&expected), "{counted:?} wants {expected:?}");
        };
        round_trip(&steer, Verdict::PassPolicyOff);
        steer.policy(Proto::Tcp, 80, PortEntry::new(PortState::On, PORT_KERNEL_FLOWS, 3));
        round_trip(&steer, Verdict::PassKernelFlow);
        steer.policy(Proto::Tcp, 80, PortEntry::new(PortState::Draining, 0, 3));
        round_trip(&steer, Verdict::PassKernelFlow);
        steer.policy(Proto::Tcp, 80, PortEntry::default());
        steer.ephemeral(80, BlockEntry::new(5, true));
        round_trip(&steer, Verdict::PassKernelFlow);
        drop(stream);
        peer.join().expect("the peer ends");
    });
}

/// Sockets of both families, in every stage of their lives, as the program finds them.
#[test]
fn kernel_sockets_of_both_families_are_found() {
    in_fresh_netns(|| {
        ip("link set lo up");
        for (here, there) in
            [(IpAddr::from(LOCAL), IpAddr::from(REMOTE)), (IpAddr::from(LOCAL6), IpAddr::from(REMOTE6))]
        {
            for address in [here, there] {
                // No duplicate address detection, which IPv6 would wait for.
                let rest = if address.is_ipv4() { "32 dev lo" } else { "128 dev lo nodad" };
                ip(&format!("addr add {address}/{rest}"));
            }
            let mut steer = serving();
            let socket = xsk();
            steer.xsk(5, &socket);
            let shared = PortEntry::new(PortState::On, PORT_KERNEL_FLOWS, 3);
            steer.policy(Proto::Tcp, 80, shared);
            let frame = |flags| match here {
                IpAddr::V4(_) => tcp4(80, flags),
                IpAddr::V6(_) => {
                    let tcp = frames::tcp(CLIENT, 80, flags);
                    frames::ethernet(0x86dd, &frames::ipv6(REMOTE6, LOCAL6, 6, &tcp))
                }
            };
            steer.expect(&frame(ACK), Verdict::RedirectBucket);
            let listener = TcpListener::bind((here, 80)).expect("listen");
            steer.expect(&frame(SYN), Verdict::RedirectBucket);
            let client = connect_from((there, CLIENT).into(), (here, 80).into());
            let (server, _) = listener.accept().expect("accept");
            steer.expect(&frame(SYN), Verdict::PassKernelFlow);
            steer.expect(&frame(ACK), Verdict::PassKernelFlow);
            drop(server);
            drop(client);
            // The server closed first: its end is in TIME-WAIT, and still the kernel's.
            steer.expect(&frame(ACK), Verdict::PassKernelFlow);
            // In a block of ephemeral ports a listener gets its SYNs, and who connects its answers.
            steer.policy(Proto::Tcp, 80, PortEntry::default());
            for answer in [SYN | ACK, RST | ACK] {
                steer.ephemeral(80, BlockEntry::new(5, false));
                steer.expect(&frame(ACK), Verdict::RedirectEphemeral);
                steer.expect(&frame(answer), Verdict::PassKernelFlow);
                steer.expect(&frame(ACK), Verdict::PassKernelFlow);
            }
            let frame_from = |from: u16, flags| {
                let mut frame = frame(flags);
                let at = frame.len() - 20;
                frame[at..at + 2].copy_from_slice(&from.to_be_bytes());
                frame
            };
            steer.ephemeral(80, BlockEntry::new(5, false));
            steer.expect(&frame_from(7, SYN), Verdict::PassPolicyOff);
            steer.expect(&frame_from(7, ACK), Verdict::RedirectEphemeral);
            steer.expect(&frame(ACK), Verdict::PassKernelFlow);
            drop(listener);
            steer.expect(&frame_from(7, SYN), Verdict::RedirectEphemeral);
        }
    });
}

/// A connection from a port of our choosing, which the standard library cannot ask for.
fn connect_from(from: SocketAddr, to: SocketAddr) -> OwnedFd {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &from).expect("bind");
    connect(&socket, &to).expect("connect");
    socket
}

/// With a shadow listener in the kernel, a port that is on and looked up still gives what is not the kernel's to the stack.
#[test]
fn a_listener_does_not_make_a_flow_the_kernels() {
    in_fresh_netns(|| {
        ip("link set lo up");
        ip("addr add 10.77.0.1/32 dev lo");
        let _listener = TcpListener::bind((Ipv4Addr::from(LOCAL), 80)).expect("listen");
        let mut steer = serving();
        let socket = xsk();
        steer.xsk(5, &socket);
        steer.policy(Proto::Tcp, 80, PortEntry::new(PortState::On, PORT_KERNEL_FLOWS, 3));
        steer.expect(&tcp4(80, SYN), Verdict::RedirectBucket);
        steer.expect(&tcp4(80, ACK), Verdict::RedirectBucket);
        steer.policy(Proto::Tcp, 80, PortEntry::new(PortState::Draining, 0, 3));
        steer.expect(&tcp4(80, SYN), Verdict::PassDraining);
        steer.expect(&tcp4(80, ACK), Verdict::RedirectBucket);
        steer.policy(Proto::Tcp, 80, PortEntry::new(PortState::Off, PORT_HAS_FLOWS, 3));
        steer.expect(&tcp4(80, ACK), Verdict::PassPolicyOff);
        steer.flow(&key4(80), 5);
        steer.expect(&tcp4(80, ACK), Verdict::RedirectFlow);
    });
}

/// What a frame costs, for whoever changes the program: `cargo test -p sidestep-xdp --test kernel cost -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost() {
    in_fresh_netns(|| {
        let mut steer = serving();
        let socket = xsk();
        steer.xsk(5, &socket);
        let tcp6 = frames::ipv6(REMOTE6, LOCAL6, 6, &frames::tcp(CLIENT, 80, ACK));
        let tcp6 = frames::ethernet(0x86dd, &tcp6);
        let arp = frames::ethernet(0x0806, &[0; 46]);
        let report = |what, steer: &mut Steer, frame: &[u8]| {
            println!("{what:40} {:?}", steer.time(frame));
        };
        report("not IP", &mut steer, &arp);
        report("IPv4, port off", &mut steer, &tcp4(81, ACK));
        report("IPv4, bucket", &mut steer, &tcp4(80, ACK));
        report("IPv6, bucket", &mut steer, &tcp6);
        steer.ephemeral(33_000, BlockEntry::new(5, false));
        report("IPv4, ephemeral", &mut steer, &tcp4(33_000, ACK));
        let shared = PortEntry::new(PortState::On, PORT_KERNEL_FLOWS, 3);
        steer.policy(Proto::Tcp, 80, shared);
        report("IPv4, bucket after a kernel look-up", &mut steer, &tcp4(80, ACK));
        steer.policy(Proto::Tcp, 80, ON);
        steer.flow(&key4(80), 5);
        report("IPv4, exact flow", &mut steer, &tcp4(80, ACK));
    });
}
