//! epoll over kernel descriptors and user sockets in one set. The descriptor is a real kernel epoll, which holds the
//! kernel's; a set in the engine, made when the first user socket is added, holds ours. What is added goes by
//! [`crate::epoll_members`], a wait looks at both ([`crate::epoll_wait`]).
//!
//! A thread may already wait in the kernel when another thread adds the first user socket: the *nudge*, a descriptor
//! that is always readable, is then put into the kernel set until the last such waiter has left.

use crate::critical::{Mutex, MutexGuard};
use crate::fd_table::{Entry, Kind};
use crate::sys::{Result, raw};
use crate::user::number;
use crate::vigil::Vigil;
use crate::{attach, changes, critical, hidden, waiters};
use libc::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLIN, c_int, epoll_event};
use sidestep_stack::runtime::Stack;
use sidestep_stack::socket::{EpollEvent, SetId, token_of_nothing};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

pub(crate) const MAX_SETS: usize = 1024;
/// What the nudge's event carries.
const NUDGE_DATA: u64 = token_of_nothing();

/// One epoll descriptor with what may be added to it beside the kernel's set. Duplicates share it.
pub(crate) struct Set {
    in_use: AtomicBool,
    generation: AtomicU32,
    refs: AtomicU32,
    /// The engine's set, 0 before there is one.
    id: AtomicU64,
    /// Threads in a plain kernel wait that announce it here, and not as [`crate::waiters`].
    kernel_waiters: AtomicU32,
    nudged: AtomicBool,
    /// Serialises epoll_ctl against the first addition, and where it changes the kernel's half and ours.
    lock: Mutex<()>,
    /// The number it was last used by in epoll_ctl.
    epfd: AtomicI32,
    pub(crate) kernel_looked: AtomicU64,
    pub(crate) calls_since: AtomicU32,
    pub(crate) kernel_first: AtomicBool,
    /// The last look at the kernel's half found something there.
    pub(crate) kernel_busy: AtomicBool,
    /// Members are in both sets: one of them may be reported twice.
    has_twins: AtomicBool,
}

pub(crate) static SETS: [Set; MAX_SETS] = [const { Set::unused() }; MAX_SETS];
static NUDGE: AtomicI32 = AtomicI32::new(-1);

impl Set {
    /// Where machine code finds them.
    pub(crate) const ID: usize = core::mem::offset_of!(Set, id);
    pub(crate) const GENERATION: usize = core::mem::offset_of!(Set, generation);

    const fn unused() -> Set {
        Set {
            in_use: AtomicBool::new(false),
            generation: AtomicU32::new(0),
            refs: AtomicU32::new(0),
            id: AtomicU64::new(0),
            kernel_waiters: AtomicU32::new(0),
            nudged: AtomicBool::new(false),
            lock: Mutex::new(()),
            epfd: AtomicI32::new(-1),
            kernel_looked: AtomicU64::new(0),
            calls_since: AtomicU32::new(0),
            kernel_first: AtomicBool::new(false),
            kernel_busy: AtomicBool::new(false),
            has_twins: AtomicBool::new(false),
        }
    }

    /// The engine's set, if any user socket was ever added.
    #[inline]
    pub(crate) fn id(&self) -> Option<SetId> {
        match self.id.load(Ordering::Acquire) {
            0 => None,
            bits => Some(SetId::from_bits(bits)),
        }
    }

    pub(crate) fn has_twins(&self) -> bool {
        self.has_twins.load(Ordering::Relaxed)
    }

    pub(crate) fn note_twin(&self) {
        self.has_twins.store(true, Ordering::Relaxed);
    }

