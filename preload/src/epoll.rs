//! epoll over kernel descriptors and user sockets in one set. The descriptor is a real kernel epoll, which holds the
//! kernel's; a set in the engine, made when the first user socket is added, holds ours; a wait looks at both.
//!
//! A thread may already wait in the kernel when another thread adds the first user socket: the *nudge*, a descriptor
//! that is always readable, is then put into the kernel set until the last such waiter has left.

use crate::blocking::{self, Spin};
use crate::datagrams::Datagram;
use crate::fd_table::{Entry, Kind};
use crate::interest::Interest;
use crate::listeners;
use crate::sys::{self, Result, raw};
use crate::user::{Stream, number};
use crate::{attach, hidden, kick};
use core::ffi::c_void;
use libc::{EINTR, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLIN, c_int, epoll_event};
use parking_lot::Mutex;
use sidestep_stack::runtime::{Guard, Stack, now};
use sidestep_stack::socket::{EpollEvent, Errno, SetId, SocketId};
use sidestep_stack::time::Instant;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

const MAX_SETS: usize = 1024;
/// What the shadow of a datagram socket is not asked: whether there is room to send.
pub(crate) const ROOM: u32 = (libc::EPOLLOUT | libc::EPOLLWRNORM | libc::EPOLLWRBAND) as u32;
/// Most events of one call: bounds how long the stack is locked.
const EVENTS_MAX: usize = 1024;
/// While user sockets keep a wait busy, the kernel's descriptors are looked at this often.
const KERNEL_LOOK_US: u64 = 50;
const KERNEL_LOOK_CALLS: u32 = 8;
/// And this often while it spins.
const KERNEL_LOOK_SPIN_US: u64 = 20;

/// One epoll descriptor with what may be added to it beside the kernel's set. Duplicates share it.
pub(crate) struct Set {
    in_use: AtomicBool,
    generation: AtomicU32,
    refs: AtomicU32,
    /// The engine's set, 0 before there is one.
    id: AtomicU64,
    /// Made by our parent: not ours to close.
    inherited: AtomicBool,
    /// Threads in a plain kernel wait.
    kernel_waiters: AtomicU32,
    nudged: AtomicBool,
    /// Serialises epoll_ctl against the first addition.
    lock: Mutex<()>,
    kernel_looked: AtomicU64,
    calls_since: AtomicU32,
    kernel_first: AtomicBool,
    /// Datagram sockets are in both sets: one of them may be reported twice.
    has_datagrams: AtomicBool,
}

static SETS: [Set; MAX_SETS] = [const { Set::unused() }; MAX_SETS];
static NUDGE: AtomicI32 = AtomicI32::new(-1);

/// Which descriptor an epoll call names, as far as the kernel's set does not know it.
#[derive(Clone, Copy)]
pub(crate) struct Member {
    pub(crate) id: SocketId,
    pub(crate) stack: &'static Stack,
    pub(crate) fd: c_int,
}

impl Set {
    const fn unused() -> Set {
        Set {
            in_use: AtomicBool::new(false),
            generation: AtomicU32::new(0),
            refs: AtomicU32::new(0),
            id: AtomicU64::new(0),
            inherited: AtomicBool::new(false),
            kernel_waiters: AtomicU32::new(0),
            nudged: AtomicBool::new(false),
            lock: Mutex::new(()),
            kernel_looked: AtomicU64::new(0),
            calls_since: AtomicU32::new(0),
            kernel_first: AtomicBool::new(false),
            has_datagrams: AtomicBool::new(false),
        }
    }

    /// The engine's set, if any user socket was ever added.
    pub(crate) fn id(&self) -> Option<SetId> {
        match self.id.load(Ordering::Acquire) {
            0 => None,
            bits => Some(SetId::from_bits(bits)),
        }
    }

    /// What the nudge's event carries: an address of ours is no value of the application's.
    fn nudge_data(&self) -> u64 {
        core::ptr::from_ref(self) as u64
    }

