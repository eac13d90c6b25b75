//! A stack, locked: what may be done under the lock, and what it leaves to whoever has it next.

use super::notice::Notice;
use super::{Arrivals, Stack, critical};
use crate::arena::Proto;
use crate::buf::Pressure;
use crate::engine::{Engine, Farewells, Owner, TxChecksum};
use crate::sys;
use crate::time::Instant;
use crate::xsk::{Queue, RX_RING, request_checksum};
use core::sync::atomic::{AtomicI32, Ordering};
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
/// Signals that one turn at the lock sends; more are sent by the next.
const SIGNALS_AT_ONCE: usize = 4;

/// The stack, locked. Dropping it unlocks and rings the bells of those for whom something became ready. Its thread is inside
/// ([`critical`]) as long as it lives.
pub struct Guard<'s> {
    stack: &'s Stack,
    engine: &'s mut Engine<'static>,
    /// Nothing was changed since the lock was taken, or since [`Guard::rest`]: whoever gets it after our death goes on from here.
    is_resting: bool,
}

impl core::ops::Deref for Guard<'_> {
    type Target = Engine<'static>;
    fn deref(&self) -> &Engine<'static> {
        self.engine
    }
}

impl core::ops::DerefMut for Guard<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Engine<'static> {
        if self.is_resting {
            self.end_rest();
        }
        self.engine
    }
}

impl<'s> Guard<'s> {
    /// The caller has the lock.
    #[inline]
    pub(super) fn new(stack: &'s Stack, engine: &'s mut Engine<'static>) -> Guard<'s> {
        let mut guard = Guard { stack, engine, is_resting: true };
        if stack.slot().is_changing() {
            guard.start_over();
        }
        guard
    }

    /// All that was begun is done: should this process end before it changes anything again, nothing is lost. To be said before
    /// what takes long: many a process dies in a system call.
    pub fn rest(&mut self) {
        self.is_resting = true;
        self.stack.slot().note_changing(false);
    }

    fn end_rest(&mut self) {
        self.stack.slot().note_changing(true);
        self.is_resting = false;
    }

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
        self.handle_timers(now);
        handled
    }

    /// Which stack it is.
    pub fn stack_index(&self) -> u32 {
        self.stack.index
    }

