//! Opening: from both ends, at once, refused, unanswered.

use super::harness::*;
use crate::drops::Drop;
use crate::tcp::{Events, ListenVerdict, Options, Seq, State, Tcb, TcpError, arrive_at_listen};
use crate::time::SEC;
use crate::tunables::Tunables;
use crate::wire::tcp::{Flags, Segment, parse};

#[test]
fn three_segments_open() {
    let mut pair = Pair::opening(1, Tunables::default(), Wire::CLEAN);
    pair.settle(1);
    for host in &mut pair.hosts {
        assert_eq!(host.state(), State::Established);
        assert!(host.take_events().has(Events::CONNECTED | Events::WRITABLE));
        assert_eq!(host.tcb.deadline(), None);
        let info = host.tcb.info(pair.now);
        assert!(info.timestamps && info.window_scaling);
        assert_eq!((info.snd_mss, info.snd_cwnd), (1448, 14480));
        assert_eq!(host.frames_held(), 0);
    }
    // SYN (before the pair), SYN-ACK, ACK.
    assert_eq!(pair.segments, 2);
}

#[test]
fn syn_says_what_we_can() {
    let mut host = Host::connecting(at_ms(1000), 100, None, Tunables::default());
    let syn = host.drain(at_ms(1000)).remove(0);
    assert_eq!((syn.flags, syn.seq, syn.ack), (Flags::SYN, Seq(100), Seq(0)));
    assert_eq!(syn.options.mss, Some(MSS));
    assert_eq!(syn.options.window_scale, Some(7));
    assert_eq!(syn.options.timestamp, Some((1077, 0)));
    assert!(syn.options.sack_permitted);
    assert_eq!(syn.window, 65535);
}

#[test]
fn options_only_when_both_want_them() {
    let host = established();
    let info = host.tcb.info(at_ms(1000));
    assert!(!info.timestamps && !info.window_scaling);
    assert_eq!((info.snd_mss, info.snd_wscale, info.rcv_wscale), (1460, 0, 0));
}

#[test]
fn without_an_mss_option_536() {
    let tunables = Tunables { timestamps: 0, ..Tunables::default() };
    let syn = segment(1, 0, Flags::SYN);
    let host =
        Host::make(tunables, |cx| Tcb::accept_syn(cx, flow(1, 2), &syn, 1, 0, MSS, &Options::new(&tunables)), at_ms(1));
    assert_eq!(host.tcb.info(at_ms(1)).snd_mss, 536);
}

#[test]
fn mss_clamp_binds_both_ways() {
    let tunables = Tunables { timestamps: 0, ..Tunables::default() };
    let options = Options { mss_clamp: 700, ..Options::new(&tunables) };
    let mut host = Host::connecting(at_ms(1), 1, Some(options), tunables);
    assert_eq!(host.drain(at_ms(1))[0].options.mss, Some(700));
    let mut syn_ack = segment(5, 2, Flags::SYN | Flags::ACK);
    syn_ack.options.mss = Some(1460);
    host.arrive(at_ms(2), &syn_ack, b"");
    assert_eq!(host.tcb.info(at_ms(2)).snd_mss, 700);
}

#[test]
fn listener_table() {
    let cases = [
        (Flags::RST, ListenVerdict::Ignore(Drop::RstForNobody)),
        (Flags::RST | Flags::SYN, ListenVerdict::Ignore(Drop::RstForNobody)),
        (Flags::SYN, ListenVerdict::Syn),
        (Flags::SYN | Flags::FIN, ListenVerdict::Ignore(Drop::NoAck)),
        (Flags::FIN, ListenVerdict::Ignore(Drop::NoAck)),
        (Flags(0), ListenVerdict::Ignore(Drop::NoAck)),
    ];
    for (flags, verdict) in cases {
        assert_eq!(arrive_at_listen(&segment(1, 2, flags)), verdict, "{flags:?}");
    }
    let ListenVerdict::Reset(rst) = arrive_at_listen(&segment(1, 2, Flags::SYN | Flags::ACK)) else {
        panic!("an ACK at a listener is answered with RST");
    };
    assert_eq!((rst.seq, rst.flags), (Seq(2), Flags::RST));
}

