//! Connections move between stacks at any moment, over a bad wire: every octet arrives once and in order, both ways, and
//! nothing is left anywhere.

use super::*;
use crate::addr::Flow;
use crate::drops::Drop;
use crate::socket::How;
use crate::testing::Random;
use crate::time::MS;

const STACKS: usize = 3;

/// A client's connection: what it wrote so far, and whether it was heard to the end.
struct Client {
    s: SocketId,
    port: u16,
    request: Vec<u8>,
    sent: usize,
    is_shut: bool,
    answer: Vec<u8>,
    is_done: bool,
}

/// The server's end of one.
struct Server {
    stack: usize,
    s: SocketId,
    port: u16,
    request: Vec<u8>,
    answered: usize,
}

struct History {
    net: Net,
    random: Random,
    listeners: Vec<SocketId>,
    clients: Vec<Client>,
    servers: Vec<Server>,
    /// Flows that moved while the wire still leads to the old stack.
    late_pins: Vec<(Flow, usize)>,
    moves: u32,
}

/// The server answers with the request, each octet inverted.
fn answer_to(request: &[u8]) -> Vec<u8> {
    request.iter().map(|b| !b).collect()
}

impl History {
    fn new(seed: u64) -> History {
        let mut random = Random::new(seed);
        // Slots enough that nobody gets a SYN cookie: those do not move.
        let (mut server, mut client) =
            (HostConfig { stacks: STACKS, conns: 1024, ..HostConfig::nth(1) }, HostConfig::nth(2));
        if random.chance(300) {
            // Data on SYNs, without cookies.
            (server.tunables.fastopen, client.tunables.fastopen) = (3 | 0x200 | 0x400, 1 | 4);
        }
        server.tunables.timestamps = random.below(4).min(1) as u32;
        let mut net = Net::with(random.number(), server, client);
        let wire = &mut net.wire;
        (wire.loss, wire.duplicate, wire.reorder) =
            (random.pick(&[0, 20, 100]), random.pick(&[0, 20]), random.pick(&[0, 200]));
        wire.delay_us = random.pick(&[100, 5_000]);
        let listeners = (0..STACKS)
            .map(|stack| {
                net.hosts[SERVER].present = stack;
                listen(&mut net, 4)
            })
            .collect();
        History { net, random, listeners, clients: vec![], servers: vec![], late_pins: vec![], moves: 0 }
    }

    fn connect(&mut self) {
        let len = self.random.pick(&[0, 1, 1000, 30_000]);
        let request: Vec<u8> = (0..len).map(|_| self.random.number() as u8).collect();
        let (now, remote) = (self.net.now(), self.net.endpoint(SERVER, PORT));
        let mut engine = self.net.hosts[CLIENT].engine();
        let s = engine.open_stream(Family::V4, false, PROC).unwrap();
        let early = engine.send_fast(now, s, None, remote, &request);
        if early == Err(Errno::EOPNOTSUPP) {
            assert_eq!(engine.connect(now, s, None, remote), Err(Errno::EINPROGRESS));
        }
        let port = engine.local_endpoint(s).unwrap().port;
        let client =
            Client { s, port, request, sent: early.unwrap_or(0), is_shut: false, answer: vec![], is_done: false };
        self.clients.push(client);
    }

    /// A connection that waits somewhere moves elsewhere; what is under way may still come to where it was.
    fn emigrate(&mut self) {
        let from = self.random.below(STACKS as u64) as usize;
        let to = (from + 1 + self.random.below(STACKS as u64 - 1) as usize) % STACKS;
        let mut flows = vec![];
        self.net.hosts[SERVER].engine_of(from).for_each_waiting(PORT, |_, flow| flows.push(*flow));
        if flows.is_empty() {
            return;
        }
        let (flow, now) = (self.random.pick(&flows), self.net.now());
        // Clocks are read by different threads.
        let then = now.after_us(self.random.below(3));
        let emigrant = self.net.hosts[SERVER].engine_of(from).emigrate(then, &flow).unwrap();
        self.net.hosts[SERVER].engine_of(to).immigrate(now, emigrant).unwrap();
        self.moves += 1;
        self.late_pins.retain(|(late, _)| *late != flow);
        if self.random.chance(500) {
            self.late_pins.push((flow, to));
        } else {
            self.net.hosts[SERVER].pin(&flow, to);
        }
    }

    /// From now on another stack gets the SYNs; what lives stays where it is.
    fn move_home(&mut self) {
        let host = &mut self.net.hosts[SERVER];
        for stack in 0..STACKS {
            let mut flows = vec![];
            host.engine_of(stack).flows_of_port(PORT, |flow| flows.push(*flow));
            flows.iter().for_each(|flow| host.pin(flow, stack));
        }
        self.late_pins.clear();
        host.home = self.random.below(STACKS as u64) as usize;
    }

    fn accept(&mut self) {
        let stack = self.random.below(STACKS as u64) as usize;
        let now = self.net.now();
        let mut engine = self.net.hosts[SERVER].engine_of(stack);
        if let Ok((s, peer)) = engine.accept(now, self.listeners[stack], PROC) {
            self.servers.push(Server { stack, s, port: peer.port, request: vec![], answered: 0 });
        }
    }

