//! Octets become a history: one host, a connection of it, and a peer that sends whatever the octets say. For fuzzers.
//!
//! Checked are what holds inside a host whatever comes ([`hosts`]), and that nothing is left in the end.

use super::alloc::format;
use super::alloc::string::String;
use super::alloc::vec;
use super::alloc::vec::Vec;
use super::checks::hosts;
use super::checks::sight::{SYN, look};
use super::{Host, HostConfig};
use crate::addr::{Endpoint, Ip, Mac};
use crate::socket::{Errno, Family, How, SocketId, SocketOption};
use crate::tcp::Options;
use crate::time::{Instant, SEC};
use crate::tunables::Tunables;
use crate::wire::checksum::Sum;
use crate::wire::ethernet::{self, Tags};
use crate::wire::ipv4::{self, Service};

const PROC: u16 = 1;
const PORT: u16 = 80;
const PEER: [u8; 4] = [10, 0, 0, 2];
const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
/// Deeds at most: more show nothing that fewer do not.
const DEEDS_MAX: usize = 300;
/// So long after the last deed, everything is over: TCP_USER_TIMEOUT takes 2^31 milliseconds, which are 25 days, and holds for
/// a connection that nobody holds any more as well (as on Linux).
const END_US: u64 = 26 * 24 * 3600 * SEC;

/// The octets, read from the front; zeroes behind the end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn long(&mut self) -> u32 {
        u32::from(self.word()) << 16 | u32::from(self.word())
    }

    /// A number near zero, seldom one far from it.
    fn near(&mut self) -> u32 {
        match self.byte() {
            255 => self.long(),
            254 => u32::from(self.word()).wrapping_sub(1 << 15),
            small => u32::from(small).wrapping_sub(100),
        }
    }
}

/// The host, its sockets, and what the peer knows.
struct Torture {
    host: Host,
    now: Instant,
    sockets: Vec<SocketId>,
    listener: Option<SocketId>,
    port: u16,
    /// The peer's next number, and the host's as last seen.
    seq: u32,
    ack: u32,
    timestamp: Option<(u32, u32)>,
}

/// Runs the history that `data` tells; says what was wrong.
pub fn torture(data: &[u8]) -> Result<(), String> {
    let mut input = Input(data);
    let mut torture = Torture::new(&mut input);
    for _ in 0..DEEDS_MAX {
        if input.0.is_empty() {
            break;
        }
        torture.deed(&mut input);
        torture.pump();
        hosts::check(&mut torture.host, torture.now)?;
        hosts::check_books(&mut torture.host)?;
    }
    torture.end()
}

impl Torture {
    fn new(input: &mut Input<'_>) -> Torture {
        let bits = input.word();
        let bit = |n: u16| u32::from(bits >> n & 1);
        let tunables = Tunables {
            timestamps: bit(0),
            sack: bit(1),
            window_scaling: bit(2),
            ecn: bit(3) * 2,
            syncookies: bit(4) * 2,
            fastopen: bit(5) * 3,
            mtu_probing: bit(6),
            congestion: bit(7) + bit(8),
            rmem_bytes: [4096, 8192 << (bit(9) * 3), 8192 << (bit(9) * 5)],
            wmem_bytes: [4096, 4096 << (bit(10) * 3), 4096 << (bit(10) * 5)],
            ..Tunables::default()
        };
        let config = HostConfig { frames: 96, conns: 8, sockets: 8, time_waits: 4, tunables, ..HostConfig::nth(1) };
        let mut host = Host::new(config, 7);
        host.engine().net_mut().set_neighbour(&Ip::v4(PEER), Tags::NONE, Some(PEER_MAC));
        let mut engine = host.engine();
        let options = Options::new(engine.tunables());
        let listener = engine.listen(Endpoint::new(Ip::UNSPECIFIED, PORT), false, 2, &options, PROC).ok();
        let now = Instant::from_micros(SEC);
        let (sockets, timestamp) = (Vec::new(), (bit(0) == 1).then_some((1, 0)));
        let mut torture = Torture { host, now, sockets, listener, port: PORT, seq: 1000, ack: 0, timestamp };
        torture.shake_hands(bit(11) == 1);
        torture
    }

