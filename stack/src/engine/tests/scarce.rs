//! Few frames, many connections: whoever does not read cannot starve those who do.

use super::bulk::byte;
use super::*;
use crate::buf::Pressure;
use crate::drops::Drop;
use crate::testing::Wire;
use crate::time::MS;
use crate::tunables::Tunables;

/// A stream that the client floods and whose reader stalls.
struct Stalled {
    server: SocketId,
    client: SocketId,
    sent: usize,
    received: usize,
}

struct Rig {
    net: Net,
    stalled: Vec<Stalled>,
    /// The one that goes on: the server echoes what the client says.
    good: (SocketId, SocketId),
}

impl Rig {
    /// `n` connections and a good one, to a server with `frames`.
    fn new(seed: u64, n: u32, frames: u32, wire: Wire) -> Rig {
        Rig::with_clients(seed, n, frames, wire, Tunables::default())
    }

    fn with_clients(seed: u64, n: u32, frames: u32, wire: Wire, tunables: Tunables) -> Rig {
        let slots = |config| HostConfig { conns: n + 16, sockets: n + 16, ..config };
        let server = slots(HostConfig { frames, ..HostConfig::nth(1) });
        let client = slots(HostConfig { frames: 65536, tunables, ..HostConfig::nth(2) });
        let mut net = Net::with(seed, server, client);
        let listener = listen(&mut net, 16);
        let mut open = || {
            let client = connect(&mut net);
            (accept(&mut net, listener), client)
        };
        let good = open();
        let stalled = (0..n).map(|_| open()).map(|(server, client)| Stalled { server, client, sent: 0, received: 0 });
        let stalled = stalled.collect();
        net.wire = wire;
        Rig { net, stalled, good }
    }

    /// Every client writes until it has written `total`, as far as there is room.
    fn flood(&mut self, total: usize) {
        for (i, s) in self.stalled.iter_mut().enumerate() {
            if s.sent < total {
                let data: Vec<u8> = (s.sent..total).map(|at| byte(i, at)).collect();
                s.sent += send(&mut self.net, CLIENT, s.client, &data).unwrap_or(0);
            }
        }
    }

    /// A question and its answer; returns how long that took.
    fn echo(&mut self, question: &[u8]) -> u64 {
        let ((server, client), start) = (self.good, self.net.now());
        assert_eq!(send(&mut self.net, CLIENT, client, question), Ok(question.len()));
        let (mut echoed, mut answer): (Vec<u8>, Vec<u8>) = (vec![], vec![]);
        self.net.run(60 * SEC, |net| {
            echoed.extend(recv(net, SERVER, server).unwrap_or_default());
            if !echoed.is_empty() {
                let n = send(net, SERVER, server, &echoed).unwrap_or(0);
                echoed.drain(..n);
            }
            answer.extend(recv(net, CLIENT, client).unwrap_or_default());
            answer.len() >= question.len()
        });
        assert_eq!(answer, question);
        self.net.now().since_us(start)
    }

    /// The readers resume; until each has `total`, once and in order.
    fn drain(&mut self, total: usize) {
        let Rig { net, stalled, .. } = self;
        net.run(1200 * SEC, |net| {
            for (i, s) in stalled.iter_mut().enumerate() {
                if s.received == total {
                    continue;
                }
                if s.sent < total {
                    let data: Vec<u8> = (s.sent..total).map(|at| byte(i, at)).collect();
                    s.sent += send(net, CLIENT, s.client, &data).unwrap_or(0);
                }
                while let Ok(bytes) = recv(net, SERVER, s.server) {
                    for b in bytes {
                        assert_eq!(b, byte(i, s.received), "octet {} of stream {i}", s.received);
                        s.received += 1;
                    }
                }
            }
            // A reader looks at its socket now and then, not after every frame on the wire.
            net.run_for(10 * MS);
            stalled.iter().all(|s| s.received == total)
        });
    }

    fn server_drops(&mut self, reason: Drop) -> u64 {
        self.net.hosts[SERVER].engine().counters().drops.of(reason)
    }

    fn pressure(&mut self) -> Pressure {
        self.net.hosts[SERVER].watch_frames();
        self.net.hosts[SERVER].engine().frames().pressure()
    }
}

#[test]
fn two_thousand_stalled_readers_do_not_starve_the_one_that_reads() {
    const TOTAL: usize = 20_000;
    let mut rig = Rig::new(1, 2000, 4096, Wire::default());
    rig.echo(&[1; 1000]);
    let mut slowest = 0;
    for round in 0..100 {
        rig.flood(TOTAL);
        slowest = slowest.max(rig.echo(&[round; 1000]));
        rig.net.run_for(50 * MS);
    }
    assert!(slowest < 5 * MS, "an echo took {slowest} us");
    assert!(rig.pressure() >= Pressure::Critical);
    assert!(rig.server_drops(Drop::FramePressure) > 1000, "{}", rig.server_drops(Drop::FramePressure));
    let free = rig.net.hosts[SERVER].engine().frames().free_count();
    assert!(free >= 64, "{free} frames are left for what arrives");
    // Somebody new gets through as well.
    assert!(rig.echo(&[9; 20_000]) < 5 * SEC);
    rig.drain(TOTAL);
    assert_eq!(rig.pressure(), Pressure::None);
    finish(rig.net);
}

