//! A thread in a plain kernel poll waits for descriptors that may become ours meanwhile: a datagram socket that another
//! thread sends from, an epoll descriptor that gets its first user socket. It polls one descriptor more, which is
//! readable from such a change until the last thread that waited then has left. There are two in turn, so that whoever
//! waits again does not wait by the one that was rung.

use crate::critical::Mutex;
use crate::hidden;
use crate::signals::interrupt::Mark;
use crate::sys::{self, Result, raw};
use crate::vigil::Vigil;
use core::cell::Cell;
use core::ffi::c_void;
use libc::{c_int, pollfd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering, fence};

static WAITERS: AtomicU32 = AtomicU32::new(0);
static EVENTFDS: [AtomicI32; 2] = [const { AtomicI32::new(-1) }; 2];
static TURNS: Mutex<Turns> = Mutex::new(Turns::START);

struct Turns {
    /// Which of the two is waited by now.
    current: usize,
    waiters: [u32; 2],
    rung: [bool; 2],
}

impl Turns {
    const START: Turns = Turns { current: 0, waiters: [0; 2], rung: [false; 2] };
}

/// A thread that is to be told. It looks at its descriptors after this and before it sleeps, and is inside until then.
pub(crate) struct Watch {
    turn: usize,
    pub(crate) fd: c_int,
    has_ended: Cell<bool>,
}

impl Watch {
    pub(crate) fn begin() -> Result<Watch> {
        let mut turns = TURNS.lock();
        let turn = turns.current;
        let fd = descriptor(&EVENTFDS[turn])?;
        turns.waiters[turn] += 1;
        WAITERS.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Ok(Watch { turn, fd, has_ended: Cell::new(false) })
    }

    /// Sleeps on `fds`, of which one is the watch's. A handler may leave it for good.
    pub(crate) fn sleep(
        &self,
        fds: &mut [pollfd],
        timeout_us: Option<u64>,
        sigmask: *const c_void,
        mark: &Mark,
    ) -> Result<isize> {
        let end = || self.end();
        let mut vigil = Vigil::begin_without_stack(&end);
        vigil.keep();
        sys::ppoll_since(fds, timeout_us, sigmask, mark)
    }

    fn end(&self) {
        if self.has_ended.replace(true) {
            return;
        }
        let mut turns = TURNS.lock();
        WAITERS.fetch_sub(1, Ordering::SeqCst);
        turns.waiters[self.turn] -= 1;
        if turns.waiters[self.turn] == 0 && core::mem::take(&mut turns.rung[self.turn]) {
            let mut count = 0u64;
            // SAFETY: `count` is eight writable bytes.
            let _ = unsafe { raw!(read, EVENTFDS[self.turn].load(Ordering::Acquire), &raw mut count, 8) };
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

/// Something became ours, and the tables say so.
pub(crate) fn announce() {
    fence(Ordering::SeqCst); // what the tables say is seen before it is asked who waits
    if WAITERS.load(Ordering::SeqCst) == 0 {
        return;
    }
    let mut turns = TURNS.lock();
    let turn = turns.current;
    if turns.waiters[turn] != 0 && !core::mem::replace(&mut turns.rung[turn], true) {
        let one = 1u64;
        // SAFETY: `one` is eight readable bytes.
        let _ = unsafe { raw!(write, EVENTFDS[turn].load(Ordering::Acquire), &raw const one, 8) };
        turns.current = 1 - turn;
    }
}

/// The caller has [`TURNS`].
fn descriptor(slot: &AtomicI32) -> Result<c_int> {
    match slot.load(Ordering::Acquire) {
        -1 => {}
        fd => return Ok(fd),
    }
    // SAFETY: numbers only.
    let fd = hidden::hide(unsafe { raw!(eventfd2, 0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }? as c_int);
    slot.store(fd, Ordering::Release);
    Ok(fd)
}

/// A descriptor of ours has another number; false when it is none of these.
pub(crate) fn renumber(old: c_int, new: c_int) -> bool {
    let is_it = |slot: &AtomicI32| slot.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    EVENTFDS.iter().any(is_it)
}

/// In a forked child: the descriptors are the parent's, and so are its threads.
pub(crate) fn after_fork() {
    // SAFETY: the thread that holds it is not in this process.
    unsafe { TURNS.free() };
    WAITERS.store(0, Ordering::SeqCst);
    *TURNS.lock() = Turns::START;
    for slot in &EVENTFDS {
        match slot.swap(-1, Ordering::AcqRel) {
            -1 => {}
            fd => hidden::close(fd),
        }
    }
}
