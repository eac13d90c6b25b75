//! The stack a script talks to: one host in virtual time, and the numbers that make absolute ones relative.

use crate::packet::{self, ACK, Addr, Opt, Packet, SYN};
use sidestep_stack::addr::{Endpoint, Ip, Mac};
use sidestep_stack::link::Tags;
use sidestep_stack::socket::{Errno, SocketId};
use sidestep_stack::testing::{Host, HostConfig};
use sidestep_stack::time::Instant;
use std::collections::{BTreeMap, VecDeque};

/// The peer's first sequence number lies just below the wrap: so that every script that sends some data crosses it.
const PEER_ISS: u32 = 0xffff_f800;
/// What our first sequence number counts as before one was seen.
const UNKNOWN_ISS: u32 = 0;
pub(crate) const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The scripts' peer; our side is host 1.
const PEER: u8 = 2;
const START_US: u64 = 10_000_000;

/// The octet of a stream at a sequence number relative to the first: 1 is the first octet.
pub(crate) fn pattern(relative: u32) -> u8 {
    (relative % 251) as u8
}

/// A connection, as the peer sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flow {
    pub(crate) peer_port: u16,
    pub(crate) our_port: u16,
    pub(crate) iss: Option<u32>,
    pub(crate) ts_base: Option<u32>,
    pub(crate) socket: Option<SocketId>,
    /// Octets written and read by the application.
    pub(crate) written: u32,
    pub(crate) read: u32,
}

pub(crate) struct World {
    pub(crate) host: Host,
    pub(crate) now: Instant,
    /// What the stack sent and no line has asked for yet.
    pub(crate) sent: VecDeque<(Instant, Packet)>,
    pub(crate) flows: BTreeMap<u32, Flow>,
    pub(crate) flow: u32,
    pub(crate) listener: Option<SocketId>,
    pub(crate) numbers: BTreeMap<String, i64>,
    pub(crate) is_v6: bool,
    /// The last Fast Open cookie we granted.
    pub(crate) cookie: Vec<u8>,
    pub(crate) drops_before: Vec<u64>,
    pub(crate) counters_before: BTreeMap<String, u64>,
    pub(crate) trace: Vec<String>,
}

impl World {
    pub(crate) fn new(config: HostConfig, is_v6: bool) -> World {
        let mut host = Host::new(config, 0x5ca1_ab1e);
        let peer = HostConfig::nth(PEER);
        for ip in [peer.ip(), peer.v6] {
            host.engine().net_mut().set_neighbour(&ip, Tags::NONE, Some(Mac(PEER_MAC)));
        }
        let mut world = World {
            host,
            now: Instant::from_micros(START_US),
            sent: VecDeque::new(),
            flows: BTreeMap::new(),
            flow: 1,
            listener: None,
            numbers: BTreeMap::new(),
            is_v6,
            cookie: Vec::new(),
            drops_before: Vec::new(),
            counters_before: BTreeMap::new(),
            trace: Vec::new(),
        };
        world.choose_flow(1);
        world
    }

    /// The flow that lines speak of from now on: by the peer's port.
    pub(crate) fn choose_flow(&mut self, number: u32) {
        self.flow = number;
        let fresh = Flow { peer_port: 40_000 + number as u16, our_port: 80, ..Flow::default() };
        self.flows.entry(number).or_insert(fresh);
    }

    pub(crate) fn flow(&self) -> &Flow {
        &self.flows[&self.flow]
    }

    pub(crate) fn flow_mut(&mut self) -> &mut Flow {
        self.flows.get_mut(&self.flow).expect("the flow was chosen")
    }

    pub(crate) fn iss(&self) -> u32 {
        self.flow().iss.unwrap_or(UNKNOWN_ISS)
    }

    pub(crate) fn peer_seq(&self, relative: i64) -> u32 {
        PEER_ISS.wrapping_add(relative as u32)
    }

    pub(crate) fn our_seq(&self, relative: i64) -> u32 {
        self.iss().wrapping_add(relative as u32)
    }

    pub(crate) fn relative_to_peer(&self, seq: u32) -> u32 {
        seq.wrapping_sub(PEER_ISS)
    }

    pub(crate) fn relative_to_us(&self, seq: u32) -> u32 {
        seq.wrapping_sub(self.iss())
    }

    pub(crate) fn peer_endpoint(&self, port: u16) -> Endpoint {
        let peer = HostConfig::nth(PEER);
        Endpoint::new(if self.is_v6 { peer.v6 } else { peer.ip() }, port)
    }

    pub(crate) fn wildcard(&self) -> Ip {
        if self.is_v6 { Ip::UNSPECIFIED } else { Ip::UNSPECIFIED_V4 }
    }

    /// Our address and the peer's.
    pub(crate) fn addresses(&self) -> (Addr, Addr) {
        let (ours, theirs) = (&self.host.config, HostConfig::nth(PEER));
        match self.is_v6 {
            true => (Addr::V6(ours.v6.0), Addr::V6(theirs.v6.0)),
            false => (Addr::V4(ours.v4), Addr::V4(theirs.v4)),
        }
    }

