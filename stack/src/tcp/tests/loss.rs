//! Retransmission: the timer, fast retransmit, giving up; and what routers say.

use super::harness::*;
use crate::tcp::{Events, IcmpKind, Seq, State, TcpError};
use crate::time::{MS, SEC};
use crate::wire::tcp::Flags;

const ACK: Flags = Flags::ACK;

/// An established connection that has `n` full segments in flight since 1001 ms.
fn sending(n: usize) -> Host {
    let mut host = established();
    assert_eq!(host.write(at_ms(1001), &vec![7; n * 1460]), n * 1460);
    assert_eq!(host.drain(at_ms(1001)).len(), n.min(10));
    host
}

fn ack(host: &mut Host, ms: u64, ack: u32) {
    host.arrive(at_ms(ms), &segment(5001, ack, ACK), b"");
}

#[test]
fn timer_backs_off_and_restarts_with_one_segment() {
    let mut host = sending(5);
    let mut at = at_ms(1001);
    for timeout in [1, 2, 4, 8] {
        let next = host.tcb.deadline().unwrap();
        // The SYN-ACK gave a sample of nothing: 200 ms is the floor.
        let expected = 200 * MS * timeout;
        assert!(next.since_us(at).abs_diff(expected) < MS, "{} {expected}", next.since_us(at));
        at = next;
        host.expire(at);
        let again = host.drain(at);
        assert_eq!((again.len(), again[0].seq, again[0].payload_len), (1, Seq(1001), 1460));
    }
    let info = host.tcb.info(at);
    assert_eq!((info.snd_cwnd, info.snd_ssthresh, info.backoff), (1460, 2 * 1460 + 730, 4));
    assert_eq!((host.counters.rto_expiries, host.counters.retransmits), (4, 4));
    // What was lost with it follows in slow start.
    ack(&mut host, at.micros() / MS + 1, 1001 + 1460);
    let again = host.drain(at.after_us(MS));
    assert_eq!(again.iter().map(|s| s.seq.0).collect::<Vec<_>>(), [1001 + 1460, 1001 + 2 * 1460]);
    ack(&mut host, at.micros() / MS + 2, 1001 + 5 * 1460);
    assert_eq!((host.tcb.deadline(), host.frames_held()), (None, 0));
}

#[test]
fn three_duplicates_retransmit_and_recover() {
    let mut host = sending(8);
    for _ in 0..2 {
        ack(&mut host, 1002, 1001);
        assert!(!host.tcb.wants_transmit());
    }
    ack(&mut host, 1002, 1001);
    let again = host.drain(at_ms(1002));
    assert_eq!((again.len(), again[0].seq), (1, Seq(1001)));
    assert_eq!(host.counters.fast_retransmits, 1);
    assert_eq!(host.tcb.info(at_ms(1002)).snd_ssthresh, 4 * 1460);
    // Partial: the next hole goes at once.
    ack(&mut host, 1003, 1001 + 3 * 1460);
    assert_eq!(host.drain(at_ms(1003))[0].seq, Seq(1001 + 3 * 1460));
    ack(&mut host, 1004, 1001 + 8 * 1460);
    let info = host.tcb.info(at_ms(1004));
    assert_eq!((info.snd_cwnd, info.unacked), (2 * 1460, 0));
    assert_eq!(host.frames_held(), 0);
}

#[test]
fn limited_transmit_sends_new_data() {
    let mut host = sending(20);
    for expected in [1, 1] {
        ack(&mut host, 1002, 1001);
        assert_eq!(host.drain(at_ms(1002)).len(), expected);
    }
    assert_eq!(host.tcb.info(at_ms(1002)).unacked, 12 * 1460);
}

#[test]
fn duplicates_after_a_timeout_do_not_retransmit_twice() {
    let mut host = sending(4);
    let at = host.tcb.deadline().unwrap();
    host.expire(at);
    host.drain(at);
    for _ in 0..5 {
        ack(&mut host, 1300, 1001);
    }
    assert_eq!(host.counters.fast_retransmits, 0);
    assert!(!host.tcb.wants_transmit());
}

