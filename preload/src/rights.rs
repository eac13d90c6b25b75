//! SCM_RIGHTS: descriptors that go to another process by a message, and those that arrive. Of sockets only unix sockets carry them,
//! and those are the kernel's: so these calls look at nothing but control messages.

use crate::calls::fd::drop_entry;
use crate::fd_table::{Entry, Kind, TABLE};
use crate::reason::Reason;
use crate::sys::{self, Result};
use crate::{attach, bequest, inherited, interest, memory};
use libc::{SCM_RIGHTS, SOL_SOCKET, c_int, msghdr};

/// Linux's bound: more in one message is refused.
const FDS_MAX: usize = 253;

/// libc's sendmsg and recvmsg.
pub(crate) type Send = unsafe extern "C-unwind" fn(c_int, *const msghdr, c_int) -> isize;
pub(crate) type Receive = unsafe extern "C-unwind" fn(c_int, *mut msghdr, c_int) -> isize;

/// struct cmsghdr.
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    len: usize,
    level: c_int,
    kind: c_int,
}

/// Whether a message has room for control messages. What cannot be read the kernel judges.
///
/// # Safety
/// `message` is the application's.
pub(crate) unsafe fn has_control(message: *const msghdr) -> bool {
    if message.is_null() || !TABLE.is_mapped() {
        return false;
    }
    // SAFETY: the caller's promise; a word.
    unsafe { memory::read(&raw const (*message).msg_controllen) }.is_ok_and(|len| len != 0)
}

/// Before sendmsg on a descriptor of the kernel's.
///
/// # Safety
/// `message` is the application's.
#[inline]
pub(crate) unsafe fn before_send(message: *const msghdr) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { if has_control(message) { give_away(message) } else { Ok(()) } }
}

/// sendmsg on a descriptor of the kernel's, by libc's function.
///
/// # Safety
/// As for sendmsg.
pub(crate) unsafe fn send_behind(real: Send, fd: c_int, message: *const msghdr, flags: c_int) -> isize {
    // SAFETY: the caller's promise.
    match unsafe { before_send(message) } {
        // SAFETY: the caller's promise.
        Ok(()) => unsafe { real(fd, message, flags) },
        Err(e) => sys::finish(Err(e)),
    }
}

/// recvmsg on a descriptor of the kernel's, by libc's function.
///
/// # Safety
/// As for recvmsg.
pub(crate) unsafe fn receive_behind(real: Receive, fd: c_int, message: *mut msghdr, flags: c_int) -> isize {
    // SAFETY: the caller's promise.
    unsafe {
        let has_room = has_control(message);
        let n = real(fd, message, flags);
        if has_room && n >= 0 {
            take(message);
        }
        n
    }
}

/// # Safety
/// `message` is the application's.
#[cold]
unsafe fn give_away(message: *const msghdr) -> Result<()> {
    if attach::stack().is_none() || !attach::is_own_process() {
        return Ok(());
    }
    let (mut fds, mut n) = ([-1; FDS_MAX], 0);
    // SAFETY: the caller's promise.
    unsafe {
        for_each(message, |fd| {
            if n < FDS_MAX {
                fds[n] = fd;
                n += 1;
            }
        });
    }
    let fds = &fds[..n];
    // Two processes have it, before it is known what becomes of it: the kernel keeps it.
    for fd in fds {
        let entry = TABLE.lookup(*fd);
        if matches!(entry.kind(), Kind::Fresh | Kind::FreshDatagram)
            && TABLE.replace_if(*fd, entry, Reason::Duplicated.entry())
        {
            interest::forget(*fd);
        }
    }
    bequest::leave_several(fds.iter().copied())
}

/// Takes up the descriptors that a message brought.
///
/// # Safety
/// `message` is the application's.
#[cold]
pub(crate) unsafe fn take(message: *const msghdr) {
    if !attach::is_own_process() {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        for_each(message, |fd| {
            if TABLE.lookup(fd) != Entry::KERNEL {
                drop_entry(fd); // it was closed behind our back
            }
            inherited::take_up(fd);
        });
    }
}

/// Goes through the descriptors of a message.
///
/// # Safety
/// `message` is the application's.
unsafe fn for_each(message: *const msghdr, mut f: impl FnMut(c_int)) {
    // SAFETY: the caller's promise: whatever is there, nothing but integers and pointers is read.
    let Ok(header) = (unsafe { memory::read(message) }) else { return };
    let (start, end) = (header.msg_control as usize, header.msg_controllen);
    let mut at = 0;
    while at + size_of::<Header>() <= end {
        // SAFETY: as above.
        let Ok(control) = (unsafe { memory::read(start.wrapping_add(at) as *const Header) }) else { return };
        let len = control.len.min(end - at);
        if len < size_of::<Header>() {
            return;
        }
        if (control.level, control.kind) == (SOL_SOCKET, SCM_RIGHTS) {
            for n in 0..(len - size_of::<Header>()) / size_of::<c_int>() {
                let place = start.wrapping_add(at + size_of::<Header>() + size_of::<c_int>() * n);
                // SAFETY: as above.
                if let Ok(fd) = unsafe { memory::read(place as *const c_int) } {
                    f(fd);
                }
            }
        }
        at += len.next_multiple_of(size_of::<usize>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(control: &mut [u64]) -> msghdr {
        // SAFETY: all zeroes is an empty message.
        let mut m: msghdr = unsafe { core::mem::zeroed() };
        (m.msg_control, m.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(control) as _);
        m
    }

    fn found(m: &msghdr) -> Vec<c_int> {
        let mut all = Vec::new();
        // SAFETY: a message of ours.
        unsafe { for_each(m, |fd| all.push(fd)) };
        all
    }

    #[test]
    fn descriptors_are_found_among_control_messages() {
        let rights = (SOL_SOCKET as u64) | (SCM_RIGHTS as u64) << 32;
        let other = (SOL_SOCKET as u64) | (libc::SCM_CREDENTIALS as u64) << 32;
        let mut control = [20, other, 0, 28, rights, 7 | 8 << 32, 9, 16, rights];
        assert_eq!(found(&message(&mut control)), [7, 8, 9]);
        assert_eq!(found(&message(&mut control[..4])), []);
        let mut short = [4, rights, 7];
        assert_eq!(found(&message(&mut short)), []);
        let mut long = [1 << 40, rights, 7];
        assert_eq!(found(&message(&mut long)), [7, 0], "no further than the message goes");
    }
}
