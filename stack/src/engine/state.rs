//! What of a stack lives in shared memory besides its slabs: fixed size, valid when zeroed, usable after `init`.

use super::challenges::ChallengeBudget;
use super::control::ControlRing;
use super::destinations::Destinations;
use super::farewell::Farewells;
use super::fragments::Fragments;
use super::handover::LeftPorts;
use super::owners::Owners;
use super::resets::RecentResets;
use super::strays::Strays;
use crate::addr::Mac;
use crate::buf::{FrameList, FreeList};
use crate::counters::Counters;
use crate::ip::tables::NetTables;
use crate::slab::{NONE, SlabState};
use crate::socket::{EarlyCount, LISTENER_BUCKETS, PortBlocks};
use crate::time::Instant;
use crate::timer_wheel::TimerWheel;
use crate::tunables::Tunables;
use crate::udp::{PORT_BUCKETS, SendQueue};

/// How much of a TCP checksum the stack computes on transmit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum TxChecksum {
    #[default]
    Full,
    /// Only the pseudo-header sum; the device finishes it (AF_XDP transmit metadata).
    PseudoHeader,
}

/// What a stack must know of its device, and its secrets.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Config {
    pub mac: Mac,
    pub mtu: u16,
    pub ifindex: u32,
    /// Accept received TCP checksums that hold only the pseudo-header sum: veth, virtio (the sender expected hardware).
    pub device_is_virtual: bool,
    pub tx_checksum: TxChecksum,
    pub _pad: [u8; 2],
    /// Keys of initial sequence numbers and timestamp offsets, and of the flow hash. From a real random source.
    pub isn_secret: [u64; 2],
    pub hash_secret: [u64; 2],
}

/// A stack's shared state.
#[derive(Debug, Default)]
#[repr(C)]
pub struct StackState {
    pub(crate) slabs: Slabs,
    pub(crate) free_frames: FreeList,
    pub(crate) core: Core,
}

/// Where each slab stands.
#[derive(Default, Debug)]
#[repr(C)]
pub(crate) struct Slabs {
    pub(crate) conns: SlabState,
    pub(crate) time_waits: SlabState,
    pub(crate) sockets: SlabState,
    pub(crate) unconnected: SlabState,
    pub(crate) epoll_sets: SlabState,
    pub(crate) epoll_items: SlabState,
}

/// The part that the engine holds as one.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) tunables: Tunables,
    pub(crate) counters: Counters,
    pub(crate) clock: Clock,
    /// Connections that may have something to send, and those that wait for a neighbour's MAC.
    pub(crate) transmit: Queue,
    pub(crate) waiting: Queue,
    pub(crate) waiting_until: Instant,
    /// Segments that the connection at the front of `transmit` sent in its turn.
    pub(crate) turn: u32,
    /// Bells to ring.
    pub(crate) wakeups: u32,
    /// The generation of the newest socket or epoll set.
    pub(crate) generation: u32,
    /// The tables' generation when the waiting connections last looked.
    pub(crate) waiting_generation: u16,
    /// Where the search for frames held out of order goes on, when frames are nearly gone.
    pub(crate) prune_next: u32,
    /// A write was cut short because frames are few.
    pub(crate) starved: bool,
    /// The daemon was told of what it has to do.
    pub(crate) daemon_told: bool,
    /// A connection came to be accepted, and the daemon does not know yet; the last port at which nobody asks for it.
    pub(crate) has_arrival: bool,
    pub(crate) unwanted_at: u16,
    /// The daemon is to look who listens where a SYN went ([`Strays`]).
    pub(crate) has_stray: bool,
    /// TIME-WAITs, oldest first.
    pub(crate) time_waits: Queue,
    pub(crate) ports: PortBlocks,
    pub(crate) listeners: [u32; LISTENER_BUCKETS],
    pub(crate) control: ControlRing,
    /// Datagram sockets, by local port; and datagrams that are to be sent.
    pub(crate) mailboxes: [u32; PORT_BUCKETS],
    pub(crate) datagrams: SendQueue,
    /// Datagrams that are for the kernel.
    pub(crate) foreign_datagrams: FrameList,
    /// Of the last IPv4 packet that routers may cut up.
    pub(crate) identification: u16,
    pub(crate) wheel: TimerWheel,
    pub(crate) net: NetTables,
    pub(crate) early: EarlyCount,
    pub(crate) challenges: ChallengeBudget,
    pub(crate) destinations: Destinations,
    pub(crate) fragments: Fragments,
    pub(crate) left_ports: LeftPorts,
    pub(crate) resets: RecentResets,
    /// RSTs that are still to be sent for connections that are no more, and whether what remains is being put in order.
    pub(crate) farewells: Farewells,
    pub(crate) is_salvaging: bool,
    pub(crate) strays: Strays,
    /// Whom urgent data is signalled to.
    pub(crate) owners: Owners,
}