#[test]
fn window_updates_and_data_are_no_duplicates() {
    let mut host = sending(4);
    for i in 0..5u16 {
        let mut update = segment(5001, 1001, ACK);
        update.window = 50_000 + i;
        host.arrive(at_ms(1002), &update, b"");
    }
    for i in 0..5 {
        host.arrive(at_ms(1002), &segment(5001 + i, 1001, ACK), b"x");
    }
    assert_eq!(host.counters.fast_retransmits, 0);
}

#[test]
fn a_frame_in_the_ring_is_not_sent_again() {
    let mut host = established();
    host.holds_ring = true;
    host.write(at_ms(1001), b"stuck");
    assert_eq!(host.drain(at_ms(1001)).len(), 1);
    for _ in 0..3 {
        let at = host.tcb.deadline().unwrap();
        host.expire(at);
        assert!(!host.tcb.wants_transmit());
    }
    assert_eq!(host.counters.rto_expiries, 0);
    host.holds_ring = false;
    host.complete();
    let at = host.tcb.deadline().unwrap();
    host.expire(at);
    let mut sent = host.drain(at).len();
    if sent == 0 {
        let at = host.tcb.deadline().unwrap();
        host.expire(at);
        sent = host.drain(at).len();
    }
    assert_eq!(sent, 1);
}

#[test]
fn fast_retransmit_waits_for_the_ring() {
    let mut host = established();
    host.holds_ring = true;
    host.write(at_ms(1001), &[7; 5 * 1460]);
    host.drain(at_ms(1001));
    (0..3).for_each(|_| ack(&mut host, 1002, 1001));
    assert_eq!(host.drain(at_ms(1002)).len(), 0);
    assert!(!host.tcb.wants_transmit());
    host.holds_ring = false;
    host.complete();
    let at = host.tcb.deadline().unwrap();
    assert!(at <= at_ms(1012));
    host.expire(at);
    assert_eq!(host.drain(at).len(), 1);
}

#[test]
fn gives_up_after_retries2() {
    let mut host = sending(1);
    let mut at = at_ms(1001);
    while let Some(next) = host.tcb.deadline() {
        at = next;
        host.expire(at);
        host.drain(at);
    }
    assert_eq!(host.tcb.take_error(), Some(TcpError::TimedOut));
    assert!(host.take_events().has(Events::CLOSED | Events::ERROR));
    // Linux: 924.6 s for tcp_retries2 = 15, rounded up to the next timeout.
    let seconds = at.since_us(at_ms(1001)) / SEC;
    assert!((924..=1050).contains(&seconds), "{seconds}");
    assert_eq!(host.frames_held(), 0);
}

#[test]
fn user_timeout() {
    let mut host = sending(1);
    host.tcb.options_mut().user_timeout_ms = 3000;
    let mut at = at_ms(1001);
    while let Some(next) = host.tcb.deadline() {
        at = next;
        host.expire(at);
        host.drain(at);
    }
    assert_eq!(host.tcb.take_error(), Some(TcpError::TimedOut));
    assert_eq!(at.since_us(at_ms(1001)) / MS, 3000);
}

#[test]
fn an_orphan_gives_up_sooner() {
    let mut host = sending(1);
    host.close(at_ms(1001));
    let mut at = at_ms(1001);
    while let Some(next) = host.tcb.deadline() {
        at = next;
        host.expire(at);
        host.drain(at);
    }
    assert_eq!(host.state(), State::Closed);
    assert!(at.since_us(at_ms(1001)) < 210 * SEC);
}

#[test]
fn karn_no_sample_from_what_went_twice() {
    let mut host = sending(1);
    let rtt = host.tcb.info(at_ms(1001)).rtt_us;
    let at = host.tcb.deadline().unwrap();
    host.expire(at);
    host.drain(at);
    ack(&mut host, 5000, 1001 + 1460);
    let info = host.tcb.info(at_ms(5000));
    assert_eq!((info.rtt_us, info.backoff), (rtt, 1));
    // The next that goes once gives one, and ends the backoff.
    host.write(at_ms(5001), b"x");
    host.drain(at_ms(5001));
    ack(&mut host, 5011, 1001 + 1461);
    let info = host.tcb.info(at_ms(5011));
    assert!(info.rtt_us > rtt && info.backoff == 0);
}

