//! Waiting: look, spin for a bounded time, then sleep in one kernel wait on the stack's XSKs, a bell and the
//! application's own descriptors.
//!
//! No wake-up is lost: the bell is registered under the same lock as the last look, so whoever makes the socket ready
//! afterwards rings it; frames that arrive afterwards make an XSK readable.

use crate::holder::Holder;
use crate::signals::interrupt::Mark;
use crate::spin::{self, Spinning};
use crate::sys::{self, Result};
use crate::vigil::Vigil;
use crate::{critical, kick, thread};
use core::ffi::c_void;
use libc::{EAGAIN, EINTR, POLLIN, c_int, c_short, pollfd};
use sidestep_stack::arena::MAX_QUEUES;
use sidestep_stack::runtime::{Guard, Stack, now};
use sidestep_stack::socket::SocketId;
use sidestep_stack::time::Instant;
use std::cell::Cell;

/// While it spins, a thread looks at its socket at least this often: another thread may have handled its frames.
const SPIN_SLICE_US: u64 = 5;
/// Without a bell a sleeper looks again after this long.
const BELLESS_NAP_US: u64 = 1_000;

fn spinning() -> &'static Spinning {
    &thread::current().spinning
}

/// One spinning phase.
pub(crate) struct Spin {
    started: Instant,
    budget_us: u64,
}

impl Spin {
    pub(crate) fn begin(now: Instant) -> Spin {
        let budget = spinning().found_us().min(spin::limit_us());
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
        spinning().find(spin::limit_us());
    }

    /// A sleep that followed in vain spinning lasted `us`.
    pub(crate) fn slept(us: u64) {
        let full = spin::limit_us();
        let current = spinning().found_us().min(full);
        // Had we spun the full time we would have met it: spin again. Otherwise spin less each time, down to not at all.
        spinning().find(if us < u64::from(full) { full } else { current / 2 });
    }
}

/// Descriptors of one sleep: XSKs, bell, and one of the application's.
struct Bed {
    fds: [pollfd; MAX_QUEUES + 2],
    len: usize,
}

impl Bed {
    fn new(stack: &Stack, vigil: &Vigil<'_>, also: Option<(c_int, c_short)>) -> Bed {
        let mut bed = Bed { fds: [pollfd { fd: -1, events: 0, revents: 0 }; MAX_QUEUES + 2], len: 0 };
        also.into_iter().for_each(|(fd, events)| bed.add(fd, events));
        own_fds(stack, vigil).for_each(|fd| bed.add(fd, POLLIN));
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
pub(crate) fn own_fds(stack: &Stack, vigil: &Vigil<'_>) -> impl Iterator<Item = c_int> {
    stack.xsk_fds().chain(vigil.bell_fd())
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
    vigil: &Vigil<'_>,
    also: Option<(c_int, c_short)>,
    timeout_us: Option<u64>,
    sigmask: *const c_void,
    mark: &Mark,
) -> Result<isize> {
    let mut bed = Bed::new(stack, vigil, also);
    let before = now();
    let woken = sys::ppoll_since(bed.fds.get_mut(..bed.len).unwrap_or_default(), timeout_us, sigmask, mark);
    Spin::slept(now().since_us(before));
    woken
}

/// How a call on one socket waits.
#[derive(Clone, Copy)]
pub(crate) struct Wait<'a> {
    /// SO_RCVTIMEO or SO_SNDTIMEO in microseconds; 0 is "for ever".
    pub(crate) timeout_us: u64,
    /// Held while the call waits. The readability of its half in the kernel, if it has one, matters too.
    pub(crate) holder: Holder,
    /// What the call has done already, in bytes: one that has done some ends with that, SA_RESTART or not.
    pub(crate) done: Option<&'a Cell<usize>>,
}

impl Wait<'_> {
    /// Whether the call goes on after a handler that allows it.
    fn restarts(&self) -> bool {
        self.timeout_us == 0 && self.done.is_none_or(|done| done.get() == 0)
    }
}

/// Runs `attempt` until it gives anything but EAGAIN, waiting as a blocking call does in between. EAGAIN: it timed out.
pub(crate) fn block<T>(
    stack: &Stack,
    socket: SocketId,
    wait: Wait<'_>,
    mut attempt: impl FnMut(&mut Guard<'_>, Instant) -> Result<T>,
) -> Result<T> {
    let _held = critical::hold(); // handlers run where it sleeps, or breathes
    let started = now();
    let deadline = (wait.timeout_us != 0).then(|| started.after_us(wait.timeout_us));
    let mut spin = Spin::begin(started);
    let mut spun = false;
    let mut mark = Mark::at_start();
    wait.holder.take();
    let forget = |guard: &mut Guard<'_>, bell| {
        let _ = guard.unwait(socket, bell);
    };
    let give_back = || wait.holder.give_back();
    let mut vigil = Vigil::begin(stack, &forget, &give_back);
    vigil.keep();
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
        critical::breathe();
        if mark.any_ran() && mark.ends(wait.restarts(), Ok(0)) {
            return Err(EINTR);
        }
        if spin.again(stack) {
            spun = true;
            continue;
        }
        if let Some(result) = sleep_once(stack, &vigil, socket, wait, deadline, &mut mark, &mut attempt) {
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
    vigil: &Vigil<'_>,
    socket: SocketId,
    wait: Wait<'_>,
    deadline: Option<Instant>,
    mark: &mut Mark,
    attempt: &mut impl FnMut(&mut Guard<'_>, Instant) -> Result<T>,
) -> Option<Result<T>> {
    vigil.claim();
    let timeout = {
        let now = now();
        let mut guard = stack.lock();
        guard.poll(now);
        match attempt(&mut guard, now) {
            Err(EAGAIN) => {}
            result => {
                kick::after_call(&mut guard, now);
                drop(guard);
                vigil.get_up();
                return Some(result);
            }
        }
        kick::before_wait(&mut guard, now);
        if let Some(bell) = vigil.bit() {
            let _ = guard.wait_on(socket, bell); // closed by now? the next attempt tells
        }
        vigil.fall_asleep();
        sleep_us(&guard, now, deadline, vigil.bit().is_some())
    };
    let also = wait.holder.shadow().map(|fd| (fd, POLLIN));
    let woken = sleep(stack, vigil, also, timeout, core::ptr::null(), mark);
    vigil.get_up();
    match woken {
        Err(EINTR) if !mark.ends(wait.restarts(), woken) => None,
        Err(error) => Some(Err(error)),
        Ok(_) => None,
    }
}
