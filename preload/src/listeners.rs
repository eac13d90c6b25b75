//! Listeners. listen(2) always listens in the kernel; here is the user-mode half.
//!
//! It starts as *pending*: noted, with no stack and no group. The first interest in accepting (accept, or epoll_ctl,
//! poll, select on it) makes it *live*: the process opens its stack, listens there and joins the port's group. So a
//! process that only passes listeners on (nginx's master) holds nothing, and each worker gets a stack of its own.

use crate::fallback::{Why, warn};
use crate::fd_table::{Entry, Kind};
use crate::{attach, local, options, sys};
use libc::c_int;
use parking_lot::Mutex;
use sidestep_stack::addr::Endpoint;
use sidestep_stack::arena::Proto;
use sidestep_stack::runtime::{Stack, now};
use sidestep_stack::socket::SocketId;
use sidestep_stack::tcp::Options;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

const MAX_LISTENERS: usize = 256;

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
    /// The engine socket's name; valid when live.
    socket: AtomicU64,
    facts: Mutex<Option<Facts>>,
    /// Whose turn it is when both accept queues have something.
    kernel_turn: AtomicBool,
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
            socket: AtomicU64::new(0),
            facts: Mutex::new(None),
            kernel_turn: AtomicBool::new(false),
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
        if self.is(State::Live)
            && let Some(stack) = attach::stack()
        {
            let id = self.id();
            if local::of(id.index).is_some_and(local::Local::remove_descriptor) {
                let now = now();
                let mut guard = stack.lock();
                let _ = guard.release(now, id, attach::process());
                guard.flush(now);
            }
        }
        *facts = None;
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.become_state(State::Free);
    }

    /// Listens in user mode and joins the port's group, if that is still to be done.
    fn promote(&self, fd: c_int) {
        let facts = self.facts.lock();
        let (true, Some(facts)) = (self.is(State::Pending), *facts) else { return };
        let live = go_live(fd, &facts);
        if let Some(id) = live {
            self.socket.store(id.to_bits(), Ordering::Release);
        }
        self.become_state(if live.is_some() { State::Live } else { State::Kernel });
    }
}

fn go_live(fd: c_int, facts: &Facts) -> Option<SocketId> {
    let port = facts.endpoint.port;
    if !attach::arena()?.policy(Proto::Tcp, port).allows() {
        return None;
    }
    let stack = attach::open_stack()?;
    let v6only = facts.family == libc::AF_INET6 && sys::option::<c_int>(fd, libc::SOL_IPV6, libc::IPV6_V6ONLY) == Ok(1);
    let settings = options::of_shadow(fd);
    let nonblocking = sys::file_flags(fd).is_ok_and(|f| f & libc::O_NONBLOCK != 0);
    let made = {
        let mut guard = stack.lock();
        let plain = Options::new(guard.tunables());
        let made = guard.listen(facts.endpoint, v6only, facts.backlog.max(0) as u32, &plain, attach::process());
        if let Ok(id) = made {
            options::apply(&mut guard, now(), id, &settings);
            let _ = guard.set_nonblocking(id, nonblocking);
        }
        made
    };
    let id = match made {
        Ok(id) => id,
        Err(e) => {
            warn(Why::Listen, format_args!("port {port}: {e:?}"));
            return None;
        }
    };
    if !attach::join(Proto::Tcp, port, stack) {
        let _ = stack.lock().release(now(), id, attach::process());
        return None;
    }
    local::of(id.index)?.begin(id, 0);
    Some(id)
}

/// Notes a listener; its entry for the fd table.
pub(crate) fn note(facts: Facts) -> Option<Entry> {
    for (index, slot) in LISTENERS.iter().enumerate() {
        let free = State::Free as u8;
        if slot.state.compare_exchange(free, State::Pending as u8, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            *slot.facts.lock() = Some(facts);
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
    }
    live_already(entry)
}

/// As [`live`], without making it so.
pub(crate) fn live_already(entry: Entry) -> Option<Live> {
    let listener = of(entry)?;
    listener.is(State::Live).then_some(Live { id: listener.id(), stack: attach::stack()?, listener })
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

/// Whether any listener waits for its first interest: a child made by fork then greets the daemon at once.
pub(crate) fn any_pending() -> bool {
    LISTENERS.iter().any(|l| l.is(State::Pending))
}

/// In a forked child without a ProcId the parent's live listeners are out of reach: they start over as pending.
pub(crate) fn forget_live() {
    for listener in LISTENERS.iter().filter(|l| l.is(State::Live)) {
        listener.become_state(State::Pending);
    }
}
