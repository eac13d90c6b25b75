//! Tables for each of the eight steps, on a connection with SND.NXT = 1001, RCV.NXT = 5001, a window of 65535.

use super::harness::*;
use crate::drops::Drop;
use crate::tcp::arrive::Stop;
use crate::tcp::{Events, Seq, State, TcpError};
use crate::tunables::Tunables;
use crate::wire::tcp::{Flags, Segment};

const ACK: Flags = Flags::ACK;

fn with_len(seq: u32, len: u16) -> Segment {
    Segment { payload_len: len, ..segment(seq, 1001, ACK) }
}

#[test]
fn first_sequence_number() {
    let edge = 5001 + 65535;
    let outside = Err(Stop::Acknowledge(Drop::OutsideWindow));
    let cases = [
        (with_len(5001, 0), Ok(())),
        (with_len(5001, 100), Ok(())),
        (with_len(edge, 0), Ok(())),
        (with_len(edge - 1, 100), Ok(())),
        (with_len(edge + 1, 0), outside),
        (with_len(edge + 1, 10), outside),
        (with_len(5000, 0), outside),
        (with_len(4901, 100), Ok(())),
        (with_len(4900, 100), outside),
        (with_len(4901, 101), Ok(())),
        (segment(5000, 0, Flags::RST), Err(Stop::Drop(Drop::OutsideWindow))),
        (segment(edge + 1, 0, Flags::RST), Err(Stop::Drop(Drop::OutsideWindow))),
    ];
    for (seg, expected) in cases {
        let mut host = established();
        let outcome = host.with(at_ms(1001), |tcb, cx| tcb.first_sequence_number(cx, &seg));
        assert_eq!(outcome, expected, "{seg:?}");
    }
}

#[test]
fn second_reset() {
    let host = established();
    let cases = [
        (5001, Err(Stop::Reset)),
        (5002, Err(Stop::Challenge(Drop::RstInvalid))),
        (5000, Err(Stop::Challenge(Drop::RstInvalid))),
    ];
    for (seq, expected) in cases {
        assert_eq!(host.tcb.second_reset(&segment(seq, 0, Flags::RST)), expected);
        assert_eq!(host.tcb.second_reset(&segment(seq, 0, ACK)), Ok(()));
    }
}

#[test]
fn fourth_syn() {
    let host = established();
    assert_eq!(host.tcb.fourth_syn(&segment(5001, 1001, Flags::SYN | ACK)), Err(Stop::Challenge(Drop::SynInWindow)));
    assert_eq!(host.tcb.fourth_syn(&segment(5001, 1001, ACK)), Ok(()));
}

#[test]
fn fifth_ack() {
    // Ten octets in flight: SND.UNA 1001, SND.NXT 1011; the largest window was 60000.
    let cases = [
        (1001, Ok(1001)),
        (1005, Ok(1005)),
        (1011, Ok(1011)),
        (1012, Err(Stop::Acknowledge(Drop::AckInvalid))),
        (1000, Ok(1001)),
        (1001u32.wrapping_sub(60_000), Ok(1001)),
        (1001u32.wrapping_sub(60_001), Err(Stop::Challenge(Drop::AckInvalid))),
    ];
    for (ack, expected) in cases {
        let mut host = established();
        host.write(at_ms(1001), b"0123456789");
        host.drain(at_ms(1001));
        let outcome =
            host.with(at_ms(1002), |tcb, cx| tcb.fifth_ack(cx, &segment(5001, ack, ACK)).map(|_| tcb.snd.una.0));
        assert_eq!(outcome, expected, "{ack}");
    }
    let mut host = established();
    let none = host.with(at_ms(1002), |tcb, cx| tcb.fifth_ack(cx, &segment(5001, 1001, Flags::PSH)));
    assert_eq!(none, Err(Stop::Drop(Drop::NoAck)));
}

#[test]
fn window_follows_the_newest_segment_only() {
    let mut host = established();
    let mut give = |seq, ack, window| {
        host.with(at_ms(1001), |tcb, cx| {
            let _ = tcb.fifth_ack(cx, &Segment { window, ..segment(seq, ack, ACK) });
            tcb.snd.wnd
        })
    };
    assert_eq!(give(5001, 1001, 100), 100);
    assert_eq!(give(5000, 1001, 200), 100);
    assert_eq!(give(5002, 1001, 300), 300);
    assert_eq!(give(5002, 1000, 400), 300);
}

