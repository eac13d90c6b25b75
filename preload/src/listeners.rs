//! Listeners. listen(2) always listens in the kernel; here is the user-mode half.
//!
//! It starts as *pending*: noted, with no stack and no group. The first interest in accepting (accept, or epoll_ctl,
//! poll, select on it) makes it *live*: the process opens its stack, listens there and joins the port's group. So a
//! process that only passes listeners on (nginx's master) holds nothing, and each worker gets a stack of its own.

use crate::attach::Joined;
use crate::critical::Mutex;
use crate::fallback::{Why, warn};
use crate::fd_table::{Entry, Kind, TABLE};
use crate::reason::Reason;
use crate::{attach, local, options, owner, sys, template};
use libc::c_int;
use sidestep_stack::addr::Endpoint;
use sidestep_stack::arena::Proto;
use sidestep_stack::runtime::{Stack, now};
use sidestep_stack::socket::SocketId;
use sidestep_stack::tcp::Options;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};

const MAX_LISTENERS: usize = 256;
const ASK_AGAIN_US: u64 = 5_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum State {
    Free = 0,
    Pending = 1,
    Live = 2,
    /// The kernel alone serves it.
    Kernel = 3,
}

/// What listen() was told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) endpoint: Endpoint,
    pub(crate) family: c_int,
    pub(crate) backlog: c_int,
}

/// One listener of this process; descriptors made by dup share it.
pub(crate) struct Listener {
    state: AtomicU8,
    generation: AtomicU32,
    refs: AtomicU32,
    /// The descriptor that listen() was called on.
    first_fd: AtomicI32,
    /// The engine socket's name; valid when live.
    socket: AtomicU64,
    facts: Mutex<Option<Facts>>,
    /// The stack left its port's group when another listener of the port was closed; or the daemon did not say that it joined.
    has_left: AtomicBool,
    /// When it is asked again at the earliest, if it did not say, in microseconds.
    asks_at_us: AtomicU64,
    /// Whose turn it is when both accept queues have something.
    kernel_turn: AtomicBool,
    pub(crate) waiters: crate::holder::Waiters,
    /// Why the kernel alone serves it, when it does.
    reason: AtomicU32,
}

static LISTENERS: [Listener; MAX_LISTENERS] = [const { Listener::free() }; MAX_LISTENERS];

/// A listener that is live: what accept and readiness need.
#[derive(Clone, Copy)]
pub(crate) struct Live {
    pub(crate) id: SocketId,
    pub(crate) stack: &'static Stack,
    pub(crate) listener: &'static Listener,
}

impl Listener {
    const fn free() -> Listener {
        Listener {
            state: AtomicU8::new(State::Free as u8),
            generation: AtomicU32::new(0),
            refs: AtomicU32::new(0),
            first_fd: AtomicI32::new(-1),
            socket: AtomicU64::new(0),
            facts: Mutex::new(None),
            has_left: AtomicBool::new(false),
            asks_at_us: AtomicU64::new(0),
            kernel_turn: AtomicBool::new(false),
            waiters: crate::holder::Waiters::none(),
            reason: AtomicU32::new(0),
        }
    }

    fn is(&self, state: State) -> bool {
        self.state.load(Ordering::Acquire) == state as u8
    }

    fn become_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    fn id(&self) -> SocketId {
        SocketId::from_bits(self.socket.load(Ordering::Acquire))
    }

    pub(crate) fn add_descriptor(&self) {
        self.refs.fetch_add(1, Ordering::AcqRel);
    }

    /// Its place in the table.
    pub(crate) fn index(&self) -> usize {
        (core::ptr::from_ref(self) as usize - LISTENERS.as_ptr() as usize) / size_of::<Listener>()
    }

    pub(crate) fn family(&self) -> c_int {
        self.facts.lock().map_or(libc::AF_INET, |f| f.family)
    }

    /// True when the kernel's accept queue comes first this time; they alternate.
    pub(crate) fn kernel_goes_first(&self) -> bool {
        self.kernel_turn.fetch_xor(true, Ordering::Relaxed)
    }

