//! Where everything lies in the arena: offsets from its start, computed from one number, the count of frames.

use super::{Header, Processes, QueueShared, StackSlot, pool::PoolShared};
use crate::buf::{FRAME_SIZE, FrameMeta, FrameShared};
use crate::engine::StackState;
use crate::socket::{EpollItem, EpollSet, Socket, Unconnected};
use crate::tcp::{Tcb, TimeWait};

/// Most stacks and queues of one device; the XDP program's map is sized by the same numbers.
pub const MAX_STACKS: usize = 64;
pub const MAX_QUEUES: usize = 64;

/// Slots of one stack's slabs. The memory is sparse: a slot costs nothing before its first use.
pub(super) const CONNS: usize = 16 * 1024;
pub(super) const TIME_WAITS: usize = 32 * 1024;
pub(super) const SOCKETS: usize = 16 * 1024;
pub(super) const EPOLL_SETS: usize = 1024;
pub(super) const EPOLL_ITEMS: usize = 24 * 1024;
pub(super) const FLOW_BUCKETS: usize = 64 * 1024;

pub(super) const PAGE: usize = 4096;

/// Names the layout: a process and an arena of different builds refuse each other. It mixes the version, the name of the build
/// (`build.rs`: of two with the same sizes, too, one may not know what the other means) and the sizes of all that lies in the arena (FNV-1a).
pub const LAYOUT_VERSION: u64 = {
    let sizes = [
        size_of::<Header>(),
        size_of::<Processes>(),
        size_of::<StackSlot>(),
        size_of::<QueueShared>(),
        size_of::<PoolShared>(),
        size_of::<FrameMeta>(),
        size_of::<FrameShared>(),
        size_of::<StackState>(),
        size_of::<Tcb>(),
        size_of::<TimeWait>(),
        size_of::<Socket>(),
        size_of::<Unconnected>(),
        size_of::<EpollSet>(),
        size_of::<EpollItem>(),
        CONNS + TIME_WAITS + SOCKETS + EPOLL_SETS + EPOLL_ITEMS + FLOW_BUCKETS,
    ];
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let version = concat!(env!("CARGO_PKG_VERSION"), env!("SIDESTEP_BUILD")).as_bytes();
    let mut i = 0;
    while i < version.len() {
        hash = (hash ^ version[i] as u64).wrapping_mul(0x100_0000_01b3);
        i += 1;
    }
    i = 0;
    while i < sizes.len() {
        hash = (hash ^ sizes[i] as u64).wrapping_mul(0x100_0000_01b3);
        i += 1;
    }
    hash
};

/// Offsets of an arena's parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) frames: usize,
    pub(super) processes: usize,
    stacks: usize,
    queues: usize,
    pub(super) pool: usize,
    pub(super) frame_meta: usize,
    pub(super) frame_shared: usize,
    engines: usize,
    engine_bytes: usize,
    pub(super) umem: usize,
    pub(super) total: usize,
}

/// Offsets of one engine's parts.
pub(super) struct EngineParts {
    pub(super) state: usize,
    pub(super) conns: usize,
    pub(super) time_waits: usize,
    pub(super) sockets: usize,
    pub(super) unconnected: usize,
    pub(super) epoll_sets: usize,
    pub(super) epoll_items: usize,
    pub(super) flow_table: usize,
    end: usize,
}

/// Hands out aligned room, front to back.
struct Cursor(usize);

impl Cursor {
    /// Room for `n` of `T`, on a cache line of its own.
    fn room<T>(&mut self, n: usize) -> usize {
        self.skip(size_of::<T>() * n, 64)
    }

    fn skip(&mut self, bytes: usize, align: usize) -> usize {
        let at = self.0.next_multiple_of(align);
        self.0 = at + bytes;
        at
    }
}

impl Layout {
    pub(super) fn new(frames: usize) -> Layout {
        let mut c = Cursor(0);
        c.room::<Header>(1);
        let processes = c.room::<Processes>(1);
        let stacks = c.room::<StackSlot>(MAX_STACKS);
        let queues = c.room::<QueueShared>(MAX_QUEUES);
        let pool = c.room::<PoolShared>(1);
        let frame_meta = c.room::<FrameMeta>(frames);
        let frame_shared = c.room::<FrameShared>(frames);
        let engine_bytes = Self::parts_at(0).end.next_multiple_of(PAGE);
        let engines = c.skip(engine_bytes * MAX_STACKS, PAGE);
        let umem = c.skip(frames * FRAME_SIZE, PAGE);
        let total = c.0.next_multiple_of(PAGE);
        Layout { frames, processes, stacks, queues, pool, frame_meta, frame_shared, engines, engine_bytes, umem, total }
    }

    fn parts_at(start: usize) -> EngineParts {
        let mut c = Cursor(start);
        EngineParts {
            state: c.room::<StackState>(1),
            conns: c.room::<Tcb>(CONNS),
            time_waits: c.room::<TimeWait>(TIME_WAITS),
            sockets: c.room::<Socket>(SOCKETS),
            unconnected: c.room::<Unconnected>(SOCKETS),
            epoll_sets: c.room::<EpollSet>(EPOLL_SETS),
            epoll_items: c.room::<EpollItem>(EPOLL_ITEMS),
            flow_table: c.room::<u32>(FLOW_BUCKETS),
            end: c.0,
        }
    }

    pub(super) fn stack_slot(&self, index: usize) -> usize {
        assert!(index < MAX_STACKS);
        self.stacks + index * size_of::<StackSlot>()
    }

    pub(super) fn queue(&self, index: usize) -> usize {
        assert!(index < MAX_QUEUES);
        self.queues + index * size_of::<QueueShared>()
    }

    pub(super) fn engine_parts(&self, index: usize) -> EngineParts {
        let (start, _) = self.engine_of(index);
        Self::parts_at(start)
    }

    /// Start and length, in pages, of one engine's memory.
    pub(super) fn engine_of(&self, index: usize) -> (usize, usize) {
        assert!(index < MAX_STACKS);
        (self.engines + index * self.engine_bytes, self.engine_bytes)
    }
}

const _: () = assert!(size_of::<Header>() >= PAGE, "Arena::map looks at the first page before it knows the size");

#[cfg(test)]
mod tests {
    use super::*;

    /// What an idle connection costs, all told: its record, its socket, its watch in an epoll set, and its share of the
    /// tables that all have in common. It holds no frame; and no `Unconnected`, which the test of those proves.
    #[test]
    fn an_idle_connection_fits_in_a_kibibyte() {
        let parts = [
            ("Tcb (flow chain and timer links included)", size_of::<Tcb>()),
            ("Socket", size_of::<Socket>()),
            ("EpollItem", size_of::<EpollItem>()),
            ("flow table", (FLOW_BUCKETS * size_of::<u32>()).div_ceil(CONNS)),
            ("engine (timer wheel, rings, tables)", size_of::<StackState>().div_ceil(CONNS)),
        ];
        parts.iter().for_each(|(name, bytes)| println!("{bytes:5} {name}"));
        let total: usize = parts.iter().map(|(_, bytes)| bytes).sum();
        println!("{total:5} in all");
        assert!(total <= 1024, "{total}");
    }
}
