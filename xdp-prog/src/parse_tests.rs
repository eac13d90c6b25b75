//! The parser, frame by frame: what it reads, and what it refuses to read.

use super::*;
use crate::frames;
use crate::frames::{ACK, SYN};

const US: [u8; 4] = [10, 0, 0, 1];
const THEM: [u8; 4] = [10, 0, 0, 2];
const US6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const THEM6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

fn parsed(frame: &[u8]) -> Result<Segment, Verdict> {
    parse(&frame, true)
}

fn v4(proto: u8, payload: &[u8]) -> Vec<u8> {
    frames::ethernet(0x0800, &frames::ipv4(THEM, US, proto, &[], payload))
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    frames::ethernet(0x86dd, &frames::ipv6(THEM6, US6, next, payload))
}

fn key4(proto: Proto) -> FlowKey {
    FlowKey::new(proto, ipv4_mapped(US), 80, ipv4_mapped(THEM), 999)
}

fn key6(proto: Proto) -> FlowKey {
    FlowKey::new(proto, US6, 80, THEM6, 999)
}

fn segment(key: FlowKey, proto: Proto, kind: Kind) -> Result<Segment, Verdict> {
    Ok(Segment { key, proto, kind })
}

/// An extension header of `len` bytes that says what follows it.
fn extension(next: u8, len: usize) -> Vec<u8> {
    let mut header = vec![0; len];
    (header[0], header[1]) = (next, (len / 8 - 1) as u8);
    header
}

#[test]
fn tcp_and_udp_over_both_ip_versions() {
    let (tcp, udp) = (frames::tcp(999, 80, SYN), frames::udp(999, 80, b"hi"));
    assert_eq!(parsed(&v4(6, &tcp)), segment(key4(Proto::Tcp), Proto::Tcp, Kind::Opens));
    assert_eq!(parsed(&v6(6, &tcp)), segment(key6(Proto::Tcp), Proto::Tcp, Kind::Opens));
    assert_eq!(parsed(&v4(17, &udp)), segment(key4(Proto::Udp), Proto::Udp, Kind::Belongs));
    assert_eq!(parsed(&v6(17, &udp)), segment(key6(Proto::Udp), Proto::Udp, Kind::Belongs));
}

#[test]
fn only_a_syn_without_ack_opens() {
    const FIN: u8 = 1;
    const RST: u8 = 4;
    const ECE_CWR: u8 = 0xc0;
    for (flags, kind) in [
        (SYN, Kind::Opens),
        (SYN | ECE_CWR, Kind::Opens),
        (SYN | ACK, Kind::Answers),
        (ACK, Kind::Belongs),
        (FIN | ACK, Kind::Belongs),
        (RST, Kind::Answers),
        (RST | ACK, Kind::Answers),
        (SYN | RST, Kind::Answers),
        (0, Kind::Belongs),
    ] {
        let frame = v4(6, &frames::tcp(999, 80, flags));
        assert_eq!(parsed(&frame), segment(key4(Proto::Tcp), Proto::Tcp, kind), "flags {flags:#x}");
    }
}

#[test]
fn ethernet_padding_is_not_part_of_the_packet() {
    let mut frame = v4(6, &frames::tcp(999, 80, ACK));
    frame.extend([0; 6]);
    assert!(parsed(&frame).is_ok());
}

#[test]
fn ipv4_options_are_stepped_over() {
    for words in 1..=10 {
        let options = vec![1; words * 4];
        let packet = frames::ipv4(THEM, US, 6, &options, &frames::tcp(999, 80, SYN));
        let frame = frames::ethernet(0x0800, &packet);
        assert_eq!(parsed(&frame), segment(key4(Proto::Tcp), Proto::Tcp, Kind::Opens));
    }
}

#[test]
fn ipv6_extension_headers_are_stepped_over_up_to_four() {
    let tcp = frames::tcp(999, 80, SYN);
    let good = [extension(43, 8), extension(60, 24), extension(60, 2048), extension(6, 8), tcp.clone()].concat();
    assert_eq!(parsed(&v6(0, &good)), segment(key6(Proto::Tcp), Proto::Tcp, Kind::Opens));
    let five = [[60, 0, 0, 0, 0, 0, 0, 0].repeat(4), extension(6, 8), tcp.clone()].concat();
    assert_eq!(parsed(&v6(60, &five)), Err(Verdict::PassOptionsOdd));
    let mut routed = [extension(6, 8), tcp].concat();
    routed[3] = 1;
    assert_eq!(parsed(&v6(43, &routed)), Err(Verdict::PassOptionsOdd));
}

