//! What each interposed call does, by family. Every function gives libc's value or a Linux error number;
//! [`crate::symbols`] turns that into errno. A descriptor that is not ours goes to the kernel by one system call.

pub(crate) mod connect;
pub(crate) mod datagram;
pub(crate) mod epoll;
pub(crate) mod exec;
mod fast_open;
pub(crate) mod fd;
pub(crate) mod io;
pub(crate) mod poll;
pub(crate) mod positional;
pub(crate) mod process;
pub(crate) mod select;
mod sendfile;
pub(crate) mod socket;
pub(crate) mod splice;
pub(crate) mod stat;
mod stream_message;
pub(crate) mod syscall;
