//! Explicit congestion notification: who agrees to it, what is marked, echoed, and taken as a sign (RFC 3168 §6.1).

use super::harness::*;
use crate::ip::ecn::{CE, ECT_0, NOT_ECT};
use crate::tcp::{Algorithm, ListenVerdict, Options, Seq, Tcb, arrive_at_listen};
use crate::time::{Instant, MS};
use crate::tunables::Tunables;
use crate::wire::tcp::{self, Flags, Segment};

const ACK: Flags = Flags::ACK;
const SYN: Flags = Flags::SYN;
const ECE: Flags = Flags::ECE;
const CWR: Flags = Flags::CWR;
const ECN_BITS: Flags = Flags(ECE.0 | CWR.0);

fn tunables(ecn: u32) -> Tunables {
    Tunables { ecn, timestamps: 0, congestion: Algorithm::Reno as u32, ..Tunables::default() }
}

/// All that a host sends now, with the TOS octet of each.
fn drain(host: &mut Host, now: Instant) -> Vec<(Segment, u8)> {
    let mut all = Vec::new();
    while host.tcb.wants_transmit() {
        let sent = host.with(now, |tcb, cx| {
            let out = tcb.poll_transmit(cx)?;
            let bytes = &cx.frames.bytes(out.frame)[usize::from(out.off)..][..usize::from(out.len)];
            let seg = tcp::parse(bytes, 0).unwrap();
            if !out.keep {
                cx.frames.release(out.frame);
            }
            Some((seg, out.tos))
        });
        all.extend(sent);
        assert!(all.len() < 1000);
    }
    all
}

/// A SYN with these bits arrives at a listener; what its SYN-ACK carries, and the connection.
fn answer(ecn: u32, bits: Flags, mark: u8) -> (Flags, Host) {
    let mut syn = segment(PEER_ISS, 0, SYN | bits);
    (syn.options.mss, syn.ecn) = (Some(MSS), mark);
    assert_eq!(arrive_at_listen(&syn), ListenVerdict::Syn);
    let tunables = tunables(ecn);
    let options = Options::new(&tunables);
    let now = at_ms(1000);
    let mut host = Host::make(tunables, |cx| Tcb::accept_syn(cx, flow(2, 1), &syn, OUR_ISS, 0, MSS, &options), now);
    let sent = drain(&mut host, at_ms(1000));
    assert_eq!((sent.len(), sent[0].1), (1, 0));
    host.arrive(at_ms(1000), &segment(PEER_ISS + 1, OUR_ISS + 1, ACK), b"");
    (sent[0].0.flags.without(SYN | ACK), host)
}

/// A connection that uses it, from the side that accepted.
fn agreed() -> Host {
    let (bits, mut host) = answer(2, ECN_BITS, NOT_ECT);
    assert_eq!(bits, ECE);
    assert!(host.tcb.uses_ecn());
    host.take_events();
    host
}

#[test]
fn a_listener_agrees_when_it_is_asked_rightly_and_may() {
    let none = Flags::default();
    for (ecn, bits, mark, expected) in [
        (2, ECN_BITS, NOT_ECT, ECE),
        (1, ECN_BITS, NOT_ECT, ECE),
        (0, ECN_BITS, NOT_ECT, none),
        (2, none, NOT_ECT, none),
        (2, ECE, NOT_ECT, none),
        (2, CWR, NOT_ECT, none),
        (2, ECN_BITS, ECT_0, none),
        (2, ECN_BITS, CE, none),
    ] {
        let (sent, host) = answer(ecn, bits, mark);
        assert_eq!((sent, host.tcb.uses_ecn()), (expected, expected == ECE), "{ecn} {bits:?} {mark}");
    }
}

#[test]
fn a_client_asks_only_when_told_to_and_believes_a_right_answer_only() {
    for (ecn, bits, expected) in [
        (1, ECE, true),
        (1, ECN_BITS, false),
        (1, CWR, false),
        (1, Flags::default(), false),
        (2, ECE, false),
        (0, ECE, false),
    ] {
        let mut host = Host::connecting(at_ms(1000), OUR_ISS, None, tunables(ecn));
        let syn = drain(&mut host, at_ms(1000));
        let asked = if ecn == 1 { ECN_BITS } else { Flags::default() };
        assert_eq!((syn[0].0.flags.without(SYN), syn[0].1), (asked, 0));
        let mut syn_ack = segment(PEER_ISS, OUR_ISS + 1, SYN | ACK | bits);
        syn_ack.options.mss = Some(MSS);
        host.arrive(at_ms(1010), &syn_ack, b"");
        assert_eq!(host.tcb.uses_ecn(), expected, "{ecn} {bits:?}");
        let ack = drain(&mut host, at_ms(1010));
        assert_eq!((ack[0].0.flags, ack[0].1), (ACK, 0));
    }
}

