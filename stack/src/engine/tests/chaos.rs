//! Random calls on many sockets over a bad wire, processes that die in between. What is checked: every byte that is read
//! is the next one of its stream, nothing panics, and in the end nothing is left. `SIDESTEP_SEEDS=from..to` runs more.

use super::*;
use crate::socket::readiness::{ET, ONESHOT};
use crate::socket::{EpollEvent, How, SetId};
use crate::testing::Wire;

/// One end of a stream, as the test knows it.
struct End {
    host: usize,
    proc: u16,
    socket: SocketId,
    /// Names the stream: the client's port.
    port: u16,
    written: usize,
    read: usize,
}

fn byte(port: u16, host: usize, at: usize) -> u8 {
    (at.wrapping_mul(31) ^ usize::from(port) ^ host << 7 ^ at >> 8) as u8
}

struct Chaos {
    net: Net,
    listener: SocketId,
    sets: Vec<SetId>,
    ends: Vec<End>,
}

impl Chaos {
    fn new(seed: u64) -> Chaos {
        // Every other host has hardly any frames.
        let frames = |n: u8| if (seed + u64::from(n)).is_multiple_of(2) { 1024 } else { 160 };
        let config = |n| HostConfig { frames: frames(n), time_waits: 16, ..HostConfig::nth(n) };
        let mut net = Net::with(seed, config(1), config(2));
        let mut some = |most: u64| net.random.below(most) as u32;
        net.wire = Wire { delay_us: 100, loss: some(60), duplicate: some(30), reorder: some(100), corrupt: some(10) };
        let listener = listen(&mut net, 4);
        let sets = (0..2).map(|host| net.hosts[host].engine().epoll_open(PROC).unwrap()).collect();
        Chaos { net, listener, sets, ends: vec![] }
    }

    fn below(&mut self, n: usize) -> usize {
        self.net.random.below(n as u64) as usize
    }

    fn step(&mut self) {
        let time = [0, 10, 150, 3_000, 250_000][self.below(5)];
        self.net.run_for(time);
        let action = self.below(40);
        match action {
            0..=3 => self.open(),
            4..=8 => self.accept(),
            9..=12 => self.collect(),
            13 if self.below(10) == 0 => self.kill(),
            _ if self.ends.is_empty() => {}
            _ => {
                let i = self.below(self.ends.len());
                match action {
                    13..=23 => self.write(i),
                    24..=35 => self.read(i),
                    36 => self.shut(i),
                    37 => self.watch(i),
                    _ if self.below(2) == 0 => self.let_go(i),
                    _ => {}
                }
            }
        }
    }

    fn open(&mut self) {
        let (now, remote, proc) = (self.net.now(), self.net.endpoint(SERVER, PORT), 10 + self.below(3) as u16);
        let mut engine = self.net.hosts[CLIENT].engine();
        let Ok(socket) = engine.open_stream(Family::V4, false, proc) else { return };
        if engine.connect(now, socket, None, remote) != Err(Errno::EINPROGRESS) {
            return engine.release(now, socket, proc).unwrap();
        }
        let port = engine.local_endpoint(socket).unwrap().port;
        self.ends.push(End { host: CLIENT, proc, socket, port, written: 0, read: 0 });
    }

    fn accept(&mut self) {
        let (now, proc) = (self.net.now(), 10 + self.below(3) as u16);
        if let Ok((socket, peer)) = self.net.hosts[SERVER].engine().accept(now, self.listener, proc) {
            self.ends.push(End { host: SERVER, proc, socket, port: peer.port, written: 0, read: 0 });
        }
    }

    fn write(&mut self, i: usize) {
        let (now, n) = (self.net.now(), [1, 100, 1448, 20_000][self.below(4)]);
        let end = &mut self.ends[i];
        let data: Vec<u8> = (end.written..end.written + n).map(|at| byte(end.port, end.host, at)).collect();
        end.written += self.net.hosts[end.host].engine().send(now, end.socket, &data).unwrap_or(0);
    }

    fn read(&mut self, i: usize) {
        let (now, n) = (self.net.now(), [1, 700, 100_000][self.below(3)]);
        let end = &mut self.ends[i];
        let mut out = vec![0; n];
        let n = self.net.hosts[end.host].engine().recv(now, end.socket, &mut out, false).unwrap_or(0);
        for (k, b) in out[..n].iter().enumerate() {
            assert_eq!(*b, byte(end.port, 1 - end.host, end.read + k), "byte {} of port {}", end.read + k, end.port);
        }
        end.read += n;
    }

    fn shut(&mut self, i: usize) {
        let (now, how) = (self.net.now(), [How::Read, How::Write, How::Both][self.below(3)]);
        let _ = self.net.hosts[self.ends[i].host].engine().shutdown(now, self.ends[i].socket, how);
    }

    fn watch(&mut self, i: usize) {
        let (flags, key) = ([0, ET, ONESHOT][self.below(3)], self.below(3) as u32);
        let (set, socket) = (self.sets[self.ends[i].host], self.ends[i].socket);
        let mut engine = self.net.hosts[self.ends[i].host].engine();
        if engine.epoll_add(set, socket, key, IN | OUT | flags, 0) == Err(Errno::EEXIST) {
            engine.epoll_delete(set, socket, key).unwrap();
        }
    }

    fn collect(&mut self) {
        let host = self.below(2);
        let mut out = [EpollEvent::default(); 3];
        let n = self.net.hosts[host].engine().epoll_collect(self.sets[host], &mut out).unwrap();
        assert!(out[..n].iter().all(|e| { e.events } != 0));
    }

    fn let_go(&mut self, i: usize) {
        let (end, now) = (self.ends.swap_remove(i), self.net.now());
        let mut engine = self.net.hosts[end.host].engine();
        if end.written % 3 == 0 {
            engine.set_linger(end.socket, Some(0)).unwrap();
        }
        engine.release(now, end.socket, end.proc).unwrap();
    }

    fn kill(&mut self) {
        let (host, proc, now) = (self.below(2), 10 + self.below(3) as u16, self.net.now());
        self.net.hosts[host].engine().release_process(now, proc);
        self.ends.retain(|end| (end.host, end.proc) != (host, proc));
    }

    fn end(mut self) {
        let now = self.net.now();
        for proc in 10..13 {
            self.net.hosts.iter_mut().for_each(|h| h.engine().release_process(now, proc));
        }
        finish(self.net);
    }
}

#[expect(clippy::disallowed_methods, reason = "a test asks which seeds to run")]
fn seeds() -> core::ops::Range<u64> {
    let given = std::env::var("SIDESTEP_SEEDS").ok();
    let parsed = given.as_deref().and_then(|s| s.split_once("..")).map(|(a, b)| (a.parse(), b.parse()));
    if let Some((Ok(from), Ok(to))) = parsed { from..to } else { 0..60 }
}

#[test]
fn anything_may_happen() {
    for seed in seeds() {
        // The seed is the bug report: it is printed when the test fails.
        println!("seed {seed}");
        let mut chaos = Chaos::new(seed);
        for _ in 0..400 {
            chaos.step();
        }
        chaos.end();
    }
}
