//! epoll_wait: a look at the engine's set and at the kernel's, then sleep on both.

use crate::blocking::{self, Spin};
use crate::epoll::{Set, without_nudge};
use crate::signals::interrupt::Mark;
use crate::sys::{self, Result, raw};
use crate::user::number;
use crate::vigil::Vigil;
use crate::{attach, critical, kick, memory};
use core::ffi::c_void;
use libc::{EBADF, EFAULT, EINTR, EINVAL, c_int, epoll_event};
use sidestep_stack::runtime::{Guard, Stack, now};
use sidestep_stack::socket::{EpollEvent, SetId, is_token};
use sidestep_stack::time::Instant;
use std::sync::atomic::Ordering;

/// Most events of one call on a set with user sockets: bounds how long the stack is locked.
const EVENTS_MAX: usize = 1024;
/// The kernel refuses more.
const KERNELS_MAX: c_int = i32::MAX / size_of::<epoll_event>() as c_int;
/// While user sockets keep a wait busy, the kernel's descriptors are looked at this often.
const KERNEL_LOOK_US: u64 = 50;
const KERNEL_LOOK_CALLS: u32 = 8;
/// And this often while it spins.
const KERNEL_LOOK_SPIN_US: u64 = 20;

/// Where events go: the application's array.
pub(crate) struct Out {
    events: *mut epoll_event,
    max: usize,
    /// `max` events can be written.
    is_there: bool,
}

impl Out {
    /// # Safety
    /// `events` is the application's, for `max` records while the wait lasts.
    pub(crate) unsafe fn new(events: *mut epoll_event, max: c_int) -> Result<Out> {
        if !(1..=KERNELS_MAX).contains(&max) {
            return Err(EINVAL);
        }
        let declared = libc::iovec { iov_base: events.cast(), iov_len: max as usize * size_of::<epoll_event>() };
        memory::check_buffers(&[declared])?;
        Ok(Out { events, max: max as usize, is_there: false })
    }

    /// How much of the array is there: that need not be all of it, as long as events are few. `Err` when it is nothing.
    fn find(&mut self) -> Result<()> {
        let fits = |n: usize| memory::probe_write(self.events.cast(), n * size_of::<epoll_event>()).is_ok();
        let mut max = self.max;
        while !self.is_there && !fits(max) {
            max /= 2;
            if max == 0 {
                return Err(EFAULT);
            }
        }
        (self.max, self.is_there) = (max, true);
        Ok(())
    }

    /// The records `from..to`, as far as there are so many.
    fn room(&mut self, from: usize, to: usize) -> &mut [EpollEvent] {
        if self.events.is_null() {
            return &mut [];
        }
        let to = to.min(self.max);
        let from = from.min(to);
        // SAFETY: EpollEvent is laid out as struct epoll_event; the array is the application's, as `new` was promised.
        unsafe { core::slice::from_raw_parts_mut(self.events.cast::<EpollEvent>().add(from), to - from) }
    }
}

/// One epoll_wait.
pub(crate) struct Waiting<'a> {
    pub(crate) set: &'a Set,
    pub(crate) epfd: c_int,
    pub(crate) out: Out,
    /// `None`: for ever.
    pub(crate) timeout_us: Option<u64>,
    pub(crate) sigmask: *const c_void,
}