#[test]
fn the_third_syn_does_not_ask() {
    let mut host = Host::connecting(at_ms(1000), OUR_ISS, None, tunables(1));
    let mut asked = Vec::new();
    let mut at = at_ms(1000);
    for _ in 0..4 {
        asked.push(drain(&mut host, at)[0].0.has(ECE | CWR));
        at = host.tcb.deadline().unwrap();
        host.expire(at);
    }
    assert_eq!(asked, [true, true, false, false]);
    // An answer to the first, late: we no longer do.
    let mut syn_ack = segment(PEER_ISS, OUR_ISS + 1, SYN | ACK | ECE);
    syn_ack.options.mss = Some(MSS);
    host.arrive(at, &syn_ack, b"");
    assert!(!host.tcb.uses_ecn());
}

#[test]
fn only_data_that_goes_for_the_first_time_may_be_marked() {
    let mut host = agreed();
    host.tcb.options_mut().tos = 0xb8;
    host.write(at_ms(1001), &[7; 3000]);
    let sent = drain(&mut host, at_ms(1001));
    assert!(sent.len() == 3 && sent.iter().all(|(seg, tos)| *tos == 0xb8 | ECT_0 && !seg.flags.has_any(ECN_BITS)));
    // Again: not. Nor a pure acknowledgement, nor a FIN alone.
    let at = host.tcb.deadline().unwrap();
    host.expire(at);
    assert!(drain(&mut host, at).iter().all(|(seg, tos)| seg.payload_len > 0 && *tos == 0xb8));
    host.arrive(at, &segment(5001, 4001, ACK), &[1; 1000]);
    host.tcb.acknowledge_now();
    let ack = drain(&mut host, at);
    assert_eq!((ack[0].0.payload_len, ack[0].1), (0, 0xb8));
    host.shutdown(at);
    let fin = drain(&mut host, at);
    assert_eq!((fin[0].0.has(Flags::FIN), fin[0].1), (true, 0xb8));
    // Without an agreement, nothing is.
    let mut plain = established();
    plain.write(at_ms(1001), &[7; 100]);
    assert_eq!(drain(&mut plain, at_ms(1001))[0].1, 0);
}

#[test]
fn a_mark_is_echoed_on_every_segment_until_the_peer_heard() {
    let mut host = agreed();
    let data = |seq, bits, mark| Segment { ecn: mark, ..segment(seq, 1001, ACK | bits) };
    let none = Flags::default();
    host.arrive(at_ms(1001), &data(5001, none, ECT_0), &[1; 100]);
    assert!(!host.tcb.wants_transmit(), "an unmarked segment's acknowledgement waits");
    host.arrive(at_ms(1001), &data(5101, none, CE), &[1; 100]);
    let ack = drain(&mut host, at_ms(1001));
    assert_eq!((ack.len(), ack[0].0.flags, ack[0].0.ack), (1, ACK | ECE, Seq(5201)));
    // Data carries the echo too, and so do later acknowledgements of unmarked segments.
    host.write(at_ms(1002), &[7; 10]);
    assert!(drain(&mut host, at_ms(1002))[0].0.has(ECE));
    host.arrive(at_ms(1003), &data(5201, none, ECT_0), &[1; 1460]);
    host.arrive(at_ms(1003), &data(6661, none, ECT_0), &[1; 1460]);
    assert!(drain(&mut host, at_ms(1003))[0].0.has(ECE));
    // CWR ends it, and is answered at once; unless that segment is marked itself.
    host.arrive(at_ms(1004), &data(8121, CWR, CE), &[1; 100]);
    assert!(drain(&mut host, at_ms(1004))[0].0.has(ECE));
    host.arrive(at_ms(1005), &data(8221, CWR, ECT_0), &[1; 100]);
    assert_eq!(drain(&mut host, at_ms(1005))[0].0.flags, ACK);
    assert_eq!(host.counters.ecn_marks, 2);
}

