//! Raw system calls: what the shim needs of the kernel, past libc.
//!
//! libsidestep.so exports libc's own names, so a call to libc from here could come back to us. Everything goes
//! straight to the kernel, which also checks the application's pointers for us (EFAULT).

use libc::{c_int, c_void};

/// What a call of ours gives: a value, or a Linux error number.
pub(crate) type Result<T> = core::result::Result<T, c_int>;

/// One system call with up to six arguments; the error is the kernel's.
macro_rules! raw {
    ($nr:ident $(, $arg:expr)* $(,)?) => {
        match syscalls::syscall!(syscalls::Sysno::$nr $(, $arg)*) {
            Ok(value) => Ok(value as isize),
            Err(e) => Err(e.into_raw()),
        }
    };
}
pub(crate) use raw;

/// Sets the calling thread's errno.
pub(crate) fn set_errno(error: c_int) {
    // SAFETY: libc gives every thread its own, always valid errno.
    unsafe { *libc::__errno_location() = error };
}

/// Types that a call may return: -1 says "look at errno".
pub(crate) trait Returned: Copy {
    fn from_value(value: isize) -> Self;
}

impl Returned for c_int {
    fn from_value(value: isize) -> Self {
        value as c_int
    }
}

impl Returned for isize {
    fn from_value(value: isize) -> Self {
        value
    }
}

/// Ends a call as libc would: the value, or -1 and errno. errno is untouched on success.
#[inline]
pub(crate) fn finish<R: Returned>(result: Result<isize>) -> R {
    match result {
        Ok(value) => R::from_value(value),
        Err(error) => {
            set_errno(error);
            R::from_value(-1)
        }
    }
}

/// `Ok(())` as the 0 that most calls return.
#[inline]
pub(crate) fn done(result: Result<()>) -> Result<isize> {
    result.map(|()| 0)
}

pub(crate) fn close(fd: c_int) -> Result<isize> {
    // SAFETY: a descriptor number; no memory.
    unsafe { raw!(close, fd) }
}

pub(crate) fn getpid() -> c_int {
    // SAFETY: no arguments.
    unsafe { raw!(getpid) }.unwrap_or(0) as c_int
}

/// SIGPIPE to the calling thread, as the kernel does for a write to a broken pipe.
pub(crate) fn raise_sigpipe() {
    // SAFETY: no memory is passed.
    let _ = unsafe { raw!(gettid) }.and_then(|tid| {
        // SAFETY: no memory is passed.
        unsafe { raw!(tgkill, getpid(), tid, libc::SIGPIPE) }
    });
}

pub(crate) fn fcntl(fd: c_int, command: c_int, argument: usize) -> Result<isize> {
    // SAFETY: used with commands whose argument is a number; a pointer would be checked by the kernel.
    unsafe { raw!(fcntl, fd, command, argument) }
}

/// The open-file flags (O_NONBLOCK, …) of the kernel's description.
pub(crate) fn file_flags(fd: c_int) -> Result<c_int> {
    fcntl(fd, libc::F_GETFL, 0).map(|f| f as c_int)
}

pub(crate) fn socket(domain: c_int, kind: c_int, protocol: c_int) -> Result<c_int> {
    // SAFETY: no memory is passed.
    unsafe { raw!(socket, domain, kind, protocol) }.map(|fd| fd as c_int)
}

/// getsockopt(2) of a plain value of our own.
pub(crate) fn option<T: Copy + Default>(fd: c_int, level: c_int, name: c_int) -> Result<T> {
    let mut value = T::default();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is writable for `len` bytes; callers use types of integers only.
    unsafe { raw!(getsockopt, fd, level, name, &raw mut value, &raw mut len) }?;
    Ok(value)
}

/// ppoll(2) over our own array.
pub(crate) fn ppoll(fds: &mut [libc::pollfd], timeout_us: Option<u64>, sigmask: *const c_void) -> Result<isize> {
    let mut time = timeout_us.map(timespec);
    let time = time_pointer(&mut time);
    // SAFETY: `fds` is ours; the timespec lives until the call returns; the kernel checks the mask's pointer.
    unsafe { raw!(ppoll, fds.as_mut_ptr(), fds.len(), time, sigmask, SIGSET_BYTES) }
}

/// The kernel's sigset_t is 64 bits, whatever libc's is.
pub(crate) const SIGSET_BYTES: usize = 8;

/// The pointer that a call with an optional timeout takes. The kernel writes what remains of the time.
pub(crate) fn time_pointer(time: &mut Option<libc::timespec>) -> *mut libc::timespec {
    time.as_mut().map_or(core::ptr::null_mut(), core::ptr::from_mut)
}

pub(crate) fn timespec(us: u64) -> libc::timespec {
    libc::timespec { tv_sec: (us / 1_000_000) as _, tv_nsec: (us % 1_000_000 * 1_000) as _ }
}

/// Private zeroed memory that costs nothing until it is touched.
pub(crate) fn map_lazily(len: usize) -> Result<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    unsafe { raw!(mmap, 0, len, libc::PROT_READ | libc::PROT_WRITE, flags, usize::MAX, 0) }.map(|at| at as *mut u8)
}

/// # Safety
/// Nothing may refer to the mapping any more.
pub(crate) unsafe fn unmap(at: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    let _ = unsafe { raw!(munmap, at, len) };
}

/// Writes a line for people to stderr; whatever happens to it.
pub(crate) fn write_stderr(text: &[u8]) {
    // SAFETY: `text` is readable for its length.
    let _ = unsafe { raw!(write, 2, text.as_ptr(), text.len()) };
}

pub(crate) fn exit_now(status: c_int) -> ! {
    loop {
        // SAFETY: ends the process; no memory is passed.
        let _ = unsafe { raw!(exit_group, status) };
    }
}

/// A resource limit of this process: (soft, hard).
pub(crate) fn file_limit() -> (u64, u64) {
    let mut limit = [0u64; 2];
    // SAFETY: `limit` has the layout of struct rlimit64.
    match unsafe { raw!(prlimit64, 0, libc::RLIMIT_NOFILE, 0, &raw mut limit) } {
        Ok(_) => (limit[0], limit[1]),
        Err(_) => (1024, 4096),
    }
}

/// The handler's flags of a signal, when the application has a handler for it.
pub(crate) fn handler_flags(signal: c_int) -> Option<u64> {
    // The kernel's struct sigaction: handler, flags, restorer, mask (x86_64 and aarch64).
    let mut action = [0u64; 4];
    // SAFETY: `action` is writable and as large as the kernel's struct.
    unsafe { raw!(rt_sigaction, signal, 0, &raw mut action, SIGSET_BYTES) }.ok()?;
    (action[0] > 1).then_some(action[1])
}
