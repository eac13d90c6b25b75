//! A stack attached to this process: the lock and what may be done under it.

use super::{Bell, Guard, critical};
use crate::arena::{Arena, BELLS, LockOutcome, NAMED_BELLS, ProcId, StackSlot};
use crate::engine::Engine;
use crate::sys;
use crate::time::Instant;
use crate::udp::DatagramPorts;
use crate::xsk::{Queue, fill_frames};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::io;
use std::os::fd::RawFd;

/// Turns that others have at the lock before a thread that ends them all does not wait for it any longer: a tenth of a second;
/// and the time between two looks at a lock that is shut.
const SHUT_TURNS: u32 = 2_000;
const SHUT_NAP_US: u64 = 50;

/// Maps the XDP program's table of datagram ports, for as long as the process lives. The descriptor may be closed then.
pub fn map_datagram_ports(fd: RawFd) -> io::Result<&'static DatagramPorts> {
    let at = sys::mmap_shared(fd, size_of::<DatagramPorts>(), 0, false)?;
    // SAFETY: a mapping of this size, aligned to pages, that is never unmapped; every value of its words is valid, and all who
    // write them write whole words.
    Ok(unsafe { &*at.cast::<DatagramPorts>() })
}

/// A stack's attachment to this process. Any thread may use it.
pub struct Stack {
    pub(super) arena: &'static Arena,
    pub(super) index: u32,
    engine: UnsafeCell<Engine<'static>>,
    pub(super) queues: Vec<Queue>,
    /// How many of them frames can leave by.
    pub(super) senders: usize,
    /// Frames that are not with the fill rings: what connections can have, all together.
    pub(super) circulating: u32,
    pub(super) xsks: Vec<AtomicI32>,
    pub(super) bells: Vec<AtomicI32>,
    pub(super) daemon_bell: AtomicI32,
    /// The daemon attached it: it speaks for processes that do not run.
    pub(super) is_daemons: bool,
    /// The thread that shut the others of this process out ([`Stack::shut`]); 0: they may come in. And until when.
    shut_by: AtomicI32,
    shut_until_us: AtomicU64,
}

