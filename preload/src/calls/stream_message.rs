//! What comes with a message of a stream besides its octets: when they came (SO_TIMESTAMP and its kin), how many wait
//! behind them (TCP_INQ); and the control messages that a send may bring.

use crate::local::Flag;
use crate::memory;
use crate::message::{Control, pair, wall_clock};
use crate::sys::{self, Result, raw};
use crate::user::Stream;
use libc::{EINVAL, MSG_CTRUNC, SOL_SOCKET, c_int, msghdr};
use sidestep_stack::runtime::now;
use sidestep_stack::tcp::State;
use sidestep_stack::time::Instant;

const TCP_INQ: c_int = 36;
const SO_TIMESTAMP_NEW: c_int = 63;
const SO_TIMESTAMPNS_NEW: c_int = 64;
const CMSG_HEADER: usize = size_of::<libc::cmsghdr>();

/// Whether a receiver wants to know when the octets came.
pub(super) fn wants_stamps(stream: &Stream) -> bool {
    stream.local.has(Flag::Stamps) || stream.local.has(Flag::StampsNs)
}

/// Writes the control messages of a receive, and the flags that come back.
///
/// # Safety
/// The header's control buffer is writable for the length it names.
pub(super) unsafe fn describe(stream: &Stream, header: &mut msghdr, came: Option<Instant>, flags: c_int) {
    let room = header.msg_controllen;
    let mut control = Control::new(header);
    if let Some(came) = came {
        let (seconds, nanos) = wall_clock(came);
        let (is_fine, is_new) = (stream.local.has(Flag::StampsNs), stream.local.has(Flag::StampsNew));
        let kind = match (is_fine, is_new) {
            (false, false) => libc::SO_TIMESTAMP,
            (true, false) => libc::SO_TIMESTAMPNS,
            (false, true) => SO_TIMESTAMP_NEW,
            (true, true) => SO_TIMESTAMPNS_NEW,
        };
        // SAFETY: the caller's promise.
        unsafe { control.put(SOL_SOCKET, kind, &pair(seconds, if is_fine { nanos } else { nanos / 1000 })) };
    }
    if stream.local.has(Flag::TellsQueue)
        && let Some(waiting) = waiting(stream)
    {
        // SAFETY: the caller's promise.
        unsafe { control.put(libc::SOL_TCP, TCP_INQ, &waiting.to_ne_bytes()) };
    }
    header.msg_controllen = (room - control.room) as _;
    header.msg_namelen = 0;
    header.msg_flags |= flags & libc::MSG_CMSG_CLOEXEC | if control.cut { MSG_CTRUNC } else { 0 };
}

/// Octets that may be read; one more than none when the end of the stream is to be read.
fn waiting(stream: &Stream) -> Option<c_int> {
    let at = now();
    let (waiting, state) =
        stream.look(|guard| Ok((guard.available(stream.id)?, guard.info(at, stream.id)?.state))).ok()?;
    let is_ended = !matches!(state, State::Established | State::FinWait1 | State::FinWait2 | State::SynReceived);
    Some((waiting as c_int).max(is_ended.into()))
}

/// The control messages of a send: those of other levels mean nothing to a stream, those of SOL_SOCKET are checked as the
/// kernel checks them.
///
/// # Safety
/// The header's control buffer is null or readable for the length it names.
pub(super) unsafe fn check_control(header: &msghdr) -> Result<()> {
    let (mut at, mut left) = (header.msg_control.cast::<u8>().cast_const(), header.msg_controllen);
    if left > i32::MAX as usize {
        return Err(libc::ENOBUFS);
    }
    memory::probe_read(at, left)?;
    while left >= CMSG_HEADER {
        // SAFETY: the caller's promise: so many bytes are left.
        let head = unsafe { memory::read(at.cast::<libc::cmsghdr>()) }?;
        let len = head.cmsg_len;
        if len < CMSG_HEADER || len > left {
            return Err(EINVAL);
        }
        if head.cmsg_level == SOL_SOCKET {
            check_of_socket(head.cmsg_type, len - CMSG_HEADER)?;
        }
        let step = len.next_multiple_of(size_of::<usize>()).min(left);
        // SAFETY: within the buffer.
        at = unsafe { at.add(step) };
        left -= step;
    }
    Ok(())
}

/// SCM_RIGHTS and SCM_CREDENTIALS belong to unix sockets and are passed over here; a mark or a priority may be said, by who
/// may set one, and changes nothing for a stream. Times of transmission are not kept: none may be asked for.
fn check_of_socket(kind: c_int, size: usize) -> Result<()> {
    match kind {
        libc::SCM_RIGHTS | libc::SCM_CREDENTIALS => Ok(()),
        libc::SO_MARK | libc::SO_PRIORITY if size == size_of::<c_int>() => may_mark(),
        _ => Err(EINVAL),
    }
}

/// Whether the kernel lets this process mark what it sends.
fn may_mark() -> Result<()> {
    let probe = sys::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)?;
    let zero: c_int = 0;
    // SAFETY: an int of ours.
    let may = unsafe { raw!(setsockopt, probe, SOL_SOCKET, libc::SO_MARK, &raw const zero, size_of::<c_int>()) };
    let _ = sys::close(probe);
    may.map(drop)
}
