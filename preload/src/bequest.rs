//! What a process leaves to others: its connections, to the program that it executes, to those that it starts, and in messages.
//!
//! A connection goes where its shadow goes, the kernel socket behind its number. Before that can happen the connection gets a shadow
//! of its own, with its name upon it ([`Mark`]), and the daemon holds the connection as long as anybody has that open. Whoever finds
//! the name takes the connection up ([`crate::inherited`]). Once that was done for a connection, it need not be done again.
//!
//! A program that is replaced by exec holds nothing any more. It tells the daemon before, on a connection that closes with the program.

use crate::critical::{self, Held};
use crate::fd_table::{Kind, TABLE};
use crate::sys::{self, Result};
use crate::user::Stream;
use crate::{attach, inherited, own_socket};
use core::ffi::c_char;
use libc::{ETOOMANYREFS, FD_CLOEXEC, c_int, c_void};
use sidestep_stack::runtime::{Mark, Stack};
use sidestep_stack::time::Instant;

/// Shadows that go to the daemon in one message; it takes up to 112.
const BATCH: usize = 100;

/// Shadows on their way to the daemon.
struct Batch {
    fds: [c_int; BATCH],
    len: usize,
    is_refused: bool,
}

impl Batch {
    const fn new() -> Batch {
        Batch { fds: [-1; BATCH], len: 0, is_refused: false }
    }

    /// The connection on `fd`, if there is one, can be given away when the batch has been sent.
    fn add(&mut self, fd: c_int) {
        let Some(stream) = Stream::of(TABLE.lookup(fd)) else { return };
        if stream.local.kept_by() == attach::daemon_pid() {
            return;
        }
        match prepare_shadow(fd, &stream) {
            Ok(()) => self.push(fd),
            Err(_) => self.is_refused = true,
        }
    }

    fn push(&mut self, fd: c_int) {
        if self.len == BATCH {
            self.send();
        }
        self.fds[self.len] = fd;
        self.len += 1;
    }

    fn send(&mut self) {
        let fds = &self.fds[..self.len];
        if fds.is_empty() {
            return;
        }
        if attach::keep(fds) {
            let streams = fds.iter().filter_map(|fd| Stream::of(TABLE.lookup(*fd)));
            streams.for_each(|stream| stream.local.note_kept(attach::daemon_pid()));
        } else {
            self.is_refused = true;
        }
        self.len = 0;
    }

    /// False: not all of them can be given away.
    fn finish(mut self) -> bool {
        self.send();
        !self.is_refused
    }
}

fn prepare_shadow(fd: c_int, stream: &Stream) -> Result<()> {
    own_socket::ensure(fd, stream)?;
    let arena = stream.stack.arena().header().id();
    let mark = Mark { arena, stack: stream.stack.index(), id: stream.id };
    if mark.write(fd) { Ok(()) } else { Err(ETOOMANYREFS) }
}

/// Whether there can be connections to leave: not in a process that shares the tables of another.
fn has_anything() -> bool {
    attach::stack().is_some() && attach::has_process() && attach::is_own_process()
}

/// Before another program starts with the descriptors of now: those that are not close-on-exec, and those that `others` says.
fn leave_descriptors(others: impl Fn(c_int) -> bool) {
    let mut batch = Batch::new();
    inherited::for_each_descriptor(|fd| {
        let is_stream = TABLE.lookup(fd).kind() == Kind::Stream;
        if is_stream && (others(fd) || sys::fcntl(fd, libc::F_GETFD, 0).is_ok_and(|f| f as c_int & FD_CLOEXEC == 0)) {
            batch.add(fd);
        }
    });
    batch.finish();
}

// ---- exec ----

/// A program about to be replaced; dropped when it was not.
pub(crate) struct Execution {
    was_told: bool,
    /// Kept out of its lock are the threads that will be ended.
    shut: Option<&'static Stack>,
    /// Its handlers would wait for the lock.
    held: Option<Held>,
}

/// Before exec.
pub(crate) fn begin_execution(environment: *const *const c_char) -> Execution {
    // A child of a vfork that is libc's has its parent's memory, and leaves it as it was.
    let mut execution = Execution { was_told: false, shut: None, held: None };
    if has_anything() {
        execution.held = Some(critical::hold());
        leave_descriptors(|_| false);
        warn_of_strangers(environment);
        execution.was_told = attach::tell_of_exec(true);
        execution.shut = attach::stack();
        execution.shut.into_iter().for_each(|stack| stack.shut(Instant::FAR));
    }
    execution
}

impl Drop for Execution {
    fn drop(&mut self) {
        self.shut.into_iter().for_each(Stack::open);
        if self.was_told {
            let _ = attach::tell_of_exec(false);
        }
    }
}

/// A program whose standard input is a connection, and that is started without us, cannot use it: inetd and its like often make
/// an environment of their own.
fn warn_of_strangers(environment: *const *const c_char) {
    let is_left = |fd: c_int| TABLE.lookup(fd).kind() == Kind::Stream;
    if is_left(0) && !has_preload(environment) {
        crate::fallback::say_once(format_args!(
            "sidestep: a connection is passed to a program whose environment has no LD_PRELOAD: it cannot use it\n"
        ));
    }
}

fn has_preload(environment: *const *const c_char) -> bool {
    let mut at = environment;
    while !at.is_null() {
        // SAFETY: the application's environment, which ends with a null; libc reads it as well.
        let variable = unsafe { at.read() };
        if variable.is_null() {
            break;
        }
        // SAFETY: a NUL-terminated string.
        if unsafe { core::ffi::CStr::from_ptr(variable) }.to_bytes().starts_with(b"LD_PRELOAD=") {
            return true;
        }
        at = at.wrapping_add(1);
    }
    false
}

// ---- posix_spawn ----

/// posix_spawn_file_actions_t, and one of its actions, as glibc has had them since 2.2.
#[repr(C)]
struct FileActions {
    allocated: c_int,
    used: c_int,
    actions: *const FileAction,
}

/// The union is aligned as a pointer, and as large as its longest member.
#[repr(C)]
struct FileAction {
    kind: c_int,
    gap: c_int,
    /// The old number of a dup2.
    fd: c_int,
    rest: [c_int; 5],
}

const _: () = assert!(size_of::<FileAction>() == 32);

const SPAWN_DUP2: c_int = 1;

/// Before a program is started beside this one. What the child duplicates it has, close-on-exec or not.
///
/// # Safety
/// `actions` is null or a posix_spawn_file_actions_t.
pub(crate) unsafe fn begin_spawn(actions: *const c_void) {
    if !has_anything() {
        return;
    }
    let actions: &[FileAction] = match actions.cast::<FileActions>() {
        at if at.is_null() => &[],
        // SAFETY: the caller's promise.
        at => match unsafe { &*at } {
            FileActions { used: 1.., actions, .. } if actions.is_null() => &[],
            // SAFETY: so many actions are there, says libc's own count.
            FileActions { used: n @ 1.., actions, .. } => unsafe { core::slice::from_raw_parts(*actions, *n as usize) },
            _ => &[],
        },
    };
    leave_descriptors(|fd| actions.iter().any(|action| action.kind == SPAWN_DUP2 && action.fd == fd));
}

// ---- messages ----

/// Before descriptors go to another process. ETOOMANYREFS: one of them is a connection that cannot go.
pub(crate) fn leave_several(fds: impl Iterator<Item = c_int>) -> Result<()> {
    if !has_anything() {
        return Ok(());
    }
    let mut batch = Batch::new();
    fds.for_each(|fd| batch.add(fd));
    if batch.finish() { Ok(()) } else { Err(ETOOMANYREFS) }
}
