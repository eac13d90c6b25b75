//! The control protocol between a process and the daemon of a device: fixed records over a SOCK_SEQPACKET unix
//! socket, descriptors by SCM_RIGHTS. Both sides share this file.

use crate::sys;
use std::io;
use std::os::fd::RawFd;

/// Where the daemons' sockets are: `RUN_DIR/<inode of the network namespace>/<device>.sock`.
pub const RUN_DIR: &str = "/run/sidestep";

/// Most descriptors in one message: a receive queue's socket each (64) and the doorbells (16), with room.
pub const MAX_FDS: usize = 112;

/// What a process or the CLI asks of the daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Op {
    /// Registers the calling process. a0 = 1: it has the arena with the id a1 mapped already (it forked, or the daemon is
    /// a new one). Reply: a0 = its ProcId; descriptors: arena, daemon's bell.
    Hello = 1,
    /// The arena alone, for tools. Reply descriptors: arena.
    Map = 2,
    /// A stack of the caller's own; with a0 = 1 the stack a1, in which it was left a connection. Reply: a0 = index;
    /// descriptors: one XSK a queue, then the bells, then the XDP program's table of datagram ports.
    StackOpen = 3,
    /// a0 protocol (0 TCP, 1 UDP), a1 port, a2 stack: the stack takes its share of the port's new flows.
    Join = 4,
    /// The same arguments: it takes none any more; its live flows stay with it.
    Leave = 5,
    /// a0 stack: another block of local ports for active opens. Reply: a0 = ports added.
    Block = 6,
    /// a0 protocol, a1 port, a2 policy ([`crate::arena::Policy`]); root only.
    PortSet = 7,
    /// Brings the arena's copy of the XDP program's counters up to date.
    Refresh = 8,
    /// Ends the daemon; root only. a0 = 1: although processes are attached.
    Down = 9,
    /// Everything that is counted twice, for `sidestep doctor`; root only. Reply descriptor: a report.
    Doctor = 10,
    /// Descriptors: shadows that bear the names of connections ([`super::Mark`]), on their way to another program or
    /// process. The daemon holds each connection until nobody has its shadow any more.
    Keep = 11,
    /// a0 = 1: the caller is about to execute another program; what it does not hold by a kept shadow ends with the program
    /// of now. a0 = 0: it could not.
    Exec = 12,
}

impl Op {
    pub fn from_raw(op: u32) -> Option<Op> {
        use Op::*;
        [Hello, Map, StackOpen, Join, Leave, Block, PortSet, Refresh, Down, Doctor, Keep, Exec]
            .into_iter()
            .find(|o| *o as u32 == op)
    }
}

/// A request; its size is fixed.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Request {
    /// [`crate::arena::LAYOUT_VERSION`] of the asker.
    pub version: u64,
    pub op: u32,
    pub pad: u32,
    pub a: [u64; 4],
}

impl Request {
    pub fn new(op: Op, a: [u64; 4]) -> Request {
        Request { version: crate::arena::LAYOUT_VERSION, op: op as u32, pad: 0, a }
    }
}

/// The answer to a request.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Reply {
    /// 0, or an errno.
    pub status: i32,
    pub pad: u32,
    pub a: [u64; 4],
    /// One line for people, NUL-padded.
    pub text: [u8; 192],
}

impl Reply {
    pub fn new(status: i32, a: [u64; 4], text: &str) -> Reply {
        let mut reply = Reply { status, pad: 0, a, text: [0; 192] };
        let n = text.len().min(reply.text.len() - 1);
        reply.text[..n].copy_from_slice(&text.as_bytes()[..n]);
        reply
    }

    /// The line for people.
    pub fn text(&self) -> &str {
        let end = self.text.iter().position(|b| *b == 0).unwrap_or(self.text.len());
        core::str::from_utf8(&self.text[..end]).unwrap_or("")
    }
}

