//! Waiting: look, spin for a bounded time, then sleep in one kernel wait on the stack's XSKs, a bell and the
//! application's own descriptors.
//!
//! No wake-up is lost: the bell is registered under the same lock as the last look, so whoever makes the socket ready
//! afterwards rings it; frames that arrive afterwards make an XSK readable.

use crate::config::config;
use crate::sys::{self, Result};
use crate::{attach, kick};
use core::ffi::c_void;
use libc::{EAGAIN, EINTR, POLLIN, c_int, c_short, pollfd};
use sidestep_stack::arena::MAX_QUEUES;
use sidestep_stack::runtime::{Bell, Guard, Stack, now};
use sidestep_stack::socket::SocketId;
use sidestep_stack::time::Instant;
use std::cell::Cell;

/// While it spins, a thread looks at its socket at least this often: another thread may have handled its frames.
const SPIN_SLICE_US: u64 = 5;
/// Without a bell a sleeper looks again after this long.
const BELLESS_NAP_US: u64 = 1_000;

thread_local! {
    /// How long this thread spins, in microseconds; adapts to whether spinning finds anything. MAX: not decided yet.
    static SPIN_US: Cell<u32> = const { Cell::new(u32::MAX) };
}

/// One spinning phase.
pub(crate) struct Spin {
    started: Instant,
    budget_us: u64,
}

impl Spin {
    pub(crate) fn begin(now: Instant) -> Spin {
        let budget = SPIN_US.get().min(config().spin_us);
        Spin { started: now, budget_us: u64::from(budget) }
    }

    /// Spins a little. True: look again; false: the budget is used up, sleep.
    pub(crate) fn again(&self, stack: &Stack) -> bool {
        let begun = now();
        if begun.since_us(self.started) >= self.budget_us {
            return false;
        }
        loop {
            for _ in 0..16 {
                if stack.has_received() {
                    return true;
                }
                core::hint::spin_loop();
            }
            if now().since_us(begun) >= SPIN_SLICE_US {
                return true;
            }
        }
    }

    /// What was waited for came: spinning pays.
    pub(crate) fn found() {
        SPIN_US.set(config().spin_us);
    }

    /// A sleep that followed in vain spinning lasted `us`.
    pub(crate) fn slept(us: u64) {
        let full = config().spin_us;
        let current = SPIN_US.get().min(full);
        // Had we spun the full time we would have met it: spin again. Otherwise spin less each time, down to not at all.
        SPIN_US.set(if us < u64::from(full) { full } else { current / 2 });
    }
}

/// Descriptors of one sleep: XSKs, bell, and one of the application's.
struct Bed {
    fds: [pollfd; MAX_QUEUES + 2],
    len: usize,
}

impl Bed {
    fn new(stack: &Stack, bell: Option<&Bell<'_>>, also: Option<(c_int, c_short)>) -> Bed {
        let mut bed = Bed { fds: [pollfd { fd: -1, events: 0, revents: 0 }; MAX_QUEUES + 2], len: 0 };
        also.into_iter().for_each(|(fd, events)| bed.add(fd, events));
        own_fds(stack, bell).for_each(|fd| bed.add(fd, POLLIN));
        bed
    }

    fn add(&mut self, fd: c_int, events: c_short) {
        if let Some(slot) = self.fds.get_mut(self.len) {
            *slot = pollfd { fd, events, revents: 0 };
            self.len += 1;
        }
    }
}

/// What a sleeper on this stack polls for itself.
pub(crate) fn own_fds(stack: &Stack, bell: Option<&Bell<'_>>) -> impl Iterator<Item = c_int> {
    stack.xsk_fds().iter().copied().chain(bell.map(Bell::fd))
}

/// How long a sleep may last: until the caller's deadline, the stack's next timer, or a nap when there is no bell.
pub(crate) fn sleep_us(guard: &Guard<'_>, now: Instant, deadline: Option<Instant>, has_bell: bool) -> Option<u64> {
    let nap = (!has_bell).then(|| now.after_us(BELLESS_NAP_US));
    let first = [guard.next_deadline(now), deadline, nap].into_iter().flatten().min()?;
    Some(first.since_us(now))
}