    pub(crate) fn socket(&self) -> Result<SocketId, Errno> {
        self.flow().socket.ok_or(Errno::EBADF)
    }

    /// Puts a frame of the peer on the wire; it arrives at once.
    pub(crate) fn deliver(&mut self, frame: &[u8]) {
        assert!(self.host.receive(self.now, frame), "no frame for what arrives");
        self.collect();
    }

    /// Takes what the stack wants to send now.
    pub(crate) fn collect(&mut self) {
        for _ in 0..100_000 {
            let now = self.now;
            let mut engine = self.host.engine();
            let Some(out) = engine.poll_transmit(now) else { return };
            let at = usize::from(out.off);
            let bytes = engine.frames().bytes(out.frame)[at..at + usize::from(out.len)].to_vec();
            self.host.complete(out.frame);
            let packet = Packet::parse(&bytes).unwrap_or_else(|wrong| panic!("the stack sent a bad frame: {wrong}"));
            self.learn(&packet);
            self.note(">", &packet);
            self.sent.push_back((now, packet));
        }
        panic!("the stack does not stop sending");
    }

    /// Our numbers become known with what we send first.
    fn learn(&mut self, packet: &Packet) {
        let by_port = |flow: &&mut Flow| flow.peer_port == packet.dst_port;
        let Some(flow) = self.flows.values_mut().find(by_port) else { return };
        if packet.has(SYN) {
            flow.iss = Some(packet.seq);
            flow.our_port = packet.src_port;
        }
        for option in packet::read_options(&packet.options) {
            match option {
                Opt::Timestamp(value, _) => flow.ts_base = flow.ts_base.or(Some(value)),
                Opt::FastOpen(cookie) if !cookie.is_empty() => self.cookie = cookie,
                _ => {}
            }
        }
    }

    /// Lets time pass until `until`, or until something was sent.
    pub(crate) fn wait(&mut self, until: Instant) {
        for _ in 0..1_000_000 {
            if !self.sent.is_empty() {
                return;
            }
            let next = self.host.engine().next_deadline().filter(|at| *at <= until);
            let Some(next) = next else {
                self.now = until.max(self.now);
                return;
            };
            self.now = next.max(self.now);
            self.host.watch_frames();
            self.host.engine().handle_timers(self.now);
            self.collect();
        }
        panic!("the stack's timers do not come to rest");
    }

    /// A packet as a line of a script would have it.
    pub(crate) fn describe(&self, packet: &Packet, is_ours: bool) -> String {
        let port = if is_ours { packet.dst_port } else { packet.src_port };
        let (seq, ack) = match is_ours {
            true => (self.relative_to_us(packet.seq), self.relative_to_peer(packet.ack)),
            false => (self.relative_to_peer(packet.seq), self.relative_to_us(packet.ack)),
        };
        let mut text = format!("{} seq {}", packet::flags_text(packet.flags), seq as i32);
        if !packet.payload.is_empty() {
            text += &format!(" len {}", packet.payload.len());
        }
        if packet.has(ACK) {
            text += &format!(" ack {}", ack as i32);
        }
        text += &format!(" win {}", packet.window);
        if packet.urgent != 0 {
            text += &format!(" urg {}", packet.urgent);
        }
        if packet.ecn != 0 {
            text += ["", " ect1", " ect0", " ce"][usize::from(packet.ecn)];
        }
        let options: Vec<String> = self.options_of(packet, is_ours).iter().map(Opt::to_string).collect();
        if !options.is_empty() {
            text += &format!(" <{}>", options.join(", "));
        }
        if port != self.flow().peer_port {
            text += &format!(" (to or from the peer's port {port})");
        }
        text
    }

    /// The options of a packet, with relative numbers.
    pub(crate) fn options_of(&self, packet: &Packet, is_ours: bool) -> Vec<Opt> {
        let base = self.flow().ts_base.unwrap_or(0);
        let relative = |option| match option {
            Opt::Timestamp(value, echo) if is_ours => Opt::Timestamp(value.wrapping_sub(base), echo),
            Opt::Timestamp(value, echo) => Opt::Timestamp(value, echo.wrapping_sub(base)),
            Opt::Sack(blocks) => {
                let one = |seq| if is_ours { self.relative_to_peer(seq) } else { self.relative_to_us(seq) };
                Opt::Sack(blocks.iter().map(|(left, right)| (one(*left), one(*right))).collect())
            }
            other => other,
        };
        packet::read_options(&packet.options).into_iter().map(relative).collect()
    }

    pub(crate) fn note(&mut self, direction: &str, packet: &Packet) {
        let ms = (self.now.micros() - START_US) as f64 / 1000.0;
        let text = self.describe(packet, direction == ">");
        self.trace.push(format!("{ms:>12.3} ms  {direction} {text}"));
    }
}
