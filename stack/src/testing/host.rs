//! One stack in ordinary memory; or several that share a UMEM, and the part of the XDP program that chooses among them.

use super::alloc::boxed::Box;
use super::alloc::vec::Vec;
use crate::addr::{Endpoint, Flow, Ip, Mac};
use crate::buf::{FRAME_SIZE, FrameMeta, FrameShared, Frames, FreeList, Pressure};
use crate::counters::Counters;
use crate::engine::{Config, Engine, Parts, StackState};
use crate::ip;
use crate::ip::tables::{Address, Route, RouteKind};
use crate::link::{self, Tags};
use crate::socket::{EpollItem, EpollSet, PORTS_PER_BLOCK, Socket, Unconnected};
use crate::tcp::{Context, Options, Tcb, TimeWait};
use crate::time::Instant;
use crate::tunables::Tunables;
use crate::wire::tcp;

/// The capacities and the addresses of a host.
#[derive(Clone, Debug)]
pub struct HostConfig {
    pub v4: [u8; 4],
    pub v6: Ip,
    pub mac: Mac,
    pub mtu: u16,
    pub device_is_virtual: bool,
    pub frames: u32,
    pub conns: u32,
    pub time_waits: u32,
    pub sockets: u32,
    /// Stacks, with as many slots each; the frames are shared out.
    pub stacks: usize,
    pub tunables: Tunables,
}

impl HostConfig {
    /// The `n`th host of a network: 10.0.0.n, fd00::n.
    pub fn nth(n: u8) -> HostConfig {
        let mut v6 = Ip([0; 16]);
        (v6.0[0], v6.0[15]) = (0xfd, n);
        HostConfig {
            v4: [10, 0, 0, n],
            v6,
            mac: Mac([2, 0, 0, 0, 0, n]),
            mtu: 1500,
            device_is_virtual: false,
            frames: 4096,
            conns: 64,
            time_waits: 64,
            sockets: 64,
            stacks: 1,
            tunables: Tunables::default(),
        }
    }

    pub fn ip(&self) -> Ip {
        Ip::v4(self.v4)
    }
}

/// A host's memory. [`Host::engine`] is the engine upon it, of one stack at a time.
pub struct Host {
    pub config: HostConfig,
    /// Which stack's [`Host::engine`] is, and which one takes the flows that are not pinned.
    pub present: usize,
    pub home: usize,
    pins: Vec<(Flow, usize)>,
    stacks: Vec<Memory>,
    frame_meta: Vec<FrameMeta>,
    frame_shared: Vec<FrameShared>,
    umem: Vec<u8>,
}

/// What a stack has of its own.
struct Memory {
    state: Box<StackState>,
    conns: Vec<Tcb>,
    time_waits: Vec<TimeWait>,
    sockets: Vec<Socket>,
    unconnected: Vec<Unconnected>,
    epoll_sets: Vec<EpollSet>,
    epoll_items: Vec<EpollItem>,
    flow_table: Vec<u32>,
}

impl Memory {
    fn new(config: &HostConfig) -> Memory {
        let time_wait = TimeWait::from_tcb(&blank_tcb(&config.tunables), Instant::ZERO);
        Memory {
            state: Box::default(),
            conns: (0..config.conns).map(|_| blank_tcb(&config.tunables)).collect(),
            time_waits: (0..config.time_waits).map(|_| time_wait).collect(),
            sockets: (0..config.sockets).map(|_| Socket::empty()).collect(),
            unconnected: (0..config.sockets).map(|_| Unconnected::empty()).collect(),
            epoll_sets: (0..16).map(|_| EpollSet::empty()).collect(),
            epoll_items: (0..config.sockets * 2).map(|_| EpollItem::empty()).collect(),
            flow_table: (0..config.conns.next_power_of_two()).map(|_| 0).collect(),
        }
    }
}

/// A stack below which others give it frames.
const FREE_LOW: u32 = 128;

