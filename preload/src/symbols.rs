//! The interposed calls: one table. Each line makes an exported function of that C name and a line of [`CALLS`].
//!
//! An exported function only unpacks a `Result` into libc's convention (-1 and errno); what a call does is in `calls/`.
//! Variadic C functions (fcntl, ioctl) are declared with the one argument that they can have: on x86_64 and aarch64
//! Linux it is passed in the same register. `syscall` has all six that a call can have. Those that do
//! not fit in stand with `elsewhere`: whose arguments may be anything (`variadic.rs`), who return twice (`vfork.rs`), or never
//! (`ending.rs`).

use crate::calls::{
    connect, epoll, exec, fd, io, poll, positional, process, select, socket, splice, stat, syscall as raw,
};
use crate::signals::calls as signals;
use crate::stdio::{self, File};
use crate::sys::Outcome;
use crate::{cancellation_point, exported, kernel_or_point, message_or_point, plain, rights};
use crate::{epoll_pwait_or_point, epoll_wait_or_point, poll_or_point, select_or_point};
use libc::{
    c_char, c_int, c_long, c_uint, c_ulong, c_void, epoll_event, fd_set, iovec, mmsghdr, msghdr, nfds_t, pid_t, pollfd,
    sockaddr,
};
use libc::{sighandler_t, sigset_t, socklen_t, ssize_t, stat as stat_record, timespec, timeval};

macro_rules! symbols {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $target:path;)* $(elsewhere $other:ident;)*) => {
        $(exported!($name($($arg: $ty),*) -> $ret = $target);)*

        /// The names of the table, a line each, NUL-terminated.
        pub(crate) const CALLS: &str = concat!($(stringify!($name), "\n",)* $(stringify!($other), "\n",)* "\0");
    };
}

