//! The functions of `include/sidestep.h`, for programs that know of us.

use crate::epoll;
use crate::fd_table::{Kind, TABLE};
use crate::sys::{Result, finish, raw};
use core::ffi::{CStr, c_char, c_int};

/// SIDESTEP_API_VERSION of the header.
const API_VERSION: u32 = 1;

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
    finish(path_of(fd).map(|path| path as isize))
}

fn path_of(fd: c_int) -> Result<Path> {
    // SAFETY: numbers only. A closed number may still have an entry for a moment, so the kernel is asked.
    unsafe { raw!(fcntl, fd, libc::F_GETFD) }?;
    let entry = TABLE.lookup(fd);
    Ok(match entry.kind() {
        Kind::Stream => Path::User,
        Kind::Listener | Kind::Datagram => Path::Both,
        Kind::Epoll if epoll::of(entry).is_some_and(|set| set.id().is_some()) => Path::Both,
        Kind::Epoll | Kind::Fresh | Kind::FreshDatagram | Kind::Kernel => Path::Kernel,
    })
}
