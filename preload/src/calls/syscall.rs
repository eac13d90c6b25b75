//! syscall(2), libc's function: the numbers of the calls in the table go where the calls go, with the kernel's arguments
//! (sizes of signal sets, pselect6's pair, timeouts that are written back); every other number goes to the kernel.

use super::{connect, epoll, fd, io, poll, positional, process, select, socket, splice, stat};
use crate::memory;
use crate::sys::{self, Result};
use crate::{attach, bequest, ending};
use libc::{EINVAL, EPERM, c_int, c_long, c_uint, c_void, sigset_t, timespec};
use sidestep_stack::runtime::now;

/// The six registers of a call.
#[derive(Clone, Copy)]
struct Args([c_long; 6]);

impl Args {
    fn int(&self, i: usize) -> c_int {
        self.0[i] as c_int
    }

    fn size(&self, i: usize) -> usize {
        self.0[i] as usize
    }

    fn at<T>(&self, i: usize) -> *mut T {
        self.0[i] as *mut T
    }
}

pub(crate) unsafe fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> Result<isize> {
    let args = Args([a, b, c, d, e, f]);
    // SAFETY: the application's arguments for the call of that number, as the functions take them.
    let known = unsafe {
        of_data(number, &args)
            .or_else(|| of_sockets(number, &args))
            .or_else(|| of_descriptors(number, &args))
            .or_else(|| of_waiting(number, &args))
            .or_else(|| of_programs(number, &args))
    };
    known.unwrap_or_else(|| match number {
        // A ring would act on the kernel's side of user sockets, and on epoll sets behind our back.
        libc::SYS_io_uring_setup if attach::is_armed() => {
            attach::count_refused_ring();
            Err(EPERM)
        }
        // SAFETY: as above; the kernel checks them.
        _ => unsafe { plain(number, &args) },
    })
}

/// # Safety
/// As for the call of that number.
unsafe fn plain(number: c_long, args: &Args) -> Result<isize> {
    let [a, b, c, d, e, f] = args.0.map(|arg| arg as usize);
    // SAFETY: the caller's promise.
    let value = unsafe { syscalls::raw::syscall6(number as usize, a, b, c, d, e, f) } as isize;
    if (-4095..0).contains(&value) { Err(-value as c_int) } else { Ok(value) }
}

/// # Safety
/// As for the call of that number; so for the other families.
#[inline]
unsafe fn of_data(number: c_long, x: &Args) -> Option<Result<isize>> {
    let fd = x.int(0);
    // SAFETY: the caller's promise.
    Some(unsafe {
        match number {
            libc::SYS_read => io::read(fd, x.at(1), x.size(2)),
            libc::SYS_write => io::write(fd, x.at(1), x.size(2)),
            libc::SYS_readv => io::readv(fd, x.at(1), x.int(2)),
            libc::SYS_writev => io::writev(fd, x.at(1), x.int(2)),
            libc::SYS_recvfrom => io::recvfrom(fd, x.at(1), x.size(2), x.int(3), x.at(4), x.at(5)),
            libc::SYS_recvmsg => io::recvmsg(fd, x.at(1), x.int(2)),
            libc::SYS_recvmmsg => io::recvmmsg(fd, x.at(1), x.int(2) as c_uint, x.int(3), x.at(4)),
            libc::SYS_sendto => io::sendto(fd, x.at(1), x.size(2), x.int(3), x.at(4), x.int(5) as c_uint),
            libc::SYS_sendmsg => io::sendmsg(fd, x.at(1), x.int(2)),
            libc::SYS_sendmmsg => io::sendmmsg(fd, x.at(1), x.int(2) as c_uint, x.int(3)),
            libc::SYS_preadv2 => positional::preadv2(fd, x.at(1), x.int(2), x.0[3], x.int(5)),
            libc::SYS_pwritev2 => positional::pwritev2(fd, x.at(1), x.int(2), x.0[3], x.int(5)),
            libc::SYS_sendfile => splice::sendfile(fd, x.int(1), x.at(2), x.size(3)),
            libc::SYS_splice => splice::splice(fd, x.at(1), x.int(2), x.at(3), x.size(4), x.int(5) as c_uint),
            _ => return None,
        }
    })
}

#[inline]
unsafe fn of_sockets(number: c_long, x: &Args) -> Option<Result<isize>> {
    let fd = x.int(0);
    // SAFETY: the caller's promise.
    Some(unsafe {
        match number {
            libc::SYS_socket => socket::socket(fd, x.int(1), x.int(2)),
            libc::SYS_socketpair => socket::socketpair(fd, x.int(1), x.int(2), x.at(3)),
            libc::SYS_bind => socket::bind(fd, x.at(1), x.int(2) as c_uint),
            libc::SYS_listen => socket::listen(fd, x.int(1)),
            libc::SYS_accept => socket::accept(fd, x.at(1), x.at(2)),
            libc::SYS_accept4 => socket::accept4(fd, x.at(1), x.at(2), x.int(3)),
            libc::SYS_connect => connect::connect(fd, x.at(1), x.int(2) as c_uint),
            libc::SYS_shutdown => socket::shutdown(fd, x.int(1)),
            libc::SYS_getsockname => socket::getsockname(fd, x.at(1), x.at(2)),
            libc::SYS_getpeername => socket::getpeername(fd, x.at(1), x.at(2)),
            libc::SYS_getsockopt => socket::getsockopt(fd, x.int(1), x.int(2), x.at(3), x.at(4)),
            libc::SYS_setsockopt => socket::setsockopt(fd, x.int(1), x.int(2), x.at(3), x.int(4) as c_uint),
            _ => return None,
        }
    })
}