#[test]
fn an_acknowledgement_that_was_overtaken_brings_its_window() {
    let mut host = established();
    host.write(at_ms(1001), &[1; 3000]);
    host.drain(at_ms(1001));
    // Newer by its number, older by what it acknowledges; then the other way round. The edge is 1001 + 10000 in both.
    host.arrive(at_ms(1002), &Segment { window: 10_000, ..segment(5003, 1001, ACK) }, b"");
    host.arrive(at_ms(1002), &Segment { window: 9000, ..segment(5001, 2001, ACK) }, b"");
    let snd = &host.tcb.snd;
    assert_eq!((snd.una, snd.una + snd.wnd), (Seq(2001), Seq(11_001)));
}

#[test]
fn a_window_that_shrank_does_not_silence_our_acknowledgements() {
    let mut host = established();
    host.write(at_ms(1001), &[1; 3000]);
    host.drain(at_ms(1001));
    host.arrive(at_ms(1002), &Segment { window: 500, ..segment(5001, 1001, ACK) }, b"");
    host.arrive(at_ms(1002), &segment(4000, 1001, ACK), b"");
    assert_eq!(host.drain(at_ms(1002))[0].seq, Seq(1501));
}

#[test]
fn seventh_text_in_every_state() {
    // After the peer's FIN its text is not taken, but acknowledged.
    let mut host = established();
    host.arrive(at_ms(1001), &segment(5001, 1001, ACK | Flags::FIN), b"");
    assert_eq!(host.state(), State::CloseWait);
    host.drain(at_ms(2000));
    host.arrive(at_ms(1002), &segment(5002, 1001, ACK), b"late");
    assert_eq!(host.tcb.available(), 0);
    assert_eq!(host.drain(at_ms(1002)).len(), 1);
    assert_eq!(host.frames_held(), 0);
}

#[test]
fn eighth_fin_waits_for_what_is_before_it() {
    let mut host = established();
    host.arrive(at_ms(1001), &segment(5011, 1001, ACK | Flags::FIN), b"b");
    assert_eq!((host.state(), host.take_events()), (State::Established, Events::NONE));
    assert_eq!(host.drain(at_ms(1001))[0].ack, Seq(5001));
    host.arrive(at_ms(1002), &segment(5001, 1001, ACK), b"0123456789");
    assert_eq!(host.state(), State::CloseWait);
    assert!(host.take_events().has(Events::READABLE | Events::PEER_FIN));
    assert_eq!(host.drain(at_ms(1002))[0].ack, Seq(5013));
    assert_eq!(host.read(at_ms(1002), 99), b"0123456789b");
}

#[test]
fn a_fin_behind_the_window_is_not_taken() {
    let mut host = established();
    let far = 5001 + 65535 - 1;
    host.arrive(at_ms(1001), &segment(far, 1001, ACK | Flags::FIN), b"xyz");
    assert!(!host.tcb.rcv.is_calm(), "one octet was kept");
    host.arrive(at_ms(1001), &segment(5001, 1001, ACK), b"abc");
    assert_eq!(host.state(), State::Established);
}

#[test]
fn urgent_data_stays_in_line_when_asked_to() {
    let mut host = established();
    host.tcb.options_mut().oob_inline = true;
    let seg = Segment { urgent: 1, ..segment(5001, 1001, ACK | Flags::URG) };
    host.arrive(at_ms(1001), &seg, b"!x");
    assert_eq!(host.read(at_ms(1001), 9), b"!x");
}

/// What comes back for what should not have come: (segment, counted as, what is sent).
#[test]
fn answers() {
    let cases: [(Segment, Drop, Option<Flags>); 7] = [
        (segment(4000, 1001, ACK), Drop::OutsideWindow, Some(ACK)),
        (segment(5000, 1001, ACK), Drop::OutsideWindow, Some(ACK)),
        (segment(5002, 1001, Flags::RST), Drop::RstInvalid, Some(ACK)),
        (segment(4000, 1001, Flags::RST), Drop::OutsideWindow, None),
        (segment(5001, 1001, Flags::SYN), Drop::SynInWindow, Some(ACK)),
        (segment(5001, 2000, ACK), Drop::AckInvalid, Some(ACK)),
        (segment(5001, 1001, Flags::PSH), Drop::NoAck, None),
    ];
    for (seg, reason, answer) in cases {
        let mut host = established();
        assert_eq!(host.arrive(at_ms(1001), &seg, b"").reply, None);
        assert_eq!(host.drain(at_ms(1001)).first().map(|s| s.flags), answer, "{seg:?}");
        assert_eq!(host.counters.drops.of(reason), 1, "{seg:?}");
        assert_eq!((host.state(), host.frames_held()), (State::Established, 0));
    }
}