    /// The engine's set, made if need be. Whoever waits in the kernel alone is called out of there.
    fn open(&self, epfd: c_int, stack: &Stack) -> Result<SetId> {
        let _locked = self.lock.lock();
        if let Some(id) = self.id() {
            return Ok(id);
        }
        let id = stack.lock().epoll_open(attach::process()).map_err(number)?;
        self.id.store(id.to_bits(), Ordering::SeqCst);
        if self.kernel_waiters.load(Ordering::SeqCst) != 0 {
            self.nudge(epfd)?;
        }
        Ok(id)
    }

    fn nudge(&self, epfd: c_int) -> Result<()> {
        let mut event = epoll_event { events: EPOLLIN as u32, u64: self.nudge_data() };
        let fd = nudge_descriptor()?;
        // SAFETY: `event` is ours.
        unsafe { raw!(epoll_ctl, epfd, EPOLL_CTL_ADD, fd, &raw mut event) }?;
        self.nudged.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// A plain kernel wait ended; the last one out takes the nudge away.
    fn leave_kernel(&self, epfd: c_int) {
        if self.kernel_waiters.fetch_sub(1, Ordering::SeqCst) == 1 && self.id().is_some() {
            let _locked = self.lock.lock(); // whoever nudges has finished then
            if self.nudged.swap(false, Ordering::SeqCst) {
                // SAFETY: no event is passed.
                let _ = unsafe { raw!(epoll_ctl, epfd, EPOLL_CTL_DEL, NUDGE.load(Ordering::Acquire), 0) };
            }
        }
    }
}

/// An eventfd that is always readable.
fn nudge_descriptor() -> Result<c_int> {
    match NUDGE.load(Ordering::Acquire) {
        -1 => {}
        fd => return Ok(fd),
    }
    // SAFETY: numbers only.
    let fd = unsafe { raw!(eventfd2, 1, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }?;
    let fd = hidden::hide(fd as c_int);
    match NUDGE.compare_exchange(-1, fd, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Ok(fd),
        Err(other) => {
            hidden::close(fd);
            Ok(other)
        }
    }
}

/// A slot for a new epoll descriptor; its entry for the fd table. `None`: it stays the kernel's alone.
pub(crate) fn new_set() -> Option<Entry> {
    for (index, set) in SETS.iter().enumerate() {
        if !set.in_use.swap(true, Ordering::AcqRel) {
            set.refs.store(1, Ordering::Release);
            return Some(Entry::new(Kind::Epoll, set.generation.load(Ordering::Acquire), index as u32));
        }
    }
    None
}

pub(crate) fn of(entry: Entry) -> Option<&'static Set> {
    let set = SETS.get(entry.index() as usize).filter(|_| entry.kind() == Kind::Epoll)?;
    (set.generation.load(Ordering::Acquire) == entry.generation()).then_some(set)
}

pub(crate) fn add_descriptor(entry: Entry) {
    if let Some(set) = of(entry) {
        set.refs.fetch_add(1, Ordering::AcqRel);
    }
}

pub(crate) fn remove_descriptor(entry: Entry) {
    let Some(set) = of(entry) else { return };
    if set.refs.fetch_sub(1, Ordering::AcqRel) != 1 {
        return;
    }
    set.has_datagrams.store(false, Ordering::Relaxed);
    let id = set.id.swap(0, Ordering::AcqRel);
    if let Some(stack) = attach::stack().filter(|_| id != 0 && !set.inherited.load(Ordering::Acquire)) {
        let _ = stack.lock().epoll_close(SetId::from_bits(id), attach::process());
    }
    set.inherited.store(false, Ordering::Release);
    set.generation.fetch_add(1, Ordering::AcqRel);
    set.in_use.store(false, Ordering::Release);
}

/// In a forked child: what the parent opened stays the parent's to close.
pub(crate) fn after_fork() {
    for set in SETS.iter().filter(|s| s.in_use.load(Ordering::Acquire)) {
        set.inherited.store(set.id().is_some(), Ordering::Release);
        set.kernel_waiters.store(0, Ordering::Release);
        set.nudged.store(false, Ordering::Release);
    }
}

/// epoll_ctl on a user socket.
pub(crate) fn control(set: &Set, epfd: c_int, op: c_int, member: Member, event: Option<epoll_event>) -> Result<()> {
    let key = member.fd as u32;
    let (events, data) = event.map_or((0, 0), |e| (e.events, e.u64));
    let id = match (op, set.id()) {
        (EPOLL_CTL_ADD, _) => set.open(epfd, member.stack)?,
        (_, Some(id)) => id,
        (_, None) => return Err(libc::ENOENT),
    };
    let mut guard = member.stack.lock();
    match op {
        EPOLL_CTL_ADD => guard.epoll_add(id, member.id, key, events, data),
        libc::EPOLL_CTL_MOD => guard.epoll_modify(id, member.id, key, events, data),
        EPOLL_CTL_DEL => guard.epoll_delete(id, member.id, key),
        _ => Err(Errno::EINVAL),
    }
    .map_err(number)
}

/// A socket that was in a kernel set became a user connection: it moves to the user set.
pub(crate) fn adopt_stream(fd: c_int, stream: &Stream, interest: &Interest) {
    let epfd = interest.epfd.wrapping_sub(1) as c_int;
    // SAFETY: no event is passed.
    let _ = unsafe { raw!(epoll_ctl, epfd, EPOLL_CTL_DEL, fd, 0) };
    adopt(epfd, Member { id: stream.id, stack: stream.stack, fd }, interest);
}

/// A socket that was in a kernel set listens now: it is in both.
pub(crate) fn adopt_listener(fd: c_int, entry: Entry, interest: &Interest) {
    if let Some(live) = listeners::live(fd, entry) {
        let epfd = interest.epfd.wrapping_sub(1) as c_int;
        adopt(epfd, Member { id: live.id, stack: live.stack, fd }, interest);
    }
}

/// epoll_ctl on a datagram socket, whose shadow is in the kernel's set already.
pub(crate) fn control_datagram(
    set: &Set,
    epfd: c_int,
    op: c_int,
    datagram: &Datagram,
    event: Option<epoll_event>,
) -> Result<()> {
    set.has_datagrams.store(true, Ordering::Relaxed);
    control(set, epfd, op, Member { id: datagram.id, stack: datagram.stack, fd: datagram.fd }, event)
}

/// A datagram socket that was in a kernel set is a user socket now: it is in both.
pub(crate) fn adopt_datagram(datagram: &Datagram, interest: &Interest) {
    let epfd = interest.epfd.wrapping_sub(1) as c_int;
    let mut shadows = epoll_event { events: interest.events & !ROOM, u64: interest.data };
    // SAFETY: `shadows` is ours.
    let _ = unsafe { raw!(epoll_ctl, epfd, libc::EPOLL_CTL_MOD, datagram.fd, &raw mut shadows) };
    if let Some(set) = of(crate::fd_table::TABLE.lookup(epfd)) {
        let event = epoll_event { events: interest.events, u64: interest.data };
        let _ = control_datagram(set, epfd, EPOLL_CTL_ADD, datagram, Some(event));
    }
}

fn adopt(epfd: c_int, member: Member, interest: &Interest) {
    let event = epoll_event { events: interest.events, u64: interest.data };
    if let Some(set) = of(crate::fd_table::TABLE.lookup(epfd)) {
        let _ = control(set, epfd, EPOLL_CTL_ADD, member, Some(event));
    }
}

/// Where events go: the application's array.
pub(crate) struct Out {
    events: *mut epoll_event,
    max: usize,
}

impl Out {
    /// # Safety
    /// `events` is writable for `max` records while the wait lasts.
    pub(crate) unsafe fn new(events: *mut epoll_event, max: c_int) -> Option<Out> {
        (max > 0 && !events.is_null()).then(|| Out { events, max: (max as usize).min(EVENTS_MAX) })
    }