symbols! {
    // socket life cycle
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int = socket::socket;
    fn socketpair(domain: c_int, kind: c_int, protocol: c_int, pair: *mut c_int) -> c_int = socket::socketpair;
    fn bind(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int = socket::bind;
    fn listen(fd: c_int, backlog: c_int) -> c_int = socket::listen;
    fn accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int = socket::accept;
    fn accept4(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int = socket::accept4;
    fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int = connect::connect;
    fn __connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int = connect::connect;
    fn shutdown(fd: c_int, how: c_int) -> c_int = socket::shutdown;
    fn getsockname(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int = socket::getsockname;
    fn getpeername(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int = socket::getpeername;
    fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t) -> c_int = socket::getsockopt;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int = socket::setsockopt;

    // data
    fn read(fd: c_int, buf: *mut c_void, count: usize) -> ssize_t = io::read;
    fn __read(fd: c_int, buf: *mut c_void, count: usize) -> ssize_t = io::read;
    fn __read_chk(fd: c_int, buf: *mut c_void, count: usize, size: usize) -> ssize_t = io::read_chk;
    fn write(fd: c_int, buf: *const c_void, count: usize) -> ssize_t = io::write;
    fn __write(fd: c_int, buf: *const c_void, count: usize) -> ssize_t = io::write;
    fn readv(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t = io::readv;
    fn writev(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t = io::writev;
    fn recv(fd: c_int, buf: *mut c_void, len: usize, flags: c_int) -> ssize_t = io::recv;
    fn __recv_chk(fd: c_int, buf: *mut c_void, len: usize, size: usize, flags: c_int) -> ssize_t = io::recv_chk;
    fn recvfrom(fd: c_int, buf: *mut c_void, len: usize, flags: c_int, addr: *mut sockaddr, addr_len: *mut socklen_t) -> ssize_t = io::recvfrom;
    fn __recvfrom_chk(fd: c_int, buf: *mut c_void, len: usize, size: usize, flags: c_int, addr: *mut sockaddr, addr_len: *mut socklen_t) -> ssize_t = io::recvfrom_chk;
    fn recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t = io::recvmsg;
    fn recvmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec) -> c_int = io::recvmmsg;
    fn send(fd: c_int, buf: *const c_void, len: usize, flags: c_int) -> ssize_t = io::send;
    fn __send(fd: c_int, buf: *const c_void, len: usize, flags: c_int) -> ssize_t = io::send;
    fn sendto(fd: c_int, buf: *const c_void, len: usize, flags: c_int, addr: *const sockaddr, addr_len: socklen_t) -> ssize_t = io::sendto;
    fn sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t = io::sendmsg;
    fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int = io::sendmmsg;
    fn sockatmark(fd: c_int) -> c_int = fd::sockatmark;
    fn sendfile(out_fd: c_int, in_fd: c_int, offset: *mut i64, count: usize) -> ssize_t = splice::sendfile;
    fn sendfile64(out_fd: c_int, in_fd: c_int, offset: *mut i64, count: usize) -> ssize_t = splice::sendfile;
    fn splice(from: c_int, from_offset: *mut i64, to: c_int, to_offset: *mut i64, len: usize, flags: c_uint) -> ssize_t = splice::splice;
    fn tee(from: c_int, to: c_int, len: usize, flags: c_uint) -> ssize_t = splice::tee;
    fn vmsplice(fd: c_int, iov: *const iovec, count: usize, flags: c_uint) -> ssize_t = splice::vmsplice;
    fn copy_file_range(from: c_int, from_offset: *mut i64, to: c_int, to_offset: *mut i64, len: usize, flags: c_uint) -> ssize_t = splice::copy_file_range;

    // data at an offset
    fn pread(fd: c_int, buf: *mut c_void, count: usize, offset: i64) -> ssize_t = positional::pread;
    fn pread64(fd: c_int, buf: *mut c_void, count: usize, offset: i64) -> ssize_t = positional::pread;
    fn __pread64(fd: c_int, buf: *mut c_void, count: usize, offset: i64) -> ssize_t = positional::pread;
    fn __pread_chk(fd: c_int, buf: *mut c_void, count: usize, offset: i64, size: usize) -> ssize_t = positional::pread_chk;
    fn __pread64_chk(fd: c_int, buf: *mut c_void, count: usize, offset: i64, size: usize) -> ssize_t = positional::pread_chk;
    fn pwrite(fd: c_int, buf: *const c_void, count: usize, offset: i64) -> ssize_t = positional::pwrite;
    fn pwrite64(fd: c_int, buf: *const c_void, count: usize, offset: i64) -> ssize_t = positional::pwrite;
    fn __pwrite64(fd: c_int, buf: *const c_void, count: usize, offset: i64) -> ssize_t = positional::pwrite;
    fn preadv(fd: c_int, iov: *const iovec, count: c_int, offset: i64) -> ssize_t = positional::preadv;
    fn preadv64(fd: c_int, iov: *const iovec, count: c_int, offset: i64) -> ssize_t = positional::preadv;
    fn pwritev(fd: c_int, iov: *const iovec, count: c_int, offset: i64) -> ssize_t = positional::pwritev;
    fn pwritev64(fd: c_int, iov: *const iovec, count: c_int, offset: i64) -> ssize_t = positional::pwritev;
    fn preadv2(fd: c_int, iov: *const iovec, count: c_int, offset: i64, flags: c_int) -> ssize_t = positional::preadv2;
    fn preadv64v2(fd: c_int, iov: *const iovec, count: c_int, offset: i64, flags: c_int) -> ssize_t = positional::preadv2;
    fn pwritev2(fd: c_int, iov: *const iovec, count: c_int, offset: i64, flags: c_int) -> ssize_t = positional::pwritev2;
    fn pwritev64v2(fd: c_int, iov: *const iovec, count: c_int, offset: i64, flags: c_int) -> ssize_t = positional::pwritev2;

    // waiting for several
    fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int = poll::poll;
    fn __poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int = poll::poll;
    fn __poll_chk(fds: *mut pollfd, count: nfds_t, timeout: c_int, size: usize) -> c_int = poll::poll_chk;
    fn ppoll(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t) -> c_int = poll::ppoll;
    fn __ppoll_chk(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t, size: usize) -> c_int = poll::ppoll_chk;
    fn select(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *mut timeval) -> c_int = select::select;
    fn __select(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *mut timeval) -> c_int = select::select;
    fn pselect(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *const timespec, mask: *const sigset_t) -> c_int = select::pselect;
    fn epoll_create(size: c_int) -> c_int = epoll::create;
    fn epoll_create1(flags: c_int) -> c_int = epoll::create1;
    fn epoll_ctl(epfd: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int = epoll::ctl;
    fn epoll_wait(epfd: c_int, events: *mut epoll_event, max: c_int, timeout: c_int) -> c_int = epoll::wait;
    fn epoll_pwait(epfd: c_int, events: *mut epoll_event, max: c_int, timeout: c_int, mask: *const sigset_t) -> c_int = epoll::pwait;
    fn epoll_pwait2(epfd: c_int, events: *mut epoll_event, max: c_int, timeout: *const timespec, mask: *const sigset_t) -> c_int = epoll::pwait2;

    // descriptors
    fn close(fd: c_int) -> c_int = fd::close;
    fn __close(fd: c_int) -> c_int = fd::close;
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int = fd::close_range;
    fn closefrom(low: c_int) -> () = fd::closefrom;
    fn dup(fd: c_int) -> c_int = fd::dup;
    fn dup2(old: c_int, new: c_int) -> c_int = fd::dup2;
    fn __dup2(old: c_int, new: c_int) -> c_int = fd::dup2;
    fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int = fd::dup3;
    fn fcntl(fd: c_int, command: c_int, arg: c_ulong) -> c_int = fd::fcntl;
    fn fcntl64(fd: c_int, command: c_int, arg: c_ulong) -> c_int = fd::fcntl;
    fn __fcntl(fd: c_int, command: c_int, arg: c_ulong) -> c_int = fd::fcntl;
    fn ioctl(fd: c_int, request: c_ulong, arg: c_ulong) -> c_int = fd::ioctl;
    fn fstat(fd: c_int, out: *mut stat_record) -> c_int = stat::fstat;
    fn fstat64(fd: c_int, out: *mut stat_record) -> c_int = stat::fstat;
    fn __fxstat(version: c_int, fd: c_int, out: *mut stat_record) -> c_int = stat::fxstat;
    fn __fxstat64(version: c_int, fd: c_int, out: *mut stat_record) -> c_int = stat::fxstat;
    fn fstatat(fd: c_int, path: *const c_char, out: *mut stat_record, flags: c_int) -> c_int = stat::fstatat;
    fn fstatat64(fd: c_int, path: *const c_char, out: *mut stat_record, flags: c_int) -> c_int = stat::fstatat;
    fn __fxstatat(version: c_int, fd: c_int, path: *const c_char, out: *mut stat_record, flags: c_int) -> c_int = stat::fxstatat;
    fn __fxstatat64(version: c_int, fd: c_int, path: *const c_char, out: *mut stat_record, flags: c_int) -> c_int = stat::fxstatat;
    fn statx(fd: c_int, path: *const c_char, flags: c_int, mask: c_uint, out: *mut c_void) -> c_int = stat::statx;
    fn isfdtype(fd: c_int, kind: c_int) -> c_int = stat::isfdtype;

    // signals
    fn sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int = signals::sigaction;
    fn __sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int = signals::sigaction;
    fn signal(number: c_int, handler: sighandler_t) -> sighandler_t = signals::signal;
    fn bsd_signal(number: c_int, handler: sighandler_t) -> sighandler_t = signals::signal;
    fn ssignal(number: c_int, handler: sighandler_t) -> sighandler_t = signals::signal;
    fn sysv_signal(number: c_int, handler: sighandler_t) -> sighandler_t = signals::sysv_signal;
    fn __sysv_signal(number: c_int, handler: sighandler_t) -> sighandler_t = signals::sysv_signal;
    fn sigset(number: c_int, handler: sighandler_t) -> sighandler_t = signals::sigset;
    fn siginterrupt(signal: c_int, ends: c_int) -> c_int = signals::siginterrupt;
    fn sigprocmask(how: c_int, new: *const sigset_t, old: *mut sigset_t) -> c_int = signals::sigprocmask;
    fn pthread_sigmask(how: c_int, new: *const sigset_t, old: *mut sigset_t) -> c_int = signals::pthread_sigmask;

    // streams upon descriptors, processes, anything by its number
    fn fdopen(fd: c_int, mode: *const c_char) -> *mut File = stdio::fdopen;
    fn _IO_fdopen(fd: c_int, mode: *const c_char) -> *mut File = stdio::fdopen;
    fn freopen(path: *const c_char, mode: *const c_char, file: *mut File) -> *mut File = stdio::freopen;
    fn freopen64(path: *const c_char, mode: *const c_char, file: *mut File) -> *mut File = stdio::freopen64;
    fn vdprintf(fd: c_int, format: *const c_char, arguments: *mut c_void) -> c_int = stdio::vdprintf;
    fn __vdprintf_chk(fd: c_int, flag: c_int, format: *const c_char, arguments: *mut c_void) -> c_int = stdio::vdprintf_chk;
    fn execve(path: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> c_int = exec::execve;
    fn execv(path: *const c_char, argv: *const *const c_char) -> c_int = exec::execv;
    fn execvp(file: *const c_char, argv: *const *const c_char) -> c_int = exec::execvp;
    fn execvpe(file: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> c_int = exec::execvpe;
    fn fexecve(fd: c_int, argv: *const *const c_char, envp: *const *const c_char) -> c_int = exec::fexecve;
    fn execveat(dir: c_int, path: *const c_char, argv: *const *const c_char, envp: *const *const c_char, flags: c_int) -> c_int = exec::execveat;
    fn posix_spawn(pid: *mut pid_t, path: *const c_char, actions: *const c_void, attributes: *const c_void, argv: *const *const c_char, envp: *const *const c_char) -> c_int = exec::posix_spawn;
    fn posix_spawnp(pid: *mut pid_t, file: *const c_char, actions: *const c_void, attributes: *const c_void, argv: *const *const c_char, envp: *const *const c_char) -> c_int = exec::posix_spawnp;
    fn system(command: *const c_char) -> c_int = exec::system;
    fn popen(command: *const c_char, mode: *const c_char) -> *mut File = exec::popen;
    fn _IO_popen(command: *const c_char, mode: *const c_char) -> *mut File = exec::popen;
    fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int = process::prctl;
    fn daemon(keep_directory: c_int, keep_streams: c_int) -> c_int = process::daemon;
    fn syscall(number: c_long, a: c_long, b: c_long, c: c_long, d: c_long, e: c_long, f: c_long) -> c_long = raw::syscall;
    elsewhere dprintf;
    elsewhere __dprintf_chk;
    elsewhere execl;
    elsewhere execlp;
    elsewhere execle;
    elsewhere vfork;
    elsewhere __vfork;
    elsewhere _exit;
    elsewhere _Exit;
}

/// The interposed calls, a name a line: `sidestep calls` and the tests print it.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) extern "C" fn sidestep_calls() -> *const c_char {
    CALLS.as_ptr().cast()
}
