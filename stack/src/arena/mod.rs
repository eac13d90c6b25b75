//! The shared memory of one device.
//!
//! One memfd, made by the daemon and mapped by every process that uses the device. In it, in this order:
//! - `header.rs`: what the device is, what the operator decided for each port, what the XDP program counted;
//! - `processes.rs`: who is attached;
//! - `stack_slot.rs`: per stack: its lock, its sleepers, its doorbells; then the slabs of its engine (`layout.rs`);
//! - `pool.rs`: the frame records and the frames that belong to no stack;
//! - the UMEM itself.
//!
//! `lock.rs` is the robust, process-shared mutex that guards all of it.

mod header;
mod layout;
mod lock;
mod pool;
mod processes;
mod stack_slot;

pub use header::{ArenaConfig, Header, Mode, Policy, Proto, VERDICTS};
pub use layout::{LAYOUT_VERSION, MAX_QUEUES, MAX_STACKS};
pub use lock::{LockOutcome, RobustMutex};
pub use pool::{Census, Pool, QueueShared};
pub use processes::{BORN, DAEMON, EXECUTED, MAX_PROCS, PENDING_FORK, ProcId, Processes};
pub(crate) use stack_slot::NAMED_BELLS;
pub use stack_slot::{BELLS, StackSlot};

use crate::buf::{FRAME_SIZE, FrameId, FrameMeta, FrameShared, OWNER_POOL};
use crate::engine::{Config, Engine, Parts, StackState};
use crate::sys;
use crate::tunables::Tunables;
use core::sync::atomic::Ordering;
use layout::Layout;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// A mapping of a device's arena. It lives as long as the process: views into it are `'static`.
#[derive(Debug)]
pub struct Arena {
    base: *mut u8,
    layout: Layout,
}

// SAFETY: the mapping never goes away; what lies in it is either atomic or behind a lock of its own.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

/// Why an arena could not be mapped.
#[derive(Debug)]
pub enum ArenaError {
    /// It was made by another build.
    Version {
        theirs: u64,
    },
    /// It is too small for what its header says, or not an arena.
    Malformed,
    Os(io::Error),
}

impl core::fmt::Display for ArenaError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            ArenaError::Version { theirs } => write!(
                f,
                "the daemon's arena has layout {theirs:016x}, this build has {LAYOUT_VERSION:016x}: \
                 restart the daemon with the same build (sidestep down DEV; sidestep up DEV)"
            ),
            ArenaError::Malformed => write!(f, "what the daemon sent is not an arena"),
            ArenaError::Os(e) => write!(f, "cannot map the arena: {e}"),
        }
    }
}

impl std::error::Error for ArenaError {}

impl Arena {
    /// Makes the arena of a device: for the daemon. The memory is sparse: what is never used costs nothing.
    pub fn create(config: &ArenaConfig) -> io::Result<(&'static Arena, OwnedFd)> {
        let layout = Layout::new(config.frames as usize);
        let fd = sys::memfd(c"sidestep-arena", layout.total as u64)?;
        let base = sys::mmap_shared(fd, layout.total, 0, false)?;
        // SAFETY: sys::memfd returned a descriptor that nobody else owns.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        let arena: &'static Arena = Box::leak(Box::new(Arena { base, layout }));
        arena.header().init(config, layout.total as u64, sys::random());
        arena.pool().init()?;
        for q in 0..config.queues as usize {
            arena.queue(q).init()?;
        }
        Ok((arena, owned))
    }

    /// Whose arena it is, without mapping all of it: its device's interface index and network namespace. These stand at
    /// the same place in every build's arena.
    pub fn whose(fd: RawFd) -> Result<(u32, u64), ArenaError> {
        if sys::file_size(fd).map_err(ArenaError::Os)? < layout::PAGE as u64 {
            return Err(ArenaError::Malformed);
        }
        let head = sys::mmap_shared(fd, layout::PAGE, 0, false).map_err(ArenaError::Os)?;
        // SAFETY: a page is there, and a header's first page is valid whatever it holds: atomics.
        let header = unsafe { &*head.cast::<Header>() };
        let (magic, whose) = (header.magic(), (header.ifindex(), header.netns()));
        // SAFETY: `header` is not used below this line.
        unsafe { sys::munmap(head, layout::PAGE) };
        if magic == header::MAGIC { Ok(whose) } else { Err(ArenaError::Malformed) }
    }

