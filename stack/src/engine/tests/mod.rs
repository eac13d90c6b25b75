//! Two engines and a wire. `lifecycle`: opening, closing, dying; `bulk`: data under loss; `buffers`: how large they get;
//! `attendance`: who waits to accept; `audit`: the books; `malformed`: hostile frames; `ending`: how calls see a connection go; `chaos`: anything at all; `farewell`: a stack starts over;
//! `scarce`: few frames; `flood`: SYNs
//! without end; `fast_open`: data on them; `emigration`: from stack to stack, `emigration_chaos`: at any moment; `fragments`: segments in parts; `opening`: who restarts, repeats or comes back; `icmp`: what routers say; `limits`: full
//! tables; `link`: VLANs, a device that changes; `next_hop`: where frames go; `pacing`: how fast, and what the IP header says; `ring`: frames
//! that have not left yet; `sockets`: the smaller calls; `urgent`: urgent data. `raw` makes segments by hand.

mod attendance;
mod audit;
mod buffers;
mod bulk;
mod chaos;
mod emigration;
mod emigration_chaos;
mod ending;
mod farewell;
mod fast_open;
mod flood;
mod fragments;
mod icmp;
mod lifecycle;
mod limits;
mod link;
mod malformed;
mod next_hop;
mod opening;
mod pacing;
mod raw;
mod ring;
mod scarce;
mod sockets;
mod urgent;

use crate::addr::Endpoint;
use crate::socket::readiness::{HUP, IN, OUT};
use crate::socket::{Errno, Family, SocketId};
use crate::tcp::Options;
use crate::testing::{HostConfig, Net};
use crate::time::SEC;

pub(crate) const PROC: u16 = 1;
pub(crate) const SERVER: usize = 0;
pub(crate) const CLIENT: usize = 1;
pub(crate) const PORT: u16 = 80;

pub(crate) fn listen(net: &mut Net, backlog: u32) -> SocketId {
    let local = Endpoint::new(crate::addr::Ip::UNSPECIFIED_V4, PORT);
    let mut engine = net.hosts[SERVER].engine();
    let options = Options::new(engine.tunables());
    engine.listen(local, false, backlog, &options, PROC).unwrap()
}

pub(crate) fn connect(net: &mut Net) -> SocketId {
    let (now, remote) = (net.now(), net.endpoint(SERVER, PORT));
    let mut engine = net.hosts[CLIENT].engine();
    let s = engine.open_stream(Family::V4, false, PROC).unwrap();
    assert_eq!(engine.connect(now, s, None, remote), Err(Errno::EINPROGRESS));
    s
}

pub(crate) fn accept(net: &mut Net, listener: SocketId) -> SocketId {
    net.run(10 * SEC, |net| net.hosts[SERVER].engine().has_pending_accepts(listener));
    let now = net.now();
    net.hosts[SERVER].engine().accept(now, listener, PROC).unwrap().0
}

/// Listener, accepted socket, connecting socket; both ends established.
pub(crate) fn pair(net: &mut Net) -> (SocketId, SocketId, SocketId) {
    let listener = listen(net, 16);
    let client = connect(net);
    let server = accept(net, listener);
    let now = net.now();
    assert_eq!(net.hosts[CLIENT].engine().connect_status(now, client), Ok(()));
    (listener, server, client)
}

pub(crate) fn send(net: &mut Net, host: usize, s: SocketId, data: &[u8]) -> Result<usize, Errno> {
    let now = net.now();
    net.hosts[host].engine().send(now, s, data)
}

pub(crate) fn recv(net: &mut Net, host: usize, s: SocketId) -> Result<Vec<u8>, Errno> {
    let now = net.now();
    let mut out = vec![0; 65536];
    let n = net.hosts[host].engine().recv(now, s, &mut out, false)?;
    out.truncate(n);
    Ok(out)
}

pub(crate) fn release(net: &mut Net, host: usize, s: SocketId) {
    let now = net.now();
    net.hosts[host].engine().release(now, s, PROC).unwrap();
}

pub(crate) fn readiness(net: &mut Net, host: usize, s: SocketId) -> u32 {
    net.hosts[host].engine().readiness(s).unwrap()
        & (IN | OUT | HUP | crate::socket::readiness::RDHUP | crate::socket::readiness::ERR)
}

/// Nothing is left anywhere: no frame, no timer, no connection.
pub(crate) fn assert_clean(net: &mut Net) {
    net.run_dry();
    net.step(net.now());
    for host in 0..2 {
        while net.hosts[host].engine().take_foreign_datagram(|_| ()).is_some() {} // the daemon's to hand on
        let population = net.hosts[host].engine().population();
        assert_eq!((population.connections, population.time_waits), (0, 0), "host {host}");
        assert_eq!(net.hosts[host].frames_held(), 0, "host {host} leaks frames");
        assert!(net.hosts[host].engine().next_deadline().is_none(), "host {host} leaks timers");
        assert!(!net.hosts[host].engine().has_transmit());
    }
}

/// Lets go of everything on both hosts, and checks that nothing remains.
pub(crate) fn finish(mut net: Net) {
    let now = net.now();
    for host in 0..2 {
        net.hosts[host].engine().release_process(now, PROC);
    }
    assert_clean(&mut net);
    assert!((0..2).all(|host| net.hosts[host].engine().is_idle_forever()));
}

pub(crate) fn big(n: u8) -> HostConfig {
    HostConfig { conns: 2048, time_waits: 2048, sockets: 2048, frames: 16384, ..HostConfig::nth(n) }
}
