//! The functions of `include/sidestep.h`, for programs that know of us.

use crate::fd_table::{Kind, TABLE};
use crate::reason::{self, Reason};
use crate::sys::{Outcome, Result, finish, set_errno};
use crate::user::Stream;
use crate::{memory, spin};
use core::ffi::{CStr, c_char, c_int};
use libc::{EINVAL, EOPNOTSUPP};
use sidestep_stack::runtime::now;

/// SIDESTEP_API_VERSION of the header.
const API_VERSION: u32 = 2;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("a version without NUL"),
};

/// enum sidestep_path of the header.
#[derive(Clone, Copy)]
#[repr(i32)]
enum Path {
    Kernel = 0,
    User = 1,
    Both = 2,
}

/// `sidestep_api_version()`.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) extern "C" fn sidestep_api_version() -> u32 {
    API_VERSION
}

/// `sidestep_version()`.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) extern "C" fn sidestep_version() -> *const c_char {
    VERSION.as_ptr()
}

/// `sidestep_fd_path()`.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) extern "C" fn sidestep_fd_path(fd: c_int) -> c_int {
    path_of(fd).map(|path| path as isize).finish()
}

fn path_of(fd: c_int) -> Result<Path> {
    Ok(match (reason::of_descriptor(fd)?, TABLE.lookup(fd).kind()) {
        (Reason::User, Kind::Stream) => Path::User,
        // A listener that nobody has wanted to accept from is waited for in both.
        (Reason::User, _) | (Reason::Undecided, Kind::Listener) => Path::Both,
        _ => Path::Kernel,
    })
}

/// `sidestep_fd_reason()`.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) extern "C" fn sidestep_fd_reason(fd: c_int) -> c_int {
    finish(reason::of_descriptor(fd).map(|reason| reason as isize))
}

/// `sidestep_reason_text()`.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) extern "C" fn sidestep_reason_text(reason: c_int) -> *const c_char {
    Reason::text(reason as u32).unwrap_or(c"a reason that this library does not know").as_ptr()
}

/// struct sidestep_stats of the header.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Stats {
    size: u32,
    mss_bytes: u32,
    sent_bytes: u64,
    acked_bytes: u64,
    resent_bytes: u64,
    received_bytes: u64,
    sent_segments: u32,
    received_segments: u32,
    resent_segments: u32,
    reordered_segments: u32,
    rtt_us: u32,
    rtt_var_us: u32,
    rtt_min_us: u32,
    rto_us: u32,
    cwnd_bytes: u32,
    peer_window_bytes: u32,
    own_window_bytes: u32,
    unsent_bytes: u32,
    unacked_bytes: u32,
    unread_bytes: u32,
    pacing_bytes_s: u64,
    delivery_bytes_s: u64,
}

/// `size` and the first field.
const LEAST: usize = 8;

/// `sidestep_fd_stats()`.
///
/// # Safety
/// `stats` is null or writable for the size that it begins with.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn sidestep_fd_stats(fd: c_int, stats: *mut u32) -> c_int {
    // SAFETY: the same contract.
    finish(unsafe { give_stats(fd, stats) }.map(|()| 0))
}

/// # Safety
/// As for [`sidestep_fd_stats`].
unsafe fn give_stats(fd: c_int, out: *mut u32) -> Result<()> {
    reason::of_descriptor(fd)?;
    // SAFETY: a number; the address may be anything.
    let room = unsafe { memory::read(out) }? as usize;
    if room < LEAST {
        return Err(EINVAL);
    }
    let stream = Stream::of(TABLE.lookup(fd)).ok_or(EOPNOTSUPP)?;
    let size = room.min(size_of::<Stats>());
    let stats = Stats { size: size as u32, ..stats_of(&stream)? };
    // SAFETY: `size` bytes are within ours; the address may be anything.
    unsafe { memory::copy_out(out.cast(), (&raw const stats).cast(), size) }
}

fn stats_of(stream: &Stream) -> Result<Stats> {
    let at = now();
    let (info, unread) =
        stream.look(|guard| Ok((guard.info(at, stream.id)?, guard.available(stream.id).unwrap_or(0))))?;
    Ok(Stats {
        size: 0,
        mss_bytes: info.snd_mss,
        sent_bytes: info.bytes_sent,
        acked_bytes: info.bytes_acked.saturating_sub(info.controls.0),
        resent_bytes: info.bytes_retrans,
        received_bytes: info.bytes_received.saturating_sub(info.controls.1),
        sent_segments: info.segs_out,
        received_segments: info.segs_in,
        resent_segments: info.retrans_total,
        reordered_segments: info.out_of_order,
        rtt_us: info.rtt_us,
        rtt_var_us: info.rttvar_us,
        rtt_min_us: info.min_rtt_us,
        rto_us: info.rto_us,
        cwnd_bytes: info.snd_cwnd,
        peer_window_bytes: info.snd_wnd,
        own_window_bytes: info.rcv_wnd,
        unsent_bytes: info.notsent,
        unacked_bytes: info.unacked,
        unread_bytes: unread,
        pacing_bytes_s: info.pacing_rate,
        delivery_bytes_s: info.delivery_rate,
    })
}

/// enum sidestep_scope of the header.
const THREAD: c_int = 0;
const PROCESS: c_int = 1;

/// `sidestep_set_spin_us()`.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) extern "C" fn sidestep_set_spin_us(scope: c_int, us: u32) -> c_int {
    let is_valid = us <= spin::LONGEST_US || us == spin::DEFAULT_US;
    finish(match scope {
        THREAD if is_valid => {
            spin::set_thread_us(us);
            Ok(0)
        }
        PROCESS if is_valid => {
            spin::set_process_us(us);
            Ok(0)
        }
        _ => Err(EINVAL),
    })
}

/// `sidestep_spin_us()`.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) extern "C" fn sidestep_spin_us(scope: c_int) -> u32 {
    match scope {
        THREAD => spin::limit_us(),
        PROCESS => spin::process_us(),
        _ => {
            set_errno(EINVAL);
            spin::DEFAULT_US
        }
    }
}
