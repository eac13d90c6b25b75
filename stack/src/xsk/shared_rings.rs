//! The rings that all stacks of a queue share: the fill ring, out of which the kernel takes frames for what arrives, and the
//! completion ring, by which it gives back those that were sent. Whoever is at one of them may be killed over it.

use super::ring::Ring;
use super::{COMPLETION_RING, FILL_RING};
use crate::arena::{LockOutcome, Pool, QueueShared};
use crate::buf::{FRAME_SIZE, FrameId, FrameShared, OWNER_FILL};
use crate::sys;
use core::sync::atomic::Ordering;
use std::io;
use std::os::fd::RawFd;

/// The fill and the completion ring of a queue.
#[derive(Debug)]
pub(crate) struct SharedRings {
    fill: Ring<u64>,
    completion: Ring<u64>,
}

pub(super) fn offsets(fd: RawFd) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: all zeroes is a valid value of this struct of integers.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { core::mem::zeroed() };
    if sys::option(fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, &mut offsets)? {
        return Ok(offsets);
    }
    Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)) // a kernel before 5.4: rings without flags
}

pub(super) fn id_at(address: u64) -> FrameId {
    (address / FRAME_SIZE as u64) as FrameId
}

/// The completion that somebody handles, for those who find him dead: at which place of the ring, and the turn of its frame
/// then. The same turn at that place means that nothing was done to the frame, or nothing that cannot be done twice; another
/// one, that its owner has sent it again since, which completion is another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Handling {
    at: u32,
    turn: u8,
}

impl Handling {
    const IS_SOME: u64 = 1 << 63;

    fn word(self) -> u64 {
        Handling::IS_SOME | u64::from(self.at) << 8 | u64::from(self.turn)
    }

    fn of(word: u64) -> Option<Handling> {
        (word != 0).then_some(Handling { at: (word >> 8) as u32, turn: word as u8 })
    }

    /// Whoever began it is dead. Of the frame that he may have had in his hands its owner hears, or the pool has it.
    #[cold]
    fn finish(self, ring: &Ring<u64>, pool: Pool) {
        if ring.consumed() == self.at && ring.ready() != 0 {
            let frame = pool.frames().get(id_at(ring.peek(0)) as usize);
            if frame.is_some_and(|frame| frame.turn() != self.turn) {
                ring.consume(1);
            }
        }
        pool.lose_bearer();
    }
}

impl SharedRings {
    /// Maps them.
    pub(crate) fn map(fd: RawFd) -> io::Result<SharedRings> {
        let at = offsets(fd)?;
        Ok(SharedRings {
            fill: Ring::map(fd, libc::XDP_UMEM_PGOFF_FILL_RING, &at.fr, FILL_RING)?,
            completion: Ring::map(fd, libc::XDP_UMEM_PGOFF_COMPLETION_RING, &at.cr, COMPLETION_RING)?,
        })
    }

    /// Frames in the fill ring.
    pub(super) fn to_be_filled(&self) -> u32 {
        self.fill.pending()
    }

    pub(super) fn for_each_to_be_filled(&self, see: &mut impl FnMut(FrameId)) {
        self.fill.untaken().for_each(|address| see(id_at(address)));
    }

    pub(super) fn for_each_completed(&self, see: &mut impl FnMut(FrameId)) {
        (0..self.completion.ready()).for_each(|n| see(id_at(self.completion.peek(n))));
    }

    /// Whether completions wait.
    pub(super) fn has_completions(&self) -> bool {
        self.completion.ready() != 0
    }

    /// Whether somebody is at the completions, or died over one.
    pub(super) fn is_left_undone(lock: &QueueShared) -> bool {
        lock.handling.load(Ordering::Relaxed) != 0
    }

    /// As [`SharedRings::complete`], unless somebody else is at it.
    pub(super) fn try_complete(&self, lock: &QueueShared, pool: Pool, bring: impl FnMut(FrameId, u16)) {
        if lock.completion.try_lock().is_some() {
            self.complete(lock, pool, bring);
            lock.completion.unlock();
        }
    }