impl StackState {
    /// Makes a working stack of zeroed memory. Frames are given with `frames_mut().push_free`.
    pub fn init(&mut self, config: &Config, tunables: &Tunables) {
        self.slabs = Slabs::default();
        self.free_frames = FreeList::default();
        self.core.config = *config;
        self.core.tunables = *tunables;
        self.core.counters = Counters::default();
        self.core.ports = PortBlocks::default();
        self.core.net.clear();
        self.core.left_ports = LeftPorts::default();
        (self.core.farewells, self.core.is_salvaging) = (Farewells::default(), false);
        self.core.forget_everything();
    }
}

impl Default for Core {
    /// What zeroed memory is as good as: something to call [`StackState::init`] on.
    fn default() -> Self {
        Core {
            config: Config::default(),
            tunables: Tunables::default(),
            counters: Counters::default(),
            clock: Clock::default(),
            transmit: Queue::EMPTY,
            waiting: Queue::EMPTY,
            waiting_until: Instant::ZERO,
            turn: 0,
            wakeups: 0,
            generation: 0,
            waiting_generation: 0,
            prune_next: 0,
            starved: false,
            daemon_told: false,
            has_arrival: false,
            unwanted_at: 0,
            has_stray: false,
            time_waits: Queue::EMPTY,
            ports: PortBlocks::default(),
            listeners: [NONE; LISTENER_BUCKETS],
            control: ControlRing::default(),
            mailboxes: [NONE; PORT_BUCKETS],
            datagrams: SendQueue::EMPTY,
            foreign_datagrams: FrameList::EMPTY,
            identification: 0,
            wheel: TimerWheel::default(),
            net: NetTables::default(),
            early: EarlyCount::default(),
            challenges: ChallengeBudget::default(),
            destinations: Destinations::default(),
            fragments: Fragments::EMPTY,
            left_ports: LeftPorts::default(),
            resets: RecentResets::default(),
            farewells: Farewells::default(),
            is_salvaging: false,
            strays: Strays::default(),
            owners: Owners::default(),
        }
    }
}

impl StackState {
    /// Where a stack's free list lies, without a reference to the rest: for whoever returns a frame from outside.
    #[cfg(feature = "linux")]
    pub(crate) fn free_list(state: *mut StackState) -> *const FreeList {
        // The offset of a field; nothing is read.
        state.cast::<u8>().wrapping_add(core::mem::offset_of!(StackState, free_frames)).cast::<FreeList>().cast_const()
    }
}

impl Core {
    /// Empties every list. What they held must be gone already, or go with them.
    pub(crate) fn forget_everything(&mut self) {
        self.transmit = Queue::EMPTY;
        self.waiting = Queue::EMPTY;
        self.waiting_until = Instant::ZERO;
        self.turn = 0;
        self.wakeups = 0;
        self.prune_next = 0;
        self.starved = false;
        self.daemon_told = false;
        self.has_arrival = false;
        self.unwanted_at = 0;
        self.has_stray = false;
        self.strays = Strays::default();
        self.time_waits = Queue::EMPTY;
        self.listeners = [NONE; LISTENER_BUCKETS];
        self.control = ControlRing::default();
        self.mailboxes = [NONE; PORT_BUCKETS];
        self.datagrams = SendQueue::EMPTY;
        self.foreign_datagrams = FrameList::EMPTY;
        self.early = EarlyCount::default();
        self.destinations = Destinations::default();
        self.fragments = Fragments::EMPTY;
        self.owners = Owners::default();
        self.resets = RecentResets::default();
        self.wheel.clear();
    }
}

/// The stack's time: that of its callers, but it never goes back. One caller may read the clock, wait for the lock, and
/// come after another who read it later; a timestamp of its (RFC 7323 §4) would then be older than the last one sent, and
/// the peer would take the segment for an old duplicate.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// What time it is, for a caller who thinks that it is `now`.
    #[inline]
    pub(crate) fn read(&mut self, now: Instant) -> Instant {
        self.0 = self.0.max(now);
        self.0
    }
}

/// The ends of an intrusive queue of slab items. Where the links are, its owner knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(crate) struct Queue {
    pub(crate) head: u32,
    pub(crate) tail: u32,
    pub(crate) len: u32,
}

impl Queue {
    pub(crate) const EMPTY: Queue = Queue { head: NONE, tail: NONE, len: 0 };

    pub(crate) fn is_empty(&self) -> bool {
        self.head == NONE
    }
}
