//! Who waits to be accepted, whether anybody waits to accept, and SYNs for somebody else's address.

use super::*;
use crate::addr::{Flow, Ip};
use crate::drops::Drop;
use crate::socket::Attendance;
use crate::socket::readiness::ONESHOT;
use crate::time::MS;

const BELL: u8 = 3;

/// The listener's line: who is first, and what is said of those who accept.
fn line(net: &mut Net) -> Vec<(SocketId, Flow, Attendance)> {
    let mut all = vec![];
    net.hosts[SERVER]
        .engine()
        .for_each_line(PORT, |listener, flow, attendance| all.push((listener, *flow, attendance)));
    all
}

fn unattended(net: &mut Net, listener: SocketId) -> usize {
    let mut n = 0;
    net.hosts[SERVER].engine().for_each_unattended(listener, |_| n += 1);
    n
}

fn arrived(net: &mut Net) -> Option<u16> {
    net.hosts[SERVER].engine().take_arrival()
}

#[test]
fn a_line_knows_who_is_first_and_whether_anybody_waits_for_him() {
    let mut net = Net::new(1);
    let listener = listen(&mut net, 16);
    assert_eq!((arrived(&mut net), line(&mut net)), (None, vec![]));
    let clients = [connect(&mut net), connect(&mut net)];
    net.run_for(10 * MS);
    assert_eq!(arrived(&mut net), Some(PORT), "nobody asks for them");
    assert_eq!(arrived(&mut net), None, "told once");
    let [(of, first, Attendance::None)] = line(&mut net)[..] else { panic!("{:?}", line(&mut net)) };
    assert_eq!((of, unattended(&mut net, listener)), (listener, 2));
    assert_eq!(net.hosts[SERVER].engine().who_awaits(&first), Attendance::None);

    // A thread that sleeps in accept or poll.
    net.hosts[SERVER].engine().wait_on(listener, BELL).unwrap();
    assert_eq!((line(&mut net)[0].2, unattended(&mut net, listener)), (Attendance::Asleep, 0));
    assert_eq!(net.hosts[SERVER].engine().who_awaits(&first), Attendance::Asked, "it has enough to do");
    net.hosts[SERVER].engine().unwait(listener, BELL).unwrap();

    let one = accept(&mut net, listener);
    assert_ne!(line(&mut net)[0].1, first, "the next one is first");
    let two = accept(&mut net, listener);
    assert_eq!(line(&mut net), vec![]);
    net.hosts[SERVER].engine().wait_on(listener, BELL).unwrap();
    assert_eq!(net.hosts[SERVER].engine().who_awaits(&first), Attendance::Asleep);
    let elsewhere = Endpoint { port: PORT + 1, ..first.local };
    assert_eq!(net.hosts[SERVER].engine().who_awaits(&Flow { local: elsewhere, ..first }), Attendance::None);
    release(&mut net, SERVER, listener);
    for (at, s) in [(SERVER, one), (SERVER, two), (CLIENT, clients[0]), (CLIENT, clients[1])] {
        release(&mut net, at, s);
    }
    finish(net);
}

#[test]
fn an_epoll_set_asks_for_connections_and_a_thread_that_sleeps_at_it_or_above_waits_for_them() {
    let mut net = Net::new(1);
    let listener = listen(&mut net, 16);
    let [inner, outer] = [(); 2].map(|()| net.hosts[SERVER].engine().epoll_open(PROC).unwrap());
    net.hosts[SERVER].engine().epoll_add(inner, listener, 5, IN | ONESHOT, 55).unwrap();
    let client = connect(&mut net);
    net.run_for(10 * MS);
    assert_eq!(arrived(&mut net), Some(0), "somebody asks for it");
    assert_eq!((line(&mut net)[0].2, unattended(&mut net, listener)), (Attendance::Asked, 1));

    net.hosts[SERVER].engine().epoll_wait_on(inner, BELL).unwrap();
    assert_eq!(line(&mut net)[0].2, Attendance::Asleep);
    net.hosts[SERVER].engine().epoll_unwait(inner, BELL).unwrap();

    net.hosts[SERVER].engine().epoll_add(outer, crate::socket::Watched::Set(inner), 6, IN, 66).unwrap();
    net.hosts[SERVER].engine().epoll_wait_on(outer, BELL).unwrap();
    assert_eq!(line(&mut net)[0].2, Attendance::Asleep, "at the set that the set is in");
    net.hosts[SERVER].engine().epoll_unwait(outer, BELL).unwrap();

    // Reported once, it is not asked for any more.
    let mut out = [crate::socket::EpollEvent::default(); 4];
    assert_eq!(net.hosts[SERVER].engine().epoll_collect(inner, &mut out), Ok(1));
    assert_eq!(line(&mut net)[0].2, Attendance::None);

    // Asked for again, and given up while somebody waits: as if he came now.
    let engine = &mut net.hosts[SERVER].engine();
    engine.epoll_modify(inner, listener, 5, IN | ONESHOT, 55).unwrap();
    assert_eq!(arrived(&mut net), Some(0));
    net.hosts[SERVER].engine().epoll_delete(inner, listener, 5).unwrap();
    assert_eq!(arrived(&mut net), Some(PORT));
    let server = accept(&mut net, listener);
    for (at, s) in [(SERVER, listener), (SERVER, server), (CLIENT, client)] {
        release(&mut net, at, s);
    }
    for set in [inner, outer] {
        net.hosts[SERVER].engine().epoll_close(set, PROC).unwrap();
    }
    finish(net);
}

#[test]
fn a_syn_for_another_address_is_looked_into_before_it_is_refused() {
    let mut net = Net::new(1);
    let elsewhere = Endpoint::new(Ip::v4([192, 0, 2, 7]), PORT);
    let mut engine = net.hosts[SERVER].engine();
    let options = Options::new(engine.tunables());
    let listener = engine.listen(elsewhere, false, 16, &options, PROC).unwrap();
    assert!(engine.listens_at(elsewhere) && !engine.listens_at(Endpoint::new(Ip::UNSPECIFIED_V4, PORT)));
    let client = connect(&mut net);
    net.run_for(100 * MS);
    let asked = net.endpoint(SERVER, PORT);
    let mut engine = net.hosts[SERVER].engine();
    assert!(engine.has_stray() && engine.wants_daemon() && !engine.wants_daemon());
    assert_eq!((engine.take_stray(), engine.take_stray()), (Some(asked), None));
    assert_eq!(engine.counters().drops.of(Drop::SynElsewhere), 1);
    assert_eq!(engine.counters().tx_rsts, 0);

    // Nobody listens there: the SYN that comes again is refused.
    let now = net.now();
    net.hosts[SERVER].engine().note_nobody(now, asked);
    net.run_for(3 * SEC / 2);
    let engine = net.hosts[SERVER].engine();
    assert_eq!((engine.counters().tx_rsts, engine.has_stray()), (1, false));
    // Somebody came, or it is long ago: it is looked into again.
    for is_told in [true, false] {
        let now = net.now();
        net.hosts[SERVER].engine().note_nobody(now, asked);
        if is_told {
            net.hosts[SERVER].engine().forget_nobody(PORT);
        } else {
            net.run_for(3 * SEC);
        }
        let again = connect(&mut net);
        net.run_for(100 * MS);
        assert_eq!(net.hosts[SERVER].engine().take_stray(), Some(asked));
        release(&mut net, CLIENT, again);
    }
    for (at, s) in [(SERVER, listener), (CLIENT, client)] {
        release(&mut net, at, s);
    }
    finish(net);
}
