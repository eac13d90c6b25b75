//! A kernel socket for options: what a user connection keeps of them, and what its listener's connections begin with.
//!
//! The descriptors of accepted connections are duplicates of a template, which they share. A connection that is told something
//! which has to be kept gets a kernel socket of its own in the template's place, with all that the template was told.

use crate::critical::{self, Mutex};
use crate::fd_table::TABLE;
use crate::local::Flag;
use crate::option_table::{KEPT, MARKS};
use crate::sys::{self, Result, raw};
use crate::user::Stream;
use libc::{ENOBUFS, O_NONBLOCK, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET, c_int, socklen_t};
use std::sync::atomic::{AtomicBool, Ordering};

/// Room for the longest value that is compared or copied.
const VALUE_MAX: usize = 64;

/// What getsockopt says.
#[derive(PartialEq, Eq, Clone, Copy, Debug)]
pub(crate) struct Value {
    bytes: [u8; VALUE_MAX],
    len: socklen_t,
}

pub(crate) fn value_of(fd: c_int, level: c_int, name: c_int) -> Result<Value> {
    let mut value = Value { bytes: [0; VALUE_MAX], len: VALUE_MAX as socklen_t };
    // SAFETY: `bytes` is writable for `len` bytes.
    unsafe { raw!(getsockopt, fd, level, name, value.bytes.as_mut_ptr(), &raw mut value.len) }?;
    Ok(value)
}

/// Undoes a setsockopt.
pub(crate) fn put_back(fd: c_int, level: c_int, name: c_int, before: &Value) {
    // SAFETY: a value of ours, as long as said.
    let _ = unsafe { raw!(setsockopt, fd, level, name, before.bytes.as_ptr(), before.len) };
}

/// The priority is not inherited (Linux: sk_clone_lock); IP_TOS sets one as well.
fn inherited() -> impl Iterator<Item = (c_int, c_int)> {
    KEPT.into_iter().chain(MARKS).filter(|option| *option != (SOL_SOCKET, libc::SO_PRIORITY))
}

/// Gives `to` what `from` was told, as far as it is kept.
pub(crate) fn copy(from: c_int, to: c_int) {
    for (level, name) in inherited() {
        if let (Ok(told), Ok(has)) = (value_of(from, level, name), value_of(to, level, name))
            && told != has
        {
            // SAFETY: a value of ours, as long as said. What may not be copied stays as it is.
            let _ = unsafe { raw!(setsockopt, to, level, name, told.bytes.as_ptr(), told.len) };
        }
    }
    // A bound device is told by its number.
    bind_to_device(to, sys::option(from, SOL_SOCKET, SO_BINDTOIFINDEX).unwrap_or(0));
}

/// Most options that are remembered of a template.
const TOLD_MAX: usize = 8;

/// What a template was told, by its cookie: all its duplicates are one socket, and nobody tells it more. So that not all options have
/// to be asked of each duplicate.
struct Told {
    cookie: u64,
    count: usize,
    options: [(c_int, c_int, Value); TOLD_MAX],
    device: c_int,
}

static TOLD: Mutex<Told> = Mutex::new(Told {
    cookie: 0,
    count: 0,
    options: [(0, 0, Value { bytes: [0; VALUE_MAX], len: 0 }); TOLD_MAX],
    device: 0,
});

/// As [`copy`], from a duplicate of a template.
fn copy_from_template(from: c_int, to: c_int) {
    // Held by a thread that a fork has left behind, it stays so.
    let Some(mut told) = TOLD.try_lock() else { return copy(from, to) };
    match sys::option::<u64>(from, SOL_SOCKET, libc::SO_COOKIE) {
        Ok(cookie) if cookie != 0 && (cookie == told.cookie || told.learn(from, to, cookie)) => told.tell(to),
        _ => copy(from, to),
    }
}

impl Told {
    /// False: it was told too much.
    fn learn(&mut self, template: c_int, fresh: c_int, cookie: u64) -> bool {
        (self.cookie, self.count) = (0, 0);
        for (level, name) in inherited() {
            if let (Ok(told), Ok(has)) = (value_of(template, level, name), value_of(fresh, level, name))
                && told != has
            {
                let Some(slot) = self.options.get_mut(self.count) else { return false };
                *slot = (level, name, told);
                self.count += 1;
            }
        }
        self.device = sys::option(template, SOL_SOCKET, SO_BINDTOIFINDEX).unwrap_or(0);
        self.cookie = cookie;
        true
    }

