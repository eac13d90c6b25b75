//! What routers say, and what it leads to in each state.

use super::harness::*;
use crate::tcp::{Context, Events, IcmpKind, Options, Seq, State, Tcb, TcpError};
use crate::tunables::Tunables;
use crate::wire::tcp::Flags;

/// An established connection that has `n` full segments in flight since 1001 ms.
fn sending(n: usize) -> Host {
    let mut host = established();
    assert_eq!(host.write(at_ms(1001), &vec![7; n * 1460]), n * 1460);
    host.drain(at_ms(1001));
    host
}

fn icmp(host: &mut Host, kind: IcmpKind, quoted: u32) -> Events {
    host.with(at_ms(1010), |tcb, cx| tcb.handle_icmp(cx, kind, Seq(quoted))).events
}

#[test]
fn what_a_router_said_is_forgotten_when_the_peer_answers() {
    let mut host = sending(2);
    icmp(&mut host, IcmpKind::HostUnreachable, 1001);
    host.arrive(at_ms(1020), &segment(5001, 2461, Flags::ACK), b"");
    while let Some(at) = host.tcb.deadline() {
        host.expire(at);
        host.drain(at);
    }
    assert_eq!(host.tcb.take_error(), Some(TcpError::TimedOut));
}

#[test]
fn no_way_takes_back_a_doubling() {
    let mut host = sending(1);
    for _ in 0..4 {
        let at = host.tcb.deadline().unwrap();
        host.expire(at);
        host.drain(at);
    }
    let sent_at = host.tcb.deadline().unwrap();
    host.expire(sent_at);
    host.drain(sent_at);
    let (now, before) = (sent_at.after_us(1000), host.tcb.deadline().unwrap());
    let tell = |host: &mut Host, quoted: u32| {
        host.with(now, |tcb, cx| tcb.handle_icmp(cx, IcmpKind::NetUnreachable, Seq(quoted)));
        host.tcb.deadline().unwrap()
    };
    assert_eq!(tell(&mut host, 1002), before, "not about the oldest octet");
    let after = tell(&mut host, 1001);
    assert_eq!(2 * after.since_us(sent_at), before.since_us(sent_at));
    for _ in 0..10 {
        tell(&mut host, 1001);
    }
    assert!(host.tcb.deadline().unwrap() >= now, "it never lies in the past");
}

#[test]
fn a_half_open_connection_outlasts_all_but_the_loss_of_the_way() {
    for (kind, state) in [
        (IcmpKind::PortUnreachable, State::SynReceived),
        (IcmpKind::ParameterProblem, State::SynReceived),
        (IcmpKind::NetUnreachable, State::Closed),
        (IcmpKind::HostUnreachable, State::Closed),
    ] {
        let tunables = Tunables::default();
        let options = Options::new(&tunables);
        let syn = segment(PEER_ISS, 0, Flags::SYN);
        let make = |cx: &mut Context<'_, '_>| Tcb::accept_syn(cx, flow(2, 1), &syn, OUR_ISS, 0, MSS, &options);
        let mut host = Host::make(tunables, make, at_ms(1));
        host.drain(at_ms(1));
        icmp(&mut host, kind, OUR_ISS);
        assert_eq!(host.state(), state, "{kind:?}");
    }
}
