//! Closing, in every order.

use super::harness::*;
use crate::drops::Drop;
use crate::tcp::{Events, Linger, Seq, State, TimeWait, TimeWaitVerdict};
use crate::time::{MS, SEC};
use crate::tunables::Tunables;
use crate::wire::tcp::{Flags, Segment};

const ACK: Flags = Flags::ACK;
const FIN: Flags = Flags::FIN;

fn pair() -> Pair {
    let mut pair = Pair::connected(7, Tunables::default());
    pair.settle(100);
    pair.segments = 0;
    pair.hosts.iter_mut().for_each(|h| {
        h.take_events();
    });
    pair
}

#[test]
fn one_side_then_the_other() {
    let mut pair = pair();
    pair.hosts[0].close(pair.now);
    pair.settle(1);
    assert_eq!((pair.hosts[0].state(), pair.hosts[1].state()), (State::FinWait1, State::CloseWait));
    assert!(pair.hosts[1].take_events().has(Events::PEER_FIN));
    // The acknowledgement of the FIN waits for the other FIN: three segments end a connection.
    pair.hosts[1].close(pair.now);
    pair.settle(1);
    assert_eq!((pair.hosts[0].state(), pair.hosts[1].state()), (State::TimeWait, State::Closed));
    assert!(pair.hosts[0].take_events().has(Events::TIME_WAIT));
    assert!(pair.hosts[1].take_events().has(Events::CLOSED));
    assert_eq!(pair.segments, 3);
    assert_eq!((pair.hosts[0].frames_held(), pair.hosts[1].frames_held()), (0, 0));
}

#[test]
fn half_close_waits_in_fin_wait_2() {
    let mut pair = pair();
    pair.hosts[0].shutdown(pair.now);
    pair.settle(100);
    assert_eq!((pair.hosts[0].state(), pair.hosts[1].state()), (State::FinWait2, State::CloseWait));
    // Not an orphan: it may wait for ever, and the peer may still send.
    assert_eq!(pair.hosts[0].tcb.deadline(), None);
    assert!(!pair.hosts[0].tcb.may_send() && pair.hosts[0].tcb.may_receive());
    let now = pair.now;
    pair.hosts[1].write(now, b"still here");
    pair.settle(100);
    let now = pair.now;
    assert_eq!(pair.hosts[0].read(now, 99), b"still here");
    pair.hosts[1].close(now);
    pair.settle(1);
    assert_eq!((pair.hosts[0].state(), pair.hosts[1].state()), (State::TimeWait, State::Closed));
    // The application still holds it: it turns into a record when that closes, or ends by itself.
    assert!(pair.hosts[0].close(pair.now).events.has(Events::TIME_WAIT));
}

#[test]
fn time_wait_held_by_the_application_ends_by_itself() {
    let mut pair = pair();
    pair.hosts[0].shutdown(pair.now);
    pair.settle(1);
    pair.hosts[1].close(pair.now);
    pair.settle(1);
    assert_eq!(pair.hosts[0].state(), State::TimeWait);
    let start = pair.now;
    while pair.step() {}
    assert_eq!(pair.hosts[0].state(), State::Closed);
    let waited = pair.now.since_us(start);
    assert!((59 * SEC..=60 * SEC).contains(&waited), "{waited}");
}

#[test]
fn both_at_once() {
    let mut pair = pair();
    let now = pair.now;
    pair.hosts.iter_mut().for_each(|h| {
        h.close(now);
    });
    pair.settle(10);
    assert_eq!((pair.hosts[0].state(), pair.hosts[1].state()), (State::TimeWait, State::TimeWait));
    assert_eq!(pair.segments, 4);
}

#[test]
fn the_last_data_carries_the_fin() {
    let mut host = established();
    host.write(at_ms(1001), b"bye");
    host.close(at_ms(1001));
    let sent = host.drain(at_ms(1001));
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].flags, sent[0].payload_len), (ACK | FIN | Flags::PSH, 3));
    // FIN and data are acknowledged together; their FIN comes with it: both steps in one segment.
    let arrival = host.arrive(at_ms(1002), &segment(5001, 1005, ACK | FIN), b"");
    assert_eq!(host.state(), State::TimeWait);
    assert!(arrival.events.has(Events::TIME_WAIT | Events::PEER_FIN));
    let reply = arrival.reply.expect("the acknowledgement goes at once");
    assert_eq!((reply.seq, reply.ack, reply.flags), (Seq(1005), Seq(5002), ACK));
}