#[test]
fn challenges_are_limited() {
    let mut host = established();
    let mut answers = 0;
    for ms in 0..1000 {
        host.arrive(at_ms(1001 + ms), &segment(5002, 1001, Flags::RST), b"");
        answers += host.drain(at_ms(1001 + ms)).len();
    }
    assert_eq!(answers, 2);
    assert_eq!(host.counters.drops.of(Drop::ChallengeLimited), 998);
}

#[test]
fn reset_at_rcv_nxt_ends_it() {
    let mut host = established();
    host.arrive(at_ms(1001), &segment(5001, 1001, ACK), b"data before");
    host.write(at_ms(1001), b"never sent");
    host.take_events();
    host.arrive(at_ms(1002), &segment(5012, 0, Flags::RST), b"");
    assert!(host.take_events().has(Events::RESET | Events::ERROR | Events::CLOSED));
    assert_eq!(host.tcb.take_error(), Some(TcpError::Reset));
    assert_eq!((host.tcb.deadline(), host.tcb.wants_transmit()), (None, false));
    // What came before stays readable, as on Linux.
    assert_eq!(host.read(at_ms(1003), 99), b"data before");
    assert_eq!(host.frames_held(), 0);
}

#[test]
fn reset_in_time_wait_is_no_error() {
    let mut host = established();
    host.shutdown(at_ms(1001));
    host.drain(at_ms(1001));
    host.arrive(at_ms(1002), &segment(5001, 1002, ACK | Flags::FIN), b"");
    assert_eq!(host.state(), State::TimeWait);
    host.arrive(at_ms(1003), &segment(5002, 0, Flags::RST), b"");
    assert_eq!((host.state(), host.tcb.error()), (State::Closed, None));
}

#[test]
fn a_forged_fin_does_not_hide_the_real_one() {
    let mut host = established();
    host.arrive(at_ms(1001), &segment(5004, 1001, ACK | Flags::FIN), b"");
    host.arrive(at_ms(1001), &segment(5001, 1001, ACK), b"0123456789");
    assert_eq!((host.state(), host.tcb.available()), (State::Established, 10));
    host.arrive(at_ms(1001), &segment(5011, 1001, ACK | Flags::FIN), b"");
    assert_eq!(host.state(), State::CloseWait);
}

#[test]
fn reset_after_the_peers_fin_is_a_broken_pipe() {
    let mut host = established();
    host.arrive(at_ms(1001), &segment(5001, 1001, ACK | Flags::FIN), b"");
    host.arrive(at_ms(1002), &segment(5002, 0, Flags::RST), b"");
    assert_eq!(host.tcb.take_error(), Some(TcpError::Pipe));
}

#[test]
fn paws() {
    let mut pair = Pair::connected(3, Tunables::default());
    pair.settle(50);
    let server = &mut pair.hosts[1];
    let now = pair.now;
    let (seq, ack, recent) = (server.tcb.rcv.nxt.0, server.tcb.snd.nxt.0, server.tcb.ts.recent);
    let with_time = |value: u32| {
        let mut seg = segment(seq, ack, ACK);
        seg.options.timestamp = Some((value, 0));
        seg
    };
    server.arrive(now, &with_time(recent.wrapping_sub(1)), b"old");
    assert_eq!((server.tcb.available(), server.counters.drops.of(Drop::PawsRejected)), (0, 1));
    assert_eq!(server.drain(now).len(), 1);
    // A RST needs no timestamp; data with the same one is fine.
    server.arrive(now, &with_time(recent), b"same");
    assert_eq!(server.tcb.available(), 4);
    // After 24 days without a segment an old-looking value is believed.
    let late = now.after_us(25 * 24 * 3600 * 1_000_000);
    let mut seg = with_time(recent.wrapping_sub(1));
    seg.seq += 4;
    server.arrive(late, &seg, b"late");
    assert_eq!(server.tcb.available(), 8);
}

#[test]
fn the_echo_is_of_the_first_segment_an_acknowledgement_covers() {
    let mut pair = Pair::connected(4, Tunables::default());
    pair.settle(50);
    let server = &mut pair.hosts[1];
    let (seq, ack, recent) = (server.tcb.rcv.nxt, server.tcb.snd.nxt, server.tcb.ts.recent);
    for i in 0..2 {
        let mut seg = segment((seq + 10 * i).0, ack.0, ACK);
        seg.options.timestamp = Some((recent + 10 + i, 0));
        server.arrive(pair.now, &seg, b"0123456789");
    }
    server.read(pair.now, 20);
    let at = server.tcb.deadline().unwrap();
    server.expire(at);
    assert_eq!(server.drain(at)[0].options.timestamp.unwrap().1, recent + 10);
}
