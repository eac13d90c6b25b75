//! splice between a user socket and a pipe, and sendfile into a pipe. The kernel moves pages; here bytes are copied, and no
//! byte is ever in our hands that is not going to arrive: the stack's lock is held from the look at what there is until it
//! has moved, and nothing under it waits.

use super::io::{self, look_again_or_wait, stream_of};
use crate::private_pipe::{self, PrivatePipe};
use crate::signals::interrupt::Mark;
use crate::sys::{self, Result, raw};
use crate::user::{Stream, number};
use core::mem::MaybeUninit;
use libc::{EAGAIN, EINTR, EPIPE, ESPIPE, MSG_DONTWAIT, O_ACCMODE, O_NONBLOCK, O_RDONLY, O_WRONLY, POLLIN, POLLOUT};
use libc::{SPLICE_F_MORE, SPLICE_F_NONBLOCK, c_int, c_short, c_uint, iovec, pollfd};
use sidestep_stack::runtime::Guard;
use sidestep_stack::time::Instant;
use std::cell::Cell;
use std::sync::atomic::AtomicU64;

/// SPLICE_F_MOVE, NONBLOCK, MORE and GIFT.
const FLAGS: c_uint = 0xf;
/// Bytes moved at a time.
const BOUNCE: usize = 16 * 1024;

type Bounce = [MaybeUninit<u8>; BOUNCE];

/// What a call works with.
struct Job {
    pipe: c_int,
    len: usize,
    more: bool,
    /// The pipe's side must not wait; the socket's has its own O_NONBLOCK.
    nonblocking: bool,
}

pub(crate) unsafe fn splice(
    from: c_int,
    from_offset: *mut i64,
    to: c_int,
    to_offset: *mut i64,
    len: usize,
    flags: c_uint,
) -> Result<isize> {
    let plain = from_offset.is_null() && to_offset.is_null() && flags & !FLAGS == 0 && len != 0;
    let job = |pipe| Job {
        pipe,
        len,
        more: flags & SPLICE_F_MORE != 0,
        nonblocking: flags & SPLICE_F_NONBLOCK != 0 || sys::file_flags(pipe).is_ok_and(|f| f & O_NONBLOCK != 0),
    };
    match (stream_of(from), stream_of(to)) {
        (Some(stream), None) if plain && is_pipe(to, O_WRONLY) => into_pipe(&stream, &job(to)),
        (None, Some(stream)) if plain && is_pipe(from, O_RDONLY) => out_of_pipe(&stream, &job(from)),
        // What is wrong with a call is wrong with it on the sockets behind the numbers.
        // SAFETY: the application's pointers; the kernel checks them.
        _ => unsafe { raw!(splice, from, from_offset, to, to_offset, len, flags) },
    }
}

pub(crate) unsafe fn sendfile(out: c_int, input: c_int, offset: *mut i64, count: usize) -> Result<isize> {
    match stream_of(input) {
        Some(stream) if is_pipe(out, O_WRONLY) && count != 0 => {
            if !offset.is_null() {
                return Err(ESPIPE);
            }
            let nonblocking = sys::file_flags(out)? & O_NONBLOCK != 0;
            into_pipe(&stream, &Job { pipe: out, len: count, more: false, nonblocking })
        }
        // SAFETY: the same contract.
        _ => unsafe { super::sendfile::sendfile(out, input, offset, count) },
    }
}

// What takes pipes or files alone: the sockets behind user sockets' numbers are as wrong for it as any.

pub(crate) unsafe fn tee(from: c_int, to: c_int, len: usize, flags: c_uint) -> Result<isize> {
    // SAFETY: numbers only.
    unsafe { raw!(tee, from, to, len, flags) }
}

pub(crate) unsafe fn vmsplice(fd: c_int, iov: *const iovec, count: usize, flags: c_uint) -> Result<isize> {
    // SAFETY: the application's memory; the kernel checks it.
    unsafe { raw!(vmsplice, fd, iov, count, flags) }
}

pub(crate) unsafe fn copy_file_range(
    from: c_int,
    from_offset: *mut i64,
    to: c_int,
    to_offset: *mut i64,
    len: usize,
    flags: c_uint,
) -> Result<isize> {
    // SAFETY: the application's pointers; the kernel checks them.
    unsafe { raw!(copy_file_range, from, from_offset, to, to_offset, len, flags) }
}

/// Whether it is a pipe's end for this way.
fn is_pipe(fd: c_int, way: c_int) -> bool {
    // SAFETY: all zeroes is a valid value of this struct of integers.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: `stat` is ours.
    let known = unsafe { raw!(fstat, fd, &raw mut stat) };
    known.is_ok()
        && stat.st_mode & libc::S_IFMT == libc::S_IFIFO
        && sys::file_flags(fd).is_ok_and(|flags| flags & O_ACCMODE != way ^ 1)
}

/// Sleeps until the application's pipe may go on.
fn wait_for_pipe(job: &Job, events: c_short) -> Result<()> {
    if job.nonblocking {
        return Err(EAGAIN);
    }
    let mut one = [pollfd { fd: job.pipe, events, revents: 0 }];
    let mut mark = Mark::at_start();
    let woken = sys::ppoll_since(&mut one, None, core::ptr::null(), &mark);
    match woken {
        Err(EINTR) if !mark.ends(true, woken) => Ok(()),
        woken => woken.map(drop),
    }
}

/// A turn of a call: how it waits for the socket, and for the pipe.
struct Turn<'a> {
    flags: c_int,
    timeout_us: &'a AtomicU64,
    events: c_short,
    /// Else it ends where the pipe cannot go on.
    waits_for_pipe: bool,
}