#[test]
fn vlan_tags_are_read_only_when_asked_for() {
    let plain = v4(6, &frames::tcp(999, 80, SYN));
    let (one, two) = (frames::tagged(0x8100, &plain), frames::tagged(0x88a8, &frames::tagged(0x8100, &plain)));
    for frame in [&one, &two] {
        assert_eq!(parsed(frame), parsed(&plain));
        assert_eq!(parse(&frame.as_slice(), false), Err(Verdict::PassTagged));
    }
    assert_eq!(parsed(&frames::tagged(0x8100, &two)), Err(Verdict::PassNotIp));
}

#[test]
fn fragments_pass() {
    let whole = v4(6, &frames::tcp(999, 80, ACK));
    for (high, low, fragment) in [(0x20, 0, true), (0x00, 1, true), (0x1f, 0xff, true), (0x40, 0, false), (0, 0, false)]
    {
        let mut frame = whole.clone();
        (frame[20], frame[21]) = (high, low);
        assert_eq!(parsed(&frame) == Err(Verdict::PassFragment), fragment, "{high:#x} {low:#x}");
    }
    let tail = [extension(6, 8), frames::tcp(999, 80, ACK)].concat();
    assert_eq!(parsed(&v6(44, &tail)), Err(Verdict::PassFragment));
    assert_eq!(parsed(&v6(60, &[extension(44, 8), tail.clone()].concat())), Err(Verdict::PassFragment));
    let late = [extension(60, 8).repeat(3), extension(44, 8), tail].concat();
    assert_eq!(parsed(&v6(60, &late)), Err(Verdict::PassFragment));
}

#[test]
fn what_is_not_tcp_udp_or_ip_passes() {
    assert_eq!(parsed(&frames::ethernet(0x0806, &[0; 46])), Err(Verdict::PassNotIp));
    assert_eq!(parsed(&v4(47, &[0; 20])), Err(Verdict::PassProtocol));
    assert_eq!(parsed(&v6(59, &[0; 20])), Err(Verdict::PassProtocol));
    // The other version's ICMP.
    assert_eq!(parsed(&v4(58, &[1; 20])), Err(Verdict::PassProtocol));
    assert_eq!(parsed(&v6(1, &[3; 20])), Err(Verdict::PassProtocol));
}

#[test]
fn a_frame_to_a_group_is_nobodys() {
    let mut frame = v4(17, &frames::udp(999, 80, b""));
    frame[0] |= 1;
    assert_eq!(parsed(&frame), Err(Verdict::PassNotLocal));
}

/// Each change breaks one promise that a header makes.
#[test]
fn contradictions_pass_as_malformed() {
    let tcp4 = v4(6, &frames::tcp(999, 80, ACK));
    let tcp6 = v6(6, &frames::tcp(999, 80, ACK));
    let udp4 = v4(17, &frames::udp(999, 80, b"hi"));
    let mapped = frames::ipv6(ipv4_mapped(THEM), US6, 6, &frames::tcp(999, 80, ACK));
    assert_eq!(parsed(&frames::ethernet(0x86dd, &mapped)), Err(Verdict::PassMalformed));
    for (what, frame, at, value) in [
        ("IPv4 version", &tcp4, 14, 0x65),
        ("IPv4 header length below 20", &tcp4, 14, 0x44),
        ("IPv4 total length below its header", &tcp4, 17, 19),
        ("IPv4 total length beyond the frame", &tcp4, 17, 41),
        ("IPv4 total length without a TCP header", &tcp4, 17, 39),
        ("IPv6 version", &tcp6, 14, 0x40),
        ("IPv6 payload length 0", &tcp6, 19, 0),
        ("IPv6 payload length beyond the frame", &tcp6, 19, 21),
        ("TCP header length below 20", &tcp4, 46, 0x40),
        ("TCP header length beyond the packet", &tcp4, 46, 0x60),
        ("UDP length below 8", &udp4, 39, 7),
        ("UDP length beyond the packet", &udp4, 39, 11),
    ] {
        assert!(parsed(frame).is_ok());
        let mut broken = frame.clone();
        broken[at] = value;
        assert_eq!(parsed(&broken), Err(Verdict::PassMalformed), "{what}");
    }
}

#[test]
fn icmp_errors_give_the_flow_they_quote() {
    let sent4 = frames::ipv4(US, THEM, 6, &[1; 8], &frames::tcp(80, 999, ACK));
    let sent6 = frames::ipv6(US6, THEM6, 17, &frames::udp(80, 999, b""));
    for code in [0, 1, 3, 4] {
        let frame = v4(1, &frames::icmp(3, code, &sent4));
        assert_eq!(parsed(&frame), segment(key4(Proto::Tcp), Proto::Tcp, Kind::Quoted));
    }
    for kind in [1, 2] {
        let frame = v6(58, &frames::icmp(kind, 0, &sent6));
        assert_eq!(parsed(&frame), segment(key6(Proto::Udp), Proto::Udp, Kind::Quoted));
    }
}