/// Sleeps. `also` is a descriptor of the application that ends the sleep too.
pub(crate) fn sleep(
    stack: &Stack,
    bell: Option<&Bell<'_>>,
    also: Option<(c_int, c_short)>,
    timeout_us: Option<u64>,
    sigmask: *const c_void,
) -> Result<isize> {
    let mut bed = Bed::new(stack, bell, also);
    let before = now();
    let woken = sys::ppoll(bed.fds.get_mut(..bed.len).unwrap_or_default(), timeout_us, sigmask);
    Spin::slept(now().since_us(before));
    woken
}

/// How a call on one socket waits.
#[derive(Clone, Copy)]
pub(crate) struct Wait {
    /// SO_RCVTIMEO or SO_SNDTIMEO in microseconds; 0 is "for ever".
    pub(crate) timeout_us: u64,
    /// A kernel descriptor whose readability matters too (a listener's shadow).
    pub(crate) also: Option<c_int>,
}

/// Runs `attempt` until it gives anything but EAGAIN, waiting as a blocking call does in between. EAGAIN: it timed out.
pub(crate) fn block<T>(
    stack: &Stack,
    socket: SocketId,
    wait: Wait,
    mut attempt: impl FnMut(&mut Guard<'_>, Instant) -> Result<T>,
) -> Result<T> {
    let started = now();
    let deadline = (wait.timeout_us != 0).then(|| started.after_us(wait.timeout_us));
    let mut spin = Spin::begin(started);
    let mut spun = false;
    loop {
        if let Some(result) = look(stack, &mut attempt) {
            if spun {
                Spin::found();
            }
            return result;
        }
        if deadline.is_some_and(|at| now() >= at) {
            return Err(EAGAIN);
        }
        if spin.again(stack) {
            spun = true;
            continue;
        }
        if let Some(result) = sleep_once(stack, socket, wait, deadline, &mut attempt) {
            return result;
        }
        spin = Spin::begin(now());
        spun = false;
    }
}

/// One look: rings, then the socket. `None`: nothing yet, and whatever was owed is sent.
fn look<T>(stack: &Stack, attempt: &mut impl FnMut(&mut Guard<'_>, Instant) -> Result<T>) -> Option<Result<T>> {
    let now = now();
    let mut guard = stack.lock();
    guard.poll(now);
    match attempt(&mut guard, now) {
        Err(EAGAIN) => {
            kick::before_wait(&mut guard, now);
            None
        }
        result => {
            kick::after_call(&mut guard, now);
            Some(result)
        }
    }
}

/// The last look, the sleep, and what ended it.
fn sleep_once<T>(
    stack: &Stack,
    socket: SocketId,
    wait: Wait,
    deadline: Option<Instant>,
    attempt: &mut impl FnMut(&mut Guard<'_>, Instant) -> Result<T>,
) -> Option<Result<T>> {
    let bell = stack.claim_bell(attach::process());
    let timeout = {
        let now = now();
        let mut guard = stack.lock();
        guard.poll(now);
        match attempt(&mut guard, now) {
            Err(EAGAIN) => {}
            result => {
                kick::after_call(&mut guard, now);
                return Some(result);
            }
        }
        kick::before_wait(&mut guard, now);
        if let Some(bell) = &bell {
            let _ = guard.wait_on(socket, bell.bit()); // closed by now? the next attempt tells
        }
        stack.sleep_begin();
        sleep_us(&guard, now, deadline, bell.is_some())
    };
    let woken = sleep(stack, bell.as_ref(), wait.also.map(|fd| (fd, POLLIN)), timeout, core::ptr::null());
    stack.sleep_end();
    if let Some(bell) = &bell {
        let _ = stack.lock().unwait(socket, bell.bit());
    }
    match woken {
        Err(EINTR) if wait.timeout_us == 0 && handlers_restart() => None,
        Err(error) => Some(Err(error)),
        Ok(_) => None,
    }
}

/// After a signal ended a sleep: whether the call goes on by itself (signal(7), SA_RESTART). The kernel does not say
/// which handler ran, so the answer is yes only if every handler of the process was installed with SA_RESTART; a
/// program that mixes both kinds sees EINTR.
fn handlers_restart() -> bool {
    const GLIBC_CANCEL: c_int = 32;
    let mut flags = (1..=64).filter(|signal| *signal != GLIBC_CANCEL).filter_map(sys::handler_flags);
    flags.all(|f| f & libc::SA_RESTART as u64 != 0)
}
