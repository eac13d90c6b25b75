//! Urgent data as a socket shows it.

use super::*;
use crate::socket::SocketOption;
use crate::socket::readiness::PRI;
use crate::time::MS;

fn all_readiness(net: &mut Net, s: SocketId) -> u32 {
    net.hosts[SERVER].engine().readiness(s).unwrap()
}

fn fetch(net: &mut Net, s: SocketId) -> Result<Option<u8>, Errno> {
    net.hosts[SERVER].engine().recv_urgent(s, false)
}

fn send_urgent(net: &mut Net, s: SocketId, data: &[u8]) {
    let now = net.now();
    assert_eq!(net.hosts[CLIENT].engine().send_urgent(now, s, data), Ok(data.len()));
    net.run_for(10 * MS);
}

#[test]
fn readiness_and_errors_are_linux_s() {
    let mut net = Net::new(1);
    let (listener, server, client) = pair(&mut net);
    assert_eq!((fetch(&mut net, server), fetch(&mut net, listener)), (Err(Errno::EINVAL), Err(Errno::EINVAL)));
    net.hosts[SERVER].engine().wait_on(server, 3).unwrap();
    net.hosts[SERVER].engine().take_wakeups();
    send_urgent(&mut net, client, b"ab!");
    assert_eq!(net.hosts[SERVER].engine().take_wakeups(), 1 << 3, "who waits is told");
    assert_eq!(all_readiness(&mut net, server) & (IN | PRI), IN | PRI);
    assert_eq!(net.hosts[SERVER].engine().available(server), Ok(2), "up to the mark");
    assert_eq!(recv(&mut net, SERVER, server), Ok(b"ab".to_vec()));
    assert_eq!(all_readiness(&mut net, server) & (IN | PRI), PRI, "the urgent octet alone is nothing to read");
    assert_eq!(net.hosts[SERVER].engine().is_at_mark(server), Ok(true));
    assert_eq!(fetch(&mut net, server), Ok(Some(b'!')));
    assert_eq!(all_readiness(&mut net, server) & (IN | PRI), 0);
    assert_eq!((fetch(&mut net, server), recv(&mut net, SERVER, server)), (Err(Errno::EINVAL), Err(Errno::EAGAIN)));
    // Not fetched, and then the end: it is passed over.
    send_urgent(&mut net, client, b"?");
    let now = net.now();
    net.hosts[CLIENT].engine().shutdown(now, client, crate::socket::How::Write).unwrap();
    net.run_for(10 * MS);
    assert_eq!((recv(&mut net, SERVER, server), fetch(&mut net, server)), (Ok(vec![]), Err(Errno::EINVAL)));
    finish(net);
}

#[test]
fn in_line_it_is_read_like_any_other() {
    let mut net = Net::new(2);
    let (_, server, client) = pair(&mut net);
    let now = net.now();
    net.hosts[SERVER].engine().set_option(now, server, SocketOption::OobInline, 1).unwrap();
    send_urgent(&mut net, client, b"!");
    assert_eq!(all_readiness(&mut net, server) & (IN | PRI), IN | PRI);
    assert_eq!((fetch(&mut net, server), recv(&mut net, SERVER, server)), (Err(Errno::EINVAL), Ok(b"!".to_vec())));
    assert_eq!(net.hosts[SERVER].engine().option(server, SocketOption::OobInline), Ok(1));
    finish(net);
}