    /// Takes all completions, under their lock. `bring` gets the frames that are to be brought back, and their owners.
    fn complete(&self, lock: &QueueShared, pool: Pool, mut bring: impl FnMut(FrameId, u16)) {
        let ring = &self.completion;
        if let Some(left) = Handling::of(lock.handling.load(Ordering::Acquire)) {
            left.finish(ring, pool);
        }
        for _ in 0..ring.ready() {
            let id = id_at(ring.peek(0));
            let Some(frame) = pool.frames().get(id as usize) else {
                ring.consume(1);
                continue;
            };
            lock.handling.store(Handling { at: ring.consumed(), turn: frame.turn() }.word(), Ordering::Release);
            let is_free = frame.complete();
            ring.consume(1);
            if is_free {
                bring(id, frame.owner());
            }
        }
        lock.handling.store(0, Ordering::Release);
    }

    pub(super) fn refill(
        &self,
        lock: &QueueShared,
        wanted: u32,
        mut next: impl FnMut() -> Option<FrameId>,
        frames: &[FrameShared],
    ) -> u32 {
        if lock.fill.lock() == LockOutcome::OwnerDied {
            self.publish_fill_of_dead(lock, frames);
        }
        let room = self.fill.room().min(wanted);
        let mut n = 0;
        while n < room {
            let Some(id) = next() else { break };
            self.fill.write(n, u64::from(id) * FRAME_SIZE as u64);
            n += 1;
            // In this order: whoever dies in between has the last one still, and it is found to be his.
            lock.fill_written.store(self.fill.position().wrapping_add(n), Ordering::Release);
            frames[id as usize].set_owner(OWNER_FILL);
        }
        self.fill.publish(n);
        lock.fill.unlock();
        n
    }

    /// Frames that a dead owner of the lock gave to the ring, and did not publish.
    fn publish_fill_of_dead(&self, lock: &QueueShared, frames: &[FrameShared]) {
        let written = lock.fill_written.load(Ordering::Acquire).wrapping_sub(self.fill.position());
        if written <= self.fill.room() {
            let is_given = |n: &u32| {
                let frame = frames.get(id_at(self.fill.written(*n)) as usize);
                frame.is_some_and(|frame| frame.owner() == OWNER_FILL)
            };
            self.fill.publish((0..written).take_while(is_given).count() as u32);
        }
    }

