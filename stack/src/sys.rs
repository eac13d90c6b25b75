//! Raw system calls: what the edge needs of the kernel, past libc.
//!
//! The engine lives in a library that interposes libc's own `read`, `sendto` or `poll`; calling those here would come
//! back to ourselves. So every call goes straight to the kernel.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use syscalls::{Sysno, syscall};

fn os(e: syscalls::Errno) -> io::Error {
    io::Error::from_raw_os_error(e.into_raw())
}

/// mmap(2) of `len` bytes of `fd` at `offset`, shared, readable and writable.
pub(crate) fn mmap_shared(fd: RawFd, len: usize, offset: u64, populate: bool) -> io::Result<*mut u8> {
    let flags = libc::MAP_SHARED | if populate { libc::MAP_POPULATE } else { 0 };
    // SAFETY: asks for a new mapping at an address of the kernel's choice; touches no memory of ours.
    let at = unsafe { syscall!(Sysno::mmap, 0, len, libc::PROT_READ | libc::PROT_WRITE, flags, fd, offset) };
    at.map(|at| at as *mut u8).map_err(os)
}

/// munmap(2).
///
/// # Safety
/// Nothing may refer to the mapping any more.
pub(crate) unsafe fn munmap(at: *mut u8, len: usize) {
    // SAFETY: the caller's promise. A failure leaves the mapping, which is harmless.
    let _ = unsafe { syscall!(Sysno::munmap, at, len) };
}

/// memfd_create(2), close-on-exec, of `len` bytes of sparse zeroes.
pub(crate) fn memfd(name: &std::ffi::CStr, len: u64) -> io::Result<RawFd> {
    // SAFETY: a NUL-terminated name.
    let fd = unsafe { syscall!(Sysno::memfd_create, name.as_ptr(), libc::MFD_CLOEXEC) }.map_err(os)? as RawFd;
    // SAFETY: no memory is passed.
    unsafe { syscall!(Sysno::ftruncate, fd, len) }.map_err(os)?;
    Ok(fd)
}

/// Makes `len` bytes of shared memory at `at` zeroes, and gives their pages back. Both are in whole pages.
///
/// # Safety
/// `at..at + len` is part of a shared mapping that nobody refers to now.
pub(crate) unsafe fn punch(at: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: the caller's promise.
    unsafe { syscall!(Sysno::madvise, at, len, libc::MADV_REMOVE) }.map(|_| ()).map_err(os)
}

/// fstat(2): a file's size.
pub(crate) fn file_size(fd: RawFd) -> io::Result<u64> {
    // SAFETY: all zeroes is a valid `stat`.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: a writable `stat` of the kernel's own layout.
    unsafe { syscall!(Sysno::fstat, fd, &raw mut stat) }.map_err(os)?;
    Ok(stat.st_size as u64)
}

/// Tells the kernel that the transmit ring has work: sendto(2) with nothing to say.
pub(crate) fn kick(fd: RawFd) -> Result<(), i32> {
    if CONFINED.load(Relaxed) {
        return kick_by_select(fd);
    }
    // SAFETY: a null buffer of length 0.
    let done = unsafe { syscall!(Sysno::sendto, fd, 0, 0, libc::MSG_DONTWAIT, 0, 0) };
    done.map(|_| ()).map_err(|e| e.into_raw())
}

/// This process has, or is about to have, a filter of system calls.
static CONFINED: AtomicBool = AtomicBool::new(false);

/// From now on only such system calls are made to send and to wait as a filter for a program that reads and writes lets through.
pub fn note_confinement() {
    CONFINED.store(true, Relaxed);
}

/// Sets for numbers below this.
const SELECT_WORDS: usize = (1 << 15) / 64;

/// Whoever asks an AF_XDP socket whether it is writable has it send.
#[cold]
fn kick_by_select(fd: RawFd) -> Result<(), i32> {
    let mut set = [0u64; SELECT_WORDS];
    let Some(word) = usize::try_from(fd).ok().and_then(|fd| set.get_mut(fd / 64)) else { return Err(libc::EBADF) };
    *word = 1 << (fd % 64);
    let now = [0u64; 2];
    // SAFETY: the set has bits for `fd`; the time is zero; there is no mask.
    let done = unsafe { syscall!(Sysno::pselect6, fd + 1, 0, set.as_mut_ptr(), 0, now.as_ptr(), 0) };
    done.map(|_| ()).map_err(|e| e.into_raw())
}

/// Adds one to an eventfd. It is nonblocking and its only failure (counter full) means that it is rung already.
pub(crate) fn ring_eventfd(fd: RawFd) {
    let one = 1u64;
    // SAFETY: `one` is eight readable bytes.
    let _ = unsafe { syscall!(Sysno::write, fd, &raw const one, 8) };
}

/// Takes an eventfd back to zero.
pub(crate) fn clear_eventfd(fd: RawFd) {
    let mut value = 0u64;
    // SAFETY: `value` is eight writable bytes.
    let _ = unsafe { syscall!(Sysno::read, fd, &raw mut value, 8) };
}

pub(crate) fn gettid() -> i32 {
    // SAFETY: no arguments.
    unsafe { syscall!(Sysno::gettid) }.unwrap_or(0) as i32
}