impl Host {
    pub fn new(config: HostConfig, secret: u64) -> Host {
        let mut host = Host {
            present: 0,
            home: 0,
            pins: Vec::new(),
            stacks: (0..config.stacks).map(|_| Memory::new(&config)).collect(),
            frame_meta: (0..config.frames).map(|_| FrameMeta::default()).collect(),
            frame_shared: (0..config.frames).map(|_| FrameShared::default()).collect(),
            umem: (0..config.frames as usize * FRAME_SIZE).map(|_| 0).collect(),
            config,
        };
        for stack in 0..host.config.stacks {
            host.start(stack, secret);
        }
        host
    }

    /// As in an arena, the stacks share the secret of sequence numbers and cookies, and no other.
    fn start(&mut self, stack: usize, secret: u64) {
        let own = secret.wrapping_mul(2 * stack as u64 + 1);
        let HostConfig { v4, v6, mac, mtu, device_is_virtual, frames, tunables, stacks, .. } = self.config.clone();
        let config = Config {
            mac,
            mtu,
            device_is_virtual,
            isn_secret: [secret, !secret],
            hash_secret: [own.rotate_left(7) | 1, !own | 1],
            ..Config::default()
        };
        self.stacks[stack].state.init(&config, &tunables);
        let mut engine = self.engine_of(stack);
        for id in (0..frames).filter(|id| *id as usize % stacks == stack) {
            engine.frames_mut().push_free(id);
        }
        let net = engine.net_mut();
        net.set_address(Address::new(Ip::v4(v4), 120, Tags::NONE));
        net.set_address(Address::new(v6, 64, Tags::NONE));
        for (prefix, bits) in [(Ip::v4([10, 0, 0, 0]), 120), (v6, 64)] {
            net.set_route(Route { prefix, bits, kind: RouteKind::ViaDevice, ..Route::default() });
        }
        const BLOCKS: u8 = 16;
        (0..BLOCKS).for_each(|n| assert!(engine.add_port_block(128 + BLOCKS * stack as u8 + n)));
        engine.begin_ports_at((config.hash_secret[0] % (u64::from(BLOCKS) * u64::from(PORTS_PER_BLOCK))) as u32);
    }

