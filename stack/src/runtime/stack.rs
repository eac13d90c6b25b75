//! A stack attached to this process: the lock and what may be done under it.

use super::Bell;
use crate::arena::{Arena, BELLS, LockOutcome, ProcId, StackSlot};
use crate::buf::Pressure;
use crate::engine::{Engine, Farewells, TxChecksum};
use crate::sys;
use crate::time::Instant;
use crate::xsk::{Queue, fill_frames, request_checksum};
use core::cell::UnsafeCell;
use core::sync::atomic::Ordering;
use std::io;
use std::os::fd::RawFd;

/// Frames handled in one turn at the receive rings: bounds how long the lock is held.
const RECEIVE_BUDGET: u32 = 256;
/// A stack with fewer free frames takes more from the pool, with more than the second number gives some back.
const FREE_LOW: u32 = 128;
const FREE_HIGH: u32 = 1024;
const FREE_STEP: u32 = 256;
/// The last frames are not for the fill rings: a stack that cannot acknowledge gets nothing back either.
const FREE_LAST: u32 = 32;
/// Rounds in which the device took none of a dead owner's last RSTs, before the rest is left out.
const FAREWELL_TRIES: u32 = 16;
/// How soon a transmit ring that the device did not empty is tried again.
const RETRY_US: u64 = 200;
/// How soon it is looked whether other stacks gave back the frames that writes wait for.
const STARVED_US: u64 = 10_000;

/// A stack's attachment to this process. Any thread may use it.
pub struct Stack {
    arena: &'static Arena,
    index: u32,
    engine: UnsafeCell<Engine<'static>>,
    queues: Vec<Queue>,
    /// Frames that are not with the fill rings: what connections can have, all together.
    circulating: u32,
    xsks: Vec<RawFd>,
    bells: Vec<RawFd>,
    daemon_bell: RawFd,
}

// SAFETY: the engine is reached only through a Guard, which holds the stack's process-shared lock; the rings too.
unsafe impl Sync for Stack {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Stack {}

impl Stack {
    /// Attaches to stack `index` of the arena. The descriptors are the stack's XSKs, one per queue in order, its
    /// bells and the daemon's bell; they stay the caller's to close, after the attachment is dropped. At most one
    /// attachment per process and stack.
    pub fn attach(
        arena: &'static Arena,
        index: u32,
        xsks: &[RawFd],
        bells: &[RawFd],
        daemon_bell: RawFd,
    ) -> io::Result<Stack> {
        if bells.len() != BELLS || xsks.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::EPROTO));
        }
        let queues = xsks.iter().map(|fd| Queue::map(*fd)).collect::<io::Result<Vec<_>>>()?;
        // SAFETY: one view per process and stack, as our own caller promises; used only through Guard.
        let engine = UnsafeCell::new(unsafe { arena.engine(index) });
        let (frames, rings) = (arena.frame_count(), arena.header().queues());
        let circulating = frames - rings * fill_frames(frames, rings);
        Ok(Stack { arena, index, engine, queues, circulating, xsks: xsks.to_vec(), bells: bells.to_vec(), daemon_bell })
    }

    /// Takes the stack's lock.
    pub fn lock(&self) -> Guard<'_> {
        let outcome = self.slot().lock();
        self.guard(outcome)
    }

    /// Takes the lock if nobody has it.
    pub fn try_lock(&self) -> Option<Guard<'_>> {
        let outcome = self.slot().try_lock()?;
        Some(self.guard(outcome))
    }

    fn guard(&self, outcome: LockOutcome) -> Guard<'_> {
        // SAFETY: we hold the lock, so no other Guard exists.
        let mut guard = Guard { stack: self, engine: unsafe { &mut *self.engine.get() } };
        if outcome == LockOutcome::OwnerDied {
            guard.start_over();
        }
        guard
    }

    pub(super) fn slot(&self) -> &'static StackSlot {
        self.arena.stack(self.index)
    }

    pub fn arena(&self) -> &'static Arena {
        self.arena
    }

    pub fn index(&self) -> u32 {
        self.index
    }

    /// The stack's AF_XDP sockets: what a sleeper polls for POLLIN.
    pub fn xsk_fds(&self) -> &[RawFd] {
        &self.xsks
    }

    /// The stack's bells (eventfds).
    pub fn bell_fds(&self) -> &[RawFd] {
        &self.bells
    }

    /// Takes a free bell for a thread of `process`; `None` when all are taken: then sleep a millisecond at a time.
    pub fn claim_bell(&self, process: ProcId) -> Option<Bell<'_>> {
        self.slot().claim_bell(process).map(|bit| Bell::new(self, bit as u8))
    }

    /// Before a kernel wait that the XSKs will end: the daemon then need not watch the stack.
    pub fn sleep_begin(&self) {
        self.slot().sleepers.fetch_add(1, Ordering::AcqRel);
    }

    /// After it.
    pub fn sleep_end(&self) {
        let down = |n: u32| Some(n.saturating_sub(1)); // it restarts at 0 when a sleeping process dies
        let _ = self.slot().sleepers.fetch_update(Ordering::AcqRel, Ordering::Relaxed, down);
    }

    /// Whether frames wait in a receive ring: a look without the lock, for spinning.
    pub fn has_received(&self) -> bool {
        self.queues.iter().any(|q| q.received() != 0)
    }

    fn ring_bells(&self, mask: u32) {
        for (i, fd) in self.bells.iter().enumerate() {
            if mask & 1 << i != 0 {
                sys::ring_eventfd(*fd);
            }
        }
    }

    /// Wakes the daemon: it has work, or it sleeps and somebody uses a stack.
    fn ring_daemon(&self, wanted: bool) {
        let asleep = &self.arena.header().daemon_asleep;
        let sleeps = asleep.load(Ordering::Relaxed) != 0 && asleep.swap(0, Ordering::AcqRel) != 0;
        if wanted || sleeps {
            sys::ring_eventfd(self.daemon_bell);
        }
    }
}