    /// Most inputs should get past the handshake: it is done for them. The peer's port is 4000, or what was connected to.
    fn shake_hands(&mut self, is_active: bool) {
        let mss_and_scale = [2, 4, 5, 180, 1, 3, 3, 2, 4, 2, 1, 1];
        if is_active {
            let mut engine = self.host.engine();
            let Ok(socket) = engine.open_stream(Family::V4, false, PROC) else { return };
            let remote = Endpoint::new(Ip::v4(PEER), 4000);
            if engine.connect(self.now, socket, None, remote) != Err(Errno::EINPROGRESS) {
                return;
            }
            self.port = engine.local_endpoint(socket).map_or(PORT, |e| e.port);
            self.sockets.push(socket);
            self.pump();
            self.inject(0x12, 0, 0, 60_000, &mss_and_scale, 0);
            self.seq += 1;
        } else {
            self.inject(0x02, 0, 0, 60_000, &mss_and_scale, 0);
            self.seq += 1;
            self.pump();
            self.inject(0x10, 0, 0, 60_000, &[], 0);
            self.accept();
        }
        self.pump();
    }

    fn accept(&mut self) {
        let Some(listener) = self.listener else { return };
        if let Ok((socket, _)) = self.host.engine().accept(self.now, listener, PROC) {
            self.sockets.push(socket);
        }
    }

    /// A segment of the peer's: numbers count from where it is, and from what it last heard.
    fn inject(&mut self, flags: u8, seq: u32, ack: u32, window: u16, options: &[u8], payload: usize) {
        let mut all = Vec::new();
        if let Some((value, echo)) = self.timestamp {
            all.extend_from_slice(&[1, 1, 8, 10]);
            all.extend_from_slice(&value.to_be_bytes());
            all.extend_from_slice(&echo.to_be_bytes());
        }
        all.extend_from_slice(options);
        all.truncate(40);
        all.resize(all.len().next_multiple_of(4), 0);
        let mut tcp = Vec::new();
        tcp.extend_from_slice(&4000u16.to_be_bytes());
        tcp.extend_from_slice(&self.port.to_be_bytes());
        tcp.extend_from_slice(&self.seq.wrapping_add(seq).to_be_bytes());
        tcp.extend_from_slice(&self.ack.wrapping_add(ack).to_be_bytes());
        tcp.extend_from_slice(&[((20 + all.len()) as u8 / 4) << 4, flags]);
        tcp.extend_from_slice(&window.to_be_bytes());
        tcp.extend_from_slice(&[0, 0, 0, flags]);
        tcp.extend_from_slice(&all);
        tcp.resize(tcp.len() + payload, flags);
        let (src, dst) = (Ip::v4(PEER), self.host.config.ip());
        let sum = Sum::pseudo_header(&src, &dst, 6, tcp.len() as u16).add_bytes(&tcp).checksum();
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut frame = vec![0; 34];
        ethernet::emit(
            &ethernet::Header { dst: self.host.config.mac, src: PEER_MAC, tags: Tags::NONE, ethertype: ethernet::IPV4 },
            &mut frame,
        );
        ipv4::emit(&src, &dst, 6, Service { tos: 0, ttl: 64 }, tcp.len() as u16, &mut frame[14..]);
        frame.extend_from_slice(&tcp);
        self.host.receive(self.now, &frame);
    }

    /// Takes what the host sends; the peer learns its numbers.
    fn pump(&mut self) {
        loop {
            let mut engine = self.host.engine();
            let Some(tx) = engine.poll_transmit(self.now) else { return };
            let at = usize::from(tx.off);
            let sight = look(&engine.frames().bytes(tx.frame)[at..at + usize::from(tx.len)]);
            self.host.complete(tx.frame);
            let Some(sight) = sight else { continue };
            let end = sight.text().wrapping_add(sight.payload.len() as u32);
            if sight.has(SYN) || end.wrapping_sub(self.ack) < 1 << 20 {
                self.ack = end;
            }
            if let (Some((value, _)), Some(mine)) = (sight.timestamp, &mut self.timestamp) {
                mine.1 = value;
            }
        }
    }