    /// The applications read and write what they can.
    fn work(&mut self) {
        let now = self.net.now();
        let mut buffer = vec![0; 65_536];
        let mut engine = self.net.hosts[CLIENT].engine();
        for c in self.clients.iter_mut().filter(|c| !c.is_done) {
            c.sent += engine.send(now, c.s, &c.request[c.sent..]).unwrap_or(0);
            let status = if c.is_shut { Ok(()) } else { engine.connect_status(now, c.s) };
            let is_fine = matches!(status, Ok(()) | Err(Errno::EALREADY | Errno::EINPROGRESS | Errno::ENOTCONN));
            assert!(is_fine, "{}: {status:?} at {now:?}, {:?}", c.port, engine.info(now, c.s));
            if c.sent == c.request.len() && !c.is_shut && status == Ok(()) {
                c.is_shut = engine.shutdown(now, c.s, How::Write).is_ok();
            }
            match engine.recv(now, c.s, &mut buffer, false) {
                Ok(0) if c.is_shut => {
                    c.is_done = true;
                    engine.release(now, c.s, PROC).unwrap();
                }
                Ok(n) => c.answer.extend(&buffer[..n]),
                Err(e) => assert!(e == Errno::EAGAIN || e == Errno::ENOTCONN, "the client of {}: {e:?}", c.port),
            }
        }
        self.servers.retain_mut(|server| {
            let mut engine = self.net.hosts[SERVER].engine_of(server.stack);
            let end = match engine.recv(now, server.s, &mut buffer, false) {
                Ok(0) => true,
                Ok(n) => {
                    server.request.extend(&buffer[..n]);
                    false
                }
                Err(e) => {
                    assert_eq!(e, Errno::EAGAIN, "the server of {}", server.port);
                    false
                }
            };
            let answer = answer_to(&server.request);
            server.answered += engine.send(now, server.s, &answer[server.answered..]).unwrap_or(0);
            let is_done = end && server.answered == answer.len();
            if is_done {
                engine.release(now, server.s, PROC).unwrap();
            }
            !is_done
        });
    }

    /// What has an owner is somewhere, in each stack.
    fn audit(&mut self) {
        for stack in 0..STACKS {
            let audit = self.net.hosts[SERVER].engine_of(stack).audit(|_| true);
            assert!(audit.frames.is_right() && audit.time_waits.is_right(), "stack {stack}: {audit:?}");
        }
    }

    fn step(&mut self, is_young: bool) {
        match self.random.below(100) {
            0..6 if is_young && self.clients.iter().filter(|c| !c.is_done).count() < 24 => self.connect(),
            6..30 => self.emigrate(),
            30..34 => self.accept(),
            34..50 => {
                if !self.late_pins.is_empty() {
                    let (flow, stack) = self.late_pins.remove(0);
                    self.net.hosts[SERVER].pin(&flow, stack);
                }
            }
            50..55 => self.move_home(),
            55..70 => self.work(),
            _ => {
                let until = self.net.now().after_us(self.random.pick(&[100, MS, 20 * MS]));
                self.net.step(until);
            }
        }
    }
}

/// How often connections moved, and how many segments came late.
fn play(seed: u64) -> (u32, u64) {
    let mut h = History::new(seed);
    for n in 0..3000 {
        h.step(true);
        if n % 100 == 0 {
            h.audit();
        }
    }
    let limit = h.net.now().after_us(300 * SEC);
    while h.clients.iter().any(|c| !c.is_done) {
        assert!(h.net.now() < limit, "seed {seed}: somebody still waits");
        h.step(false);
    }
    for c in &h.clients {
        let (len, asked) = (c.answer.len(), c.request.len());
        assert!(c.answer == answer_to(&c.request), "seed {seed}: the answer to {} is wrong: {len} of {asked}", c.port);
    }
    let now = h.net.now();
    for stack in 0..STACKS {
        h.net.hosts[SERVER].engine_of(stack).release_process(now, PROC);
    }
    assert_clean(&mut h.net);
    let mut late = 0;
    for stack in 0..STACKS {
        let owned = h.net.hosts[SERVER].frames_owned(stack);
        let engine = h.net.hosts[SERVER].engine_of(stack);
        assert!(engine.is_idle_forever() && engine.next_deadline().is_none(), "seed {seed}: {:?}", engine.population());
        assert!(engine.frames().free_count() == owned && !engine.has_transmit(), "seed {seed}");
        assert!(engine.state.wheel.is_empty() && engine.state.waiting.is_empty(), "seed {seed}");
        late += engine.counters().drops.of(Drop::Departed);
    }
    (h.moves, late)
}

#[test]
fn whatever_moves_when_every_octet_arrives_once() {
    let (mut moves, mut late) = (0, 0);
    for seed in 0..30 {
        let (m, l) = play(seed);
        moves += m;
        late += l;
    }
    assert!(moves > 1000 && late > 100, "{moves} moves, {late} late segments");
}