    /// Begins an epoll_ctl that concerns us.
    pub(crate) fn lock(&self, epfd: c_int) -> MutexGuard<'_, ()> {
        self.epfd.store(epfd, Ordering::Relaxed);
        self.lock.lock()
    }

    /// The engine's set, made if need be. Whoever waits in the kernel alone is called out of there. The caller has
    /// [`Set::lock`].
    pub(crate) fn open(&self, epfd: c_int, stack: &Stack) -> Result<SetId> {
        if let Some(id) = self.id() {
            return Ok(id);
        }
        let id = stack.lock().epoll_open(attach::process()).map_err(number)?;
        self.id.store(id.to_bits(), Ordering::SeqCst);
        waiters::fence();
        if self.has_waiters() {
            self.nudge(epfd)?;
        }
        changes::announce();
        Ok(id)
    }

    /// Whether a thread is in a plain kernel wait.
    fn has_waiters(&self) -> bool {
        self.kernel_waiters.load(Ordering::SeqCst) != 0 || waiters::any_at(self.entry())
    }

    /// What the table has at its numbers.
    fn entry(&self) -> Entry {
        let index = (core::ptr::from_ref(self) as usize - (&raw const SETS) as usize) / size_of::<Set>();
        Entry::new(Kind::Epoll, self.generation.load(Ordering::Acquire), index as u32)
    }

    fn nudge(&self, epfd: c_int) -> Result<()> {
        let mut event = epoll_event { events: EPOLLIN as u32, u64: NUDGE_DATA };
        let fd = nudge_descriptor()?;
        // SAFETY: `event` is ours.
        unsafe { raw!(epoll_ctl, epfd, EPOLL_CTL_ADD, fd, &raw mut event) }?;
        self.nudged.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// A plain kernel wait, unless the set has user sockets meanwhile.
    #[inline]
    pub(crate) fn in_kernel(&self, epfd: c_int, wait: impl FnOnce() -> Result<isize>) -> Option<Result<isize>> {
        let _held = critical::hold(); // handlers run where it sleeps, and may leave it for good
        let leave = || {
            if self.kernel_waiters.fetch_sub(1, Ordering::SeqCst) == 1 {
                self.left(epfd);
            }
        };
        let mut vigil = Vigil::begin_without_stack(&leave);
        self.kernel_waiters.fetch_add(1, Ordering::SeqCst);
        vigil.keep();
        if self.id().is_none() { Some(wait()) } else { None }
    }

    /// A thread has left a plain kernel wait. The last one out takes the nudge away.
    #[inline]
    pub(crate) fn left(&self, epfd: c_int) {
        if self.id().is_some() {
            self.take_nudge(epfd);
        }
    }

    /// The same, where nobody knows by which number it waited.
    pub(crate) fn left_by_waiter(&self) {
        self.left(self.epfd.load(Ordering::Relaxed));
    }

    #[cold]
    fn take_nudge(&self, epfd: c_int) {
        let _locked = self.lock.lock(); // whoever nudges has finished then
        if !self.has_waiters() && self.nudged.swap(false, Ordering::SeqCst) {
            // SAFETY: no event is passed.
            let _ = unsafe { raw!(epoll_ctl, epfd, EPOLL_CTL_DEL, NUDGE.load(Ordering::Acquire), 0) };
        }
    }
}

/// Takes the nudge's event out; how many are left.
pub(crate) fn without_nudge(events: &mut [EpollEvent]) -> usize {
    match events.iter().position(|e| { e.data } == NUDGE_DATA) {
        Some(at) => {
            events.copy_within(at + 1.., at);
            events.len() - 1
        }
        None => events.len(),
    }
}

/// An eventfd that is always readable, and in no set but by a nudge.
pub(crate) fn nudge_descriptor() -> Result<c_int> {
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

#[inline]
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
    set.has_twins.store(false, Ordering::Relaxed);
    set.epfd.store(-1, Ordering::Relaxed);
    let id = set.id.swap(0, Ordering::AcqRel);
    if let Some(stack) = attach::stack().filter(|_| id != 0) {
        let _ = stack.lock().epoll_close(SetId::from_bits(id), attach::process());
    }
    set.generation.fetch_add(1, Ordering::AcqRel);
    set.in_use.store(false, Ordering::Release);
}

/// The engine's sets of this process: a child made by fork holds them too.
pub(crate) fn held() -> impl Iterator<Item = SetId> {
    SETS.iter().filter_map(Set::id)
}

/// The number that a set of the engine's was last used by, -1 for one of another process.
pub(crate) fn number_of(id: SetId) -> c_int {
    let set = SETS.iter().find(|set| set.id() == Some(id));
    set.map_or(-1, |set| set.epfd.load(Ordering::Relaxed))
}

/// In a forked child: the threads that waited, and those that were in epoll_ctl, are the parent's.
pub(crate) fn after_fork() {
    for set in SETS.iter().filter(|s| s.in_use.load(Ordering::Acquire)) {
        set.kernel_waiters.store(0, Ordering::Release);
        set.nudged.store(false, Ordering::Release);
        // SAFETY: the thread that holds it is not in this process.
        unsafe { set.lock.free() };
    }
}