/// Descriptors that came with, or go with, a message.
#[derive(Clone, Copy, Debug)]
pub struct FdSet {
    fds: [RawFd; MAX_FDS],
    len: usize,
}

impl Default for FdSet {
    fn default() -> Self {
        FdSet { fds: [-1; MAX_FDS], len: 0 }
    }
}

impl FdSet {
    /// Adds one; beyond [`MAX_FDS`] it is ignored and the peer will miss it.
    pub fn push(&mut self, fd: RawFd) {
        if let Some(slot) = self.fds.get_mut(self.len) {
            *slot = fd;
            self.len += 1;
        }
    }

    pub fn as_slice(&self) -> &[RawFd] {
        &self.fds[..self.len]
    }

    /// Closes all of them: for a receiver that does not want them.
    pub fn close_all(&mut self) {
        for fd in &self.fds[..self.len] {
            sys::close(*fd);
        }
        self.len = 0;
    }
}

const CONTROL_BYTES: usize = 16 + MAX_FDS * 4 + 8;

/// Room for one SCM_RIGHTS record, aligned as cmsghdr wants it.
#[repr(C, align(8))]
struct ControlBuffer([u8; CONTROL_BYTES]);

fn header(iov: &mut libc::iovec, control: &mut ControlBuffer, control_len: usize) -> libc::msghdr {
    // SAFETY: all zeroes is a valid, empty msghdr.
    let mut h: libc::msghdr = unsafe { core::mem::zeroed() };
    h.msg_iov = iov;
    h.msg_iovlen = 1;
    if control_len > 0 {
        h.msg_control = control.0.as_mut_ptr().cast();
        h.msg_controllen = control_len as _;
    }
    h
}

/// Sends one record with descriptors. `T` is one of this file's records.
fn send_record<T: Copy>(socket: RawFd, record: &T, fds: &[RawFd]) -> io::Result<()> {
    let mut iov = libc::iovec { iov_base: (&raw const *record).cast_mut().cast(), iov_len: size_of::<T>() };
    let mut control = ControlBuffer([0; CONTROL_BYTES]);
    let bytes = size_of_val(fds);
    let len = 16 + bytes;
    control.0[0..8].copy_from_slice(&(len as u64).to_ne_bytes());
    control.0[8..12].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
    control.0[12..16].copy_from_slice(&libc::SCM_RIGHTS.to_ne_bytes());
    for (i, fd) in fds.iter().enumerate() {
        control.0[16 + 4 * i..20 + 4 * i].copy_from_slice(&fd.to_ne_bytes());
    }
    let mut h = header(&mut iov, &mut control, if fds.is_empty() { 0 } else { len.next_multiple_of(8) });
    // SAFETY: iov points to `record`, control to a live buffer; both outlive the call.
    unsafe { sys::message(true, socket, &mut h, libc::MSG_NOSIGNAL) }.map(|_| ())
}

/// Receives one record with its descriptors (close-on-exec). `Ok(None)` at end of file or for a record of a wrong size.
fn receive_record<T: Copy>(socket: RawFd, record: &mut T, fds: &mut FdSet) -> io::Result<Option<()>> {
    let mut iov = libc::iovec { iov_base: (&raw mut *record).cast(), iov_len: size_of::<T>() };
    let mut control = ControlBuffer([0; CONTROL_BYTES]);
    let mut h = header(&mut iov, &mut control, CONTROL_BYTES);
    // SAFETY: iov points to `record`, a type of integers only; control to a live buffer.
    let n = unsafe { sys::message(false, socket, &mut h, libc::MSG_CMSG_CLOEXEC) }?;
    take_descriptors(&control, h.msg_controllen as usize, fds);
    if n != size_of::<T>() {
        fds.close_all();
        return Ok(None);
    }
    Ok(Some(()))
}