/// RFC 792 routers quote no more than eight bytes of the payload, and the quoted length speaks of more than is there.
#[test]
fn eight_quoted_bytes_are_enough_and_seven_are_not() {
    let sent = frames::ipv4(US, THEM, 6, &[], &frames::tcp(80, 999, ACK));
    let eight = v4(1, &frames::icmp(3, 4, &sent[..28]));
    assert_eq!(parsed(&eight), segment(key4(Proto::Tcp), Proto::Tcp, Kind::Quoted));
    assert_eq!(parsed(&v4(1, &frames::icmp(3, 4, &sent[..27]))), Err(Verdict::PassIcmp));
    // Padding behind the packet does not count as quoted.
    let mut padded = v4(1, &frames::icmp(3, 4, &sent[..27]));
    padded.extend([0; 20]);
    assert_eq!(parsed(&padded), Err(Verdict::PassIcmp));
}

#[test]
fn all_other_icmp_is_the_kernels() {
    let sent = frames::ipv4(US, THEM, 6, &[], &frames::tcp(80, 999, ACK));
    let mut fragment = sent.clone();
    fragment[6] = 0x20;
    let foreign = frames::ipv4([10, 0, 0, 7], THEM, 6, &[], &frames::tcp(80, 999, ACK));
    let nested = frames::ipv4(US, THEM, 1, &[], &frames::icmp(3, 4, &sent));
    for message in [
        frames::icmp(8, 0, b"ping"),
        frames::icmp(11, 0, &sent),
        frames::icmp(5, 0, &sent),
        frames::icmp(3, 4, &fragment),
        frames::icmp(3, 4, &foreign),
        frames::icmp(3, 4, &nested),
        frames::icmp(3, 4, b"short"),
    ] {
        assert_eq!(parsed(&v4(1, &message)), Err(Verdict::PassIcmp));
    }
    assert_eq!(parsed(&v6(58, &frames::icmp(135, 0, &[0; 20]))), Err(Verdict::PassIcmp));
    assert_eq!(parsed(&v6(58, &frames::icmp(3, 0, &[0; 48]))), Err(Verdict::PassIcmp));
}

/// Every prefix of every kind of frame passes, and none panics.
#[test]
fn truncation_at_any_length_passes() {
    let sent = frames::ipv6(US6, THEM6, 60, &[extension(6, 16), frames::tcp(80, 999, ACK)].concat());
    let plain = v4(6, &frames::tcp(999, 80, SYN));
    let whole = [
        plain.clone(),
        frames::tagged(0x88a8, &frames::tagged(0x8100, &plain)),
        frames::ethernet(0x0800, &frames::ipv4(THEM, US, 17, &[1; 40], &frames::udp(999, 80, b"hello"))),
        v6(0, &[extension(60, 16), extension(17, 8), frames::udp(999, 80, b"hello")].concat()),
        v6(58, &frames::icmp(1, 4, &sent)),
    ];
    for frame in whole {
        assert!(parsed(&frame).is_ok());
        for len in 0..frame.len() {
            let expected = if len < 14 { Verdict::PassNotIp } else { Verdict::PassMalformed };
            assert_eq!(parsed(&frame[..len]), Err(expected), "cut at {len} of {}", frame.len());
        }
    }
}

/// A fuzzer in miniature, so that `cargo test` alone finds a careless read: valid frames with bytes overwritten, cut anywhere.
#[test]
fn damaged_frames_never_panic_and_never_invent_a_flow() {
    let sent = frames::ipv4(US, THEM, 6, &[], &frames::tcp(80, 999, ACK));
    let seeds = [
        frames::tagged(0x8100, &v4(6, &frames::tcp(999, 80, SYN))),
        v6(0, &[extension(43, 8), extension(6, 8), frames::tcp(999, 80, ACK)].concat()),
        v4(1, &frames::icmp(3, 4, &sent)),
    ];
    let mut dice = (0..).map(|n| crate::rig::seeded(1, 0, n) as usize);
    let mut roll = |below: usize| dice.next().expect("endless") % below;
    for _ in 0..200_000 {
        let mut frame = seeds[roll(seeds.len())].clone();
        for _ in 0..roll(4) {
            let at = roll(frame.len());
            frame[at] = roll(256) as u8;
        }
        frame.truncate(frame.len() - roll(frame.len()) * roll(2));
        if let Ok(segment) = parsed(&frame) {
            assert_eq!(segment.key.pad, [0; 3]);
            assert_eq!(segment.key.proto, segment.proto.number());
        }
    }
}
