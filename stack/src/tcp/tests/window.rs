//! Windows: zero, silly, growing, scaled; delayed acknowledgements; frames that are held down.

use super::harness::*;
use crate::tcp::Seq;
use crate::time::{MS, SEC};
use crate::tunables::Tunables;
use crate::wire::tcp::{Flags, Segment};

const ACK: Flags = Flags::ACK;

fn with_window(ack: u32, window: u16) -> Segment {
    Segment { window, ..segment(5001, ack, ACK) }
}

#[test]
fn a_closed_window_is_probed_as_linux_does() {
    let mut host = established();
    host.arrive(at_ms(1001), &with_window(1001, 0), b"");
    host.write(at_ms(1001), b"waiting");
    assert!(!host.tcb.wants_transmit());
    let mut at = at_ms(1001);
    for timeout in [200, 400, 800] {
        let next = host.tcb.deadline().unwrap();
        assert_eq!(next.since_us(at) / MS, timeout);
        at = next;
        host.expire(at);
        let probe = host.drain(at);
        assert_eq!((probe.len(), probe[0].seq, probe[0].payload_len), (1, Seq(1000), 0));
    }
    assert_eq!(host.counters.zero_window_probes, 3);
    // Answered probes never give up; an open window lets the data go.
    host.arrive(at, &with_window(1001, 0), b"");
    host.arrive(at, &with_window(1001, 1000), b"");
    assert_eq!(host.drain(at)[0].payload_len, 7);
    assert_eq!(host.tcb.info(at).backoff, 0);
}

#[test]
fn unanswered_probes_give_up() {
    let mut host = established_with(Tunables { timestamps: 0, retries2: 3, ..Tunables::default() });
    host.arrive(at_ms(1001), &with_window(1001, 0), b"");
    host.write(at_ms(1001), b"waiting");
    let mut probes = 0;
    while let Some(at) = host.tcb.deadline() {
        host.expire(at);
        probes += host.drain(at).len();
    }
    assert_eq!(probes, 3);
    assert_eq!(host.frames_held(), 0);
}

#[test]
fn a_small_window_is_not_used_at_once() {
    let mut host = established();
    host.arrive(at_ms(1001), &with_window(1001, 100), b"");
    host.write(at_ms(1001), &[1; 3000]);
    assert!(!host.tcb.wants_transmit());
    let at = host.tcb.deadline().unwrap();
    host.expire(at);
    let sent = host.drain(at);
    assert_eq!((sent.len(), sent[0].payload_len), (1, 100));
    host.arrive(at, &with_window(1101, 5000), b"");
    // The frame was cut in two; its rest is a small segment, which Nagle's algorithm lets the tail wait for.
    assert_eq!(host.drain(at).iter().map(|s| s.payload_len).collect::<Vec<_>>(), [1360, 1460]);
}

#[test]
fn half_of_the_largest_window_is_worth_a_segment() {
    let mut host = established_with(Tunables { timestamps: 0, ..Tunables::default() });
    host.tcb.snd.max_wnd = 1000;
    host.arrive(at_ms(1001), &with_window(1001, 500), b"");
    host.write(at_ms(1001), &[1; 3000]);
    assert_eq!(host.drain(at_ms(1001))[0].payload_len, 500);
}

#[test]
fn every_second_full_segment_is_acknowledged() {
    let mut host = established();
    let data = [1; 1460];
    let mut acks = Vec::new();
    for i in 0..10u32 {
        host.arrive(at_ms(1001), &segment(5001 + i * 1460, 1001, ACK), &data);
        acks.extend(host.drain(at_ms(1001)).iter().map(|s| s.ack.since(Seq(5001)) / 1460));
    }
    assert_eq!(acks, [2, 4, 6, 8, 10]);
    // A batch that is processed before anything is sent gets one.
    for i in 10..20u32 {
        host.arrive(at_ms(1001), &segment(5001 + i * 1460, 1001, ACK), &data);
    }
    assert_eq!(host.drain(at_ms(1001)).len(), 1);
    assert_eq!(host.counters.tx_pure_acks, 6);
}

#[test]
fn an_answer_carries_the_acknowledgement() {
    let mut host = established();
    let mut now = at_ms(1001);
    for i in 0..50u32 {
        host.arrive(now, &segment(5001 + i * 32, 1001 + i * 100, ACK | Flags::PSH), &[2; 32]);
        assert!(!host.tcb.wants_transmit(), "an acknowledgement by itself");
        assert_eq!(host.read(now, 100).len(), 32);
        assert!(!host.tcb.wants_transmit(), "a window update");
        host.write(now, &[3; 100]);
        let sent = host.drain(now);
        assert_eq!((sent.len(), sent[0].ack), (1, Seq(5001 + (i + 1) * 32)));
        now = now.after_us(50);
    }
    assert_eq!(host.counters.tx_pure_acks, 0);
    assert_eq!(host.counters.fast_path, 50);
}

