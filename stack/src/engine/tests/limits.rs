//! What happens when a table is full; docs/limits.md lists all of them.

use super::*;

#[test]
fn sockets_run_out_with_an_error() {
    let mut net = Net::new(1);
    let listener = listen(&mut net, 4);
    let all = net.hosts[SERVER].config.sockets;
    let mut engine = net.hosts[SERVER].engine();
    let mut last = None;
    for _ in 1..all {
        last = Some(engine.open_stream(Family::V4, false, PROC).unwrap());
    }
    assert_eq!(engine.open_stream(Family::V4, false, PROC), Err(Errno::ENFILE));
    // A connection that cannot get a socket stays in the queue until it can.
    let client = connect(&mut net);
    net.run(SEC, |net| net.hosts[SERVER].engine().has_pending_accepts(listener));
    let now = net.now();
    let mut engine = net.hosts[SERVER].engine();
    assert_eq!(engine.accept(now, listener, PROC).err(), Some(Errno::ENFILE));
    assert!(engine.has_pending_accepts(listener));
    engine.release(now, last.unwrap(), PROC).unwrap();
    let accepted = engine.accept(now, listener, PROC).unwrap().0;
    assert_eq!(send(&mut net, CLIENT, client, b"in"), Ok(2));
    net.run(SEC, |net| recv(net, SERVER, accepted).is_ok_and(|got| got == b"in"));
    finish(net);
}

#[test]
fn epoll_sets_and_members_run_out_with_an_error() {
    let mut net = Net::new(1);
    let s = listen(&mut net, 4);
    let mut engine = net.hosts[SERVER].engine();
    let mut sets = vec![];
    let error = loop {
        match engine.epoll_open(PROC) {
            Ok(set) => sets.push(set),
            Err(error) => break error,
        }
    };
    assert_eq!(error, Errno::ENFILE);
    // The same socket under many descriptors, until no item is left.
    let refused = (0..u32::MAX).find_map(|key| engine.epoll_add(sets[0], s, key, IN, 0).err());
    assert_eq!(refused, Some(Errno::ENOMEM));
    engine.epoll_delete(sets[0], s, 0).unwrap();
    assert_eq!(engine.epoll_add(sets[1], s, 0, IN, 0), Ok(()));
    let now = net.now();
    net.hosts[SERVER].engine().release_process(now, PROC);
    finish(net);
}
