//! One stack on one queue: its own receive and transmit ring, and the rings that it shares with all others there.

use super::ring::Ring;
use super::{COMPLETION_RING, FILL_RING, RX_RING, TX_RING};
use crate::arena::{Arena, LockOutcome, Pool, QueueShared};
use crate::buf::{FRAME_SIZE, FrameId, OWNER_FILL};
use crate::engine::TxFrame;
use crate::sys;
use core::sync::atomic::Ordering;
use std::io;
use std::os::fd::RawFd;

/// Kicks in a row before the rest of the ring waits for the next turn.
const KICKS_MAX: u32 = 64;

/// Bytes in front of a frame for `struct xsk_tx_metadata` (linux/if_xdp.h): flags, then what is requested.
pub(crate) const METADATA_LEN: usize = 24;

/// Asks, in the metadata in front of a frame, that the TCP or UDP checksum be finished: the field holds the pseudo-header's
/// sum already. `frame` is the whole frame's memory.
pub(crate) fn request_checksum(frame: &mut [u8], out: &TxFrame) {
    let at = usize::from(out.off) - METADATA_LEN;
    frame[at..at + 8].copy_from_slice(&u64::from(libc::XDP_TXMD_FLAGS_CHECKSUM).to_ne_bytes());
    frame[at + 8..at + 10].copy_from_slice(&u16::from(out.transport).to_ne_bytes());
    frame[at + 10..at + 12].copy_from_slice(&u16::from(out.checksum).to_ne_bytes());
}

/// The fill and the completion ring of a queue.
#[derive(Debug)]
pub(crate) struct SharedRings {
    fill: Ring<u64>,
    completion: Ring<u64>,
}

/// A stack's view of one queue.
#[derive(Debug)]
pub(crate) struct Queue {
    fd: RawFd,
    rx: Ring<libc::xdp_desc>,
    tx: Ring<libc::xdp_desc>,
    shared: SharedRings,
}

fn offsets(fd: RawFd) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: all zeroes is a valid value of this struct of integers.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { core::mem::zeroed() };
    if sys::option(fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, &mut offsets)? {
        return Ok(offsets);
    }
    Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)) // a kernel before 5.4: rings without flags
}

impl Queue {
    /// Maps all four rings of a stack's socket.
    pub(crate) fn map(fd: RawFd) -> io::Result<Queue> {
        let at = offsets(fd)?;
        Ok(Queue {
            fd,
            rx: Ring::map(fd, libc::XDP_PGOFF_RX_RING as u64, &at.rx, RX_RING)?,
            tx: Ring::map(fd, libc::XDP_PGOFF_TX_RING as u64, &at.tx, TX_RING)?,
            shared: Self::map_shared(fd)?,
        })
    }

    /// Maps the fill and completion ring alone.
    pub(crate) fn map_shared(fd: RawFd) -> io::Result<SharedRings> {
        let at = offsets(fd)?;
        Ok(SharedRings {
            fill: Ring::map(fd, libc::XDP_UMEM_PGOFF_FILL_RING, &at.fr, FILL_RING)?,
            completion: Ring::map(fd, libc::XDP_UMEM_PGOFF_COMPLETION_RING, &at.cr, COMPLETION_RING)?,
        })
    }

    /// Frames waiting in the receive ring.
    pub(crate) fn received(&self) -> u32 {
        self.rx.ready()
    }

    /// The `n`-th received frame: its id, where the packet starts in it, its length.
    pub(crate) fn peek(&self, n: u32) -> (FrameId, u16, u16) {
        let d = self.rx.peek(n);
        (
            (d.addr / FRAME_SIZE as u64) as FrameId,
            (d.addr % FRAME_SIZE as u64) as u16,
            d.len.min(u16::MAX.into()) as u16,
        )
    }

    pub(crate) fn consume(&self, n: u32) {
        self.rx.consume(n);
    }

    pub(crate) fn tx_room(&self) -> u32 {
        self.tx.room()
    }