/// Moves what can be moved, or waits for what it lacks and looks again. How much has moved.
fn move_or_wait(
    stream: &Stream,
    job: &Job,
    turn: &Turn<'_>,
    mut move_some: impl FnMut(&mut Guard<'_>, Instant) -> core::result::Result<usize, Stop>,
) -> Result<usize> {
    loop {
        let mut is_stuck = false;
        let mut step = |guard: &mut Guard<'_>, now: Instant| match move_some(guard, now) {
            Err(Stop::Pipe) => {
                is_stuck = true;
                Ok(0)
            }
            Err(Stop::Error(e)) => Err(e),
            Ok(n) => Ok(n),
        };
        let moved = match stream.with_errno(&mut step) {
            Err(EAGAIN) => look_again_or_wait(stream, turn.flags, turn.timeout_us, &Cell::new(0), &mut step),
            result => result,
        }?;
        if !is_stuck || !turn.waits_for_pipe {
            return Ok(moved);
        }
        wait_for_pipe(job, turn.events)?;
    }
}

/// Why nothing moved.
enum Stop {
    /// The pipe is full, or empty.
    Pipe,
    Error(c_int),
}

// ---- socket to pipe ----

fn into_pipe(stream: &Stream, job: &Job) -> Result<isize> {
    let between = private_pipe::open()?;
    let turn = Turn { flags: 0, timeout_us: &stream.local.receive_timeout_us, events: POLLOUT, waits_for_pipe: true };
    move_or_wait(stream, job, &turn, |guard, now| fill_pipe(stream, job, &between, guard, now)).map(|n| n as isize)
}

/// Moves what there is, as far as the pipe takes it.
fn fill_pipe(
    stream: &Stream,
    job: &Job,
    between: &PrivatePipe,
    guard: &mut Guard<'_>,
    now: Instant,
) -> core::result::Result<usize, Stop> {
    let mut bounce: Bounce = [MaybeUninit::uninit(); BOUNCE];
    let mut total = 0;
    while total < job.len {
        let wanted = (job.len - total).min(BOUNCE);
        // SAFETY: `bounce` is as long; the engine only writes there.
        let out = unsafe { core::slice::from_raw_parts_mut(bounce.as_mut_ptr().cast::<u8>(), wanted) };
        let here = match guard.recv(now, stream.id, out, true) {
            Ok(n) => n,
            Err(_) if total > 0 => break,
            Err(e) => return Err(Stop::Error(number(e))),
        };
        if here == 0 {
            break;
        }
        let moved = match between.pass_on(out.get(..here).unwrap_or_default(), job.pipe) {
            Ok(n) => n,
            Err(_) if total > 0 => break,
            Err(EAGAIN) => return Err(Stop::Pipe),
            Err(e) => return Err(Stop::Error(e)),
        };
        let _ = guard.discard(now, stream.id, moved);
        total += moved;
        if moved < wanted || guard.is_at_mark(stream.id) == Ok(true) {
            break;
        }
    }
    Ok(total)
}

// ---- pipe to socket ----

fn out_of_pipe(stream: &Stream, job: &Job) -> Result<isize> {
    let mut total = 0usize;
    while total < job.len {
        match take_from_pipe(stream, job, job.len - total) {
            Ok(0) => break,
            Ok(n) => total += n,
            Err(_) if total > 0 => break,
            Err(EPIPE) => {
                sys::raise_sigpipe();
                return Err(EPIPE);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(total as isize)
}

/// One turn: some bytes, or 0 when all writers are gone, or when what there was has moved.
fn take_from_pipe(stream: &Stream, job: &Job, wanted: usize) -> Result<usize> {
    let turn = Turn {
        flags: if job.nonblocking { MSG_DONTWAIT } else { 0 },
        timeout_us: &stream.local.send_timeout_us,
        events: POLLIN,
        waits_for_pipe: wanted == job.len, // when some has moved, a call does not wait for more
    };
    move_or_wait(stream, job, &turn, |guard, now| drain_pipe(stream, job, wanted, guard, now))
}

/// Takes from the pipe what the socket has room for.
fn drain_pipe(
    stream: &Stream,
    job: &Job,
    wanted: usize,
    guard: &mut Guard<'_>,
    now: Instant,
) -> core::result::Result<usize, Stop> {
    // A socket that cannot send says so before anything is taken.
    guard.send(now, stream.id, &[]).map_err(|e| Stop::Error(number(e)))?;
    let room = guard.send_room(stream.id).map_err(|e| Stop::Error(number(e)))? as usize;
    if room == 0 {
        return Err(Stop::Error(EAGAIN));
    }
    let mut bounce: Bounce = [MaybeUninit::uninit(); BOUNCE];
    let iov = iovec { iov_base: bounce.as_mut_ptr().cast(), iov_len: wanted.min(room).min(BOUNCE) };
    // vmsplice from a pipe copies out of it, and can be told not to wait, whatever the pipe's own flags.
    // SAFETY: `bounce` is writable for that length.
    let taken = unsafe { raw!(vmsplice, job.pipe, &raw const iov, 1, SPLICE_F_NONBLOCK) };
    let n = match taken {
        Ok(0) => return Ok(0),
        Ok(n) => n as usize,
        Err(EAGAIN) => return Err(Stop::Pipe),
        Err(e) => return Err(Stop::Error(e)),
    };
    io::note_more(stream, guard, now, job.more);
    // SAFETY: the kernel has just written `n` bytes there.
    let data = unsafe { core::slice::from_raw_parts(bounce.as_ptr().cast::<u8>(), n) };
    guard.send(now, stream.id, data).map_err(|e| Stop::Error(number(e)))
}