#[test]
fn acknowledgements_of_a_young_connection_wait_a_millisecond_later_ones_forty() {
    let mut host = established();
    let mut delays = Vec::new();
    for i in 0..20u32 {
        let now = at_ms(1001 + 100 * u64::from(i));
        host.arrive(now, &segment(5001 + i, 1001, ACK), b"x");
        assert_eq!(host.read(now, 1), b"x", "read and not answered");
        let at = host.tcb.deadline().unwrap();
        delays.push(at.since_us(now) / MS);
        host.expire(at);
        assert_eq!(host.drain(at).len(), 1);
    }
    assert_eq!(&delays[..16], &[1; 16]);
    assert_eq!(&delays[16..], &[40; 4]);
}

#[test]
fn an_application_that_has_read_nothing_yet_has_ten_milliseconds_to_answer() {
    let mut host = established();
    let start = at_ms(1001);
    host.arrive(start, &segment(5001, 1001, ACK), b"x");
    let first = host.tcb.deadline().unwrap();
    host.expire(first);
    assert!(host.drain(first).is_empty(), "put off once");
    let second = host.tcb.deadline().unwrap();
    assert_eq!(second.since_us(start) / MS, 10);
    host.expire(second);
    assert_eq!(host.drain(second)[0].ack, Seq(5002));
}

#[test]
fn after_a_pause_or_a_loss_acknowledgements_are_quick_again() {
    let mut host = established();
    let (mut seq, mut at) = (5001, at_ms(1001));
    let mut delay = |host: &mut Host, pause_ms: u64, skip: u32| {
        at = at.after_us(pause_ms * MS);
        host.arrive(at, &segment(seq + skip, 1001, ACK), b"x");
        let sent = host.drain(at).len();
        if skip == 0 {
            host.read(at, 9);
            seq += 1;
        }
        let due = host.tcb.deadline().map_or(0, |due| due.since_us(at) / MS);
        host.expire(at.after_us(due * MS));
        (due, sent + host.drain(at).len())
    };
    (0..16).for_each(|_| _ = delay(&mut host, 10, 0));
    assert_eq!(delay(&mut host, 10, 0), (40, 1));
    assert_eq!(delay(&mut host, 1000, 0), (1, 1), "as long as a timeout");
    (0..15).for_each(|_| _ = delay(&mut host, 10, 0));
    assert_eq!(delay(&mut host, 10, 0), (40, 1));
    // Out of order, and the octet again that fills the hole.
    assert_eq!(delay(&mut host, 10, 1), (0, 1));
    assert_eq!(delay(&mut host, 10, 0), (0, 1));
}

#[test]
fn quick_ack_acknowledges_what_is_owed() {
    let mut host = established();
    let now = at_ms(1001);
    host.tcb.acknowledge_now();
    assert!(host.drain(now).is_empty(), "nothing is owed");
    host.arrive(now, &segment(5001, 1001, ACK), b"x");
    assert!(host.drain(now).is_empty());
    host.tcb.acknowledge_now();
    assert_eq!(host.drain(now)[0].ack, Seq(5002));
}

#[test]
fn out_of_order_and_repeated_data_is_acknowledged_at_once() {
    let mut host = established();
    host.arrive(at_ms(1001), &segment(5002, 1001, ACK), b"b");
    assert_eq!(host.drain(at_ms(1001))[0].ack, Seq(5001));
    host.arrive(at_ms(1001), &segment(5001, 1001, ACK), b"a");
    assert_eq!(host.drain(at_ms(1001))[0].ack, Seq(5003));
    host.arrive(at_ms(1001), &segment(5001, 1001, ACK), b"a");
    assert_eq!(host.drain(at_ms(1001))[0].ack, Seq(5003));
}

#[test]
fn the_right_edge_never_moves_left_and_reading_opens_it() {
    let mut pair = Pair::connected(11, Tunables::default());
    let (mut written, mut last_edge) = (0, None);
    for _ in 0..400 {
        let now = pair.now;
        written += pair.hosts[0].write(now, &[5; 5000]);
        pair.settle(1);
        let edge = pair.hosts[1].tcb.rcv.edge;
        assert!(last_edge.is_none_or(|last: Seq| !edge.is_before(last)));
        last_edge = Some(edge);
    }
    let held = pair.hosts[1].tcb.available();
    assert!((60_000..=65_536 + 128).contains(&held), "the window was 64 KiB, in units of 128: {held}");
    assert_eq!(pair.hosts[0].tcb.info(pair.now).snd_wnd, 0);
    // Little by little is no reason for an update; half is.
    let now = pair.now;
    let mut updates = 0;
    for _ in 0..20 {
        pair.hosts[1].read(now, 1000);
        updates += pair.hosts[1].drain(now).len();
    }
    assert!(updates <= 4, "{updates}");
    let mut read = 20_000;
    for _ in 0..3000 {
        let now = pair.now;
        read += pair.hosts[1].read(now, 10_000).len();
        pair.settle(1);
    }
    assert_eq!(read, written);
}

