//! sendfile(): from a file to a user connection.

use super::io::{self, COUNT_MAX};
use crate::local::Flag;
use crate::memory;
use crate::sys::{Result, raw};
use crate::user::Stream;
use libc::{EBADF, EINVAL, MSG_MORE, c_int, iovec};

/// sendfile copies through a buffer of this size on the stack.
const BOUNCE: usize = 16 * 1024;

pub(crate) unsafe fn sendfile(out: c_int, input: c_int, offset: *mut i64, count: usize) -> Result<isize> {
    let Some(stream) = io::stream_of(out) else {
        if io::stream_of(input).is_some() {
            return Err(EINVAL);
        }
        // SAFETY: the application's pointer; the kernel checks it.
        return unsafe { raw!(sendfile, out, input, offset, count) };
    };
    if io::stream_of(input).is_some() {
        return Err(EINVAL);
    }
    // SAFETY: the application's pointer.
    let given = (!offset.is_null()).then(|| unsafe { memory::read(offset) }).transpose()?;
    let not_a_file = |error| if error == EBADF { EBADF } else { EINVAL };
    let start = match given {
        Some(start) => start,
        None => seek(input, 0, libc::SEEK_CUR).map_err(not_a_file)?,
    };
    if start < 0 {
        return Err(EINVAL);
    }
    let sent = copy_file(&stream, input, start as u64, count.min(COUNT_MAX)).map_err(|error| match error {
        libc::EISDIR => EINVAL,
        libc::ESPIPE if offset.is_null() => EINVAL,
        error => error,
    });
    let moved = start + sent.unwrap_or(0) as i64;
    if offset.is_null() {
        if sent.is_ok() {
            seek(input, moved, libc::SEEK_SET)?;
        }
    } else {
        // SAFETY: the application's pointer.
        unsafe { memory::write(offset, moved) }?;
    }
    sent
}

fn seek(fd: c_int, offset: i64, whence: c_int) -> Result<i64> {
    // SAFETY: numbers only.
    unsafe { raw!(lseek, fd, offset, whence) }.map(|at| at as i64)
}

/// Reads as much of the file as there is send room for, then sends that; so a file is rarely read twice.
fn copy_file(stream: &Stream, input: c_int, start: u64, count: usize) -> Result<isize> {
    let mut bounce = [core::mem::MaybeUninit::<u8>::uninit(); BOUNCE];
    let mut sent = 0usize;
    while sent < count {
        let room = stream.ask(|guard| guard.send_room(stream.id)).unwrap_or(0) as usize;
        let wanted = (count - sent).min(if room == 0 { BOUNCE } else { room.min(BOUNCE) });
        // SAFETY: `bounce` is writable for `wanted` bytes.
        let read = unsafe { raw!(pread64, input, bounce.as_mut_ptr(), wanted, start + sent as u64) };
        let n = match read {
            Ok(0) => break,
            Ok(n) => n as usize,
            Err(e) if sent == 0 => return Err(e),
            Err(_) => break,
        };
        // SAFETY: the first `n` bytes were just written.
        let chunk = [iovec { iov_base: bounce.as_mut_ptr().cast(), iov_len: n }];
        let more = if sent + n < count { MSG_MORE } else { 0 };
        // SAFETY: as above.
        match unsafe { io::transmit(stream, &chunk, more) } {
            Ok(done) => {
                sent += done as usize;
                if (done as usize) < n {
                    break;
                }
            }
            Err(e) if sent == 0 => return Err(e),
            Err(_) => break,
        }
    }
    uncork(stream);
    Ok(sent as isize)
}

/// The file may have ended before `count`: nothing waits for more then.
fn uncork(stream: &Stream) {
    if stream.local.has(Flag::More) {
        let _ = stream.with_errno(|guard, now| {
            io::note_more(stream, guard, now, false);
            Ok(())
        });
    }
}
