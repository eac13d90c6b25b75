//! Urgent data: the octet out of line, the mark, and what is sent of it.

use super::harness::*;
use crate::tcp::{Events, Seq, UrgentOctet};
use crate::time::SEC;
use crate::wire::tcp::{Flags, Segment};

const ACK: Flags = Flags::ACK;
const NOW: crate::time::Instant = at_seconds(2);

const fn at_seconds(s: u64) -> crate::time::Instant {
    crate::time::Instant::from_micros(s * SEC)
}

/// A segment from 5001 + `at` on, whose pointer says `urgent`.
fn pointing(at: u32, urgent: u16) -> Segment {
    Segment { urgent, ..segment(5001 + at, 1001, ACK | Flags::URG) }
}

#[test]
fn the_octet_before_the_pointer_is_taken_out_of_line() {
    let mut host = established();
    host.arrive(NOW, &pointing(0, 3), b"abCde");
    assert!(host.take_events().has(Events::URGENT | Events::READABLE));
    assert_eq!((host.tcb.available(), host.tcb.readable_bytes(), host.tcb.is_at_mark()), (5, 2, false));
    assert_eq!(host.tcb.take_urgent(true), UrgentOctet::Here(b'C'));
    assert_eq!(host.read(NOW, 9), b"ab", "a read ends at the mark");
    assert!(host.tcb.is_at_mark() && host.tcb.has_urgent_octet());
    assert_eq!(host.tcb.take_urgent(false), UrgentOctet::Here(b'C'));
    assert_eq!(host.tcb.take_urgent(false), UrgentOctet::None, "it is there once");
    assert!(host.tcb.is_at_mark(), "and the mark stays");
    let mut out = [0; 9];
    assert_eq!(host.with(NOW, |tcb, cx| tcb.read(cx, &mut out, true)), 2);
    assert_eq!(host.read(NOW, 9), b"de");
    assert!(!host.tcb.is_at_mark());
    host.arrive(NOW, &segment(5006, 1001, ACK), b"f");
    assert_eq!(host.counters.fast_path, 1, "all is calm again");
    assert_eq!(host.read(NOW, 9), b"f");
    assert_eq!(host.frames_held(), 0);
}

#[test]
fn an_octet_that_nobody_fetched_is_gone_when_the_reader_is_past_it() {
    let mut host = established();
    host.arrive(NOW, &pointing(0, 1), b"!");
    assert!(host.tcb.is_at_mark());
    assert_eq!((host.read(NOW, 9).len(), host.tcb.available()), (0, 0));
    assert!(!host.tcb.is_at_mark() && host.tcb.take_urgent(false) == UrgentOctet::None);
    host.arrive(NOW, &pointing(1, 2), b"x!y");
    assert_eq!((host.read(NOW, 9), host.read(NOW, 9)), (b"x".to_vec(), b"y".to_vec()));
    assert!(!host.tcb.has_urgent_octet());
}

#[test]
fn in_line_it_is_an_octet_like_any_other_behind_a_mark() {
    let mut host = established();
    host.tcb.options_mut().oob_inline = true;
    host.arrive(NOW, &pointing(0, 3), b"abCde");
    assert_eq!((host.tcb.readable_bytes(), host.tcb.take_urgent(false)), (5, UrgentOctet::None));
    assert!(host.tcb.has_urgent_octet(), "readiness tells all the same");
    assert_eq!(host.read(NOW, 9), b"ab");
    assert!(host.tcb.is_at_mark());
    assert_eq!(host.read(NOW, 9), b"Cde");
    assert!(!host.tcb.is_at_mark() && !host.tcb.has_urgent_octet());
}

#[test]
fn an_announced_octet_may_come_later() {
    let mut host = established();
    host.arrive(NOW, &pointing(0, 4), b"");
    assert_eq!(host.tcb.take_urgent(false), UrgentOctet::Awaited);
    assert!(!host.take_events().has(Events::URGENT));
    // Not with the URG bit, and out of order.
    host.arrive(NOW, &segment(5003, 1001, ACK), b"cDe");
    assert!(host.take_events().has(Events::URGENT));
    assert_eq!(host.tcb.take_urgent(false), UrgentOctet::Here(b'D'));
    host.arrive(NOW, &segment(5001, 1001, ACK), b"ab");
    assert_eq!((host.read(NOW, 9), host.read(NOW, 9)), (b"abc".to_vec(), b"e".to_vec()));
    host.arrive(NOW, &segment(5006, 1001, ACK), b"f");
    assert_eq!(host.counters.fast_path, 1);
}