#[test]
fn while_there_is_a_hole_the_window_stays() {
    let mut host = established();
    host.arrive(at_ms(1001), &segment(5001, 1001, ACK), &[1; 1460]);
    host.arrive(at_ms(1001), &segment(5001 + 2920, 1001, ACK), &[1; 1460]);
    let first = host.drain(at_ms(1001))[0].window;
    host.read(at_ms(1001), 2000);
    for i in 3..6 {
        host.arrive(at_ms(1001), &segment(5001 + i * 1460, 1001, ACK), &[1; 1460]);
        assert_eq!(host.drain(at_ms(1001))[0].window, first);
    }
}

#[test]
fn the_window_grows_while_the_application_keeps_up() {
    let mut pair = Pair::connected(12, Tunables { rmem_bytes: [4096, 131_072, 512 * 1024], ..Tunables::default() });
    let info = |pair: &Pair, i: usize| pair.hosts[i].tcb.info(pair.now);
    assert_eq!((info(&pair, 1).rcv_ssthresh, info(&pair, 1).rcv_space), (64 * 1024, 14_600));
    for round in 0..200 {
        let now = pair.now;
        // First no faster than at first: then there is no reason for more. Later twice what a window gives.
        pair.hosts[0].write(now, if round < 100 { &[5; 10_000] } else { &[5; 100_000] });
        pair.settle(1);
        let now = pair.now;
        pair.hosts[1].read(now, 300_000);
        assert!(round >= 100 || info(&pair, 1).rcv_ssthresh == 64 * 1024);
    }
    assert_eq!(info(&pair, 1).rcv_ssthresh, 256 * 1024, "half of tcp_rmem's last");
    assert_eq!(pair.hosts[1].tcb.options().rcvbuf_bytes, 512 * 1024);
    let now = pair.now;
    pair.hosts[0].write(now, &[5; 3000]);
    pair.settle(1);
    assert!(info(&pair, 0).snd_wnd > 200_000);
}

#[test]
fn a_window_in_large_units_closes_all_the_same() {
    let mut host = established();
    (host.tcb.rcv.scaling, host.tcb.rcv.shift) = (true, 10);
    let mut seq = 5001;
    // Each of them is less than a unit, so the window could be rounded up to what it was.
    for _ in 0..1000 {
        if host.tcb.rcv.window() >= 100 {
            host.arrive(at_ms(1001), &segment(seq, 1001, ACK), &[1; 100]);
            seq += 100;
            host.tcb.acknowledge_now();
            host.drain(at_ms(1001));
        }
    }
    assert!(host.tcb.available() <= 64 * 1024 + 1024, "{}", host.tcb.available());
    host.tcb.owed.add(crate::tcp::tcb::Owed::ACK);
    assert_eq!(host.drain(at_ms(1001))[0].window, 0);
}

#[test]
fn small_segments_do_not_hold_a_frame_each() {
    let mut host = established();
    for i in 0..1500u32 {
        host.arrive(at_ms(1001), &segment(5001 + i, 1001, ACK), b"x");
        host.drain(at_ms(1001));
    }
    assert_eq!(host.tcb.available(), 1500);
    assert_eq!(host.with(at_ms(1001), |tcb, _| tcb.rcv.queue.frames()), 1);
    assert_eq!(host.read(at_ms(1001), 9999).len(), 1500);
    assert_eq!(host.frames_held(), 0);
}

#[test]
fn frames_held_down_close_the_window() {
    let mut host = established();
    let mut seq = 5001;
    // 900 octets each: two to a frame once frames get scarce.
    while host.tcb.rcv.window() >= 900 {
        host.arrive(at_ms(1001), &segment(seq, 1001, ACK), &[1; 900]);
        seq += 900;
        host.drain(at_ms(1001));
    }
    assert_eq!(host.tcb.available(), 72 * 900);
    let frames = host.frames_held();
    assert!((64..=70).contains(&frames), "{frames}");
    host.read(at_ms(1001), 45_000);
    assert!(host.drain(at_ms(1001))[0].window > 30_000);
}