#[test]
fn marks_mean_nothing_without_an_agreement() {
    let mut host = established();
    host.arrive(at_ms(1001), &Segment { ecn: CE, ..segment(5001, 1001, ACK | CWR) }, &[1; 1460]);
    assert!(drain(&mut host, at_ms(1001)).iter().all(|(seg, _)| !seg.flags.has_any(ECN_BITS)));
    host.write(at_ms(1002), &[7; 14_600]);
    drain(&mut host, at_ms(1002));
    host.arrive(at_ms(1003), &segment(6461, 1001 + 1460, ACK | ECE), b"");
    assert_eq!((host.counters.ecn_reductions, host.counters.ecn_marks), (0, 0));
}

#[test]
fn an_echo_shrinks_the_window_once_per_window_and_is_answered() {
    let mut host = agreed();
    host.write(at_ms(1001), &vec![7; 40 * 1460]);
    assert_eq!(drain(&mut host, at_ms(1001)).len(), 10);
    // All of the first window is echoed as marked.
    let mut sent = Vec::new();
    for n in 1..=10 {
        host.arrive(at_ms(1010), &segment(5001, 1001 + n * 1460, ACK | ECE), b"");
        sent.extend(drain(&mut host, at_ms(1010)));
    }
    let info = host.tcb.info(at_ms(1010));
    assert_eq!((host.counters.ecn_reductions, info.snd_ssthresh), (1, 5 * 1460));
    assert!(info.snd_cwnd <= 8 * 1460, "{}", info.snd_cwnd);
    assert_eq!(host.counters.retransmits, 0);
    let cwr: Vec<bool> = sent.iter().map(|(seg, _)| seg.has(CWR)).collect();
    assert_eq!(cwr.iter().filter(|&&c| c).count(), 1);
    assert!(cwr[0], "the first that goes says so");
    // Marks on the next window: once more.
    let end = sent.last().unwrap().0.end();
    host.arrive(at_ms(1020), &segment(5001, end.0, ACK | ECE), b"");
    assert_eq!(host.counters.ecn_reductions, 2);
    assert!(drain(&mut host, at_ms(1020))[0].0.has(CWR));
}

#[test]
fn a_loss_tells_the_peer_as_well_and_an_echo_during_its_repair_nothing() {
    let mut host = agreed();
    host.write(at_ms(1001), &vec![7; 40 * 1460]);
    drain(&mut host, at_ms(1001));
    let at = host.tcb.deadline().unwrap();
    host.expire(at);
    let again = drain(&mut host, at);
    assert!(again.iter().all(|(seg, _)| !seg.has(CWR)), "not on what goes again");
    let mut sent = Vec::new();
    for (ms, acked, bits) in [(1, 5, ECE), (2, 10, Flags::default())] {
        host.arrive(at.after_us(ms * MS), &segment(5001, 1001 + acked * 1460, ACK | bits), b"");
        sent.extend(drain(&mut host, at.after_us(ms * MS)));
    }
    assert_eq!(host.counters.ecn_reductions, 0);
    let cwr: Vec<Seq> = sent.iter().filter(|(seg, _)| seg.has(CWR)).map(|(seg, _)| seg.seq).collect();
    assert_eq!(cwr, [Seq(1001 + 10 * 1460)], "the first that is new says so, and no other");
}

#[test]
fn two_of_us_agree_and_carry_data() {
    let mut pair = Pair::connected(3, Tunables { ecn: 1, ..Tunables::default() });
    assert!(pair.hosts.iter().all(|h| h.tcb.uses_ecn()));
    let now = pair.now;
    pair.hosts[0].write(now, &vec![5; 60_000]);
    pair.settle(500);
    let now = pair.now;
    assert_eq!(pair.hosts[1].read(now, 200_000).len(), 60_000);
}

#[test]
fn tools_are_told_what_was_delivered_under_marks() {
    let mut host = agreed();
    let told = |host: &Host| {
        let info = host.tcb.info(at_ms(1100));
        (info.ecn_seen, info.delivered, info.delivered_ce)
    };
    assert_eq!(told(&host), (false, 1, 0));
    host.write(at_ms(1001), &[7; 3000]);
    drain(&mut host, at_ms(1001));
    host.arrive(at_ms(1010), &Segment { ecn: ECT_0, ..segment(5001, OUR_ISS + 1 + 1460, ACK) }, b"data");
    assert_eq!(told(&host), (true, 2, 0));
    host.arrive(at_ms(1011), &segment(5005, OUR_ISS + 1 + 3000, ACK | ECE), b"");
    assert_eq!(told(&host), (true, 4, 2));
}