#[test]
fn a_newer_mark_takes_the_place_of_the_older_one() {
    let mut host = established();
    host.arrive(NOW, &pointing(0, 2), b"aB");
    host.arrive(NOW, &pointing(2, 2), b"cD");
    // B is in line now: it was not read past when D came.
    assert_eq!(host.tcb.take_urgent(false), UrgentOctet::Here(b'D'));
    assert_eq!(host.read(NOW, 9), b"aBc");
    // The reader stands before D when E comes: D is not found in the stream.
    host.arrive(NOW, &pointing(4, 1), b"E");
    assert_eq!((host.read(NOW, 9).len(), host.tcb.take_urgent(false)), (0, UrgentOctet::None));
    // Older pointers, and such to what is here, tell nothing.
    host.arrive(NOW, &pointing(5, 9), b"f");
    host.arrive(NOW, &pointing(6, 3), b"g");
    host.arrive(NOW, &Segment { urgent: 1, ..segment(5001 + 7, 1001, ACK | Flags::URG) }, b"h");
    assert_eq!(host.tcb.take_urgent(false), UrgentOctet::Awaited);
    assert_eq!(host.read(NOW, 9), b"fgh");
}

#[test]
fn hostile_pointers_do_no_harm() {
    let mut random = Random(77);
    for _ in 0..200 {
        let mut host = established();
        host.tcb.options_mut().oob_inline = random.chance(20);
        let (mut sent, mut got) = (0u32, 0);
        for _ in 0..60 {
            let len = random.below(40) as usize;
            let at = if random.chance(20) { sent + random.below(30) as u32 } else { sent };
            let seg = Segment { urgent: random.below(65_536) as u16 >> random.below(16), ..pointing(at, 0) };
            host.arrive(NOW, &seg, &vec![9; len]);
            sent = host.tcb.rcv.nxt.since(Seq(5001));
            match random.below(4) {
                0 => got += host.read(NOW, random.below(60) as usize).len() as u32,
                1 => _ = host.tcb.take_urgent(random.chance(50)),
                2 => _ = host.with(NOW, |tcb, cx| tcb.read(cx, &mut [0; 50], true)),
                _ => {
                    host.drain(NOW);
                }
            }
            assert!(host.tcb.readable_bytes() <= host.tcb.available());
        }
        while host.tcb.available() > 0 {
            got += host.read(NOW, 100).len() as u32;
        }
        assert!(got <= sent && (sent - got) <= 60, "at most one octet for each pointer is out of line");
    }
}

#[test]
fn urgent_data_is_announced_until_it_is_acknowledged() {
    let mut host = established();
    host.write(NOW, b"ab");
    assert_eq!(host.drain(NOW)[0].flags, ACK | Flags::PSH);
    // Nagle's algorithm would hold it back.
    assert_eq!(host.with(NOW, |tcb, cx| tcb.write_urgent(cx, b"cD")), 2);
    let sent = host.drain(NOW);
    assert_eq!((sent.len(), sent[0].flags, sent[0].urgent), (1, ACK | Flags::PSH | Flags::URG, 2));
    host.write(NOW, b"e");
    assert_eq!(host.drain(NOW)[0].flags, ACK | Flags::PSH, "it lies behind the urgent octet");
    // Sent again, it says so again: from the front of all.
    let at = host.tcb.deadline().unwrap();
    host.expire(at);
    let again = host.drain(at);
    assert_eq!((again[0].seq, again[0].flags.has(Flags::URG), again[0].urgent), (Seq(1001), true, 4));
    host.arrive(at, &segment(5001, 1006, ACK), b"x");
    host.write(at, b"f");
    assert_eq!(host.drain(at)[0].flags, ACK | Flags::PSH);
}

#[test]
fn a_far_pointer_is_announced_as_far_as_it_can_be_and_a_probe_tells_of_it() {
    let mut host = established_with(crate::tunables::Tunables {
        timestamps: 0,
        wmem_bytes: [4096, 200_000, 200_000],
        ..crate::tunables::Tunables::default()
    });
    assert_eq!(host.with(NOW, |tcb, cx| tcb.write_urgent(cx, &[7; 70_000])), 70_000);
    let sent = host.drain(NOW);
    assert_eq!(sent.len(), 10);
    for s in &sent {
        let ahead = 71_001 - s.seq.0;
        assert_eq!((s.flags.has(Flags::URG), u32::from(s.urgent)), (true, ahead.min(65_535)));
    }
    host.arrive(NOW, &Segment { window: 0, ..segment(5001, sent[9].seq.0 + 1460, ACK) }, b"");
    let at = host.tcb.deadline().unwrap();
    host.expire(at);
    let probe = host.drain(at).remove(0);
    assert_eq!((probe.payload_len, probe.flags.has(Flags::URG), probe.urgent), (0, true, 55_401));
}