    fn tell(&self, to: c_int) {
        self.options[..self.count].iter().for_each(|(level, name, value)| put_back(to, *level, *name, value));
        bind_to_device(to, self.device);
    }
}

fn bind_to_device(fd: c_int, device: c_int) {
    if device != 0 {
        // SAFETY: an int of ours.
        let _ = unsafe { raw!(setsockopt, fd, SOL_SOCKET, SO_BINDTOIFINDEX, &raw const device, 4) };
    }
}

pub(crate) const SO_BINDTOIFINDEX: c_int = 62;

/// Whether `fd` was told anything that its connections have to begin with.
pub(crate) fn has_been_told(fd: c_int, family: c_int) -> bool {
    let Ok(fresh) = sys::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0) else { return false };
    let differs = |(level, name): (c_int, c_int)| value_of(fd, level, name) != value_of(fresh, level, name);
    let told = inherited().any(differs) || differs((SOL_SOCKET, SO_BINDTOIFINDEX));
    let _ = sys::close(fresh);
    told
}

/// What setting a foreign option would come to: the kernel's error; or whether it changes anything.
///
/// # Safety
/// `value` is the application's; the kernel checks it.
pub(crate) unsafe fn would_change(
    family: c_int,
    kind: c_int,
    level: c_int,
    name: c_int,
    value: *const libc::c_void,
    len: socklen_t,
) -> Result<bool> {
    let probe = sys::socket(family, kind | SOCK_CLOEXEC, 0)?;
    let before = value_of(probe, level, name);
    // SAFETY: the caller's promise.
    let done = unsafe { raw!(setsockopt, probe, level, name, value, len) };
    let after = value_of(probe, level, name);
    let _ = sys::close(probe);
    done.map(|_| before.is_err() || before != after)
}

/// Whether an option of a socket is not what a new one has.
pub(crate) fn is_unusual(fd: c_int, level: c_int, name: c_int) -> bool {
    let family = sys::option::<c_int>(fd, SOL_SOCKET, libc::SO_DOMAIN).unwrap_or(libc::AF_INET);
    let kind = sys::option::<c_int>(fd, SOL_SOCKET, libc::SO_TYPE).unwrap_or(SOCK_STREAM);
    let Ok(fresh) = sys::socket(family, kind | SOCK_CLOEXEC, 0) else { return true };
    let (told, default) = (value_of(fd, level, name), value_of(fresh, level, name));
    let _ = sys::close(fresh);
    told.is_err() || told != default
}

/// One thread at a time puts a socket in a template's place. Held for some system calls; who finds it held comes again.
static BUSY: AtomicBool = AtomicBool::new(false);
const TRIES_MAX: u32 = 10_000;

/// The connection has a kernel socket of its own from now on.
pub(crate) fn ensure(fd: c_int, stream: &Stream) -> Result<()> {
    if stream.local.has(Flag::Shadow) {
        return Ok(());
    }
    let _held = critical::hold(); // a handler would wait for its own thread
    let mut tries = 0;
    while BUSY.swap(true, Ordering::Acquire) {
        tries += 1;
        if tries > TRIES_MAX {
            return Err(ENOBUFS);
        }
        // SAFETY: no arguments.
        let _ = unsafe { raw!(sched_yield) };
    }
    let done = if stream.local.has(Flag::Shadow) { Ok(()) } else { replace_template(fd, stream) };
    BUSY.store(false, Ordering::Release);
    done
}

fn replace_template(fd: c_int, stream: &Stream) -> Result<()> {
    let own = sys::socket(stream.family(), SOCK_STREAM | SOCK_CLOEXEC, 0)?;
    copy_from_template(fd, own);
    if stream.ask(|guard| guard.is_nonblocking(stream.id)) == Ok(true) {
        let _ = sys::fcntl(own, libc::F_SETFL, O_NONBLOCK as usize);
    }
    let entry = Stream::entry(stream.id);
    let is_shared = stream.local.descriptors() > 1;
    let numbers = if is_shared { 0..TABLE.len() as c_int } else { fd..fd + 1 };
    for number in numbers.filter(|n| TABLE.lookup(*n) == entry) {
        let closes = sys::fcntl(number, libc::F_GETFD, 0)? as c_int & libc::FD_CLOEXEC != 0;
        // SAFETY: numbers only; the number stays open, and refers to a socket all the time.
        unsafe { raw!(dup3, own, number, if closes { libc::O_CLOEXEC } else { 0 }) }?;
    }
    stream.local.put(Flag::Shadow, true);
    sys::close(own).map(drop)
}
