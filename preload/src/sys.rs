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

impl Returned for i64 {
    fn from_value(value: isize) -> Self {
        value as i64
    }
}

impl Returned for () {
    fn from_value(_: isize) -> Self {}
}

impl<T> Returned for *mut T {
    fn from_value(value: isize) -> Self {
        if value == -1 { core::ptr::null_mut() } else { value as *mut T }
    }
}

impl Returned for isize {
    fn from_value(value: isize) -> Self {
        value
    }
}

/// What an exported function makes of a call's outcome.
pub(crate) trait Outcome<R> {
    fn finish(self) -> R;
}

/// As libc does: the value, or -1 and errno. errno is untouched on success.
impl<R: Returned> Outcome<R> for Result<isize> {
    #[inline]
    fn finish(self) -> R {
        match self {
            Ok(value) => R::from_value(value),
            Err(error) => {
                set_errno(error);
                R::from_value(-1)
            }
        }
    }
}

/// As [`Outcome::finish`].
#[inline]
pub(crate) fn finish<R: Returned>(result: Result<isize>) -> R {
    result.finish()
}

/// The outcome of a call that says itself what it returns.
pub(crate) struct AsIs<R>(pub(crate) R);

impl<R> Outcome<R> for AsIs<R> {
    #[inline]
    fn finish(self) -> R {
        self.0
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

/// ppoll(2) over our own array that does not sleep once a handler has run since `mark`.
pub(crate) fn ppoll_since(
    fds: &mut [libc::pollfd],
    timeout_us: Option<u64>,
    sigmask: *const c_void,
    mark: &crate::signals::interrupt::Mark,
) -> Result<isize> {
    let mut time = timeout_us.map(timespec);
    let time = time_pointer(&mut time);
    let args = [fds.as_mut_ptr() as usize, fds.len(), time as usize, sigmask as usize, SIGSET_BYTES, 0];
    // SAFETY: as for `ppoll`.
    match unsafe { crate::signals::sleep::call(syscalls::Sysno::ppoll, args, mark) } {
        Err(libc::EINVAL) => {
            let _opened = crate::critical::open();
            crate::limited_poll::wait(fds, timeout_us, sigmask)
        }
        result => result,
    }
}

/// ppoll(2) over our own array.
pub(crate) fn ppoll(fds: &mut [libc::pollfd], timeout_us: Option<u64>, sigmask: *const c_void) -> Result<isize> {
    let mut time = timeout_us.map(timespec);
    let time = time_pointer(&mut time);
    // SAFETY: `fds` is ours; the timespec lives until the call returns; the kernel checks the mask's pointer.
    match unsafe { raw!(ppoll, fds.as_mut_ptr(), fds.len(), time, sigmask, SIGSET_BYTES) } {
        Err(libc::EINVAL) => crate::limited_poll::wait(fds, timeout_us, sigmask),
        result => result,
    }
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

/// Sets RLIMIT_NOFILE (soft, hard); gives what it was.
pub(crate) fn swap_file_limit(limit: (u64, u64)) -> Result<(u64, u64)> {
    let (to, mut from) = ([limit.0, limit.1], [0u64; 2]);
    // SAFETY: both have the layout of struct rlimit64.
    unsafe { raw!(prlimit64, 0, libc::RLIMIT_NOFILE, to.as_ptr(), from.as_mut_ptr()) }?;
    Ok((from[0], from[1]))
}

/// RLIMIT_NOFILE of this process: (soft, hard).
pub(crate) fn file_limit() -> (u64, u64) {
    let mut limit = [0u64; 2];
    // SAFETY: `limit` has the layout of struct rlimit64.
    match unsafe { raw!(prlimit64, 0, libc::RLIMIT_NOFILE, 0, &raw mut limit) } {
        Ok(_) => (limit[0], limit[1]),
        Err(_) => (1024, 4096),
    }
}

/// The handler of a signal and its flags, as the kernel has them.
pub(crate) fn handler(signal: c_int) -> Option<(u64, u64)> {
    // The kernel's struct sigaction: handler, flags, restorer, mask (x86_64 and aarch64).
    let mut action = [0u64; 4];
    // SAFETY: `action` is writable and as large as the kernel's struct.
    unsafe { raw!(rt_sigaction, signal, 0, &raw mut action, SIGSET_BYTES) }.ok()?;
    (action[0] > 1).then_some((action[0], action[1]))
}

/// rt_sigprocmask(2); the mask of before.
pub(crate) fn change_signal_mask(how: c_int, mask: u64) -> u64 {
    let mut before = 0u64;
    // SAFETY: both are words of ours.
    let _ = unsafe { raw!(rt_sigprocmask, how, &raw const mask, &raw mut before, SIGSET_BYTES) };
    before
}

pub(crate) fn set_signal_mask(mask: u64) {
    change_signal_mask(libc::SIG_SETMASK, mask);
}

/// Takes a pending, blocked signal; false when there is none.
pub(crate) fn take_pending(signal: c_int, info: &mut [u64; 16]) -> bool {
    let (set, now) = (1u64 << (signal - 1), timespec(0));
    // SAFETY: all three are ours; `info` is as large as struct siginfo.
    unsafe { raw!(rt_sigtimedwait, &raw const set, info.as_mut_ptr(), &raw const now, SIGSET_BYTES) }.is_ok()
}

/// The stack of this thread's handlers with SA_ONSTACK: where it begins, and its size; 0 when there is none.
#[cfg(target_arch = "x86_64")]
pub(crate) fn signal_stack() -> (usize, usize) {
    let mut stack = libc::stack_t { ss_sp: core::ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: `stack` is ours.
    let _ = unsafe { raw!(sigaltstack, 0, &raw mut stack) };
    (stack.ss_sp as usize, stack.ss_size)
}
