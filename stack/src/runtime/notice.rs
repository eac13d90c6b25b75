//! A signal that is sent for a socket (SIGURG, SIGIO), by whoever lets go of the stack's lock.
//!
//! Nobody but the kernel may say that a signal comes from it. So what is told of the socket goes under SI_SIGIO, which any
//! process may say and which has the same fields, and the true code beside them; the shim gives handlers what they expect.

use crate::engine::{Cause, Owner};
use crate::sys;
use libc::{SIGIO, SIGURG};

/// struct siginfo, as far as the kernel keeps it, in words of four bytes.
pub type Info = [i32; 12];

const SI_SIGIO: i32 = -5;
const SI_KERNEL: i32 = 0x80;
const CODE_AT: usize = 2;
const BAND_AT: usize = 4;
const FD_AT: usize = 6;
/// Where the kernel has nothing of such a signal.
const TRUE_CODE_AT: usize = 8;
const MARK_AT: usize = 9;
const MARK: i32 = 0x5349_4445;

/// What poll() would say (Linux's `band_table`).
fn band(cause: Cause) -> i32 {
    match cause {
        Cause::Urgent => 0,
        Cause::In => libc::POLLIN | libc::POLLRDNORM,
        Cause::Out => libc::POLLOUT | libc::POLLWRNORM | libc::POLLWRBAND,
        Cause::Error => libc::POLLERR,
        Cause::Priority => libc::POLLPRI | libc::POLLRDBAND,
        Cause::HangUp => libc::POLLHUP | libc::POLLERR,
    }
    .into()
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Notice {
    /// As kill() takes it.
    pub(super) pid: i32,
    pub(super) owner: Owner,
    pub(super) cause: Cause,
}

impl Notice {
    /// As the kernel: the full story by the signal that was chosen; SIGIO without one otherwise, or when the owner's queue
    /// of signals is full.
    pub(super) fn send(self) {
        let (number, is_told) = match (self.cause, self.owner.signal) {
            (Cause::Urgent, _) => (SIGURG, false),
            (_, 0) => (SIGIO, false),
            (_, chosen) => (i32::from(chosen), true),
        };
        let mut info: Info = [0; 12];
        (info[0], info[CODE_AT], info[TRUE_CODE_AT], info[MARK_AT]) = (number, SI_SIGIO, SI_KERNEL, MARK);
        if is_told {
            (info[BAND_AT], info[FD_AT], info[TRUE_CODE_AT]) = (band(self.cause), self.owner.fd, self.cause as i32);
        }
        if self.pid > 0 && sys::queue_signal(self.pid, number, &info) {
            return;
        }
        let plain = if self.pid > 0 && is_told { SIGIO } else { number };
        sys::signal(self.pid, plain);
    }
}

/// Gives what is told of a signal the form that the kernel's has, if it is one of these.
pub fn restore_code(info: &mut Info) {
    if (info[CODE_AT], info[MARK_AT]) == (SI_SIGIO, MARK) {
        info[CODE_AT] = info[TRUE_CODE_AT];
        (info[TRUE_CODE_AT], info[MARK_AT]) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_is_changed() {
        let mut info: Info = [29, 0, SI_SIGIO, 0, 65, 0, 7, 0, 1, MARK, 0, 0];
        restore_code(&mut info);
        assert_eq!(info, [29, 0, 1, 0, 65, 0, 7, 0, 0, 0, 0, 0]);
        let others: Info = [29, 0, SI_SIGIO, 0, 65, 0, 7, 0, 1, 0, 0, 0];
        let mut info = others;
        restore_code(&mut info);
        assert_eq!(info, others);
    }
}