#[test]
fn a_partly_acknowledged_frame_is_cut() {
    let mut host = sending(1);
    ack(&mut host, 1002, 1001 + 1000);
    let at = host.tcb.deadline().unwrap();
    host.expire(at);
    let again = host.drain(at);
    assert_eq!((again[0].seq, again[0].payload_len), (Seq(2001), 460));
}

#[test]
fn idle_connections_start_small_again() {
    let mut host = sending(10);
    ack(&mut host, 1002, 1001 + 14600);
    assert_eq!(host.tcb.info(at_ms(1002)).snd_cwnd, 29200);
    host.write(at_ms(3000), b"x");
    host.drain(at_ms(3000));
    assert_eq!(host.tcb.info(at_ms(3000)).snd_cwnd, 14600);
}

fn icmp(host: &mut Host, kind: IcmpKind, quoted: u32) -> Events {
    host.with(at_ms(1010), |tcb, cx| tcb.handle_icmp(cx, kind, Seq(quoted))).events
}

#[test]
fn too_big_splits_what_is_in_flight() {
    let mut host = sending(3);
    // A number that is not in flight: forged.
    icmp(&mut host, IcmpKind::TooBig { mtu: 1000 }, 900);
    assert_eq!(host.tcb.info(at_ms(1010)).snd_mss, 1460);
    icmp(&mut host, IcmpKind::TooBig { mtu: 1000 }, 1001);
    assert_eq!(host.tcb.info(at_ms(1010)).snd_mss, 960);
    let mut at = at_ms(1010);
    let mut all = Vec::new();
    let mut acked = 1001;
    for _ in 0..10 {
        for seg in host.drain(at) {
            assert!(seg.payload_len <= 960);
            all.push((seg.seq.0, seg.payload_len));
            acked = acked.max(seg.end().0);
        }
        at = at.after_us(MS);
        host.arrive(at, &segment(5001, acked, ACK), b"");
    }
    let total: u32 = all.iter().map(|&(_, len)| u32::from(len)).sum();
    assert_eq!((total, host.tcb.unacked_bytes()), (3 * 1460, 0));
    assert_eq!(host.frames_held(), 0);
    // No sign of congestion.
    assert!(host.tcb.info(at).snd_ssthresh > 1 << 20);
}

#[test]
fn too_big_has_a_floor() {
    let mut host = sending(1);
    icmp(&mut host, IcmpKind::TooBig { mtu: 68 }, 1001);
    assert_eq!(host.tcb.info(at_ms(1010)).snd_mss, 552 - 40);
}

#[test]
fn unreachable_is_hard_before_the_handshake_and_soft_after() {
    for (kind, error) in [
        (IcmpKind::HostUnreachable, TcpError::HostUnreachable),
        (IcmpKind::NetUnreachable, TcpError::NetUnreachable),
        (IcmpKind::PortUnreachable, TcpError::Refused),
        (IcmpKind::ProtocolUnreachable, TcpError::NoProtocol),
        (IcmpKind::ParameterProblem, TcpError::Protocol),
        (IcmpKind::Prohibited, TcpError::Forbidden),
    ] {
        let mut host = Host::connecting(at_ms(1000), 1001, None, Default::default());
        host.drain(at_ms(1000));
        assert!(icmp(&mut host, kind, 1001).has(Events::CLOSED | Events::ERROR));
        assert_eq!(host.tcb.take_error(), Some(error));
    }
    let mut host = sending(1);
    assert!(icmp(&mut host, IcmpKind::HostUnreachable, 1001).is_empty());
    while let Some(at) = host.tcb.deadline() {
        host.expire(at);
        host.drain(at);
    }
    assert_eq!(host.tcb.take_error(), Some(TcpError::HostUnreachable));
}