#[test]
fn bulk_data_fills_segments() {
    let mut host = established();
    for _ in 0..100 {
        host.write(at_ms(1001), &[1; 100]);
    }
    let sizes: Vec<_> = host.drain(at_ms(1001)).iter().map(|s| s.payload_len).collect();
    assert_eq!(sizes, [1460, 1460, 1460, 1460, 1460, 1460, 1240]);
}

#[test]
fn nagle_and_nodelay() {
    let mut host = established();
    host.write(at_ms(1001), b"a");
    assert_eq!(host.drain(at_ms(1001)).len(), 1);
    host.write(at_ms(1001), b"b");
    assert!(!host.tcb.wants_transmit());
    host.tcb.set_nodelay(true);
    assert_eq!(host.drain(at_ms(1001)).len(), 1);
    host.tcb.set_nodelay(false);
    host.write(at_ms(1001), b"c");
    assert!(!host.tcb.wants_transmit());
    host.arrive(at_ms(1002), &segment(5001, 1003, ACK), b"");
    assert_eq!(host.drain(at_ms(1002)).len(), 1);
}

#[test]
fn minshall_a_full_segment_in_flight_does_not_hold_the_tail_back() {
    let mut host = established();
    host.write(at_ms(1001), &[1; 2000]);
    assert_eq!(host.drain(at_ms(1001)).iter().map(|s| s.payload_len).collect::<Vec<_>>(), [1460, 540]);
}

#[test]
fn cork_holds_for_200_ms() {
    let mut host = established();
    host.tcb.set_cork(true);
    host.write(at_ms(1001), &[1; 2000]);
    assert_eq!(host.drain(at_ms(1001)).len(), 1);
    host.arrive(at_ms(1002), &segment(5001, 1001 + 1460, ACK), b"");
    assert!(!host.tcb.wants_transmit());
    let at = host.tcb.deadline().unwrap();
    assert_eq!(at.since_us(at_ms(1002)) / MS, 200);
    host.expire(at);
    assert_eq!(host.drain(at)[0].payload_len, 540);
    host.write(at_ms(1900), b"x");
    assert!(!host.tcb.wants_transmit());
    host.tcb.set_cork(false);
    host.arrive(at_ms(1901), &segment(5001, 1001 + 2000, ACK), b"");
    assert_eq!(host.drain(at_ms(1901)).len(), 1);
}

#[test]
fn keepalive() {
    let mut host = established();
    host.tcb.options_mut().keepalive_idle_ms = 10_000;
    host.tcb.options_mut().keepalive_intvl_ms = 1000;
    host.tcb.options_mut().keepalive_probes = 3;
    host.with(at_ms(1001), |tcb, cx| tcb.set_keepalive(cx, true));
    // Life in between is noticed when the timer fires, not when it happens.
    host.arrive(at_ms(5000), &segment(5001, 1001, ACK), b"x");
    host.read(at_ms(5000), 1);
    let at = at_ms(5040);
    host.expire(at);
    host.drain(at);
    let at = host.tcb.deadline().unwrap();
    host.expire(at);
    assert!(!host.tcb.wants_transmit());
    assert_eq!(host.tcb.deadline(), Some(at_ms(15_000)));
    for second in 15..18 {
        let at = host.tcb.deadline().unwrap();
        assert_eq!(at, at_ms(second * 1000));
        host.expire(at);
        assert_eq!(host.drain(at)[0].seq, Seq(1000));
    }
    let at = host.tcb.deadline().unwrap();
    let end = host.expire(at);
    assert_eq!(end.reply.unwrap().flags, Flags::RST | ACK);
    assert_eq!(host.tcb.take_error(), Some(crate::tcp::TcpError::TimedOut));
}

#[test]
fn an_answered_keepalive_goes_on() {
    let mut pair =
        Pair::connected(5, Tunables { keepalive_time_us: 5 * SEC, keepalive_intvl_us: 5 * SEC, ..Tunables::default() });
    let now = pair.now;
    pair.hosts[0].with(now, |tcb, cx| tcb.set_keepalive(cx, true));
    pair.settle(100_000);
    assert!((18..=20).contains(&pair.hosts[0].counters.keepalive_probes));
    assert_eq!(pair.hosts[0].state(), crate::tcp::State::Established);
}

#[test]
fn an_acknowledgement_that_seems_older_than_its_segment_is_no_long_round_trip() {
    let mut host = established();
    host.write(at_ms(1002), b"x");
    assert_eq!(host.drain(at_ms(1002)).len(), 1);
    let before = host.tcb.info(at_ms(1002)).rto_us;
    // Looked at with a clock reading that was taken before the segment left.
    host.arrive(at_ms(1001), &segment(5001, 1002, ACK), b"");
    let after = host.tcb.info(at_ms(1002)).rto_us;
    assert!(after <= before, "{before} then {after}");
}