pub(crate) fn getpid() -> i32 {
    // SAFETY: no arguments.
    unsafe { syscall!(Sysno::getpid) }.unwrap_or(0) as i32
}

/// kill(2).
pub(crate) fn signal(target: i32, number: i32) {
    // SAFETY: numbers only.
    let _ = unsafe { syscall!(Sysno::kill, target, number) };
}

/// sigqueue(3) with all that is told of the signal. False: it was not queued.
pub(crate) fn queue_signal(pid: i32, number: i32, info: &[i32; 12]) -> bool {
    let mut all = [0i32; 32];
    all[..12].copy_from_slice(info);
    // SAFETY: `all` is as long as a struct siginfo.
    unsafe { syscall!(Sysno::rt_sigqueueinfo, pid, number, all.as_ptr()) }.is_ok()
}

pub(crate) fn close(fd: RawFd) {
    // SAFETY: closing a descriptor number touches no memory.
    let _ = unsafe { syscall!(Sysno::close, fd) };
}

/// Sleeps so long, or until a signal comes.
pub(crate) fn nap_us(us: u64) {
    let time = [us / 1_000_000, us % 1_000_000 * 1_000];
    // SAFETY: `time` has the layout of struct timespec; what remains is not asked for.
    let _ = unsafe { syscall!(Sysno::nanosleep, time.as_ptr(), 0) };
}

/// setsockopt(2) with a plain value.
pub(crate) fn set_option<T>(fd: RawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: `value` is readable for its own size.
    let done = unsafe { syscall!(Sysno::setsockopt, fd, level, name, &raw const *value, size_of::<T>()) };
    done.map(|_| ()).map_err(os)
}

/// getsockopt(2) into a plain value; false when the kernel wrote fewer bytes than it has.
pub(crate) fn option<T>(fd: RawFd, level: i32, name: i32, value: &mut T) -> io::Result<bool> {
    let mut len = size_of::<T>() as u32;
    // SAFETY: `value` is writable for `len` bytes and holds only integers at every caller.
    unsafe { syscall!(Sysno::getsockopt, fd, level, name, &raw mut *value, &raw mut len) }.map_err(os)?;
    Ok(len as usize == size_of::<T>())
}

/// socket(2).
pub(crate) fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<RawFd> {
    // SAFETY: no memory is passed.
    unsafe { syscall!(Sysno::socket, domain, kind, protocol) }.map(|fd| fd as RawFd).map_err(os)
}

/// bind(2) or connect(2) with an address of a plain type.
pub(crate) fn with_address<T>(call: AddressCall, fd: RawFd, address: &T, len: usize) -> io::Result<()> {
    let call = match call {
        AddressCall::Bind => Sysno::bind,
        AddressCall::Connect => Sysno::connect,
    };
    let len = len.min(size_of::<T>());
    // SAFETY: `address` is readable for `len` bytes.
    unsafe { syscall!(call, fd, &raw const *address, len) }.map(|_| ()).map_err(os)
}

/// Which call [`with_address`] makes.
#[derive(Clone, Copy)]
pub(crate) enum AddressCall {
    Bind,
    Connect,
}

/// sendmsg(2) and recvmsg(2) on an already prepared header.
///
/// # Safety
/// The header's pointers must be valid for the call.
pub(crate) unsafe fn message(send: bool, fd: RawFd, header: &mut libc::msghdr, flags: i32) -> io::Result<usize> {
    let call = if send { Sysno::sendmsg } else { Sysno::recvmsg };
    // SAFETY: the caller's promise.
    unsafe { syscall!(call, fd, &raw mut *header, flags) }.map_err(os)
}

#[cfg(target_arch = "x86_64")]
const FSTATAT: Sysno = Sysno::newfstatat;
#[cfg(not(target_arch = "x86_64"))]
const FSTATAT: Sysno = Sysno::fstatat;

/// stat(2): the inode number of a path.
pub(crate) fn inode(path: &std::ffi::CStr) -> io::Result<u64> {
    // SAFETY: all zeroes is a valid `stat`.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: a NUL-terminated path and a writable `stat` of the kernel's own layout (x86_64 and aarch64).
    unsafe { syscall!(FSTATAT, libc::AT_FDCWD, path.as_ptr(), &raw mut stat, 0) }.map_err(os)?;
    Ok(stat.st_ino)
}

/// A number that nobody guesses; before the kernel has randomness, one that is at least new.
pub(crate) fn random() -> u64 {
    let mut value = 0u64;
    // SAFETY: `value` is eight writable bytes.
    match unsafe { syscall!(Sysno::getrandom, &raw mut value, 8, libc::GRND_NONBLOCK) } {
        Ok(8) => value,
        _ => monotonic_us(),
    }
}

/// A point of the monotonic clock, `us` from now.
pub(crate) fn monotonic_after(us: u64) -> libc::timespec {
    let at = monotonic_us() + us;
    libc::timespec { tv_sec: (at / 1_000_000) as _, tv_nsec: (at % 1_000_000 * 1_000) as _ }
}

/// The monotonic clock, by the vDSO.
pub(crate) fn monotonic_us() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a writable timespec. clock_gettime is not among the calls that we interpose.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000 + t.tv_nsec as u64 / 1_000
}