fn take_descriptors(control: &ControlBuffer, filled: usize, fds: &mut FdSet) {
    if filled < 16 {
        return;
    }
    let word = |at: usize| i32::from_ne_bytes([control.0[at], control.0[at + 1], control.0[at + 2], control.0[at + 3]]);
    let len = (word(0) as usize).min(filled);
    if word(8) != libc::SOL_SOCKET || word(12) != libc::SCM_RIGHTS {
        return;
    }
    let mut at = 16;
    while at + 4 <= len {
        fds.push(word(at));
        at += 4;
    }
}

/// The daemon's side: sends a reply.
pub fn send_reply(socket: RawFd, reply: &Reply, fds: &[RawFd]) -> io::Result<()> {
    send_record(socket, reply, fds)
}

/// The daemon's side: receives a request and the descriptors that came with it, which are the caller's to close; `Ok(None)`
/// when the peer has gone (or speaks nonsense).
pub fn receive_request(socket: RawFd, fds: &mut FdSet) -> io::Result<Option<Request>> {
    let mut request = Request { version: 0, op: 0, pad: 0, a: [0; 4] };
    let got = receive_record(socket, &mut request, fds)?;
    Ok(got.map(|()| request))
}

/// The inode number of the network namespace that this thread is in.
pub fn netns_inode() -> io::Result<u64> {
    sys::inode(c"/proc/thread-self/ns/net")
}

/// A process's connection to a daemon.
#[derive(Debug)]
pub struct Client {
    fd: RawFd,
}

impl Client {
    /// Connects to the daemon of `device` in this network namespace; a call then fails after two seconds of silence.
    pub fn connect(device: &str) -> io::Result<Client> {
        let mut address = libc::sockaddr_un { sun_family: libc::AF_UNIX as u16, sun_path: [0; 108] };
        let mut path = [0u8; 108];
        let len = socket_path(device, netns_inode()?, &mut path)?;
        for (to, from) in address.sun_path.iter_mut().zip(&path[..len]) {
            *to = *from as libc::c_char;
        }
        let fd = sys::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0)?;
        let client = Client { fd };
        let timeout = libc::timeval { tv_sec: 2, tv_usec: 0 };
        let connected = sys::set_option(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout)
            .and_then(|()| sys::with_address(sys::AddressCall::Connect, fd, &address, 2 + len + 1));
        if let Err(e) = connected {
            sys::close(fd);
            return Err(e);
        }
        Ok(client)
    }

    /// Takes over a connection that was made before.
    pub const fn from_fd(fd: RawFd) -> Client {
        Client { fd }
    }

    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// Asks and waits for the answer. A refusal is a reply too: look at its status.
    pub fn call(&self, request: &Request, fds: &mut FdSet) -> io::Result<Reply> {
        self.call_with(request, &[], fds)
    }

    /// As [`Client::call`], with descriptors for the daemon, at most [`MAX_FDS`].
    pub fn call_with(&self, request: &Request, given: &[RawFd], fds: &mut FdSet) -> io::Result<Reply> {
        send_record(self.fd, request, given)?;
        let mut reply = Reply::new(0, [0; 4], "");
        loop {
            match receive_record(self.fd, &mut reply, fds) {
                Ok(Some(())) => return Ok(reply),
                Ok(None) => return Err(io::Error::from_raw_os_error(libc::ECONNRESET)),
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
                Err(e) => return Err(e),
            }
        }
    }

    pub fn close(self) {
        sys::close(self.fd);
    }
}

/// Writes the socket's path for `device`; returns its length. Fails when the name is no device's or too long.
pub fn socket_path(device: &str, netns: u64, out: &mut [u8; 108]) -> io::Result<usize> {
    use io::Write;
    if device.is_empty() || device.contains('/') || device.starts_with('.') {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    let mut cursor = io::Cursor::new(&mut out[..107]);
    write!(cursor, "{RUN_DIR}/{netns}/{device}.sock")?;
    Ok(cursor.position() as usize)
}