#[test]
fn peers_that_do_not_read_do_not_starve_the_one_that_does() {
    const TOTAL: usize = 20_000;
    let small_windows = Tunables { rmem_bytes: [4096, 8192, 8192], ..Tunables::default() };
    let mut rig = Rig::with_clients(2, 1500, 4096, Wire::default(), small_windows);
    // The other way round: the server writes, and its clients' windows close.
    for s in &mut rig.stalled {
        (s.client, s.server) = (s.server, s.client);
    }
    let mut slow = 0;
    for round in 0..50 {
        for (i, s) in rig.stalled.iter_mut().enumerate().filter(|(_, s)| s.sent < TOTAL) {
            let data: Vec<u8> = (s.sent..TOTAL).map(|at| byte(i, at)).collect();
            s.sent += send(&mut rig.net, SERVER, s.client, &data).unwrap_or(0);
        }
        slow += u32::from(rig.echo(&[round; 1000]) > 5 * MS);
        rig.net.run_for(50 * MS);
    }
    assert!(slow <= 2, "{slow} of 50 echoes were slow");
    assert!(rig.pressure() >= Pressure::Low);
    let Rig { net, stalled, .. } = &mut rig;
    net.run(600 * SEC, |net| {
        for (i, s) in stalled.iter_mut().enumerate().filter(|(_, s)| s.received < TOTAL) {
            let data: Vec<u8> = (s.sent..TOTAL).map(|at| byte(i, at)).collect();
            s.sent += send(net, SERVER, s.client, &data).unwrap_or(0);
            for b in recv(net, CLIENT, s.server).unwrap_or_default() {
                assert_eq!(b, byte(i, s.received), "octet {} of stream {i}", s.received);
                s.received += 1;
            }
        }
        net.run_for(10 * MS);
        stalled.iter().all(|s| s.received == TOTAL)
    });
    finish(rig.net);
}

#[test]
fn what_came_out_of_order_is_given_back_and_comes_again() {
    const TOTAL: usize = 60_000;
    for seed in 0..4 {
        let mut rig = Rig::new(seed, 100, 512, Wire { loss: 100, reorder: 100, ..Wire::default() });
        let mut critical = 0;
        for _ in 0..50 {
            rig.flood(TOTAL);
            rig.net.run_for(10 * MS);
            if rig.pressure() >= Pressure::Critical {
                let now = rig.net.now();
                let mut engine = rig.net.hosts[SERVER].engine();
                engine.handle_timers(now);
                let held: u32 = (0..100).map(|conn| engine.conns[conn].frames_out_of_order()).sum();
                assert_eq!(held, 0, "seed {seed}: nothing is kept out of order");
                critical += 1;
            }
        }
        assert!(critical > 0, "seed {seed}");
        rig.drain(TOTAL);
        finish(rig.net);
    }
}

#[test]
fn whoever_finds_no_room_only_because_frames_are_few_hears_of_it_later() {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    assert_eq!(send(&mut net, CLIENT, client, &[1; 40_000]), Ok(40_000));
    let mut engine = net.hosts[CLIENT].engine();
    // The write left room. What is asked for now is not there: frames became few.
    engine.frames_mut().set_pressure(Pressure::Critical);
    let set = engine.epoll_open(PROC).unwrap();
    engine.epoll_add(set, client, 1, OUT, 1).unwrap();
    engine.epoll_wait_on(set, 0).unwrap();
    assert_eq!(engine.epoll_has_ready(set), Ok(false));
    assert_eq!(engine.take_wakeups(), 0);
    net.run_for(SEC);
    let mut engine = net.hosts[CLIENT].engine();
    assert_eq!((engine.take_wakeups(), engine.epoll_has_ready(set)), (1, Ok(true)));
    assert_eq!(recv(&mut net, SERVER, server).map(|bytes| bytes.len()), Ok(40_000));
    finish(net);
}

#[test]
fn small_segments_leave_the_last_frames_as_well() {
    let server = HostConfig { frames: 256, ..HostConfig::nth(1) };
    let mut net = Net::with(5, server, HostConfig::nth(2));
    let listener = listen(&mut net, 4);
    let (now, remote) = (net.now(), net.endpoint(SERVER, PORT));
    let mut engine = net.hosts[CLIENT].engine();
    let client = engine.open_stream(Family::V4, false, PROC).unwrap();
    engine.set_option(now, client, crate::socket::SocketOption::MaxSegment, 88).unwrap();
    assert_eq!(engine.connect(now, client, None, remote), Err(Errno::EINPROGRESS));
    let accepted = accept(&mut net, listener);
    while send(&mut net, SERVER, accepted, &[7; 60_000]).is_ok() {}
    let free = net.hosts[SERVER].engine().frames().free_count();
    assert!(free >= 31, "{free}");
    finish(net);
}