    /// Puts the `n`-th frame of a batch on the transmit ring. With `metadata`, the bytes in front of the frame say
    /// what the device is asked for.
    pub(crate) fn write_tx(&self, n: u32, out: &TxFrame, metadata: bool) {
        let addr = u64::from(out.frame) * FRAME_SIZE as u64 + u64::from(out.off);
        let options = if metadata { libc::XDP_TX_METADATA } else { 0 };
        self.tx.write(n, libc::xdp_desc { addr, len: out.len.into(), options });
    }

    pub(crate) fn publish_tx(&self, n: u32) {
        self.tx.publish(n);
    }

    /// Whether frames wait in the transmit ring for a kick.
    pub(crate) fn has_unsent(&self) -> bool {
        self.tx.pending() != 0
    }

    /// Has the kernel send what is in the transmit ring; returns the number of system calls. What the device does not
    /// take now (its queue is full) stays in the ring for the next turn.
    pub(crate) fn kick(&self) -> u32 {
        let mut kicks = 0;
        let mut before = self.tx.pending();
        while before != 0 && kicks < KICKS_MAX {
            if !self.tx.needs_wakeup() && kicks == 0 {
                return 0; // a zero-copy driver that is at work already
            }
            kicks += 1;
            match sys::kick(self.fd) {
                Err(libc::EAGAIN | libc::EINTR) | Ok(()) => {}
                Err(_) => break, // ENOBUFS, EBUSY: full; ENETDOWN, ENXIO: the device is down. Later.
            }
            let after = self.tx.pending();
            if after == before {
                break;
            }
            before = after;
        }
        kicks
    }

    /// Whether completions wait.
    pub(crate) fn has_completions(&self) -> bool {
        self.shared.completion.ready() != 0
    }

    /// Takes the completions of this queue, whosever they are. `mine` gets the frames that `owner` may use again now.
    pub(crate) fn complete(&self, lock: &QueueShared, arena: &Arena, owner: u16, mut mine: impl FnMut(FrameId)) {
        if !self.has_completions() || lock.completion.try_lock().is_none() {
            return; // nothing there, or another stack is at it
        }
        let ring = &self.shared.completion;
        let ready = ring.ready();
        for n in 0..ready {
            let id = (ring.peek(n) / FRAME_SIZE as u64) as FrameId;
            let Some(frame) = arena.frames_shared().get(id as usize) else { continue };
            if !frame.complete() {
                continue;
            }
            if frame.owner() == owner { mine(id) } else { arena.return_frame(id) }
        }
        ring.consume(ready);
        lock.completion.unlock();
    }

    /// Puts up to `wanted` frames, which `next` gives, on the fill ring; returns how many it took.
    pub(crate) fn refill(
        &self,
        lock: &QueueShared,
        wanted: u32,
        next: impl FnMut() -> Option<FrameId>,
        arena: &Arena,
    ) -> u32 {
        self.shared.refill(lock, wanted, next, |id| arena.frames_shared()[id as usize].set_owner(OWNER_FILL))
    }
}

impl SharedRings {
    fn refill(
        &self,
        lock: &QueueShared,
        wanted: u32,
        mut next: impl FnMut() -> Option<FrameId>,
        mut mark: impl FnMut(FrameId),
    ) -> u32 {
        // A dead owner never published what it wrote: the ring is whole, its frames are found by their owner.
        let (LockOutcome::Clean | LockOutcome::OwnerDied) = lock.fill.lock();
        let room = self.fill.room().min(wanted);
        let mut n = 0;
        while n < room {
            let Some(id) = next() else { break };
            mark(id);
            self.fill.write(n, u64::from(id) * FRAME_SIZE as u64);
            n += 1;
        }
        self.fill.publish(n);
        lock.fill.unlock();
        n
    }

    /// The fill ring's first frames.
    pub(super) fn fill_from_pool(&self, lock: &QueueShared, pool: Pool, wanted: u32) {
        let next = || {
            let mut got = None;
            pool.take(1, OWNER_FILL, |id| got = Some(id));
            got
        };
        let filled = self.refill(lock, wanted, next, |_| {});
        lock.fill_deficit.fetch_add(wanted - filled, Ordering::Relaxed);
    }
}
