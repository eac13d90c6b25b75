//! A pipe of our own, through which bytes go into the application's: splice from pipe to pipe can be told not to wait, which
//! a write cannot. Used under the stack's lock, so by one thread at a time, and empty in between.

use crate::hidden;
use crate::sys::{Result, raw};
use libc::{EAGAIN, O_CLOEXEC, O_NONBLOCK, SPLICE_F_NONBLOCK, c_int};
use std::sync::atomic::{AtomicU64, Ordering};

/// Both ends: the writing one in the upper half. 0: not made.
static ENDS: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Copy, Debug)]
pub(crate) struct PrivatePipe {
    read_end: c_int,
    write_end: c_int,
}

/// This process's pipe, made when first needed.
pub(crate) fn open() -> Result<PrivatePipe> {
    let ends = match ENDS.load(Ordering::Acquire) {
        0 => make()?,
        ends => ends,
    };
    Ok(PrivatePipe { read_end: ends as u32 as c_int, write_end: (ends >> 32) as c_int })
}

fn make() -> Result<u64> {
    let mut fds = [-1 as c_int; 2];
    // SAFETY: two ints of ours.
    unsafe { raw!(pipe2, fds.as_mut_ptr(), O_CLOEXEC | O_NONBLOCK) }?;
    let [read_end, write_end] = fds.map(hidden::hide);
    let ends = (write_end as u64) << 32 | read_end as u64;
    ENDS.compare_exchange(0, ends, Ordering::AcqRel, Ordering::Acquire).map(|_| ends).or_else(|other| {
        hidden::close(read_end);
        hidden::close(write_end);
        Ok(other)
    })
}

/// In a forked child: the pipe is the parent's, who may be using it.
pub(crate) fn after_fork() {
    let ends = ENDS.swap(0, Ordering::AcqRel);
    if ends != 0 {
        hidden::close(ends as u32 as c_int);
        hidden::close((ends >> 32) as c_int);
    }
}

impl PrivatePipe {
    /// Gives bytes to the application's pipe, as many as it takes now; EAGAIN when it is full.
    pub(crate) fn pass_on(&self, bytes: &[u8], to: c_int) -> Result<usize> {
        // SAFETY: `bytes` is readable for its length.
        let put = unsafe { raw!(write, self.write_end, bytes.as_ptr(), bytes.len()) }? as usize;
        let mut moved = 0;
        let mut result = Ok(0);
        while moved < put {
            // SAFETY: no offsets are passed.
            result = unsafe { raw!(splice, self.read_end, 0, to, 0, put - moved, SPLICE_F_NONBLOCK) };
            match result {
                Ok(n) if n > 0 => moved += n as usize,
                _ => break,
            }
        }
        self.empty(put - moved);
        match result {
            Err(e) if moved == 0 => Err(e),
            _ if moved == 0 => Err(EAGAIN),
            _ => Ok(moved),
        }
    }

    fn empty(&self, mut left: usize) {
        let mut waste = [0u8; 4096];
        while left > 0 {
            // SAFETY: `waste` is writable for its length.
            match unsafe { raw!(read, self.read_end, waste.as_mut_ptr(), waste.len()) } {
                Ok(n) if n > 0 => left = left.saturating_sub(n as usize),
                _ => return,
            }
        }
    }
}