#[inline]
unsafe fn of_descriptors(number: c_long, x: &Args) -> Option<Result<isize>> {
    let fd = x.int(0);
    // SAFETY: the caller's promise.
    Some(unsafe {
        match number {
            libc::SYS_close => fd::close(fd),
            libc::SYS_close_range => fd::close_range(fd as c_uint, x.int(1) as c_uint, x.int(2)),
            libc::SYS_dup => fd::dup(fd),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_dup2 => fd::dup2(fd, x.int(1)),
            libc::SYS_dup3 => fd::dup3(fd, x.int(1), x.int(2)),
            libc::SYS_fcntl => fd::fcntl(fd, x.int(1), x.0[2] as _),
            libc::SYS_ioctl => fd::ioctl(fd, x.0[1] as c_uint as _, x.0[2] as _),
            libc::SYS_fstat => stat::fstat(fd, x.at(1)),
            libc::SYS_newfstatat => stat::fstatat(fd, x.at(1), x.at(2), x.int(3)),
            libc::SYS_statx => stat::statx(fd, x.at(1), x.int(2), x.int(3) as c_uint, x.at(4)),
            _ => return None,
        }
    })
}

#[inline]
unsafe fn of_waiting(number: c_long, x: &Args) -> Option<Result<isize>> {
    let fd = x.int(0);
    // SAFETY: the caller's promise.
    Some(unsafe {
        match number {
            #[cfg(target_arch = "x86_64")]
            libc::SYS_poll => poll::poll(x.at(0), u64::from(x.int(1) as c_uint), x.int(2)),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_select => select::select(fd, x.at(1), x.at(2), x.at(3), x.at(4)),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_epoll_create => epoll::create(fd),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_epoll_wait => epoll::wait(fd, x.at(1), x.int(2), x.int(3)),
            libc::SYS_ppoll => masked(x.at(3), x.size(4), |mask| {
                timed(x.at(2), |time| poll::ppoll(x.at(0), u64::from(x.int(1) as c_uint), time, mask))
            }),
            libc::SYS_pselect6 => pselect(x),
            libc::SYS_epoll_create1 => epoll::create1(fd),
            libc::SYS_epoll_ctl => epoll::ctl(fd, x.int(1), x.int(2), x.at(3)),
            libc::SYS_epoll_pwait => {
                masked(x.at(4), x.size(5), |mask| epoll::pwait(fd, x.at(1), x.int(2), x.int(3), mask))
            }
            libc::SYS_epoll_pwait2 => {
                masked(x.at(4), x.size(5), |mask| epoll::pwait2(fd, x.at(1), x.int(2), x.at(3), mask))
            }
            _ => return None,
        }
    })
}

/// exec and exit, past libc's functions.
///
/// # Safety
/// As for the call of that number.
#[inline]
unsafe fn of_programs(number: c_long, x: &Args) -> Option<Result<isize>> {
    let environment = match number {
        libc::SYS_execve => x.at(2),
        libc::SYS_execveat => x.at(3),
        libc::SYS_prctl => {
            // SAFETY: the caller's promise.
            return Some(unsafe { process::prctl(x.int(0), x.0[1] as _, x.0[2] as _, x.0[3] as _, x.0[4] as _) });
        }
        libc::SYS_seccomp => {
            process::note_confinement();
            return None;
        }
        libc::SYS_exit_group => ending::exit_group(x.int(0)),
        _ => return None,
    };
    // SAFETY: the caller's promise.
    Some(unsafe {
        let _execution = bequest::begin_execution(environment);
        plain(number, x)
    })
}

/// The kernel wants to be told how large it thinks a signal set is.
fn masked(mask: *mut sigset_t, size: usize, wait: impl FnOnce(*const sigset_t) -> Result<isize>) -> Result<isize> {
    if !mask.is_null() && size != sys::SIGSET_BYTES {
        return Err(EINVAL);
    }
    wait(mask)
}

/// The kernel's ppoll and pselect6 leave what remains of the time; libc's functions do not.
fn timed(time: *mut timespec, wait: impl FnOnce(*const timespec) -> Result<isize>) -> Result<isize> {
    let started = now();
    let result = wait(time);
    if !time.is_null() && !matches!(result, Err(EINVAL | libc::EFAULT)) {
        // SAFETY: the wait has read it.
        let given = unsafe { memory::read(time) }?;
        let given_us = (given.tv_sec as u64).saturating_mul(1_000_000).saturating_add(given.tv_nsec as u64 / 1000);
        // SAFETY: the application's, and the kernel's to write in this call.
        unsafe { memory::write(time, sys::timespec(given_us.saturating_sub(now().since_us(started)))) }?;
    }
    result
}

/// pselect6's last argument points to the mask and its size.
///
/// # Safety
/// As for pselect6.
unsafe fn pselect(x: &Args) -> Result<isize> {
    let pair: *const [usize; 2] = x.at(5);
    // SAFETY: the application's pair.
    let [mask, size] = if pair.is_null() { [0; 2] } else { unsafe { memory::read(pair) }? };
    masked(mask as *mut c_void as *mut sigset_t, size, |mask| {
        timed(x.at(4), |time| {
            // SAFETY: the caller's promise.
            unsafe { select::pselect(x.int(0), x.at(1), x.at(2), x.at(3), time, mask) }
        })
    })
}