    fn room(&mut self, from: usize, to: usize) -> &mut [EpollEvent] {
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
    /// Waits. The set has user sockets, or may get some while it waits.
    pub(crate) fn run(mut self) -> Result<isize> {
        let deadline = self.timeout_us.map(|us| now().after_us(us));
        if self.set.id().is_none()
            && let Some(result) = self.wait_in_kernel()
        {
            return result;
        }
        let (Some(id), Some(stack)) = (self.set.id(), attach::stack()) else { return Ok(0) };
        let n = self.wait_in_both(id, stack, deadline)?;
        kick::begin_batch(n);
        Ok(n as isize)
    }

    /// A plain kernel wait. `None`: the set got user sockets meanwhile.
    fn wait_in_kernel(&mut self) -> Option<Result<isize>> {
        self.set.kernel_waiters.fetch_add(1, Ordering::SeqCst);
        let result = match self.set.id() {
            Some(_) => None,
            None => Some(self.kernel_events(0, self.out.max, self.timeout_us)),
        };
        self.set.leave_kernel(self.epfd);
        match result? {
            Ok(n) => match self.without_nudge(n) {
                0 if n > 0 => None,
                left => Some(Ok(left as isize)),
            },
            Err(e) => Some(Err(e)),
        }
    }

    /// Takes the nudge's event out of the first `n`.
    fn without_nudge(&mut self, n: usize) -> usize {
        let nudge = self.set.nudge_data();
        let events = self.out.room(0, n);
        let Some(at) = events.iter().position(|e| { e.data } == nudge) else { return n };
        events.copy_within(at + 1.., at);
        n - 1
    }

    /// Kernel events into the array from `from` on, `room` at most.
    fn kernel_events(&mut self, from: usize, room: usize, timeout_us: Option<u64>) -> Result<usize> {
        let mut time = timeout_us.map(sys::timespec);
        let time = sys::time_pointer(&mut time);
        let mask = if timeout_us == Some(0) { core::ptr::null() } else { self.sigmask };
        let room = self.out.room(from, from + room);
        if room.is_empty() {
            return Ok(0);
        }
        let (events, max) = (room.as_mut_ptr(), room.len());
        // SAFETY: `room` is the application's array, the timespec ours; the kernel checks the mask's pointer.
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

    fn wait_in_both(&mut self, id: SetId, stack: &Stack, deadline: Option<Instant>) -> Result<usize> {
        let started = now();
        let mut spin = Spin::begin(started);
        let mut spun = false;
        let mut at = started;
        loop {
            let n = self.look(id, stack, at)?;
            if n > 0 {
                if spun {
                    Spin::found();
                }
                return Ok(n);
            }
            if deadline.is_some_and(|deadline| at >= deadline) {
                return Ok(0);
            }
            if spin.again(stack) {
                spun = true;
                at = now();
                continue;
            }
            if let Some(n) = self.sleep(id, stack, deadline)? {
                return Ok(n);
            }
            at = now();
            spin = Spin::begin(at);
            spun = false;
        }
    }

    /// One look at the rings, the user set and, when it is its turn, the kernel's set.
    fn look(&mut self, id: SetId, stack: &Stack, at: Instant) -> Result<usize> {
        let mut guard = stack.lock();
        // What earlier calls put off leaves now: this thread is back to wait.
        kick::before_wait(&mut guard, at);
        guard.poll(at);
        let calls = self.set.calls_since.fetch_add(1, Ordering::Relaxed);
        let since = at.micros().saturating_sub(self.set.kernel_looked.load(Ordering::Relaxed));
        let kernel_due = since >= KERNEL_LOOK_US || calls >= KERNEL_LOOK_CALLS;
        if kernel_due && self.set.kernel_first.fetch_xor(true, Ordering::Relaxed) {
            drop(guard);
            let half = (self.out.max / 2).max(1);
            let n = self.look_in_kernel(0, half, at)?;
            guard = stack.lock();
            let more = self.collect(id, &mut guard, n, at)?;
            return Ok(n + self.fold(n, more));
        }
        let n = self.collect(id, &mut guard, 0, at)?;
        drop(guard);
        // With nothing of ours to report the kernel is asked each time, but not faster than a spin needs it.
        let idle_look = n == 0 && (since >= KERNEL_LOOK_SPIN_US || self.timeout_us == Some(0));
        if !kernel_due && !idle_look {
            return Ok(n);
        }
        let more = self.look_in_kernel(n, self.out.max, at)?;
        Ok(n + self.fold(n, more))
    }

    /// A datagram socket that both sets report is reported once: of the `more` events behind the first `n`, those with
    /// the data of an earlier one join it. How many are left.
    fn fold(&mut self, n: usize, more: usize) -> usize {
        if n == 0 || more == 0 || !self.set.has_datagrams.load(Ordering::Relaxed) {
            return more;
        }
        let mut left = n + more;
        let mut at = n;
        while at < left {
            let events = self.out.room(0, left);
            let (earlier, [this, ..]) = events.split_at_mut(at) else { break };
            match earlier[..n].iter_mut().find(|e| { e.data } == { this.data }) {
                Some(twin) => {
                    twin.events |= this.events;
                    events.copy_within(at + 1.., at);
                    left -= 1;
                }
                None => at += 1,
            }
        }
        left - n
    }

    fn look_in_kernel(&mut self, from: usize, room: usize, at: Instant) -> Result<usize> {
        self.set.kernel_looked.store(at.micros(), Ordering::Relaxed);
        self.set.calls_since.store(0, Ordering::Relaxed);
        let n = self.kernel_events(from, room, Some(0))?;
        // The nudge may still be there for a waiter that has not left yet.
        if from == 0 && n > 0 { Ok(self.without_nudge(n)) } else { Ok(n) }
    }

    /// User events into the array from `from` on. With none, everything owed is sent; with some, an acknowledgement
    /// that is owed may ride on what the application answers.
    fn collect(&mut self, id: SetId, guard: &mut Guard<'_>, from: usize, at: Instant) -> Result<usize> {
        let max = self.out.max;
        let n = guard.epoll_collect(id, self.out.room(from, max)).map_err(number)?;
        if n == 0 {
            kick::before_wait(guard, at);
        }
        Ok(n)
    }

    /// The last look and the sleep. `Some`: events, found at the last moment.
    fn sleep(&mut self, id: SetId, stack: &Stack, deadline: Option<Instant>) -> Result<Option<usize>> {
        let bell = stack.claim_bell(attach::process());
        let timeout = {
            let at = now();
            let mut guard = stack.lock();
            guard.poll(at);
            let n = self.collect(id, &mut guard, 0, at)?;
            if n > 0 {
                return Ok(Some(n));
            }
            if let Some(bell) = &bell {
                guard.epoll_wait_on(id, bell.bit()).map_err(number)?;
            }
            stack.sleep_begin();
            blocking::sleep_us(&guard, at, deadline, bell.is_some())
        };
        let also = Some((self.epfd, libc::POLLIN));
        let woken = blocking::sleep(stack, bell.as_ref(), also, timeout, self.sigmask);
        stack.sleep_end();
        if let Some(bell) = &bell {
            let _ = stack.lock().epoll_unwait(id, bell.bit());
        }
        // The kernel's set is looked at first thing after a sleep: it may have been what ended it.
        self.set.kernel_looked.store(0, Ordering::Relaxed);
        match woken {
            Err(EINTR) => Err(EINTR),
            _ => Ok(None),
        }
    }
}
