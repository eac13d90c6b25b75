//! The daemon's side of AF_XDP: it registers the UMEM and makes all sockets; processes only get descriptors.

use super::queue::METADATA_LEN;
use super::shared_rings::SharedRings;
use super::{COMPLETION_RING, FILL_RING, RX_RING, TX_RING};
use crate::arena::Arena;
use crate::buf::FRAME_SIZE;
use crate::sys;
use core::sync::atomic::{AtomicU32, Ordering};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Why the sockets could not be made, in one line that says what to do.
#[derive(Debug)]
pub enum XskError {
    /// RLIMIT_MEMLOCK is too small for the UMEM.
    Memlock {
        bytes: usize,
    },
    /// Another AF_XDP program has the queue.
    QueueBusy {
        queue: u32,
    },
    Privilege,
    Unsupported,
    Os {
        what: &'static str,
        error: io::Error,
    },
}

impl core::fmt::Display for XskError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            XskError::Memlock { bytes } => write!(
                f,
                "cannot lock {} KiB for packet memory: raise the limit (ulimit -l), or ask for less (--frames)",
                bytes / 1024
            ),
            XskError::QueueBusy { queue } => {
                write!(f, "receive queue {queue} is taken by another AF_XDP program: end it, or use another device")
            }
            XskError::Privilege => write!(f, "AF_XDP needs root (CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF)"),
            XskError::Unsupported => write!(f, "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)"),
            XskError::Os { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for XskError {}

/// The UMEM's registration and one base socket per queue. A base socket gets no traffic: it holds the queue's fill and
/// completion ring, which the stacks' sockets then share.
#[derive(Debug)]
pub struct UmemOwner {
    arena: &'static Arena,
    ifindex: u32,
    bases: Vec<OwnedFd>,
    zero_copy: bool,
    finishes_checksums: bool,
}

impl UmemOwner {
    /// Registers the arena's UMEM with the device's queues and fills their fill rings. `zero_copy`: try it first.
    pub fn open(arena: &'static Arena, ifindex: u32, queues: u32, zero_copy: bool) -> Result<UmemOwner, XskError> {
        let mut owner = UmemOwner { arena, ifindex, bases: Vec::new(), zero_copy: false, finishes_checksums: false };
        for queue in 0..queues {
            let base = owner.open_base(queue, zero_copy)?;
            owner.bases.push(base);
            owner.fill(queue)?;
        }
        Ok(owner)
    }

    /// Goes on with a UMEM that a daemon of before registered and that stacks' sockets keep: `survivors` has one of each
    /// queue. The base sockets are new; the rings are the queues' own and live on.
    pub fn adopt(arena: &'static Arena, ifindex: u32, survivors: &[RawFd]) -> Result<UmemOwner, XskError> {
        let header = arena.header();
        let is_set = |flag: &AtomicU32| flag.load(Ordering::Relaxed) != 0;
        let (zero_copy, finishes_checksums) = (is_set(&header.zero_copy), is_set(&header.finishes_checksums));
        let mut owner = UmemOwner { arena, ifindex, bases: Vec::new(), zero_copy, finishes_checksums };
        for (queue, survivor) in survivors.iter().enumerate() {
            let base = new_socket()?;
            ring_size(base.as_raw_fd(), libc::XDP_RX_RING, 64)?;
            owner
                .bind(&base, queue as u32, 0, Some(*survivor))
                .map_err(|error| XskError::Os { what: "cannot join the packet memory of before", error })?;
            owner.bases.push(base);
        }
        Ok(owner)
    }

    fn open_base(&mut self, queue: u32, zero_copy: bool) -> Result<OwnedFd, XskError> {
        let first = self.bases.is_empty();
        if first && zero_copy {
            let socket = self.prepare_base(true, true)?;
            if self.bind(&socket, queue, libc::XDP_ZEROCOPY, None).is_ok() {
                self.zero_copy = true;
                return Ok(socket);
            }
        }
        let socket = self.prepare_base(first, false)?;
        let shared = self.bases.first().map(AsRawFd::as_raw_fd);
        let mode = if first { libc::XDP_COPY } else { 0 };
        self.bind(&socket, queue, mode, shared).map_err(|e| match e.raw_os_error() {
            Some(libc::EBUSY) => XskError::QueueBusy { queue },
            Some(libc::EPERM) => XskError::Privilege,
            _ => XskError::Os { what: "cannot bind an AF_XDP socket", error: e },
        })?;
        Ok(socket)
    }

    /// A socket with fill and completion ring, and the UMEM when it is the first.
    fn prepare_base(&mut self, first: bool, zero_copy: bool) -> Result<OwnedFd, XskError> {
        let socket = new_socket()?;
        let fd = socket.as_raw_fd();
        if first {
            let (addr, len) = self.arena.umem();
            let register = |flags, tx_metadata_len| {
                let umem = libc::xdp_umem_reg {
                    addr: addr as u64,
                    len: len as u64,
                    chunk_size: FRAME_SIZE as u32,
                    headroom: 0,
                    flags,
                    tx_metadata_len,
                };
                sys::set_option(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &umem)
            };
            // In copy mode the kernel makes an skb of each frame, and every device takes those with an unfinished
            // checksum. Kernels before 6.8 know no metadata and refuse the flag.
            self.finishes_checksums =
                !zero_copy && register(libc::XDP_UMEM_TX_METADATA_LEN, METADATA_LEN as u32).is_ok();
            if !self.finishes_checksums {
                register(0, 0).map_err(|e| match e.raw_os_error() {
                    Some(libc::ENOBUFS | libc::ENOMEM) => XskError::Memlock { bytes: len },
                    _ => XskError::Os { what: "cannot register the packet memory", error: e },
                })?;
            }
        }
        ring_size(fd, libc::XDP_UMEM_FILL_RING, FILL_RING)?;
        ring_size(fd, libc::XDP_UMEM_COMPLETION_RING, COMPLETION_RING)?;
        ring_size(fd, libc::XDP_RX_RING, 64)?; // a socket without any of its own cannot be bound
        Ok(socket)
    }

    fn bind(&self, socket: &OwnedFd, queue: u32, mode: u16, shared: Option<RawFd>) -> io::Result<()> {
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: if shared.is_some() { libc::XDP_SHARED_UMEM } else { mode | libc::XDP_USE_NEED_WAKEUP },
            sxdp_ifindex: self.ifindex,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: shared.unwrap_or(0) as u32,
        };
        let len = size_of::<libc::sockaddr_xdp>();
        sys::with_address(sys::AddressCall::Bind, socket.as_raw_fd(), &address, len)
    }

    /// Gives the queue's fill ring its frames.
    fn fill(&self, queue: u32) -> Result<(), XskError> {
        let fd = self.bases[queue as usize].as_raw_fd();
        let shared = SharedRings::map(fd).map_err(|error| XskError::Os { what: "cannot map a ring", error })?;
        let frames = super::fill_frames(self.arena.frame_count(), self.arena.header().queues());
        let lock = self.arena.queue(queue as usize);
        shared.fill_from_pool(lock, self.arena.pool(), frames);
        Ok(())
    }

    /// Looks for completions, as stacks do with every poll: there may be none.
    pub fn complete(&self) {
        for (queue, base) in self.bases.iter().enumerate() {
            if let Ok(shared) = SharedRings::map(base.as_raw_fd()) {
                shared.try_complete(self.arena.queue(queue), self.arena.pool(), |id, _| self.arena.return_frame(id));
            }
        }
    }

    /// A socket for a stack on `queue`, sharing the queue's fill and completion ring. The options that need privilege
    /// are set here: whoever gets the descriptor may have none.
    pub fn open_stack_socket(&self, queue: u32) -> Result<OwnedFd, XskError> {
        let socket = new_socket()?;
        let fd = socket.as_raw_fd();
        ring_size(fd, libc::XDP_RX_RING, RX_RING)?;
        ring_size(fd, libc::XDP_TX_RING, TX_RING)?;
        let base = self.bases[queue as usize].as_raw_fd();
        self.bind(&socket, queue, 0, Some(base))
            .map_err(|error| XskError::Os { what: "cannot bind a stack's AF_XDP socket", error })?;
        // One kick takes as much as the ring holds instead of 32 frames. Kernels before 6.17 do not know the option:
        // there a full ring takes several kicks.
        let _ = sys::set_option(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &TX_RING);
        Ok(socket)
    }

    pub fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Whether frames may be sent with a TCP checksum that covers the pseudo-header only, see `Queue::write_tx`.
    pub fn finishes_checksums(&self) -> bool {
        self.finishes_checksums
    }
}

/// SOL_XDP option of Linux 6.17; libc has no name for it yet.
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;

fn new_socket() -> Result<OwnedFd, XskError> {
    let fd = sys::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0).map_err(|e| match e.raw_os_error() {
        Some(libc::EPERM) => XskError::Privilege,
        Some(libc::EAFNOSUPPORT) => XskError::Unsupported,
        _ => XskError::Os { what: "cannot make an AF_XDP socket", error: e },
    })?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn ring_size(fd: RawFd, ring: i32, entries: u32) -> Result<(), XskError> {
    sys::set_option(fd, libc::SOL_XDP, ring, &entries)
        .map_err(|error| XskError::Os { what: "cannot make an AF_XDP ring", error })
}