#[test]
fn refused() {
    let mut host = Host::connecting(at_ms(1), 100, None, Tunables::default());
    host.drain(at_ms(1));
    host.arrive(at_ms(2), &segment(0, 101, Flags::RST | Flags::ACK), b"");
    assert!(host.take_events().has(Events::RESET | Events::ERROR | Events::CLOSED));
    assert_eq!(host.tcb.take_error(), Some(TcpError::Refused));
    assert_eq!(host.tcb.take_error(), None);
    assert_eq!((host.state(), host.tcb.deadline(), host.tcb.wants_transmit()), (State::Closed, None, false));
}

/// SYN-SENT, every kind of segment: state afterwards, whether a RST answers.
#[test]
fn syn_sent_table() {
    let rst = Flags::RST;
    let (syn, ack) = (Flags::SYN, Flags::ACK);
    let cases = [
        (segment(9, 101, syn | ack), State::Established, false),
        (segment(9, 100, syn | ack), State::SynSent, true),
        (segment(9, 102, syn | ack), State::SynSent, true),
        (segment(9, 102, ack), State::SynSent, true),
        (segment(9, 102, rst | ack), State::SynSent, false),
        (segment(9, 101, rst | ack), State::Closed, false),
        (segment(9, 0, rst), State::SynSent, false),
        (segment(9, 101, ack), State::SynSent, false),
        (segment(9, 0, syn), State::SynReceived, false),
        (segment(9, 0, Flags::FIN), State::SynSent, false),
    ];
    for (seg, state, is_reset) in cases {
        let mut host = Host::connecting(at_ms(1), 100, None, Tunables::default());
        host.drain(at_ms(1));
        let arrival = host.arrive(at_ms(2), &seg, b"");
        assert_eq!((host.state(), arrival.reply.is_some()), (state, is_reset), "{seg:?}");
        if let Some(reply) = arrival.reply {
            assert_eq!((reply.seq, reply.flags), (seg.ack, Flags::RST));
        }
        assert_eq!(host.frames_held(), 0);
    }
}

/// SYN-RECEIVED, every kind of segment: state afterwards, whether a RST answers, what is sent.
#[test]
fn syn_received_table() {
    let (syn, ack, rst, fin) = (Flags::SYN, Flags::ACK, Flags::RST, Flags::FIN);
    let cases: [(Segment, State, bool, Option<Flags>); 10] = [
        (segment(5001, 1001, ack), State::Established, false, None),
        (segment(5001, 1000, ack), State::SynReceived, true, None),
        (segment(5001, 1002, ack), State::SynReceived, true, None),
        (segment(5001, 0, Flags(0)), State::SynReceived, false, None),
        (segment(5000, 0, syn), State::SynReceived, false, Some(syn | ack)),
        (segment(5100, 0, syn), State::SynReceived, false, Some(ack)),
        (segment(5001, 0, rst), State::Closed, false, None),
        (segment(5002, 0, rst), State::SynReceived, false, Some(ack)),
        (segment(4000, 0, rst), State::SynReceived, false, None),
        (segment(5001, 1001, fin | ack), State::CloseWait, false, None),
    ];
    for (seg, state, is_reset, sent) in cases {
        let tunables = Tunables::default();
        let options = Options::new(&tunables);
        let theirs = segment(PEER_ISS, 0, Flags::SYN);
        let mut host =
            Host::make(tunables, |cx| Tcb::accept_syn(cx, flow(2, 1), &theirs, OUR_ISS, 0, MSS, &options), at_ms(1));
        host.drain(at_ms(1));
        let arrival = host.arrive(at_ms(2), &seg, b"");
        assert_eq!((host.state(), arrival.reply.is_some()), (state, is_reset), "{seg:?}");
        assert_eq!(host.drain(at_ms(2)).first().map(|s| s.flags), sent, "{seg:?}");
        assert_eq!(host.frames_held(), 0);
    }
}

#[test]
fn data_with_the_last_ack_of_the_handshake() {
    let tunables = Tunables::default();
    let theirs = segment(PEER_ISS, 0, Flags::SYN);
    let options = Options::new(&tunables);
    let mut host =
        Host::make(tunables, |cx| Tcb::accept_syn(cx, flow(2, 1), &theirs, OUR_ISS, 0, MSS, &options), at_ms(1));
    host.drain(at_ms(1));
    host.arrive(at_ms(2), &segment(5001, 1001, Flags::ACK | Flags::PSH), b"hello");
    assert!(host.take_events().has(Events::CONNECTED | Events::READABLE));
    assert_eq!(host.read(at_ms(2), 10), b"hello");
}

