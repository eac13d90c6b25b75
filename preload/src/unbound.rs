//! A blocking receive on a datagram socket that has no port yet: a thread of sockperf waits like this while another is about
//! to send for the first time. That makes a user socket of it, and its datagrams never come to where the kernel would wait.
//! So the wait is ours, for the socket in the kernel and for the news that something became ours.

use crate::changes::Watch;
use crate::datagrams::Datagram;
use crate::fd_table::{Entry, Kind, TABLE};
use crate::signals::interrupt::Mark;
use crate::sys::Result;
use crate::{critical, interest, options, sys};
use libc::{EAGAIN, EINTR, MSG_DONTWAIT, MSG_ERRQUEUE, O_NONBLOCK, POLLIN, c_int, pollfd};
use sidestep_stack::runtime::now;

/// Waits if the call would, and until there is somebody to serve it: `Some` when that is the user socket, `None` when it
/// is the kernel, which has a datagram, or an error, or refuses to wait.
pub(crate) fn receiver(fd: c_int, entry: Entry, flags: c_int) -> Result<Option<Datagram>> {
    let waits = entry.kind() == Kind::FreshDatagram
        && !interest::is_explicitly_bound(fd)
        && flags & (MSG_DONTWAIT | MSG_ERRQUEUE) == 0
        && sys::file_flags(fd).is_ok_and(|flags| flags & O_NONBLOCK == 0);
    if !waits {
        return Ok(None);
    }
    let timeout_us = options::timeout_us(fd, libc::SO_RCVTIMEO);
    let deadline = (timeout_us != 0).then(|| now().after_us(timeout_us));
    let _held = critical::hold(); // handlers run where it sleeps
    let mut mark = Mark::at_start();
    loop {
        // The look comes after it: whoever changes the entry later rings.
        let Ok(watch) = Watch::begin() else { return Ok(None) };
        let current = TABLE.lookup(fd);
        if current != entry {
            return Ok(Datagram::of(fd, current));
        }
        let mut fds = [fd, watch.fd].map(|fd| pollfd { fd, events: POLLIN, revents: 0 });
        let left = deadline.map(|at| at.since_us(now()));
        let woken = watch.sleep(&mut fds, left, core::ptr::null(), &mark);
        match woken {
            Err(EINTR) if !mark.ends(timeout_us == 0, woken) => {}
            Err(error) => return Err(error),
            Ok(0) => return Err(EAGAIN),
            Ok(_) if fds[0].revents != 0 => return Ok(None),
            Ok(_) => {}
        }
    }
}
