//! The books: that they balance, and that each thing which is lost shows in its own line.

use super::*;
use crate::engine::Audit;

fn audit(net: &mut Net) -> Audit {
    net.hosts[SERVER].engine().audit(|process| process == PROC)
}

fn is_right(audit: &Audit) -> bool {
    [audit.frames, audit.connections, audit.time_waits, audit.sockets].iter().all(|count| count.is_right())
}

#[test]
fn what_is_lost_shows() {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    send(&mut net, CLIENT, client, b"unread").unwrap();
    net.run_for(SEC);
    let whole = audit(&mut net);
    assert!(is_right(&whole), "{whole:?}");
    assert!(whole.connections.booked >= 1 && whole.sockets.booked >= 2, "{whole:?}");

    let frame = net.hosts[SERVER].engine().frames_mut().alloc().unwrap();
    let short = audit(&mut net);
    assert_eq!(short.frames.found + 1, short.frames.booked);
    net.hosts[SERVER].engine().frames_mut().release(frame);
    assert!(is_right(&audit(&mut net)));

    // A socket that only the dead hold.
    let orphans = net.hosts[SERVER].engine().audit(|_| false);
    assert_eq!((orphans.sockets.found, orphans.sockets.booked), (0, whole.sockets.booked));

    // A connection that nothing leads to.
    let conn = net.hosts[SERVER].engine().sockets[server.index].conn;
    let mut engine = net.hosts[SERVER].engine();
    let flow = *engine.conns[conn].flow();
    engine.unlink_flow(&flow, crate::engine::flows::Entry::Connection(conn));
    engine.sockets[server.index].conn = crate::slab::NONE;
    let lost = audit(&mut net);
    assert_eq!(lost.connections.found + 1, lost.connections.booked);
}