#[test]
fn simultaneous_open() {
    let mut now = at_ms(1000);
    let mut a = Host::connecting(now, 100, None, Tunables::default());
    let options = Options::new(&Tunables::default());
    let mut b = Host::make(Tunables::default(), |cx| Tcb::connect(cx, flow(2, 1), 300, 5, MSS, &options), now);
    let (syn_a, syn_b) = (a.drain_bytes(now).remove(0), b.drain_bytes(now).remove(0));
    now = now.after_us(100);
    a.receive(now, &syn_b);
    b.receive(now, &syn_a);
    assert_eq!((a.state(), b.state()), (State::SynReceived, State::SynReceived));
    for round in 0..3 {
        now = now.after_us(100);
        let (from_a, from_b) = (a.drain_bytes(now), b.drain_bytes(now));
        if round == 0 {
            assert_eq!(parse(&from_a[0], 0).unwrap().flags, Flags::SYN | Flags::ACK);
        }
        from_a.iter().for_each(|s| {
            b.receive(now, s);
        });
        from_b.iter().for_each(|s| {
            a.receive(now, s);
        });
    }
    assert_eq!((a.state(), b.state()), (State::Established, State::Established));
    assert!(a.events.has(Events::CONNECTED) && b.events.has(Events::CONNECTED));
    assert!(!a.tcb.wants_transmit() && !b.tcb.wants_transmit());
    a.write(now, b"x");
    let data = a.drain_bytes(now);
    b.receive(now, &data[0]);
    assert_eq!(b.read(now, 9), b"x");
}

#[test]
fn syn_unanswered_times_out_after_linux_time() {
    let mut host = Host::connecting(at_ms(1000), 1, None, Tunables::default());
    let mut syns = host.drain(at_ms(1000)).len();
    let mut now = at_ms(1000);
    while let Some(at) = host.tcb.deadline() {
        now = at;
        host.expire(now);
        syns += host.drain(now).len();
    }
    assert_eq!(syns, 7);
    assert_eq!(now.micros(), 1000 * 1000 + 127 * SEC);
    assert_eq!(host.tcb.take_error(), Some(TcpError::TimedOut));
    assert!(host.take_events().has(Events::CLOSED | Events::ERROR));
}

#[test]
fn syn_ack_unanswered_is_forgotten() {
    let tunables = Tunables::default();
    let options = Options::new(&tunables);
    let syn = segment(PEER_ISS, 0, Flags::SYN);
    let mut host =
        Host::make(tunables, |cx| Tcb::accept_syn(cx, flow(2, 1), &syn, OUR_ISS, 0, MSS, &options), at_ms(1));
    let mut sent = host.drain(at_ms(1)).len();
    while let Some(at) = host.tcb.deadline() {
        host.expire(at);
        sent += host.drain(at).len();
    }
    assert_eq!((sent, host.state()), (6, State::Closed));
}

#[test]
fn a_lost_syn_means_caution() {
    let mut host = Host::connecting(at_ms(1000), 1, None, Tunables { timestamps: 0, ..Tunables::default() });
    host.drain(at_ms(1000));
    for _ in 0..2 {
        let at = host.tcb.deadline().unwrap();
        host.expire(at);
        assert_eq!(host.drain(at).len(), 1);
    }
    let mut syn_ack = segment(9, 2, Flags::SYN | Flags::ACK);
    syn_ack.options.mss = Some(1000);
    host.arrive(at_ms(9000), &syn_ack, b"");
    let info = host.tcb.info(at_ms(9000));
    assert_eq!((info.rto_us, info.snd_cwnd), (3_000_000, 1000));
}

#[test]
fn closing_before_the_answer() {
    let mut host = Host::connecting(at_ms(1), 1, None, Tunables::default());
    host.drain(at_ms(1));
    let arrival = host.close(at_ms(2));
    assert_eq!((host.state(), arrival.reply), (State::Closed, None));
    assert!(arrival.events.has(Events::CLOSED));
}