#[test]
fn closing_then_time_wait() {
    let mut host = established();
    host.close(at_ms(1001));
    host.drain(at_ms(1001));
    host.arrive(at_ms(1002), &segment(5001, 1001, ACK | FIN), b"");
    assert_eq!(host.state(), State::Closing);
    assert_eq!(host.drain(at_ms(1002))[0].ack, Seq(5002));
    let arrival = host.arrive(at_ms(1003), &segment(5002, 1002, ACK), b"");
    assert_eq!((host.state(), arrival.reply), (State::TimeWait, None));
}

#[test]
fn last_ack_ends() {
    let mut host = established();
    host.arrive(at_ms(1001), &segment(5001, 1001, ACK | FIN), b"");
    host.close(at_ms(1002));
    assert_eq!(host.state(), State::LastAck);
    let fin = host.drain(at_ms(1002));
    assert_eq!((fin.len(), fin[0].flags, fin[0].ack), (1, ACK | FIN, Seq(5002)));
    let arrival = host.arrive(at_ms(1003), &segment(5002, 1002, ACK), b"");
    assert!(arrival.events.has(Events::CLOSED) && !arrival.events.has(Events::ERROR));
    assert_eq!((host.state(), host.tcb.deadline(), host.frames_held()), (State::Closed, None, 0));
}

#[test]
fn unread_data_means_reset() {
    let mut host = established();
    host.arrive(at_ms(1001), &segment(5001, 1001, ACK), b"unread");
    let arrival = host.close(at_ms(1002));
    let rst = arrival.reply.expect("a RST");
    assert_eq!((rst.seq, rst.ack, rst.flags), (Seq(1001), Seq(5007), Flags::RST | ACK));
    assert!(arrival.events.has(Events::CLOSED));
    assert_eq!(host.frames_held(), 0);
}

#[test]
fn linger_zero_means_reset() {
    let mut host = established();
    host.write(at_ms(1001), b"unsent");
    let arrival = host.with(at_ms(1001), |tcb, cx| tcb.close(cx, Linger::Reset));
    assert_eq!(arrival.reply.unwrap().flags, Flags::RST | ACK);
    assert_eq!((host.state(), host.frames_held()), (State::Closed, 0));
}

#[test]
fn data_after_close_means_reset() {
    for acked in [1001, 1002] {
        let mut host = established();
        host.close(at_ms(1001));
        host.drain(at_ms(1001));
        let arrival = host.arrive(at_ms(1002), &segment(5001, acked, ACK), b"too late");
        let rst = arrival.reply.expect("a RST");
        assert_eq!((rst.seq, rst.flags), (Seq(acked), Flags::RST | ACK));
        assert!(arrival.events.has(Events::CLOSED));
        assert_eq!(host.counters.drops.of(Drop::DataAfterClose), 1);
        assert_eq!(host.frames_held(), 0);
    }
}

#[test]
fn shut_receiving_side_still_takes_data() {
    let mut host = established();
    host.tcb.shutdown_receive();
    assert!(!host.tcb.may_receive());
    assert_eq!(host.arrive(at_ms(1001), &segment(5001, 1001, ACK), b"data").reply, None);
    assert_eq!(host.tcb.available(), 4);
}

#[test]
fn an_orphan_does_not_wait_for_ever() {
    let mut host = established();
    host.close(at_ms(1001));
    host.drain(at_ms(1001));
    host.arrive(at_ms(1002), &segment(5001, 1002, ACK), b"");
    assert_eq!(host.state(), State::FinWait2);
    assert_eq!(host.tcb.deadline(), Some(at_ms(1002).after_us(60 * SEC)));
    let at = host.tcb.deadline().unwrap();
    let arrival = host.expire(at);
    assert!(arrival.events.has(Events::CLOSED) && arrival.reply.is_none());
}

#[test]
fn closing_in_fin_wait_2_starts_the_clock() {
    let mut host = established();
    host.shutdown(at_ms(1001));
    host.drain(at_ms(1001));
    host.arrive(at_ms(1002), &segment(5001, 1002, ACK), b"");
    assert_eq!(host.tcb.deadline(), None);
    host.close(at_ms(2000));
    assert_eq!(host.tcb.deadline(), Some(at_ms(62_000)));
}