    /// One descriptor less; the last one ends the listener.
    pub(crate) fn remove_descriptor(&self) {
        if self.refs.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.end();
        }
    }

    fn end(&self) {
        let mut facts = self.facts.lock();
        if let (true, Some(stack), Some(facts)) = (self.is(State::Live), attach::stack(), *facts) {
            let id = self.id();
            if local::of(id.index).is_some_and(local::Local::remove_descriptor) {
                end_live(stack, id, facts.endpoint.port);
            }
        }
        template::forget_listener(self.index());
        *facts = None;
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.become_state(State::Free);
    }

    /// Somebody still accepts here.
    #[cold]
    fn join_again(&self) {
        let port = self.facts.lock().map(|facts| facts.endpoint.port);
        let (Some(port), Some(stack)) = (port, attach::stack()) else { return };
        if now().micros() >= self.asks_at_us.load(Ordering::Relaxed) && self.has_left.swap(false, Ordering::AcqRel) {
            self.note_answer(attach::join(Proto::Tcp, port, stack));
        }
    }

    /// Without an answer it is asked again later: a new daemon may have taken over by then. Not often, for one that hangs makes
    /// every asker wait.
    fn note_answer(&self, joined: Joined) {
        if joined == Joined::Unheard {
            self.asks_at_us.store(now().after_us(ASK_AGAIN_US).micros(), Ordering::Relaxed);
            self.has_left.store(true, Ordering::Release);
        }
    }

    /// Listens in user mode and joins the port's group, if that is still to be done.
    fn promote(&self, fd: c_int) {
        let facts = self.facts.lock();
        if let Some(facts) = *facts {
            self.promote_locked(fd, &facts, || self.promote_companions(&facts));
        }
    }

    /// The port's connections come to this process by then, to all of its addresses: who listens at another one (a server
    /// with a socket for each IP version) has to be there, whether or not anybody waits at it yet. Sockets with SO_REUSEPORT
    /// are left out, because those of other workers are among them. True: one at another address is left that may listen yet.
    fn promote_companions(&self, own: &Facts) -> bool {
        let mut is_left = false;
        let others = LISTENERS.iter().filter(|other| !core::ptr::eq(*other, self) && other.is(State::Pending));
        for other in others {
            // Locked: another thread is at it.
            let Some(facts) = other.facts.try_lock() else { continue };
            let fd = other.first_fd.load(Ordering::Relaxed);
            let is_its_own = of(TABLE.lookup(fd)).is_some_and(|found| core::ptr::eq(found, other));
            let Some(facts) = facts.filter(|facts| facts.endpoint.port == own.endpoint.port) else { continue };
            if is_its_own && sys::option::<c_int>(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT) == Ok(0) {
                other.promote_locked(fd, &facts, || false);
            }
            is_left |= facts.endpoint != own.endpoint && other.is(State::Pending);
        }
        is_left
    }

    /// Whoever calls holds the lock of the facts. What is to happen before connections come is done between; it tells whether
    /// another listener of the port waits for its first interest.
    fn promote_locked(&self, fd: c_int, facts: &Facts, before_joining: impl FnOnce() -> bool) {
        if !self.is(State::Pending) {
            return;
        }
        let live = go_live(fd, facts, before_joining);
        if live.is_ok() {
            template::follow_listener(self.index(), fd, facts.family);
        }
        match live {
            Ok((id, joined)) => {
                self.socket.store(id.to_bits(), Ordering::Release);
                self.note_answer(joined);
            }
            Err(reason) => self.reason.store(reason as u32, Ordering::Relaxed),
        }
        self.become_state(if live.is_ok() { State::Live } else { State::Kernel });
    }
}

/// The last descriptor of this process is gone. The port's new flows go elsewhere before nobody here takes them.
fn end_live(stack: &Stack, id: SocketId, port: u16) {
    let process = attach::process();
    // Although another listener of ours may be left on the port: nginx closes its IPv4 and its IPv6 listener one after the
    // other, and what arrives in between is others'. One that stays in use joins again.
    let leaves = stack.lock().is_last_holder(id, process);
    if leaves {
        // Of whatever port: to join a group again that was not left does nothing.
        let others = LISTENERS.iter().filter(|l| l.is(State::Live) && l.id() != id);
        others.for_each(|l| l.has_left.store(true, Ordering::Release));
        attach::leave(Proto::Tcp, port, stack);
    }
    let now = now();
    crate::epoll_members::forget_twins(stack, id);
    let mut guard = stack.lock();
    let _ = guard.release(now, id, process);
    guard.flush(now);
    // Two processes that share it may have let go at once.
    let was_last = !leaves && !guard.has_listener(port);
    drop(guard);
    if was_last {
        attach::leave(Proto::Tcp, port, stack);
    }
}

fn go_live(fd: c_int, facts: &Facts, before_joining: impl FnOnce() -> bool) -> Result<(SocketId, Joined), Reason> {
    let port = facts.endpoint.port;
    let arena = attach::arena().ok_or_else(Reason::of_process)?;
    if !arena.policy(Proto::Tcp, port).allows() {
        return Err(Reason::PortOff);
    }
    let stack = attach::open_stack().ok_or_else(Reason::of_process)?;
    let v6only = facts.family == libc::AF_INET6 && sys::option::<c_int>(fd, libc::SOL_IPV6, libc::IPV6_V6ONLY) == Ok(1);
    let settings = options::of_shadow(fd);
    let flags = sys::file_flags(fd).unwrap_or(0);
    let made = {
        let mut guard = stack.lock();
        let plain = Options::new(guard.tunables());
        let made = guard.listen(facts.endpoint, v6only, facts.backlog.max(0) as u32, &plain, attach::process());
        if let Ok(id) = made {
            options::apply(&mut guard, now(), id, &settings);
            let _ = guard.set_nonblocking(id, flags & libc::O_NONBLOCK != 0);
        }
        made
    };
    let id = match made {
        Ok(id) => id,
        Err(e) => {
            warn(Why::Listen, format_args!("port {port}: {e:?}"));
            return Err(Reason::Stack);
        }
    };
    if flags & libc::O_ASYNC != 0 {
        let _ = owner::follow(fd, stack, id);
    }
    if before_joining() {
        // SYNs for the other come here too from now on. It will listen in a moment, if it is wanted: they shall come again.
        stack.lock().note_left_port(port);
    }
    // Unheard: perhaps it was done. Then connections come here, and a listener has to be there.
    let joined = attach::join(Proto::Tcp, port, stack);
    if joined == Joined::Refused {
        let _ = stack.lock().release(now(), id, attach::process());
        return Err(Reason::Stack);
    }
    let facts = local::of(id.index).ok_or(Reason::Full)?;
    facts.begin(id, 0);
    options::keep(facts, &settings);
    Ok((id, joined))
}