impl Waiting<'_> {
    /// Waits: first by `plain`, the system call, if that is all there is to do.
    pub(crate) fn run(self, plain: impl FnOnce() -> Result<isize>) -> Result<isize> {
        // A wait that does not end, or does not begin, needs no clock.
        let deadline = match self.timeout_us {
            None => None,
            Some(0) => Some(Instant::ZERO),
            Some(us) => Some(now().after_us(us)),
        };
        if self.set.id().is_none() {
            // Whoever does not wait need not be called out of there.
            let waits = self.timeout_us != Some(0);
            let n = if waits { self.set.in_kernel(self.epfd, plain) } else { Some(plain()) };
            if self.set.id().is_none() || !matches!(n, Some(Ok(1..)) | None) {
                return n.unwrap_or(Ok(0));
            }
            return self.go_on(n.map_or(0, |n| n.unwrap_or(0) as usize), deadline);
        }
        self.run_mixed(deadline)
    }

    /// After a plain kernel wait with `n` events, in which the set may have got a user socket.
    pub(crate) fn go_on(mut self, n: usize, deadline: Option<Instant>) -> Result<isize> {
        match self.after_kernel(n)? {
            0 => self.run_mixed(deadline),
            n => Ok(n as isize),
        }
    }

    fn run_mixed(mut self, deadline: Option<Instant>) -> Result<isize> {
        let (Some(id), Some(stack)) = (self.set.id(), attach::stack()) else { return Ok(0) };
        self.out.max = self.out.max.min(EVENTS_MAX);
        match self.wait_in_both(id, stack, deadline) {
            // Another thread has closed the set: nothing comes any more, until it is time.
            Err(EBADF) => self.sit_out(deadline),
            result => {
                let n = result?;
                kick::begin_batch(n);
                Ok(n as isize)
            }
        }
    }

    fn sit_out(&self, deadline: Option<Instant>) -> Result<isize> {
        let left = deadline.map(|at| at.since_us(now()));
        let mut mark = Mark::at_start();
        loop {
            match sys::ppoll_since(&mut [], left, self.sigmask, &mark) {
                Err(EINTR) if left.is_none() && !mark.ends(false, Err(EINTR)) => {}
                result => return result.map(|_| 0),
            }
        }
    }

    /// What is left of the `n` events of a plain kernel wait, which the set's first user socket may have ended.
    fn after_kernel(&mut self, n: usize) -> Result<usize> {
        let n = without_nudge(self.out.room(0, n));
        match (self.set.id(), attach::stack()) {
            (Some(id), Some(stack)) => self.settle(id, stack, n),
            _ => Ok(n),
        }
    }

    /// Kernel events into the array from `from` on, `room` at most.
    fn kernel_events(&mut self, from: usize, room: usize, timeout_us: Option<u64>) -> Result<usize> {
        let mut time = timeout_us.map(sys::timespec);
        let time = sys::time_pointer(&mut time);
        let mask = if timeout_us == Some(0) { core::ptr::null() } else { self.sigmask };
        let max = self.out.max.saturating_sub(from).min(room);
        if max == 0 {
            return Ok(0);
        }
        let events = self.out.events.wrapping_add(from);
        // SAFETY: the application's array, the timespec ours; the kernel checks the pointers.
        let result = unsafe { raw!(epoll_pwait2, self.epfd, events, max, time, mask, sys::SIGSET_BYTES) };
        match result {
            Err(libc::ENOSYS) => {
                let ms = timeout_us.map_or(-1, |us| us.div_ceil(1000).min(i32::MAX as u64) as c_int);
                // SAFETY: as above.
                unsafe { raw!(epoll_pwait, self.epfd, events, max, ms, mask, sys::SIGSET_BYTES) }
            }
            result => result,
        }
        .map(|n| n as usize)
    }

    /// Once it has slept, this thread counts as one that waits until it returns: an exclusive member is announced to it
    /// also while it looks.
    fn wait_in_both(&mut self, id: SetId, stack: &Stack, deadline: Option<Instant>) -> Result<usize> {
        let _held = critical::hold(); // handlers run where it sleeps, or breathes
        let forget = |guard: &mut Guard<'_>, bell| {
            let _ = guard.epoll_unwait(id, bell);
        };
        let mut vigil = Vigil::begin(stack, &forget, &|| {});
        vigil.keep();
        self.wait_by(&vigil, id, stack, deadline)
    }

    fn wait_by(&mut self, vigil: &Vigil<'_>, id: SetId, stack: &Stack, deadline: Option<Instant>) -> Result<usize> {
        let (started, mut mark) = (now(), Mark::at_start());
        let mut spin = Spin::begin(started);
        let mut spun = false;
        let mut at = started;
        loop {
            // What keeps the kernel's half busy does not wait for a spin's turn: the first look of a call is at both.
            let is_urgent = at == started && self.set.kernel_busy.load(Ordering::Relaxed);
            let n = self.look(vigil, id, stack, at, is_urgent)?;
            if n > 0 {
                if spun {
                    Spin::found();
                }
                return Ok(n);
            }
            if deadline.is_some_and(|deadline| at >= deadline) {
                return self.end_in_vain();
            }
            critical::breathe();
            if mark.ends_wait() {
                return self.end_interrupted(id, stack);
            }
            if spin.again(stack) {
                spun = true;
                at = now();
                continue;
            }
            if let Some(n) = self.sleep(vigil, id, stack, deadline, &mut mark)? {
                return Ok(n);
            }
            at = now();
            spin = Spin::begin(at);
            spun = false;
        }
    }

    /// The time is over. A signal that the mask lets in ends a wait that may not have slept; one that waited for its end does not.
    fn end_in_vain(&self) -> Result<usize> {
        if !self.sigmask.is_null() && self.timeout_us != Some(0) {
            sys::ppoll_since(&mut [], Some(0), self.sigmask, &Mark::at_start())?;
        }
        Ok(0)
    }

    /// One look at the rings, the user set and, when it is its turn, the kernel's set; which it always is when nothing of ours is
    /// ready, and the kernel's half is urgent.
    fn look(&mut self, vigil: &Vigil<'_>, id: SetId, stack: &Stack, at: Instant, is_urgent: bool) -> Result<usize> {
        let mut guard = stack.lock();
        // What earlier calls put off leaves now: this thread is back to wait.
        kick::before_wait(&mut guard, at);
        guard.poll(at);
        vigil.with_bell(|bell| bell.hush(&mut guard));
        let calls = self.set.calls_since.fetch_add(1, Ordering::Relaxed);
        let since = at.micros().saturating_sub(self.set.kernel_looked.load(Ordering::Relaxed));
        let kernel_due = since >= KERNEL_LOOK_US || calls >= KERNEL_LOOK_CALLS;
        if kernel_due && self.set.kernel_first.fetch_xor(true, Ordering::Relaxed) {
            drop(guard);
            let half = (self.out.max / 2).max(1);
            let n = self.look_in_kernel(0, half, at)?;
            let n = n + self.collect(id, &mut stack.lock(), n, at)?;
            return self.settle(id, stack, n);
        }
        let n = self.collect(id, &mut guard, 0, at)?;
        if n > 0 && !kernel_due {
            return self.settle_locked(id, &mut guard, n);
        }
        drop(guard);
        // With nothing of ours to report the kernel is asked each time, but not faster than a spin needs it.
        if !kernel_due && !is_urgent && since < KERNEL_LOOK_SPIN_US && self.timeout_us != Some(0) {
            return Ok(n);
        }
        let n = n + self.look_in_kernel(n, self.out.max, at)?;
        self.settle(id, stack, n)
    }

    /// What is in both sets becomes one event, with the application's word.
    fn settle(&mut self, id: SetId, stack: &Stack, n: usize) -> Result<usize> {
        if self.has_tokens(n) { self.settle_locked(id, &mut stack.lock(), n) } else { Ok(n) }
    }

    fn settle_locked(&mut self, id: SetId, guard: &mut Guard<'_>, n: usize) -> Result<usize> {
        if !self.has_tokens(n) {
            return Ok(n);
        }
        guard.epoll_settle(id, self.out.room(0, n)).map_err(number)
    }

    fn has_tokens(&mut self, n: usize) -> bool {
        n > 0 && self.set.has_twins() && self.out.room(0, n).iter().any(|e| is_token(e.data))
    }

    fn look_in_kernel(&mut self, from: usize, room: usize, at: Instant) -> Result<usize> {
        self.set.kernel_looked.store(at.micros(), Ordering::Relaxed);
        self.set.calls_since.store(0, Ordering::Relaxed);
        let n = self.kernel_events(from, room, Some(0))?;
        self.set.kernel_busy.store(n > 0, Ordering::Relaxed);
        // The nudge may still be there for a waiter that has not left yet.
        Ok(without_nudge(self.out.room(from, from + n)))
    }

    /// User events into the array from `from` on. With none, everything owed is sent; with some, an acknowledgement
    /// that is owed may ride on what the application answers.
    fn collect(&mut self, id: SetId, guard: &mut Guard<'_>, from: usize, at: Instant) -> Result<usize> {
        if self.out.find().is_err() {
            return if guard.epoll_has_ready(id).map_err(number)? { Err(EFAULT) } else { Ok(0) };
        }
        let max = self.out.max;
        let n = guard.epoll_collect(id, self.out.room(from, max)).map_err(number)?;
        if n == 0 {
            kick::before_wait(guard, at);
        }
        Ok(n)
    }

    /// The last look and the sleep. `Some`: events, found at the last moment.
    fn sleep(
        &mut self,
        vigil: &Vigil<'_>,
        id: SetId,
        stack: &Stack,
        deadline: Option<Instant>,
        mark: &mut Mark,
    ) -> Result<Option<usize>> {
        vigil.claim();
        let timeout = {
            let at = now();
            let mut guard = stack.lock();
            guard.poll(at);
            let n = self.collect_settled(id, &mut guard, at)?;
            if n > 0 {
                return Ok(Some(n));
            }
            if let Some(bell) = vigil.bit() {
                guard.epoll_wait_on(id, bell).map_err(number)?;
            }
            vigil.fall_asleep();
            blocking::sleep_us(&guard, at, deadline, vigil.bit().is_some())
        };
        let also = Some((self.epfd, libc::POLLIN));
        let woken = blocking::sleep(stack, vigil, also, timeout, self.sigmask, mark);
        vigil.wake();
        // The kernel's set is looked at first thing after a sleep: it may have been what ended it.
        self.set.kernel_looked.store(0, Ordering::Relaxed);
        match woken {
            Err(EINTR) if mark.ends(false, woken) => self.end_interrupted(id, stack).map(Some),
            _ => Ok(None),
        }
    }

    /// A handler has run. What was announced to this thread alone must not be left behind.
    fn end_interrupted(&mut self, id: SetId, stack: &Stack) -> Result<usize> {
        match self.collect_settled(id, &mut stack.lock(), now())? {
            0 => Err(EINTR),
            n => Ok(n),
        }
    }

    fn collect_settled(&mut self, id: SetId, guard: &mut Guard<'_>, at: Instant) -> Result<usize> {
        let n = self.collect(id, guard, 0, at)?;
        self.settle_locked(id, guard, n)
    }
}
