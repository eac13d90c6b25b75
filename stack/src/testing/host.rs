//! One stack in ordinary memory.

use super::alloc::boxed::Box;
use super::alloc::vec::Vec;
use crate::addr::{Flow, Ip, Mac};
use crate::buf::{FRAME_SIZE, FrameMeta, FrameShared, Frames, FreeList, Pressure};
use crate::counters::Counters;
use crate::engine::{Config, Engine, Parts, StackState};
use crate::ip::tables::{Address, Route, RouteKind};
use crate::link::Tags;
use crate::socket::{EpollItem, EpollSet, Socket, Unconnected};
use crate::tcp::{Context, Options, Tcb, TimeWait};
use crate::time::Instant;
use crate::tunables::Tunables;

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
            tunables: Tunables::default(),
        }
    }

    pub fn ip(&self) -> Ip {
        Ip::v4(self.v4)
    }
}

/// A stack's memory. [`Host::engine`] is the engine upon it.
pub struct Host {
    pub config: HostConfig,
    state: Box<StackState>,
    conns: Vec<Tcb>,
    time_waits: Vec<TimeWait>,
    sockets: Vec<Socket>,
    unconnected: Vec<Unconnected>,
    epoll_sets: Vec<EpollSet>,
    epoll_items: Vec<EpollItem>,
    flow_table: Vec<u32>,
    frame_meta: Vec<FrameMeta>,
    frame_shared: Vec<FrameShared>,
    umem: Vec<u8>,
}

const OWNER: u16 = 1;

impl Host {
    pub fn new(config: HostConfig, secret: u64) -> Host {
        let conns: Vec<Tcb> = (0..config.conns).map(|_| blank_tcb(&config.tunables)).collect();
        let time_wait = TimeWait::from_tcb(&blank_tcb(&config.tunables), Instant::ZERO);
        let mut host = Host {
            state: Box::default(),
            time_waits: (0..config.time_waits).map(|_| time_wait).collect(),
            sockets: (0..config.sockets).map(|_| Socket::empty()).collect(),
            unconnected: (0..config.sockets).map(|_| Unconnected::empty()).collect(),
            epoll_sets: (0..16).map(|_| EpollSet::empty()).collect(),
            epoll_items: (0..config.sockets * 2).map(|_| EpollItem::empty()).collect(),
            flow_table: (0..config.conns.next_power_of_two()).map(|_| 0).collect(),
            frame_meta: (0..config.frames).map(|_| FrameMeta::default()).collect(),
            frame_shared: (0..config.frames).map(|_| FrameShared::default()).collect(),
            umem: (0..config.frames as usize * FRAME_SIZE).map(|_| 0).collect(),
            conns,
            config,
        };
        host.start(secret);
        host
    }

    fn start(&mut self, secret: u64) {
        let HostConfig { v4, v6, mac, mtu, device_is_virtual, frames, tunables, .. } = self.config.clone();
        let config = Config {
            mac,
            mtu,
            device_is_virtual,
            isn_secret: [secret, !secret],
            hash_secret: [secret.rotate_left(7) | 1, !secret | 1],
            ..Config::default()
        };
        self.state.init(&config, &tunables);
        let mut engine = self.engine();
        for id in 0..frames {
            engine.frames_mut().push_free(id);
        }
        let net = engine.net_mut();
        net.set_address(Address::new(Ip::v4(v4), 120, Tags::NONE));
        net.set_address(Address::new(v6, 64, Tags::NONE));
        for (prefix, bits) in [(Ip::v4([10, 0, 0, 0]), 120), (v6, 64)] {
            net.set_route(Route { prefix, bits, kind: RouteKind::ViaDevice, ..Route::default() });
        }
        engine.add_port_block(32768, 4096);
    }

    /// The engine, for as long as it is looked at.
    pub fn engine(&mut self) -> Engine<'_> {
        Engine::new(Parts {
            state: &mut self.state,
            conns: &mut self.conns,
            time_waits: &mut self.time_waits,
            sockets: &mut self.sockets,
            unconnected: &mut self.unconnected,
            epoll_sets: &mut self.epoll_sets,
            epoll_items: &mut self.epoll_items,
            flow_table: &mut self.flow_table,
            frame_meta: &mut self.frame_meta,
            frame_shared: &self.frame_shared,
            umem: &mut self.umem,
            owner: OWNER,
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
        if self.frame_shared[frame as usize].complete() {
            self.engine().frames_mut().push_free(frame);
        }
    }

    /// As the runtime does with every poll: says how scarce frames are.
    pub fn watch_frames(&mut self) {
        let all = self.config.frames;
        let mut engine = self.engine();
        engine.frames_mut().collect_returned();
        let free = engine.frames().free_count();
        engine.frames_mut().set_pressure(Pressure::of(free, all));
    }

    /// A frame that arrived on the wire; false when there was no frame to put it in.
    pub fn receive(&mut self, now: Instant, bytes: &[u8]) -> bool {
        const OFF: u16 = 256; // XDP_PACKET_HEADROOM
        self.watch_frames();
        let mut engine = self.engine();
        let Some(frame) = engine.frames_mut().alloc() else { return false };
        let at = usize::from(OFF);
        engine.frames_mut().bytes_mut(frame)[at..at + bytes.len()].copy_from_slice(bytes);
        engine.handle_frame(now, frame, OFF, bytes.len() as u16, 0);
        true
    }

    /// Frames that are neither free nor on their way: what the stack holds.
    pub fn frames_held(&mut self) -> u32 {
        let total = self.config.frames;
        let mut engine = self.engine();
        engine.frames_mut().collect_returned();
        total - engine.frames().free_count()
    }
}

/// A connection that never was: something to fill a slab with.
fn blank_tcb(tunables: &Tunables) -> Tcb {
    let (mut free, mut counters) = (FreeList::default(), Counters::default());
    let mut frames = Frames::new(&mut [], &[], &mut [], &mut free, OWNER);
    let mut cx = Context { now: Instant::ZERO, frames: &mut frames, counters: &mut counters, tunables, cookie: None };
    Tcb::connect(&mut cx, Flow::default(), 0, 0, 1460, &Options::new(tunables))
}