/// How far the receive rings of a stack were filled at some moment.
#[derive(Debug)]
pub struct Arrivals {
    ends: Vec<u32>,
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
        let senders = (arena.header().transmit_queues() as usize).min(queues.len());
        let numbers = |fds: &[RawFd]| fds.iter().copied().map(AtomicI32::new).collect();
        let (xsks, bells, daemon_bell) = (numbers(xsks), numbers(bells), AtomicI32::new(daemon_bell));
        Ok(Stack {
            arena,
            index,
            engine,
            queues,
            senders,
            circulating,
            xsks,
            bells,
            daemon_bell,
            is_daemons: false,
            shut_by: AtomicI32::new(0),
            shut_until_us: AtomicU64::new(0),
        })
    }

    /// The stack steers the datagrams of its own ports by this table from now on.
    pub fn steering_datagrams_by(mut self, table: &'static DatagramPorts) -> Stack {
        self.engine.get_mut().steer_datagrams_by(table);
        self
    }

    /// The daemon has it.
    pub fn of_daemon(mut self) -> Stack {
        self.is_daemons = true;
        self
    }

    /// Takes the stack's lock.
    pub fn lock(&self) -> Guard<'_> {
        critical::enter();
        loop {
            let outcome = self.slot().lock();
            if let Some(guard) = self.guard(outcome) {
                return guard;
            }
            sys::nap_us(SHUT_NAP_US);
        }
    }

    /// Takes the lock if nobody has it.
    pub fn try_lock(&self) -> Option<Guard<'_>> {
        critical::enter();
        let guard = self.slot().try_lock().and_then(|outcome| self.guard(outcome));
        if guard.is_none() {
            critical::leave();
        }
        guard
    }

    /// Keeps the other threads of this process away from what the lock guards: they are about to be ended, by exec or exit, and
    /// one that ended in the midst of a change would take the stack's connections with it. Whoever is at it has his turn first, if
    /// it does not last; he may be of another process, and stopped. After `until` they go on all the same.
    pub fn shut(&self, until: Instant) {
        self.shut_until_us.store(until.micros(), Ordering::Relaxed);
        self.shut_by.store(sys::gettid(), Ordering::SeqCst);
        for _ in 0..SHUT_TURNS {
            // Whoever takes the lock after this turn sees that it is shut.
            if self.try_lock().is_some() {
                return;
            }
            sys::nap_us(SHUT_NAP_US);
        }
    }

    /// They were not ended; or this is a forked child, which has none.
    pub fn open(&self) {
        self.shut_by.store(0, Ordering::SeqCst);
    }

    #[cold]
    fn is_shut_to_me(&self) -> bool {
        let until = Instant::from_micros(self.shut_until_us.load(Ordering::Relaxed));
        self.shut_by.load(Ordering::Relaxed) != sys::gettid() && super::now() < until
    }

    /// After the lock was taken. None: it was given back, for this thread is to stay out.
    #[inline]
    fn guard(&self, outcome: LockOutcome) -> Option<Guard<'_>> {
        if outcome == LockOutcome::OwnerDied {
            self.wake_all(); // He may not have come to wake whom he was to wake.
        }
        if self.shut_by.load(Ordering::Relaxed) != 0 && self.is_shut_to_me() {
            self.slot().unlock();
            return None;
        }
        // SAFETY: we hold the lock, so no other Guard exists.
        Some(Guard::new(self, unsafe { &mut *self.engine.get() }))
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
    pub fn xsk_fds(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.xsks.iter().map(|fd| fd.load(Ordering::Relaxed))
    }

    /// One of the stack's bells (eventfds).
    pub(super) fn bell_fd(&self, bit: u8) -> RawFd {
        self.bells[usize::from(bit)].load(Ordering::Relaxed)
    }

    /// Takes a free bell for a thread of `process`; `None` when all are taken: then share one ([`Stack::shared_bell`]).
    pub fn claim_bell(&self, process: ProcId) -> Option<Bell<'_>> {
        self.slot().claim_bell(process).map(|bit| Bell::new(self, bit as u8))
    }

    /// A bell that any number of threads may wait for at once, `nth` modulo how many there are: its number in the engine's
    /// masks and its eventfd. Nobody empties that: who waits for it waits for edges (EPOLLET).
    pub fn shared_bell(&self, nth: usize) -> (u8, RawFd) {
        let bit = NAMED_BELLS + nth % (BELLS - NAMED_BELLS);
        (bit as u8, self.bells[bit].load(Ordering::Relaxed))
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

    /// What has been received by now.
    pub fn arrivals(&self) -> Arrivals {
        Arrivals { ends: self.queues.iter().map(Queue::rx_end).collect() }
    }

    /// Whether all that had been received then was handled since, by whomever: a look without the lock.
    pub fn has_handled(&self, arrivals: &Arrivals) -> bool {
        self.queues.iter().zip(&arrivals.ends).all(|(queue, end)| queue.is_consumed_to(*end))
    }

    /// Frames in its receive rings, and in the fill rings of its queues: a look without the lock.
    pub fn frames_in_rings(&self) -> (u32, u32) {
        let received = self.queues.iter().map(Queue::received).sum();
        (received, self.queues.iter().map(Queue::to_be_filled).sum())
    }

    /// Whoever waits looks again.
    pub fn wake_all(&self) {
        self.ring_bells(u32::MAX);
    }

    pub(super) fn ring_bells(&self, mask: u32) {
        for (i, fd) in self.bells.iter().enumerate() {
            if mask & 1 << i != 0 {
                sys::ring_eventfd(fd.load(Ordering::Relaxed));
            }
        }
    }

    /// The daemon shall look who uses the stack.
    pub fn call_daemon(&self) {
        self.ring_daemon(true);
    }

    /// Wakes the daemon: it has work, or it sleeps and somebody uses a stack.
    pub(super) fn ring_daemon(&self, wanted: bool) {
        let asleep = &self.arena.header().daemon_asleep;
        let sleeps = asleep.load(Ordering::Relaxed) != 0 && asleep.swap(0, Ordering::AcqRel) != 0;
        if wanted || sleeps {
            sys::ring_eventfd(self.daemon_bell.load(Ordering::Relaxed));
        }
    }
}

impl core::fmt::Debug for Stack {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Stack").field("index", &self.index).finish_non_exhaustive()
    }
}