    /// The fill ring's first frames.
    pub(super) fn fill_from_pool(&self, lock: &QueueShared, pool: Pool, wanted: u32) {
        let next = || {
            let mut got = None;
            pool.take(1, OWNER_FILL, |id| got = Some(id));
            got
        };
        let filled = self.refill(lock, wanted, next, pool.frames());
        lock.fill_deficit.fetch_add((wanted - filled).cast_signed(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Mac;
    use crate::arena::{Arena, ArenaConfig};
    use crate::buf::Frames;
    use crate::engine::{Config, Engine};
    use crate::tunables::Tunables;

    const RING: u32 = 8;
    const STACK: u16 = 1;
    const EVERY_FRAME: [FrameId; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

    /// What is in the pool's list, as often as it is there; no more than one beyond what there can be.
    fn all_of_pool(arena: &Arena) -> Vec<FrameId> {
        let mut all = Vec::new();
        arena.pool().take(9, STACK, |id| all.push(id));
        all.sort_unstable();
        all
    }

    /// A stack that has all frames, and the rings of its one queue.
    struct Completions {
        arena: &'static Arena,
        stack: u32,
        engine: Engine<'static>,
        rings: SharedRings,
        _memory: Vec<u64>,
    }

    impl Completions {
        fn new() -> Completions {
            let config = ArenaConfig {
                device: *b"test\0\0\0\0\0\0\0\0\0\0\0\0",
                ifindex: 1,
                netns: 0,
                queues: 1,
                transmit_queues: 1,
                frames: 8,
                mac: Mac([2, 0, 0, 0, 0, 1]),
                mtu: 1500,
                device_is_virtual: true,
                isn_secret: [1, 2],
                tunables: Tunables::default(),
            };
            let (arena, _) = Arena::create(&config).unwrap();
            let stack = arena.alloc_stack(&Config::default(), &Tunables::default()).unwrap().unwrap();
            // SAFETY: the one view of it.
            let mut engine = unsafe { arena.engine(stack) };
            let frames = engine.frames_mut();
            arena.pool().take(8, frames.owner(), |id| frames.push_free(id));
            let mut memory = vec![0; 8 + RING as usize];
            let rings = SharedRings { fill: Ring::fake(&mut memory, RING), completion: Ring::fake(&mut memory, RING) };
            Completions { arena, stack, engine, rings, _memory: memory }
        }

        fn frames(&mut self) -> &mut Frames<'static> {
            self.engine.frames_mut()
        }

        /// The kernel has sent a frame.
        fn report(&self, id: FrameId) {
            self.rings.completion.write(0, u64::from(id) * FRAME_SIZE as u64);
            self.rings.completion.publish(1);
        }

        /// Somebody who is not the frames' owner looks for completions.
        fn complete(&mut self) {
            let (lock, arena) = (self.arena.queue(0), self.arena);
            assert!(lock.completion.try_lock().is_some());
            self.rings.complete(lock, arena.pool(), |id, _| arena.return_frame(id));
            lock.completion.unlock();
            let lost = arena.pool().bearers_lost();
            if self.frames().misses_bearers(lost) {
                let _nobody = arena.hold_completions();
                self.frames().recover(lost);
            }
            self.frames().collect_returned();
        }

        /// As [`SharedRings::complete`] for the one completion that waits, by somebody who dies after so many of its steps.
        fn die_after(&self, steps: u32) {
            std::thread::scope(|scope| {
                let bearer = scope.spawn(|| {
                    let (lock, ring) = (self.arena.queue(0), &self.rings.completion);
                    lock.completion.lock();
                    let id = id_at(ring.peek(0));
                    let frame = &self.arena.frames_shared()[id as usize];
                    lock.handling.store(Handling { at: ring.consumed(), turn: frame.turn() }.word(), Ordering::Release);
                    let is_free = steps >= 1 && frame.complete();
                    if steps >= 2 {
                        ring.consume(1);
                    }
                    if steps >= 3 && is_free {
                        self.arena.return_frame(id);
                    }
                });
                bearer.join().unwrap();
            });
        }

        /// Every frame is free, once.
        fn expect_all_free(&mut self) {
            let frames = self.frames();
            assert_eq!(frames.free_count(), 8);
            let mut all: Vec<FrameId> = core::iter::from_fn(|| frames.alloc()).take(9).collect();
            all.sort_unstable();
            assert_eq!(all, EVERY_FRAME);
        }
    }

    #[test]
    fn a_frame_that_somebody_died_over_is_free_once() {
        for steps in 0..=3 {
            let mut world = Completions::new();
            let id = world.frames().alloc().unwrap();
            world.frames().mark_in_tx(id);
            world.frames().release(id);
            world.report(id);
            world.die_after(steps);
            assert!(SharedRings::is_left_undone(world.arena.queue(0)));
            world.complete();
            assert!(!SharedRings::is_left_undone(world.arena.queue(0)));
            world.expect_all_free();
        }
    }

    #[test]
    fn a_frame_that_is_sent_again_after_somebody_died_over_it_is_not_taken_for_sent() {
        for steps in 1..=3 {
            let mut world = Completions::new();
            let id = world.frames().alloc().unwrap();
            world.frames().mark_in_tx(id);
            world.report(id);
            world.die_after(steps);
            world.frames().mark_in_tx(id);
            world.frames().release(id);
            world.complete();
            assert!(world.frames().is_in_tx(id), "after {steps} steps");
            world.report(id);
            world.complete();
            world.expect_all_free();
        }
    }

    #[test]
    fn a_frame_of_the_pool_that_somebody_died_over_is_in_it_once() {
        for steps in 0..=3 {
            let mut world = Completions::new();
            let id = world.frames().alloc().unwrap();
            world.frames().mark_in_tx(id);
            world.report(id);
            world.arena.free_stack(world.stack, false);
            assert_eq!(world.arena.pool().count(), 7, "the kernel has one");
            world.die_after(steps);
            world.complete();
            assert_eq!(all_of_pool(world.arena), EVERY_FRAME, "after {steps} steps");
        }
    }

    #[test]
    fn a_frame_that_is_brought_to_a_stack_that_ends_is_in_the_pool_once() {
        for takes_stock in [false, true] {
            let mut world = Completions::new();
            let id = world.frames().alloc().unwrap();
            world.frames().mark_in_tx(id);
            world.frames().release(id);
            world.report(id);
            let (arena, stack) = (world.arena, world.stack);
            std::thread::scope(|scope| {
                let lock = arena.queue(0);
                lock.completion.lock();
                let end = scope.spawn(|| arena.free_stack(stack, false));
                world.rings.complete(lock, arena.pool(), |id, owner| {
                    sys::nap_us(20_000);
                    assert!(!end.is_finished() && owner == arena.frames_shared()[id as usize].owner());
                    if takes_stock {
                        arena.pool().lose_bearer();
                    }
                    arena.return_frame(id);
                });
                lock.completion.unlock();
            });
            assert_eq!(arena.pool().count(), 8);
            assert_eq!(all_of_pool(arena), EVERY_FRAME);
        }
    }

    #[test]
    fn a_frame_that_is_brought_to_the_pool_is_in_it_once_although_stock_was_taken() {
        let mut world = Completions::new();
        let id = world.frames().alloc().unwrap();
        world.frames().mark_in_tx(id);
        world.report(id);
        let (arena, stack) = (world.arena, world.stack);
        arena.free_stack(stack, false);
        world.rings.complete(arena.queue(0), arena.pool(), |id, owner| {
            assert_eq!(owner, crate::buf::OWNER_POOL);
            arena.pool().lose_bearer();
            arena.return_frame(id);
        });
        assert_eq!(arena.pool().count(), 8);
        assert_eq!(all_of_pool(arena), EVERY_FRAME);
    }

    /// What a fill ring's lock was left with by somebody who died after so many steps with the frames 1, 2 and 3.
    fn die_after(steps: u32) -> (SharedRings, QueueShared, Vec<FrameShared>, Vec<u64>) {
        let mut memory = vec![0; 8 + RING as usize];
        let rings = SharedRings { fill: Ring::fake(&mut memory, RING), completion: Ring::fake(&mut memory, RING) };
        // SAFETY: zeroes are valid in it; the locks are made next.
        let lock: QueueShared = unsafe { core::mem::zeroed() };
        lock.init().unwrap();
        let frames: Vec<FrameShared> = (0..8).map(|_| FrameShared::default()).collect();
        frames.iter().for_each(|frame| frame.set_owner(STACK));
        std::thread::scope(|scope| {
            let owner = scope.spawn(|| {
                lock.fill.lock();
                for n in 0..steps.div_ceil(2) {
                    rings.fill.write(n, u64::from(n + 1) * FRAME_SIZE as u64);
                    lock.fill_written.store(n + 1, Ordering::Release);
                    if 2 * n + 1 < steps {
                        frames[n as usize + 1].set_owner(OWNER_FILL);
                    }
                }
            });
            owner.join().unwrap();
        });
        (rings, lock, frames, memory)
    }

    #[test]
    fn frames_that_a_dead_owner_gave_to_the_fill_ring_are_in_it() {
        for steps in 0..=6 {
            let (rings, lock, frames, _memory) = die_after(steps);
            let mut next = [5, 6].into_iter();
            assert_eq!(rings.refill(&lock, 2, || next.next(), &frames), 2);
            let there: Vec<u64> = (0..rings.fill.ready()).map(|n| rings.fill.peek(n) / FRAME_SIZE as u64).collect();
            let given = frames.iter().filter(|frame| frame.owner() == OWNER_FILL).count();
            assert_eq!(there.len(), given, "after {steps} steps: {there:?}");
            assert_eq!(given as u32, 2 + steps / 2);
        }
    }
}
