//! A device's raw frames, by the system calls that nix has no safe form of.

use std::ffi::CString;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use super::pool::{Chunk, Pool};

/// Frames a call.
pub(crate) const BATCH: usize = 32;
/// What the kernel keeps for us while we do something else.
const RECEIVE_BUFFER_BYTES: libc::c_int = 16 << 20;
/// linux/if_packet.h; libc has no name for it.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// What a control buffer holds: a time stamp and the auxiliary data.
const CONTROL_BYTES: usize = 128;

pub(crate) struct PacketSocket {
    fd: OwnedFd,
}

/// A frame that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    pub(crate) chunk: Chunk,
    /// More than a chunk holds when it was cut.
    pub(crate) len: usize,
    /// When it came, as time since the epoch.
    pub(crate) stamp: Duration,
    /// Its checksum holds only the pseudo-header sum: the sender's kernel counted on a device to finish it.
    pub(crate) is_unfinished: bool,
}

/// Aligned as the kernel's control messages are.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

impl PacketSocket {
    /// Sees every frame that comes to `device`, and none that goes out of it.
    pub(crate) fn open(device: &str) -> io::Result<Self> {
        let index = index_of(device)?;
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers. Protocol 0: nothing comes before the socket is bound to its device.
        let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let socket = Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } };
        socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)?;
        socket.set(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
        socket.set(libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
        socket.bind(index)?;
        Ok(socket)
    }

    fn set(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the value lives for the call and has the length given.
        check(unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, name, ptr::from_ref(&value).cast(), len) })?;
        Ok(())
    }

    fn bind(&self, index: libc::c_int) -> io::Result<()> {
        // SAFETY: a socket address is valid when all zero.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index;
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address lives for the call and has the length given.
        check(unsafe { libc::bind(self.fd.as_raw_fd(), ptr::from_ref(&address).cast(), len) })?;
        Ok(())
    }

    /// Takes what is there, at most a batch, each frame into a chunk of the pool. False when there was nothing more.
    pub(crate) fn receive(&self, pool: &mut Pool, into: &mut Vec<Received>) -> io::Result<bool> {
        let mut chunks = [None; BATCH];
        let mut count = 0;
        while count < BATCH {
            let Some(chunk) = pool.take() else { break };
            chunks[count] = Some(chunk);
            count += 1;
        }
        let result = self.receive_into(pool, &chunks[..count], into);
        let taken = *result.as_ref().unwrap_or(&0);
        for chunk in chunks[taken..count].iter().flatten() {
            pool.give_back(*chunk);
        }
        result.map(|taken| taken == BATCH)
    }

    fn receive_into(&self, pool: &mut Pool, chunks: &[Option<Chunk>], into: &mut Vec<Received>) -> io::Result<usize> {
        // SAFETY: message headers and vectors are valid when all zero.
        let (mut headers, mut vectors): ([libc::mmsghdr; BATCH], [libc::iovec; BATCH]) =
            unsafe { (zeroed(), zeroed()) };
        let mut controls = [Control([0; CONTROL_BYTES]); BATCH];
        for (index, chunk) in chunks.iter().flatten().enumerate() {
            let bytes = pool.bytes_mut(*chunk);
            vectors[index] = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
            let header = &mut headers[index].msg_hdr;
            header.msg_iov = &raw mut vectors[index];
            header.msg_iovlen = 1;
            header.msg_control = controls[index].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
        }
        // SAFETY: each header points to its own vector and control buffer, which live in this function, and each vector to a
        // chunk that nobody else has while it is taken; the pool is borrowed until we return.
        let received = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                headers.as_mut_ptr(),
                chunks.len() as u32,
                libc::MSG_TRUNC,
                ptr::null_mut(),
            )
        };
        let count = match check(received) {
            Ok(count) => count as usize,
            Err(error) if is_for_later(&error) => 0,
            Err(error) => return Err(error),
        };
        for (header, chunk) in headers.iter().zip(chunks.iter().flatten()).take(count) {
            let (stamp, is_unfinished) = read_control(&header.msg_hdr);
            into.push(Received { chunk: *chunk, len: header.msg_len as usize, stamp, is_unfinished });
        }
        Ok(count)
    }

    /// Sends the frames, at most a batch; says how many the device took. The first of them may be one that it never will.
    pub(crate) fn send(&self, pool: &Pool, frames: &[(Chunk, usize)]) -> usize {
        // SAFETY: message headers and vectors are valid when all zero.
        let (mut headers, mut vectors): ([libc::mmsghdr; BATCH], [libc::iovec; BATCH]) =
            unsafe { (zeroed(), zeroed()) };
        let count = frames.len().min(BATCH);
        for (index, (chunk, len)) in frames.iter().take(count).enumerate() {
            let bytes = &pool.bytes(*chunk)[..*len];
            vectors[index] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            headers[index].msg_hdr.msg_iov = &raw mut vectors[index];
            headers[index].msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: each header points to its own vector, which lives in this function, and each vector to bytes that are
        // borrowed until we return; sending does not write to them.
        let sent =
            unsafe { libc::sendmmsg(self.fd.as_raw_fd(), headers.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT) };
        usize::try_from(sent).unwrap_or(0)
    }

    /// Frames that came and found the receive buffer full, since the last call.
    pub(crate) fn overruns(&self) -> io::Result<u64> {
        // SAFETY: the statistics are two numbers.
        let mut stats: libc::tpacket_stats = unsafe { zeroed() };
        let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        let (level, name) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
        // SAFETY: the kernel writes at most `len` bytes, which is the size of the value.
        check(unsafe {
            libc::getsockopt(self.fd.as_raw_fd(), level, name, ptr::from_mut(&mut stats).cast(), &mut len)
        })?;
        Ok(stats.tp_drops.into())
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The time stamp, and whether the checksum is unfinished.
fn read_control(header: &libc::msghdr) -> (Duration, bool) {
    let (mut stamp, mut is_unfinished) = (Duration::ZERO, false);
    // SAFETY: the kernel filled the control buffer of this header and set its length; the macros stay within it.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: not null, so it is a whole control message within the buffer.
        let (head, data) = unsafe { (*message, libc::CMSG_DATA(message)) };
        match (head.cmsg_level, head.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                // SAFETY: a message of this type carries a timespec.
                let time: libc::timespec = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                stamp = Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec as u32);
            }
            (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                // SAFETY: a message of this type carries this structure.
                let aux: libc::tpacket_auxdata = unsafe { data.cast::<libc::tpacket_auxdata>().read_unaligned() };
                is_unfinished = aux.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0;
            }
            _ => {}
        }
        // SAFETY: as above.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    (stamp, is_unfinished)
}

fn index_of(device: &str) -> io::Result<libc::c_int> {
    let name = CString::new(device)?;
    // SAFETY: the name is a string that lives for the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index as libc::c_int),
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Nothing there, or the device went down and comes up again.
fn is_for_later(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR | libc::ENETDOWN))
}