#[test]
fn a_lost_fin_goes_again() {
    let mut host = established();
    host.close(at_ms(1001));
    assert_eq!(host.drain(at_ms(1001)).len(), 1);
    let mut at = at_ms(1001);
    for _ in 0..3 {
        let next = host.tcb.deadline().unwrap();
        assert!(next > at);
        at = next;
        host.expire(at);
        let again = host.drain(at);
        assert_eq!((again.len(), again[0].flags, again[0].seq), (1, ACK | FIN, Seq(1001)));
    }
    host.arrive(at, &segment(5001, 1002, ACK), b"");
    assert_eq!(host.state(), State::FinWait2);
}

#[test]
fn close_in_syn_received_waits_for_established() {
    let now = at_ms(1000);
    let mut host = Host::connecting(now, 1000, None, Tunables::default());
    host.drain(now);
    host.arrive(now, &segment(5000, 0, Flags::SYN), b"");
    host.close(now);
    assert_eq!(host.state(), State::SynReceived);
    host.drain(now);
    host.arrive(now, &segment(5001, 1001, ACK), b"");
    assert_eq!(host.state(), State::FinWait1);
    assert!(host.drain(now).iter().any(|s| s.has(FIN)));
}

#[test]
fn segments_for_a_closed_connection_are_refused() {
    let mut host = established();
    host.with(at_ms(1001), |tcb, cx| tcb.abort(cx)).expect("a RST");
    let arrival = host.arrive(at_ms(1002), &segment(5001, 1001, ACK), b"x");
    assert_eq!(arrival.reply.unwrap().flags, Flags::RST);
    assert_eq!(host.arrive(at_ms(1002), &segment(5001, 1001, Flags::RST), b"").reply, None);
    assert_eq!(host.frames_held(), 0);
}

/// A record whose connection ended with SND.NXT 1002, RCV.NXT 5002, at 1002 ms.
fn time_wait() -> TimeWait {
    let mut host = established();
    host.close(at_ms(1001));
    host.drain(at_ms(1001));
    host.arrive(at_ms(1002), &segment(5001, 1002, ACK | FIN), b"");
    assert_eq!(host.state(), State::TimeWait);
    TimeWait::from_tcb(&host.tcb, at_ms(1002))
}

#[test]
fn time_wait_table() {
    let t = Tunables::default();
    let now = at_ms(2000);
    let arrive = |seg: &Segment| time_wait().arrive(now, &t, seg);
    assert_eq!(arrive(&segment(5002, 1002, ACK)), TimeWaitVerdict::Drop);
    assert_eq!(arrive(&segment(5002, 1002, Flags::RST)), TimeWaitVerdict::Gone);
    assert_eq!(arrive(&segment(5003, 1002, Flags::RST)), TimeWaitVerdict::Drop);
    assert_eq!(arrive(&segment(5003, 0, Flags::SYN)), TimeWaitVerdict::Reuse { iss_above: 1002 + 65537 });
    assert!(matches!(arrive(&segment(5002, 0, Flags::SYN)), TimeWaitVerdict::Ack(_)));
    assert!(matches!(arrive(&segment(4000, 0, Flags::SYN)), TimeWaitVerdict::Ack(_)));
    let TimeWaitVerdict::Ack(ack) = arrive(&segment(5001, 1002, ACK | FIN)) else { panic!("FIN again") };
    assert_eq!((ack.seq, ack.ack, ack.flags), (Seq(1002), Seq(5002), ACK));
}

#[test]
fn time_wait_starts_over_with_a_fin() {
    let mut record = time_wait();
    assert_eq!(record.expires_at, at_ms(1002).after_us(60 * SEC));
    record.arrive(at_ms(5000), &Tunables::default(), &segment(5001, 1002, ACK | FIN));
    assert_eq!(record.expires_at.micros(), 5000 * MS + 60 * SEC);
}

#[test]
fn records_are_small() {
    assert!(size_of::<TimeWait>() <= 96, "{}", size_of::<TimeWait>());
    println!("TimeWait {}", size_of::<TimeWait>());
}
