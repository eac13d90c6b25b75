//! When a send leaves: at once, unless an epoll_wait (or poll, or select) has just returned several events. Then the
//! sends of that batch leave together, in one transmit kick, when this thread comes back to wait: the kick is the
//! dearest thing there is.

use crate::thread;
use sidestep_stack::runtime::Guard;
use sidestep_stack::time::Instant;
use std::cell::Cell;

/// Calls that may be put off in one batch, and for how long; then they leave anyway.
const CALLS_MAX: u32 = 32;
const DELAY_US_MAX: u64 = 100;

/// Zeroes are a closed one.
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    open: bool,
    calls: u32,
    /// When the first send of the batch was put off.
    since: Instant,
}

const CLOSED: Batch = Batch { open: false, calls: 0, since: Instant::ZERO };

fn batch() -> &'static Cell<Batch> {
    &thread::current().batch
}

/// A wait returned `events` events to this thread.
#[inline]
pub(crate) fn begin_batch(events: usize) {
    batch().set(Batch { open: events > 1, ..CLOSED });
}

/// This thread waits again (or exits): nothing is put off any more.
#[inline]
pub(crate) fn end_batch() {
    batch().set(CLOSED);
}

/// After a call on a socket: sends what it left to be sent, or puts it off.
#[inline]
pub(crate) fn after_call(guard: &mut Guard<'_>, now: Instant) {
    if guard.has_transmit() {
        send_or_put_off(guard, now);
    }
}

fn send_or_put_off(guard: &mut Guard<'_>, now: Instant) {
    let place = batch();
    let mut batch = place.get();
    if !batch.open {
        return guard.flush(now);
    }
    if batch.calls == 0 {
        batch.since = now;
    }
    batch.calls += 1;
    if batch.calls >= CALLS_MAX || now.since_us(batch.since) >= DELAY_US_MAX {
        batch.calls = 0;
        guard.flush(now);
    }
    place.set(batch);
}

/// The sends of one call that makes several (sendmmsg): they leave together when it ends.
#[must_use]
pub(crate) struct Together {
    before: Batch,
}

impl Together {
    pub(crate) fn begin() -> Together {
        let before = batch().get();
        batch().set(Batch { open: true, ..before });
        Together { before }
    }

    /// Sends, unless an outer batch goes on.
    pub(crate) fn end(self) {
        let before = self.before;
        batch().set(Batch { open: before.open, ..batch().get() });
        if !before.open
            && let Some(stack) = crate::attach::stack()
        {
            let mut guard = stack.lock();
            if guard.has_transmit() {
                guard.flush(sidestep_stack::runtime::now());
            }
            batch().set(before);
        }
    }
}

/// Before a wait: all that anybody left on this stack is sent.
#[inline]
pub(crate) fn before_wait(guard: &mut Guard<'_>, now: Instant) {
    end_batch();
    if guard.has_transmit() {
        guard.flush(now);
    }
}
