//! stdin, stdout and stderr, when a user socket stands on their numbers. What waits in a stream's buffer goes along, as it
//! would if there were one stream. The first time this allocates three streams, like fdopen.

use super::cookie::{File, open};
use crate::critical::Mutex;
use crate::fd_table::{Kind, TABLE};
use core::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicU8, Ordering};

unsafe extern "C" {
    static mut stdin: *mut File;
    static mut stdout: *mut File;
    static mut stderr: *mut File;
    fn setvbuf(file: *mut File, buffer: *mut c_char, mode: c_int, size: usize) -> c_int;
    fn fwrite(data: *const c_void, size: usize, count: usize, file: *mut File) -> usize;
    fn ftrylockfile(file: *mut File) -> c_int;
    fn funlockfile(file: *mut File);
}

/// Bits of a stream's flags (libio), and how setvbuf is told of them.
const UNBUFFERED: c_int = 2;
const LINE_BUFFERED: c_int = 0x200;
const CURRENTLY_PUTTING: c_int = 0x800;
const MODE_FULL: c_int = 0;
const MODE_LINE: c_int = 1;
const MODE_NONE: c_int = 2;

/// The streams that stand in for one of libc's, and that one.
struct Standard {
    original: *mut File,
    ours: *mut File,
}

struct Streams([Standard; 3]);

// SAFETY: streams of libc, which have locks of their own.
unsafe impl Send for Streams {}

static STREAMS: Mutex<Streams> =
    Mutex::new(Streams([const { Standard { original: core::ptr::null_mut(), ours: core::ptr::null_mut() } }; 3]));

/// Bit n: the variable of stream n points to ours.
static STANDING_IN: AtomicU8 = AtomicU8::new(0);

/// What stands on `fd` has changed: stdin, stdout and stderr follow. Nearly always nothing is to be done.
#[inline]
pub(crate) fn follow(fd: c_int) {
    if (0..3).contains(&fd) {
        follow_standard(fd as usize);
    }
}

/// libc's variable of that name.
fn variable(n: usize) -> *mut *mut File {
    match n {
        0 => &raw mut stdin,
        1 => &raw mut stdout,
        _ => &raw mut stderr,
    }
}

#[cold]
fn follow_standard(n: usize) {
    let wanted = matches!(TABLE.lookup(n as c_int).kind(), Kind::Stream | Kind::Datagram);
    let bit = 1u8 << n;
    if wanted == (STANDING_IN.load(Ordering::Acquire) & bit != 0) {
        return;
    }
    let mut streams = STREAMS.lock();
    let standard = &mut streams.0[n];
    let at = variable(n);
    // SAFETY: libc's variable; a program that assigns to it while another thread moves the descriptor races with itself.
    let current = unsafe { at.read() };
    let (from, to) = if wanted {
        if standard.ours.is_null() {
            standard.ours = open(n as c_int, if n == 0 { c"r" } else { c"w" }.as_ptr());
        }
        standard.original = current;
        (current, standard.ours)
    } else {
        (standard.ours, standard.original)
    };
    // A program that has put a stream of its own there keeps it.
    if to.is_null() || current != from {
        return;
    }
    // SAFETY: as above; both are libc's streams.
    unsafe {
        take_over(from, to);
        at.write(to);
    }
    STANDING_IN.fetch_xor(bit, Ordering::AcqRel);
}

/// In a forked child: the thread that was about to swap streams is not here.
pub(crate) fn after_fork() {
    // SAFETY: the thread that holds it is not in this process.
    unsafe { STREAMS.free() };
}

/// Our stream upon the number is closed: libc frees it.
pub(super) fn forget(number: c_int) {
    if (0..3).contains(&number) {
        STREAMS.lock().0[number as usize].ours = core::ptr::null_mut();
    }
}

/// Hands out what libc's stdin had read from its descriptor when a socket took its place.
///
/// # Safety
/// `out` is writable for `size` bytes.
pub(super) unsafe fn take_unread(out: *mut c_char, size: usize) -> usize {
    if STANDING_IN.load(Ordering::Acquire) & 1 == 0 {
        return 0;
    }
    let original = STREAMS.lock().0[0].original;
    // SAFETY: libc's stream, which nobody reads while another stands in for it; between ptr and end is what was not read.
    unsafe {
        if original.is_null() || (*original).flags & CURRENTLY_PUTTING != 0 || ftrylockfile(original) != 0 {
            return 0;
        }
        let (at, end) = ((*original).read_ptr, (*original).read_end);
        let n = if at.is_null() || end <= at { 0 } else { size.min(end.offset_from(at) as usize) };
        core::ptr::copy_nonoverlapping(at.cast_const(), out.cast(), n);
        (*original).read_ptr = if n == 0 { at } else { at.add(n) };
        funlockfile(original);
        n
    }
}

/// What was printed and not yet written goes where the descriptor goes, as it would in one stream; and when it is written is
/// what the program said of the old one. A stream that another thread is busy with keeps what it has.
///
/// # Safety
/// Both are open streams of libc.
unsafe fn take_over(from: *mut File, to: *mut File) {
    // SAFETY: the stream is locked while its buffer is looked at; between base and ptr is what was not written.
    unsafe {
        if from.is_null() || ftrylockfile(from) != 0 {
            return;
        }
        let mode = match (*from).flags {
            flags if flags & UNBUFFERED != 0 => MODE_NONE,
            flags if flags & LINE_BUFFERED != 0 => MODE_LINE,
            _ => MODE_FULL,
        };
        setvbuf(to, core::ptr::null_mut(), mode, 0);
        let (base, end) = ((*from).write_base, (*from).write_ptr);
        if (*from).flags & CURRENTLY_PUTTING != 0 && !base.is_null() && end > base {
            fwrite(base.cast(), 1, end.offset_from(base) as usize, to);
            (*from).write_ptr = base;
        }
        funlockfile(from);
    }
}