    /// Maps an arena that the daemon made.
    pub fn map(fd: RawFd) -> Result<&'static Arena, ArenaError> {
        let head = sys::mmap_shared(fd, layout::PAGE, 0, false).map_err(ArenaError::Os)?;
        // SAFETY: the first page of an arena is its header; the daemon sized the file to hold at least that.
        let header = unsafe { &*head.cast::<Header>() };
        let (magic, version, frames, total) = (header.magic(), header.version(), header.frames(), header.total());
        // SAFETY: `header` is not used below this line.
        unsafe { sys::munmap(head, layout::PAGE) };
        if magic != header::MAGIC {
            return Err(ArenaError::Malformed);
        }
        if version != LAYOUT_VERSION {
            return Err(ArenaError::Version { theirs: version });
        }
        let layout = Layout::new(frames as usize);
        if layout.total as u64 != total || sys::file_size(fd).map_err(ArenaError::Os)? < total {
            return Err(ArenaError::Malformed);
        }
        let base = sys::mmap_shared(fd, layout.total, 0, false).map_err(ArenaError::Os)?;
        Ok(Box::leak(Box::new(Arena { base, layout })))
    }

    /// A shared reference to a `T` at `offset`. All such types hold atomics and locks only.
    fn at<T>(&self, offset: usize) -> &'static T {
        // SAFETY: offsets come from `Layout`, which places a T, aligned, inside the mapping; the mapping is never
        // unmapped; T is shared-memory safe (atomics, UnsafeCells behind locks) and valid when zeroed.
        unsafe { &*self.base.add(offset).cast::<T>() }
    }

    pub fn header(&self) -> &'static Header {
        self.at(0)
    }

    pub fn processes(&self) -> &'static Processes {
        self.at(self.layout.processes)
    }

    /// The slot of a stack; `index` below [`MAX_STACKS`].
    pub fn stack(&self, index: u32) -> &'static StackSlot {
        self.at(self.layout.stack_slot(index as usize))
    }

    /// What the processes share of one queue; `index` below [`MAX_QUEUES`].
    pub fn queue(&self, index: usize) -> &'static QueueShared {
        self.at(self.layout.queue(index))
    }

    /// Frames that belong to nobody.
    pub fn pool(&self) -> Pool {
        Pool::new(self.at(self.layout.pool), self.meta_base(), self.frames_shared())
    }

    /// The policy of a port, as the operator set it.
    pub fn policy(&self, proto: Proto, port: u16) -> Policy {
        self.header().policy(proto, port)
    }

    pub fn set_policy(&self, proto: Proto, port: u16, policy: Policy) {
        self.header().set_policy(proto, port, policy);
    }

    /// Stacks that take new flows of this port.
    pub fn group_members(&self, proto: Proto, port: u16) -> u32 {
        u32::from(self.header().members(proto, port))
    }

    pub fn set_group_members(&self, proto: Proto, port: u16, members: u32) {
        self.header().set_members(proto, port, members.min(255) as u8);
    }

    /// Start and length of the UMEM in this process.
    pub fn umem(&self) -> (*mut u8, usize) {
        // SAFETY: the offset is inside the mapping.
        (unsafe { self.base.add(self.layout.umem) }, self.layout.frames * FRAME_SIZE)
    }

    pub fn frame_count(&self) -> u32 {
        self.layout.frames as u32
    }

    fn meta_base(&self) -> *mut FrameMeta {
        // SAFETY: the offset is inside the mapping.
        unsafe { self.base.add(self.layout.frame_meta) }.cast()
    }

    pub fn frames_shared(&self) -> &'static [FrameShared] {
        // SAFETY: `frames` records of atomics lie there, valid when zeroed.
        unsafe { core::slice::from_raw_parts(self.base.add(self.layout.frame_shared).cast(), self.layout.frames) }
    }

    /// Takes a free stack slot and makes a working, empty stack there; `None` when all are taken. For the daemon, whose
    /// one thread does it.
    pub fn alloc_stack(&self, config: &Config, tunables: &Tunables) -> io::Result<Option<u32>> {
        let Some(index) = (0..MAX_STACKS as u32).find(|i| self.stack(*i).claim()) else { return Ok(None) };
        let (at, len) = self.layout.engine_of(index as usize);
        // SAFETY: the slot was free: nobody has a view of its engine's memory, which `at` and `len` bound, in pages.
        unsafe { sys::punch(self.base.add(at), len) }?;
        let state = self.layout.engine_parts(index as usize).state;
        // SAFETY: as above; zeroes are a valid StackState.
        unsafe { &mut *self.base.add(state).cast::<StackState>() }.init(config, tunables);
        self.stack(index).init_lock()?;
        Ok(Some(index))
    }

    /// Gives a stack's slot and its frames back. Its rings must be empty and nobody attached. Frames that the
    /// kernel still reads go to the pool with their completion, or now when `force` (the sockets are long gone).
    pub fn free_stack(&'static self, index: u32, force: bool) {
        let owner = index as u16 + 1;
        let pool = self.pool();
        // Who brought a frame back meanwhile would bring it to a stack that is no more.
        let _nobody = self.hold_completions();
        for (id, frame) in self.frames_shared().iter().enumerate() {
            if frame.owner() == owner && (force || !frame.leave_to_pool()) {
                pool.put(id as u32);
            }
        }
        self.stack(index).release();
    }

    /// Keeps everybody from the completion rings: nobody brings frames back while it lives.
    pub(crate) fn hold_completions(&'static self) -> HeldCompletions {
        let held = HeldCompletions { arena: self };
        for lock in held.locks() {
            lock.lock(); // What a dead owner left is for the next one who comes for completions.
        }
        held
    }

    /// Empties the rings into the pool, when they are no more: nobody has an AF_XDP socket of this arena.
    pub fn reclaim_rings(&self) {
        let pool = self.pool();
        for (id, frame) in self.frames_shared().iter().enumerate() {
            if frame.is_with_kernel() {
                pool.put(id as u32);
            }
        }
        for queue in 0..MAX_QUEUES {
            self.queue(queue).fill_deficit.store(0, Ordering::Relaxed);
            self.queue(queue).fill_written.store(0, Ordering::Relaxed);
            self.queue(queue).handling.store(0, Ordering::Relaxed);
        }
    }

    /// Who owns how many frames. A snapshot: while traffic flows a few frames are in passing.
    pub fn census(&self) -> Census {
        Census::of(self.frames_shared())
    }

    /// The engine of a stack.
    ///
    /// # Safety
    /// At most one view per process and stack may exist, and it may be used only under the stack's lock.
    pub(crate) unsafe fn engine(&self, index: u32) -> Engine<'static> {
        let l = &self.layout;
        let e = l.engine_parts(index as usize);
        // SAFETY: `Layout` places each array, aligned and disjoint, inside the mapping, which is never unmapped; all
        // element types are valid when zeroed; exclusive use is the caller's promise. The frame records and UMEM
        // are common to all stacks, but each touches only the frames it owns.
        unsafe {
            Engine::new(Parts {
                state: &mut *self.base.add(e.state).cast::<StackState>(),
                conns: self.slice(e.conns, layout::CONNS),
                time_waits: self.slice(e.time_waits, layout::TIME_WAITS),
                sockets: self.slice(e.sockets, layout::SOCKETS),
                unconnected: self.slice(e.unconnected, layout::SOCKETS),
                epoll_sets: self.slice(e.epoll_sets, layout::EPOLL_SETS),
                epoll_items: self.slice(e.epoll_items, layout::EPOLL_ITEMS),
                flow_table: self.slice(e.flow_table, layout::FLOW_BUCKETS),
                frame_meta: self.slice(l.frame_meta, l.frames),
                frame_shared: self.frames_shared(),
                umem: self.slice(l.umem, l.frames * FRAME_SIZE),
                owner: index as u16 + 1,
            })
        }
    }

    /// Gives a frame back to the stack that owns it, or to the pool: for whoever finds its completion.
    pub(crate) fn return_frame(&self, id: FrameId) {
        match self.frames_shared()[id as usize].owner() {
            OWNER_POOL => self.pool().put_own(id),
            owner if (owner as usize) <= MAX_STACKS => {
                let e = self.layout.engine_parts(owner as usize - 1);
                // SAFETY: a StackState lies there; of its free list, `push_returned` touches the atomic word only, which
                // the stack's owner too touches only atomically.
                let free = unsafe { &*StackState::free_list(self.base.add(e.state).cast()) };
                free.push_returned(self.frames_shared(), id);
            }
            _ => {} // in a fill ring: not ours to move
        }
    }

    /// # Safety
    /// As [`Arena::engine`]: `offset` from the layout, exclusive use under the stack's lock.
    unsafe fn slice<T>(&self, offset: usize, len: usize) -> &'static mut [T] {
        // SAFETY: the caller's promise.
        unsafe { core::slice::from_raw_parts_mut(self.base.add(offset).cast(), len) }
    }
}

/// The locks of all completion rings.
pub(crate) struct HeldCompletions {
    arena: &'static Arena,
}

impl HeldCompletions {
    fn locks(&self) -> impl Iterator<Item = &'static RobustMutex> {
        let arena = self.arena;
        (0..arena.header().queues() as usize).map(|queue| &arena.queue(queue).completion)
    }
}

impl Drop for HeldCompletions {
    fn drop(&mut self) {
        self.locks().for_each(RobustMutex::unlock);
    }
}