/// Notes a listener; its entry for the fd table.
pub(crate) fn note(fd: c_int, facts: Facts) -> Option<Entry> {
    for (index, slot) in LISTENERS.iter().enumerate() {
        let free = State::Free as u8;
        if slot.state.compare_exchange(free, State::Pending as u8, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            *slot.facts.lock() = Some(facts);
            slot.has_left.store(false, Ordering::Release);
            slot.asks_at_us.store(0, Ordering::Relaxed);
            slot.first_fd.store(fd, Ordering::Relaxed);
            slot.refs.store(1, Ordering::Release);
            return Some(Entry::new(Kind::Listener, slot.generation.load(Ordering::Acquire), index as u32));
        }
    }
    warn(Why::Full, format_args!("more than {MAX_LISTENERS} listeners"));
    None
}

/// The listener of a descriptor's entry.
pub(crate) fn of(entry: Entry) -> Option<&'static Listener> {
    let slot = LISTENERS.get(entry.index() as usize).filter(|_| entry.kind() == Kind::Listener)?;
    (slot.generation.load(Ordering::Acquire) == entry.generation()).then_some(slot)
}

/// Interest in accepting: the listener of `fd`, live if it can be; `None` when the kernel alone serves it.
pub(crate) fn live(fd: c_int, entry: Entry) -> Option<Live> {
    let listener = of(entry)?;
    if listener.is(State::Pending) {
        listener.promote(fd);
    } else if listener.has_left.load(Ordering::Relaxed) {
        listener.join_again();
    }
    live_already(entry)
}

/// As [`live`], without making it so.
pub(crate) fn live_already(entry: Entry) -> Option<Live> {
    let listener = of(entry)?;
    listener.is(State::Live).then_some(Live { id: listener.id(), stack: attach::stack()?, listener })
}

/// Why the kernel alone serves a listener; `None` while nobody has wanted to accept from it.
pub(crate) fn why_kernel(entry: Entry) -> Option<Reason> {
    let listener = of(entry).filter(|listener| listener.is(State::Kernel))?;
    Reason::from_number(listener.reason.load(Ordering::Relaxed))
}

/// listen() again on a listener: a new backlog.
pub(crate) fn set_backlog(entry: Entry, backlog: c_int) {
    let Some(listener) = of(entry) else { return };
    if let Some(facts) = listener.facts.lock().as_mut() {
        facts.backlog = backlog;
    }
    if let Some(live) = live_already(entry) {
        let _ = live.stack.lock().set_backlog(live.id, backlog.max(0) as u32);
    }
}

/// The kernel alone serves it from now on: it was given an option that only the kernel has. False: too late, it is live.
pub(crate) fn leave_to_kernel(entry: Entry) -> bool {
    let Some(listener) = of(entry) else { return true };
    let _facts = listener.facts.lock();
    if listener.is(State::Pending) {
        listener.reason.store(Reason::Option as u32, Ordering::Relaxed);
        listener.become_state(State::Kernel);
    }
    listener.is(State::Kernel)
}

/// Whether any listener waits for its first interest: a child made by fork then greets the daemon at once.
pub(crate) fn any_pending() -> bool {
    LISTENERS.iter().any(|l| l.is(State::Pending))
}

/// Whether a program that is executed gets a listener of ours.
pub(crate) fn any_handed_on() -> bool {
    LISTENERS.iter().filter(|l| !l.is(State::Free)).any(|l| {
        let fd = l.first_fd.load(Ordering::Relaxed);
        let is_its_own = of(TABLE.lookup(fd)).is_some_and(|found| core::ptr::eq(found, l));
        is_its_own && sys::fcntl(fd, libc::F_GETFD, 0).is_ok_and(|flags| flags as c_int & libc::FD_CLOEXEC == 0)
    })
}

/// In a forked child without a ProcId the parent's live listeners are out of reach: they start over as pending.
pub(crate) fn forget_live() {
    for listener in LISTENERS.iter().filter(|l| l.is(State::Live)) {
        listener.become_state(State::Pending);
    }
}
