//! A stream with functions of ours, upon a descriptor.

use super::{Original, is_ours, pointer, standard};
use crate::calls::{fd as descriptors, io};
use crate::fd_table::TABLE;
use crate::sys::{self, Result, raw};
use core::ffi::{c_char, c_int, c_void};
use libc::ESPIPE;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// The beginning of libc's struct _IO_FILE (bits/types/struct_FILE.h), which is part of its ABI.
#[repr(C)]
pub(crate) struct File {
    pub(super) flags: c_int,
    pub(super) read_ptr: *mut u8,
    pub(super) read_end: *mut u8,
    read_base: *mut u8,
    pub(super) write_base: *mut u8,
    pub(super) write_ptr: *mut u8,
    write_end: *mut u8,
    buf_base: *mut u8,
    buf_end: *mut u8,
    save_base: *mut u8,
    backup_base: *mut u8,
    save_end: *mut u8,
    markers: *mut c_void,
    chain: *mut File,
    pub(super) fileno: c_int,
}

/// libc's cookie_io_functions_t.
#[derive(Clone, Copy)]
#[repr(C)]
struct Functions {
    read: unsafe extern "C" fn(*mut c_void, *mut c_char, usize) -> isize,
    write: unsafe extern "C" fn(*mut c_void, *const c_char, usize) -> isize,
    seek: unsafe extern "C" fn(*mut c_void, *mut i64, c_int) -> c_int,
    close: unsafe extern "C" fn(*mut c_void) -> c_int,
}

/// What libc makes for fopencookie: the FILE (216 bytes), a table of functions, and what it was given, reading first.
#[repr(C)]
struct CookieFile {
    file: File,
    rest: [u8; 216 - size_of::<File>()],
    table: *mut c_void,
    cookie: *mut c_void,
    /// libc keeps functions in a disguise of its own, the same one throughout a process.
    read: usize,
}

unsafe extern "C" {
    fn fopencookie(cookie: *mut c_void, mode: *const c_char, functions: Functions) -> *mut File;
}

static FDOPEN: Original = Original::new(c"fdopen");

/// The table of functions that such streams have; null until one was made, and when libc's streams are not what we think.
static TABLE_OF_COOKIES: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

/// Our reading function as such streams keep it.
static READ_AS_KEPT: AtomicUsize = AtomicUsize::new(0);

// ---- the functions of a stream; its cookie is the descriptor's number ----

fn number(cookie: *mut c_void) -> c_int {
    cookie as usize as c_int
}

unsafe extern "C" fn read(cookie: *mut c_void, out: *mut c_char, size: usize) -> isize {
    if number(cookie) == 0 {
        // SAFETY: the stream's buffer.
        match unsafe { standard::take_unread(out, size) } {
            0 => {}
            n => return n as isize,
        }
    }
    // SAFETY: the stream's buffer.
    sys::finish(unsafe { io::read(number(cookie), out.cast(), size) })
}

/// As libc's streams do: all of it, or an error.
unsafe extern "C" fn write(cookie: *mut c_void, data: *const c_char, size: usize) -> isize {
    // SAFETY: the stream's buffer.
    let (written, result) = unsafe { write_all(number(cookie), data, size) };
    if let Err(error) = result {
        sys::set_errno(error);
    }
    written as isize
}

/// # Safety
/// `data` is readable for `size` bytes.
pub(super) unsafe fn write_all(fd: c_int, data: *const c_char, size: usize) -> (usize, Result<()>) {
    let mut written = 0;
    while written < size {
        // SAFETY: within the caller's buffer.
        match unsafe { io::write(fd, data.add(written).cast(), size - written) } {
            Ok(n) => written += n as usize,
            Err(e) => return (written, Err(e)),
        }
    }
    (written, Ok(()))
}

/// A file may have taken the socket's place.
unsafe extern "C" fn seek(cookie: *mut c_void, at: *mut i64, whence: c_int) -> c_int {
    if !TABLE.lookup(number(cookie)).is_kernel() {
        return sys::finish(Err(ESPIPE));
    }
    // SAFETY: libc's own offset.
    let wanted = unsafe { at.read() };
    // SAFETY: numbers only.
    let moved = unsafe { raw!(lseek, number(cookie), wanted, whence) };
    if let Ok(position) = moved {
        // SAFETY: as above.
        unsafe { at.write(position as i64) };
    }
    sys::finish(moved.map(|_| 0))
}

unsafe extern "C" fn close(cookie: *mut c_void) -> c_int {
    // SAFETY: a number only.
    let closed = unsafe { descriptors::close(number(cookie)) };
    standard::forget(number(cookie));
    sys::finish(closed)
}

/// A stream of ours upon `fd`.
pub(super) fn open(fd: c_int, mode: *const c_char) -> *mut File {
    // SAFETY: the mode is NUL-terminated; the cookie is a number.
    let file = unsafe { fopencookie(fd as isize as *mut c_void, mode, Functions { read, write, seek, close }) };
    if file.is_null() {
        return file;
    }
    let whole: *mut CookieFile = file.cast();
    // SAFETY: libc has just made it, and nobody else has it yet; it is at least as large on every glibc.
    unsafe {
        (*file).fileno = fd;
        if (*whole).cookie as isize == fd as isize {
            READ_AS_KEPT.store((*whole).read, Ordering::Relaxed);
            TABLE_OF_COOKIES.store((*whole).table, Ordering::Release);
        }
    }
    file
}

/// Whether a stream is one of ours.
///
/// # Safety
/// An open stream of libc.
pub(super) unsafe fn is_cookie(file: *mut File) -> bool {
    let (whole, table) = (file.cast::<CookieFile>(), TABLE_OF_COOKIES.load(Ordering::Acquire));
    // SAFETY: every FILE has the table behind it; one with this table has all the rest.
    !file.is_null()
        && !table.is_null()
        && unsafe { (*whole).table == table && (*whole).read == READ_AS_KEPT.load(Ordering::Relaxed) }
}

/// The stream has no descriptor any more.
///
/// # Safety
/// A stream of ours.
pub(super) unsafe fn detach(file: *mut File) {
    // SAFETY: the caller's promise.
    unsafe {
        (*file).fileno = -1;
        (*file.cast::<CookieFile>()).cookie = usize::MAX as *mut c_void;
    }
}

pub(crate) unsafe fn fdopen(fd: c_int, mode: *const c_char) -> Result<isize> {
    if !is_ours(fd) {
        // SAFETY: libc's function of this type.
        let original = unsafe {
            core::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int, *const c_char) -> *mut File>(FDOPEN.find()?)
        };
        // SAFETY: the application's arguments.
        return pointer(unsafe { original(fd, mode) });
    }
    pointer(open(fd, mode))
}

const _: () = assert!(core::mem::offset_of!(File, fileno) == 112);