    pub(super) fn queues(&self) -> &'s [Queue] {
        &self.stack.queues
    }

    /// As [`Guard::poll`], until all is handled that lies in the rings now.
    pub fn drain(&mut self, now: Instant) {
        for _ in 0..RX_RING.div_ceil(RECEIVE_BUDGET) {
            self.poll(now);
            if !self.stack.has_received() {
                break;
            }
        }
    }

    /// As [`Guard::drain`], unless all is handled that had been received then.
    pub fn drain_to(&mut self, arrivals: &Arrivals, now: Instant) {
        if !self.stack.has_handled(arrivals) {
            self.drain(now);
        }
    }

    fn complete(&mut self, q: usize) {
        let stack = self.stack;
        let (arena, frames) = (stack.arena, self.frames_mut());
        let owner = frames.owner();
        stack.queues[q].complete(arena.queue(q), arena, owner, |id| frames.push_free(id));
        let lost = arena.pool().bearers_lost();
        if frames.misses_bearers(lost) {
            self.recover_frames(lost);
        }
    }

    #[cold]
    fn recover_frames(&mut self, lost: u32) {
        let _nobody = self.stack.arena.hold_completions();
        self.frames_mut().recover(lost);
    }

    fn receive(&mut self, now: Instant, q: usize) -> u32 {
        let (arena, queue) = (self.stack.arena, &self.stack.queues[q]);
        let n = queue.received().min(RECEIVE_BUDGET);
        if n == 0 {
            if arena.queue(q).fill_deficit.load(Ordering::Relaxed) > 0 {
                self.refill(q); // Who knows when something arrives: the ring may be dry.
            }
            return 0;
        }
        let owner = self.frames_mut().owner();
        for i in 0..n {
            let (frame, off, len) = queue.peek(i);
            let Some(shared) = arena.frames_shared().get(frame as usize) else { continue };
            shared.set_owner(owner);
            self.handle_frame(now, frame, off, len, q as u8);
        }
        self.take_out(q, n);
        self.refill(q);
        n
    }

    /// `n` received frames leave circulation. They are to be replaced by whoever has others, also if we die before.
    fn take_out(&mut self, q: usize, n: u32) {
        self.stack.arena.queue(q).fill_deficit.fetch_add(n.cast_signed(), Ordering::AcqRel);
        self.stack.queues[q].consume(n);
    }

    /// Replaces the frames that this stack and others took out of circulation; but keeps the last ones for acknowledgements.
    fn refill(&mut self, q: usize) {
        let stack = self.stack;
        let shared = stack.arena.queue(q);
        let wanted = shared.fill_deficit.load(Ordering::Acquire).max(0).cast_unsigned();
        if self.frames_mut().free_count() < wanted + FREE_LOW {
            self.take_from_pool(wanted + FREE_STEP);
        }
        let frames = self.frames_mut();
        let spare = frames.free_count().saturating_sub(FREE_LAST).min(wanted);
        let filled = stack.queues[q].refill(shared, spare, || frames.alloc(), stack.arena);
        shared.fill_deficit.fetch_sub(filled.cast_signed(), Ordering::AcqRel);
    }

    fn take_from_pool(&mut self, n: u32) {
        let arena = self.stack.arena;
        let frames = self.frames_mut();
        let owner = frames.owner();
        arena.pool().take(n, owner, |id| frames.push_free(id));
    }

    /// Says how scarce frames are.
    fn watch_frames(&mut self) {
        let stack = self.stack;
        let frames = self.frames_mut();
        let free = stack.arena.pool().count().saturating_add(frames.free_count());
        frames.set_pressure(Pressure::of(free, stack.circulating));
    }

    /// Keeps a working stock of free frames: no more than the stack needs, no fewer than a burst takes. When frames are
    /// few, nobody keeps many.
    fn balance_frames(&mut self) {
        let arena = self.stack.arena;
        let frames = self.frames_mut();
        frames.collect_returned();
        let high = if frames.pressure() == Pressure::None { FREE_HIGH } else { FREE_LOW + FREE_STEP };
        if frames.free_count() < FREE_LOW {
            self.take_from_pool(FREE_STEP);
        } else if frames.free_count() > high {
            for _ in 0..FREE_STEP {
                if let Some(id) = frames.alloc() {
                    arena.pool().put(id);
                }
            }
        }
    }

    /// Sends what the engine has to send: onto the transmit rings, one kick a queue.
    pub fn flush(&mut self, now: Instant) {
        if self.has_transmit() {
            self.transmit(now);
        }
        if self.kickable().next().is_some() {
            self.rest();
            self.kick();
        }
    }

    /// Writes and publishes what the engine has to send, as far as the transmit rings have room.
    fn transmit(&mut self, now: Instant) {
        let queues = &self.stack.queues[..self.stack.senders];
        let partial = self.engine.config().tx_checksum == TxChecksum::PseudoHeader;
        let mut written = [0u32; crate::arena::MAX_QUEUES];
        // The engine may choose any queue: as long as the fullest ring has room, every frame finds a place.
        let mut room = queues.iter().map(Queue::tx_room).min().unwrap_or(0);
        while room > 0 {
            let Some(out) = self.poll_transmit(now) else { break };
            let q = usize::from(out.queue) % queues.len();
            if partial {
                request_checksum(self.frames_mut().bytes_mut(out.frame), &out);
            }
            queues[q].write_tx(written[q], &out, partial);
            written[q] += 1;
            let position = u64::from(queues[q].tx_position(written[q]));
            let sends = u64::from(self.frames_mut().sends());
            self.stack.slot().tx_written[q].store(sends << 32 | position, Ordering::Release);
            room -= 1;
            if room == 0 || written[q] % 64 == 0 {
                self.replenish();
            }
        }
        for (queue, written) in queues.iter().zip(written) {
            queue.publish_tx(written);
        }
    }

    /// The stack is about to be freed: what the device did not take is not sent any more. The rest is as for
    /// [`Arena::free_stack`](crate::arena::Arena::free_stack).
    pub fn recall(&mut self) {
        let arena = self.stack.arena;
        self.stack.queues.iter().for_each(|queue| queue.recall(arena, |id| arena.return_frame(id)));
    }

    /// The transmit queues that hold something.
    fn kickable(&self) -> impl Iterator<Item = &Queue> {
        self.stack.queues[..self.stack.senders].iter().filter(|queue| queue.has_unsent())
    }

    fn kick(&mut self) {
        let kicks: u32 = self.kickable().map(Queue::kick).sum();
        self.counters_mut().kicks += u64::from(kicks);
    }

    /// A long burst needs fresh frames on its way (for acknowledgements): the stock is topped up from the pool.
    fn replenish(&mut self) {
        if self.frames_mut().free_count() < FREE_LOW {
            self.take_from_pool(FREE_STEP);
        }
    }

    /// Tells the daemon that somebody came to be accepted. True when it is to know at once: nobody here asks for him, and other
    /// stacks serve the port.
    #[inline]
    fn tell_of_arrivals(&mut self) -> bool {
        let Some(unwanted_at) = self.take_arrival() else { return false };
        let is_urgent = unwanted_at != 0 && self.stack.arena.group_members(Proto::Tcp, unwanted_at) > 1;
        // Before it is looked whether the daemon sleeps: it looks here once more after it said so.
        let before = self.stack.slot().arrivals.fetch_max(1 + u32::from(is_urgent), Ordering::SeqCst);
        is_urgent && before < 2
    }

    /// The signals that this process may send; and whether others wait for the daemon to send them. It tells processes
    /// that named themselves, by the arena's table: the numbers are those of their namespace.
    #[cold]
    fn take_signals(&mut self) -> ([Option<Notice>; SIGNALS_AT_ONCE], bool) {
        let (processes, is_daemons) = (self.stack.arena.processes(), self.stack.is_daemons);
        let own = sys::getpid();
        let may_send = |owner: &Owner| if is_daemons { owner.is_itself() } else { owner.pid == own };
        let mut notices = [None; SIGNALS_AT_ONCE];
        for notice in &mut notices {
            let Some((owner, cause)) = self.take_due_signal(may_send) else { break };
            let pid = if is_daemons { processes.pid_of(owner.process) as i32 } else { owner.target };
            *notice = Some(Notice { pid, owner, cause }).filter(|_| pid != 0 && pid != -1);
        }
        (notices, !is_daemons && self.engine.has_due_signals())
    }

    /// One of the attachment's descriptors has another number now; the old one stays open until this returns. False: it is
    /// none of them. Whoever is about to sleep by the old number is woken by the daemon, which looks after stacks that nobody
    /// polls.
    pub fn renumber(&mut self, old: RawFd, new: RawFd) -> bool {
        let stack = self.stack;
        let numbers = stack.xsks.iter().chain(&stack.bells).chain([&stack.daemon_bell]);
        let numbers = numbers.chain(stack.queues.iter().map(Queue::fd));
        let swap = |at: &AtomicI32| at.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        numbers.filter(|at| swap(at)).count() != 0
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

    /// Who only looked lets go of the lock without a change: he may be killed at any moment.
    fn give_back(&self) {
        self.stack.slot().unlock();
        self.stack.ring_daemon(false);
        critical::leave();
    }

    /// The last owner of the lock died inside: nothing that it may have half-written is trusted. The stack starts
    /// without connections, their peers are reset; other processes that share it keep their listeners.
    fn start_over(&mut self) {
        // It does not rest before it is done: should we die over it, the next one does it again.
        self.end_rest();
        let owner = self.frames_mut().owner();
        let walk = self.farewells();
        let written = self.stack.slot().tx_written.each_ref().map(|position| position.load(Ordering::Acquire));
        let sends = self.frames_mut().sends();
        if !written.iter().any(|position| (position >> 32) as u32 == sends) {
            self.frames_mut().unsend();
        }
        for (q, queue) in self.stack.queues.iter().enumerate() {
            queue.publish_tx_to(written[q] as u32);
            // Frames up to here may or may not have been handled; they all become ours once, by the rebuild below.
            let n = queue.received();
            for i in 0..n {
                if let Some(f) = self.stack.arena.frames_shared().get(queue.peek(i).0 as usize) {
                    f.set_owner(owner);
                }
            }
            self.take_out(q, n);
        }
        self.salvage();
        self.rebuild_frames();
        self.take_from_pool(FREE_STEP);
        self.reset_peers(walk);
    }

    fn rebuild_frames(&mut self) {
        let _nobody = self.stack.arena.hold_completions();
        self.frames_mut().rebuild();
    }

    /// RSTs, in batches that the control ring and the frames bound. What the device does not take for a while is left
    /// out: then the peer's next segment is answered with one.
    fn reset_peers(&mut self, mut walk: Farewells) {
        let mut in_vain = 0;
        while in_vain < FAREWELL_TRIES && self.say_farewells(&mut walk) {
            let before = self.engine.counters().tx_frames;
            self.transmit(super::now());
            self.kick();
            for q in 0..self.stack.queues.len() {
                self.complete(q);
            }
            self.frames_mut().collect_returned();
            self.replenish();
            in_vain = if self.engine.counters().tx_frames == before { in_vain + 1 } else { 0 };
        }
        self.transmit(super::now());
        self.kick();
        self.note_farewells_said();
        self.rest();
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.is_resting && !self.has_news() {
            return self.give_back();
        }
        let wakeups = self.take_wakeups();
        let (signals, others) = if self.engine.has_due_signals() { self.take_signals() } else { Default::default() };
        let wants_daemon = self.engine.wants_daemon() || others;
        let wants_daemon = self.tell_of_arrivals() || wants_daemon;
        self.stack.slot().note_changing(false);
        self.stack.slot().unlock();
        if wakeups != 0 {
            self.stack.ring_bells(wakeups);
        }
        self.stack.ring_daemon(wants_daemon);
        // One that comes to this thread waits until it is outside.
        signals.into_iter().flatten().for_each(Notice::send);
        critical::leave();
    }
}

impl core::fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Guard").field("stack", &self.stack.index).finish_non_exhaustive()
    }
}