impl core::fmt::Debug for Stack {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Stack").field("index", &self.index).finish_non_exhaustive()
    }
}

/// The stack, locked. Dropping it unlocks and rings the bells of those for whom something became ready.
pub struct Guard<'s> {
    stack: &'s Stack,
    engine: &'s mut Engine<'static>,
}

impl core::ops::Deref for Guard<'_> {
    type Target = Engine<'static>;
    fn deref(&self) -> &Engine<'static> {
        self.engine
    }
}

impl core::ops::DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut Engine<'static> {
        self.engine
    }
}

impl Guard<'_> {
    /// Completions, received frames, due timers. Returns the number of frames handled.
    pub fn poll(&mut self, now: Instant) -> u32 {
        self.stack.slot().last_poll_us.store(now.micros(), Ordering::Relaxed);
        let mut handled = 0;
        for q in 0..self.stack.queues.len() {
            self.complete(q);
            self.watch_frames();
            handled += self.receive(now, q);
        }
        self.balance_frames();
        self.engine.handle_timers(now);
        handled
    }

    fn complete(&mut self, q: usize) {
        let (arena, frames) = (self.stack.arena, self.engine.frames_mut());
        let owner = frames.owner();
        self.stack.queues[q].complete(arena.queue(q), arena, owner, |id| frames.push_free(id));
    }

    fn receive(&mut self, now: Instant, q: usize) -> u32 {
        let (arena, queue) = (self.stack.arena, &self.stack.queues[q]);
        let n = queue.received().min(RECEIVE_BUDGET);
        if n == 0 {
            if arena.queue(q).fill_deficit.load(Ordering::Relaxed) != 0 {
                self.refill(q, 0); // Who knows when something arrives: the ring may be dry.
            }
            return 0;
        }
        let owner = self.engine.frames_mut().owner();
        for i in 0..n {
            let (frame, off, len) = queue.peek(i);
            let Some(shared) = arena.frames_shared().get(frame as usize) else { continue };
            shared.set_owner(owner);
            self.engine.handle_frame(now, frame, off, len, q as u8);
        }
        queue.consume(n);
        self.refill(q, n);
        n
    }

    /// Replaces `n` frames that this stack took out of circulation, and what others could not replace; but keeps the last
    /// ones for acknowledgements.
    fn refill(&mut self, q: usize, n: u32) {
        let arena = self.stack.arena;
        let shared = arena.queue(q);
        let wanted = n + shared.fill_deficit.swap(0, Ordering::AcqRel);
        if self.engine.frames_mut().free_count() < wanted + FREE_LOW {
            self.take_from_pool(wanted + FREE_STEP);
        }
        let frames = self.engine.frames_mut();
        let spare = frames.free_count().saturating_sub(FREE_LAST).min(wanted);
        let filled = self.stack.queues[q].refill(shared, spare, || frames.alloc(), arena);
        if filled < wanted {
            shared.fill_deficit.fetch_add(wanted - filled, Ordering::AcqRel);
        }
    }

    fn take_from_pool(&mut self, n: u32) {
        let frames = self.engine.frames_mut();
        let owner = frames.owner();
        self.stack.arena.pool().take(n, owner, |id| frames.push_free(id));
    }

    /// Says how scarce frames are.
    fn watch_frames(&mut self) {
        let frames = self.engine.frames_mut();
        let free = self.stack.arena.pool().count().saturating_add(frames.free_count());
        frames.set_pressure(Pressure::of(free, self.stack.circulating));
    }

    /// Keeps a working stock of free frames: no more than the stack needs, no fewer than a burst takes. When frames are
    /// few, nobody keeps many.
    fn balance_frames(&mut self) {
        let frames = self.engine.frames_mut();
        frames.collect_returned();
        let high = if frames.pressure() == Pressure::None { FREE_HIGH } else { FREE_LOW + FREE_STEP };
        if frames.free_count() < FREE_LOW {
            self.take_from_pool(FREE_STEP);
        } else if frames.free_count() > high {
            for _ in 0..FREE_STEP {
                if let Some(id) = frames.alloc() {
                    self.stack.arena.pool().put(id);
                }
            }
        }
    }

    /// Sends what the engine has to send: onto the transmit rings, one kick a queue.
    pub fn flush(&mut self, now: Instant) {
        let queues = &self.stack.queues;
        let partial = self.engine.config().tx_checksum == TxChecksum::PseudoHeader;
        let mut written = [0u32; crate::arena::MAX_QUEUES];
        // The engine may choose any queue: as long as the fullest ring has room, every frame finds a place.
        let mut room = queues.iter().map(Queue::tx_room).min().unwrap_or(0);
        while room > 0 {
            let Some(out) = self.engine.poll_transmit(now) else { break };
            let q = usize::from(out.queue).min(queues.len() - 1);
            if partial {
                request_checksum(self.engine.frames_mut().bytes_mut(out.frame), &out);
            }
            queues[q].write_tx(written[q], &out, partial);
            written[q] += 1;
            room -= 1;
            if room == 0 || written[q] % 64 == 0 {
                self.replenish();
            }
        }
        for (q, queue) in queues.iter().enumerate() {
            queue.publish_tx(written[q]);
            if written[q] != 0 || queue.has_unsent() {
                let kicks = queue.kick();
                self.engine.counters_mut().kicks += u64::from(kicks);
            }
        }
    }

    /// A long burst needs fresh frames on its way (for acknowledgements): the stock is topped up from the pool.
    fn replenish(&mut self) {
        if self.engine.frames_mut().free_count() < FREE_LOW {
            self.take_from_pool(FREE_STEP);
        }
    }

    /// When the stack wants to be polled again although nothing arrives.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let own = self.engine.next_deadline();
        let retry_us = match self.engine.is_starved() {
            _ if self.stack.queues.iter().any(Queue::has_unsent) => RETRY_US,
            true => STARVED_US,
            false => return own,
        };
        let retry = now.after_us(retry_us);
        Some(own.map_or(retry, |at| at.min(retry)))
    }

    /// The last owner of the lock died inside: nothing that it may have half-written is trusted. The stack starts
    /// empty; peers are reset.
    fn start_over(&mut self) {
        let owner = self.engine.frames_mut().owner();
        let walk = self.engine.farewells();
        for queue in &self.stack.queues {
            // Frames up to here may or may not have been handled; they all become ours once, by the rebuild below.
            let n = queue.received();
            for i in 0..n {
                if let Some(f) = self.stack.arena.frames_shared().get(queue.peek(i).0 as usize) {
                    f.set_owner(owner);
                }
            }
            queue.consume(n);
        }
        self.engine.reset_all();
        self.engine.frames_mut().rebuild();
        self.take_from_pool(FREE_STEP);
        self.say_farewells(walk);
    }

    /// RSTs, in batches that the control ring and the frames bound. What the device does not take for a while is left
    /// out: then the peer's next segment is answered with one.
    fn say_farewells(&mut self, mut walk: Farewells) {
        let mut in_vain = 0;
        while in_vain < FAREWELL_TRIES && self.engine.say_farewells(&mut walk) {
            let before = self.engine.counters().tx_frames;
            self.flush(super::now());
            for q in 0..self.stack.queues.len() {
                self.complete(q);
            }
            self.engine.frames_mut().collect_returned();
            self.replenish();
            in_vain = if self.engine.counters().tx_frames == before { in_vain + 1 } else { 0 };
        }
        self.flush(super::now());
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let wakeups = self.engine.take_wakeups();
        let wants_daemon = self.engine.wants_daemon();
        self.stack.slot().unlock();
        if wakeups != 0 {
            self.stack.ring_bells(wakeups);
        }
        self.stack.ring_daemon(wants_daemon);
    }
}

impl core::fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Guard").field("stack", &self.stack.index).finish_non_exhaustive()
    }
}