    fn deed(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0..=5 => self.segment(input),
            6 => self.each(|host, now, s| _ = host.engine().send(now, s, &[7; 3000])),
            7 => self.each(|host, now, s| _ = host.engine().recv(now, s, &mut [0; 2000], false)),
            8 => {
                let how = [How::Read, How::Write, How::Both][usize::from(input.byte() % 3)];
                self.each(|host, now, s| _ = host.engine().shutdown(now, s, how));
            }
            9 | 10 => self.wait(1 << (input.byte() % 28)),
            11 => self.set_option(input),
            12 => {
                let linger = if input.byte().is_multiple_of(2) { Some(0) } else { None };
                if let Some(socket) = self.sockets.pop() {
                    let _ = self.host.engine().set_linger(socket, linger);
                    let _ = self.host.engine().release(self.now, socket, PROC);
                }
            }
            13 => self.accept(),
            14 => {
                let length = usize::from(input.byte());
                let mut frame: Vec<u8> = (0..length).map(|_| input.byte()).collect();
                if length >= 6 {
                    frame[..6].copy_from_slice(&self.host.config.mac.0);
                }
                self.host.receive(self.now, &frame);
            }
            _ => {
                let (value, ours) = (input.near(), self.timestamp);
                self.timestamp = ours.map(|(mine, echo)| (mine.wrapping_add(value), echo));
            }
        }
    }

    fn each(&mut self, deed: impl Fn(&mut Host, Instant, SocketId)) {
        for i in 0..self.sockets.len() {
            deed(&mut self.host, self.now, self.sockets[i]);
        }
    }

    fn segment(&mut self, input: &mut Input<'_>) {
        let (flags, seq, ack, window) = (input.byte(), input.near(), input.near(), input.word());
        let payload = usize::from(input.byte()) * 6 % 1400;
        let mut options = Vec::new();
        match input.byte() % 4 {
            0 | 1 => {}
            2 => {
                let blocks = 1 + input.byte() % 4;
                options.extend_from_slice(&[1, 1, 5, 2 + 8 * blocks]);
                for _ in 0..2 * blocks {
                    options.extend_from_slice(&self.ack.wrapping_add(input.near()).to_be_bytes());
                }
            }
            _ => options = (0..input.byte() % 40).map(|_| input.byte()).collect(),
        }
        self.inject(flags, seq, ack, window, &options, payload);
        if seq == 0 {
            self.seq = self.seq.wrapping_add(payload as u32);
        }
    }

    fn set_option(&mut self, input: &mut Input<'_>) {
        use SocketOption::*;
        let all = [
            NoDelay,
            Cork,
            KeepAlive,
            KeepIdle,
            KeepInterval,
            KeepCount,
            UserTimeout,
            FinTimeout,
            MaxSegment,
            SendBuffer,
            ReceiveBuffer,
            ReceiveLowat,
            QuickAck,
        ];
        let (option, value) = (all[usize::from(input.byte()) % all.len()], input.near() as i32);
        self.each(|host, now, s| _ = host.engine().set_option(now, s, option, value));
    }

    /// Time passes, deadline by deadline.
    fn wait(&mut self, us: u64) {
        let until = self.now.after_us(us);
        while let Some(at) = self.host.engine().next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.host.watch_frames();
            self.host.engine().handle_timers(self.now);
            self.pump();
        }
        self.now = until;
    }

    fn end(mut self) -> Result<(), String> {
        self.host.engine().release_process(self.now, PROC);
        self.pump();
        self.wait(END_US);
        hosts::check_empty(&mut self.host).map_err(|why| format!("in the end: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_histories() {
        let mut random = crate::testing::Random::new(5);
        for _ in 0..300 {
            let data: Vec<u8> = (0..random.below(400)).map(|_| random.number() as u8).collect();
            assert_eq!(torture(&data), Ok(()), "{data:?}");
        }
    }
}