    /// The engine, for as long as it is looked at.
    pub fn engine(&mut self) -> Engine<'_> {
        self.engine_of(self.present)
    }

    pub fn engine_of(&mut self, stack: usize) -> Engine<'_> {
        let memory = &mut self.stacks[stack];
        Engine::new(Parts {
            state: &mut memory.state,
            conns: &mut memory.conns,
            time_waits: &mut memory.time_waits,
            sockets: &mut memory.sockets,
            unconnected: &mut memory.unconnected,
            epoll_sets: &mut memory.epoll_sets,
            epoll_items: &mut memory.epoll_items,
            flow_table: &mut memory.flow_table,
            frame_meta: &mut self.frame_meta,
            frame_shared: &self.frame_shared,
            umem: &mut self.umem,
            owner: stack as u16 + 1,
        })
    }

    /// The machine starts again: same addresses, no memory of anything. What the "kernel" still had to send is gone.
    pub fn reboot(&mut self, secret: u64) {
        *self = Host::new(self.config.clone(), secret);
    }

    /// The interface gets another hardware address.
    pub fn set_mac(&mut self, now: Instant, mac: Mac) {
        let mtu = self.config.mtu;
        self.config.mac = mac;
        self.engine().set_device(now, mac, mtu);
    }

    /// The kernel is done with a frame.
    pub fn complete(&mut self, frame: u32) {
        let shared = &self.frame_shared[frame as usize];
        if shared.complete() {
            // What is the pool's since its stack started over: here the first stack is the pool.
            let owner = usize::from(shared.owner().max(1));
            self.engine_of(owner - 1).frames_mut().push_free(frame);
        }
    }

    /// As the runtime does with every poll: says how scarce frames are.
    pub fn watch_frames(&mut self) {
        self.share_out_frames();
        let (all, free) = (self.config.frames, self.free_frames());
        for stack in 0..self.stacks.len() {
            self.engine_of(stack).frames_mut().set_pressure(Pressure::of(free, all));
        }
    }

    fn free_frames(&mut self) -> u32 {
        let count = |engine: &mut Engine<'_>| {
            engine.frames_mut().collect_returned();
            engine.frames().free_count()
        };
        (0..self.stacks.len()).map(|stack| count(&mut self.engine_of(stack))).sum()
    }

    /// Who has few frames gets some of whoever has most.
    fn share_out_frames(&mut self) {
        for poor in 0..self.stacks.len() {
            let free = |host: &mut Host, stack| host.engine_of(stack).frames().free_count();
            let Some(rich) = (0..self.stacks.len()).max_by_key(|stack| free(self, *stack)) else { return };
            while free(self, poor) < FREE_LOW.min(free(self, rich)) && rich != poor {
                let Some(frame) = self.engine_of(rich).frames_mut().alloc() else { break };
                self.engine_of(poor).frames_mut().push_free(frame);
            }
        }
    }

    /// When some stack wants to be served next.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        (0..self.stacks.len()).filter_map(|stack| self.engine_of(stack).next_deadline()).min()
    }

    pub fn handle_timers(&mut self, now: Instant) {
        (0..self.stacks.len()).for_each(|stack| self.engine_of(stack).handle_timers(now));
    }

    /// The flow is steered to this stack.
    pub fn pin(&mut self, flow: &Flow, stack: usize) {
        self.pins.retain(|(pinned, _)| pinned != flow);
        self.pins.push((*flow, stack));
    }

    /// The stack that a frame is for.
    fn steer(&self, bytes: &[u8]) -> usize {
        let pin = |flow: Flow| self.pins.iter().find(|(pinned, _)| *pinned == flow).map(|(_, stack)| *stack);
        flow_of(bytes, self.config.mac).and_then(pin).unwrap_or(self.home)
    }

    /// A frame that arrived on the wire; false when there was no frame to put it in.
    pub fn receive(&mut self, now: Instant, bytes: &[u8]) -> bool {
        const OFF: u16 = 256; // XDP_PACKET_HEADROOM
        self.watch_frames();
        let stack = if self.stacks.len() == 1 { 0 } else { self.steer(bytes) };
        let mut engine = self.engine_of(stack);
        let Some(frame) = engine.frames_mut().alloc() else { return false };
        let at = usize::from(OFF);
        engine.frames_mut().bytes_mut(frame)[at..at + bytes.len()].copy_from_slice(bytes);
        engine.handle_frame(now, frame, OFF, bytes.len() as u16, 0);
        true
    }

    /// Frames that are neither free nor on their way: what the stacks hold.
    pub fn frames_held(&mut self) -> u32 {
        self.config.frames - self.free_frames()
    }

    /// How many frames are a stack's, by the frames' own word.
    pub fn frames_owned(&self, stack: usize) -> u32 {
        self.frame_shared.iter().filter(|frame| usize::from(frame.owner()) == stack + 1).count() as u32
    }
}

/// The flow of a TCP packet that is addressed to `mac`.
fn flow_of(bytes: &[u8], mac: Mac) -> Option<Flow> {
    let received = link::receive(bytes, mac).ok()?;
    let packet = ip::receive(bytes, received.network, received.family).ok()?;
    let ports = tcp::ports(bytes.get(packet.payload_off..)?)?;
    let local = Endpoint::new(packet.dst, ports.destination);
    (packet.protocol == ip::TCP).then_some(Flow { local, remote: Endpoint::new(packet.src, ports.source) })
}

/// A connection that never was: something to fill a slab with.
fn blank_tcb(tunables: &Tunables) -> Tcb {
    let (mut free, mut counters) = (FreeList::default(), Counters::default());
    let mut frames = Frames::new(&mut [], &[], &mut [], &mut free, 1);
    let mut cx = Context { now: Instant::ZERO, frames: &mut frames, counters: &mut counters, tunables, cookie: None };
    Tcb::connect(&mut cx, Flow::default(), 0, 0, 1460, &Options::new(tunables))
}
