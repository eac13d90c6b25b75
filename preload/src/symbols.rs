//! The interposed calls: one table. Each line makes an exported function of that C name and a line of [`CALLS`].
//!
//! An exported function only unpacks a `Result` into libc's convention (-1 and errno); what a call does is in `calls/`.
//! Variadic C functions (fcntl, ioctl) are declared with the one argument that they can have: on x86_64 and aarch64
//! Linux it is passed in the same register.

use crate::calls::{epoll, fd, io, poll, socket};
use crate::sys::finish;
use libc::{
    c_char, c_int, c_uint, c_ulong, c_void, epoll_event, fd_set, iovec, mmsghdr, msghdr, nfds_t, pollfd, sockaddr,
};
use libc::{sigset_t, socklen_t, ssize_t, timespec, timeval};

macro_rules! symbols {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $target:path;)*) => {
        $(
            #[doc = concat!("libc's `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As for the function of libc.
            #[cfg_attr(not(test), unsafe(no_mangle))]
            pub(crate) unsafe extern "C" fn $name($($arg: $ty),*) -> $ret {
                // SAFETY: the caller keeps the contract of the libc function, which the target has too.
                finish(unsafe { $target($($arg),*) })
            }
        )*

        /// The names of the table, a line each, NUL-terminated.
        pub(crate) const CALLS: &str = concat!($(stringify!($name), "\n",)* "\0");
    };
}

symbols! {
    // socket life cycle
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int = socket::socket;
    fn bind(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int = socket::bind;
    fn listen(fd: c_int, backlog: c_int) -> c_int = socket::listen;
    fn accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int = socket::accept;
    fn accept4(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int = socket::accept4;
    fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int = socket::connect;
    fn __connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int = socket::connect;
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
    fn sendfile(out_fd: c_int, in_fd: c_int, offset: *mut i64, count: usize) -> ssize_t = io::sendfile;
    fn sendfile64(out_fd: c_int, in_fd: c_int, offset: *mut i64, count: usize) -> ssize_t = io::sendfile;

    // waiting for several
    fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int = poll::poll;
    fn __poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int = poll::poll;
    fn __poll_chk(fds: *mut pollfd, count: nfds_t, timeout: c_int, size: usize) -> c_int = poll::poll_chk;
    fn ppoll(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t) -> c_int = poll::ppoll;
    fn __ppoll_chk(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t, size: usize) -> c_int = poll::ppoll_chk;
    fn select(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *mut timeval) -> c_int = poll::select;
    fn __select(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *mut timeval) -> c_int = poll::select;
    fn pselect(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *const timespec, mask: *const sigset_t) -> c_int = poll::pselect;
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
    fn dup(fd: c_int) -> c_int = fd::dup;
    fn dup2(old: c_int, new: c_int) -> c_int = fd::dup2;
    fn __dup2(old: c_int, new: c_int) -> c_int = fd::dup2;
    fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int = fd::dup3;
    fn fcntl(fd: c_int, command: c_int, arg: c_ulong) -> c_int = fd::fcntl;
    fn fcntl64(fd: c_int, command: c_int, arg: c_ulong) -> c_int = fd::fcntl;
    fn __fcntl(fd: c_int, command: c_int, arg: c_ulong) -> c_int = fd::fcntl;
    fn ioctl(fd: c_int, request: c_ulong, arg: c_ulong) -> c_int = fd::ioctl;
}

/// libc's `closefrom`, the one call that returns nothing.
///
/// # Safety
/// As for the function of libc.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn closefrom(low: c_int) {
    // SAFETY: descriptor numbers only.
    let _ = unsafe { fd::close_range(low.max(0) as c_uint, c_uint::MAX, 0) };
}

/// The interposed calls, a name a line: `sidestep calls` and the tests print it.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) extern "C" fn sidestep_calls() -> *const c_char {
    CALLS.as_ptr().cast()
}
