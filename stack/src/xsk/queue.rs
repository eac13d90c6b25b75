//! One stack on one queue: its own receive and transmit ring, and the rings that it shares with all others there.

use super::ring::Ring;
use super::shared_rings::{self, SharedRings, id_at};
use super::{RX_RING, TX_RING};
use crate::arena::{Arena, QueueShared};
use crate::buf::{FRAME_SIZE, FrameId, FrameShared};
use crate::engine::TxFrame;
use crate::sys;
use core::sync::atomic::Ordering;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::AtomicI32;

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

/// A stack's view of one queue.
#[derive(Debug)]
pub(crate) struct Queue {
    fd: AtomicI32,
    rx: Ring<libc::xdp_desc>,
    tx: Ring<libc::xdp_desc>,
    shared: SharedRings,
}

impl Queue {
    /// Maps all four rings of a stack's socket.
    pub(crate) fn map(fd: RawFd) -> io::Result<Queue> {
        let at = shared_rings::offsets(fd)?;
        Ok(Queue {
            fd: AtomicI32::new(fd),
            rx: Ring::map(fd, libc::XDP_PGOFF_RX_RING as u64, &at.rx, RX_RING)?,
            tx: Ring::map(fd, libc::XDP_PGOFF_TX_RING as u64, &at.tx, TX_RING)?,
            shared: SharedRings::map(fd)?,
        })
    }

    /// The socket's number.
    pub(crate) fn fd(&self) -> &AtomicI32 {
        &self.fd
    }

    /// Frames waiting in the receive ring.
    pub(crate) fn received(&self) -> u32 {
        self.rx.ready()
    }

    /// The `n`-th received frame: its id, where the packet starts in it, its length.
    pub(crate) fn peek(&self, n: u32) -> (FrameId, u16, u16) {
        let d = self.rx.peek(n);
        (id_at(d.addr), (d.addr % FRAME_SIZE as u64) as u16, d.len.min(u16::MAX.into()) as u16)
    }

    /// Where the last frame lies that was received by now.
    pub(crate) fn rx_end(&self) -> u32 {
        self.rx.produced()
    }

    /// Whether all before that place were consumed, by whomever.
    pub(crate) fn is_consumed_to(&self, end: u32) -> bool {
        self.rx.is_consumed_to(end)
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

    /// The transmit ring's position behind the `n`-th frame of a batch.
    pub(crate) fn tx_position(&self, n: u32) -> u32 {
        self.tx.position().wrapping_add(n)
    }

    /// Publishes what is written up to there: whoever wrote it died over it. Those frames come back as all do, when they were sent.
    pub(crate) fn publish_tx_to(&self, position: u32) {
        let n = position.wrapping_sub(self.tx.position());
        if n <= self.tx.room() {
            self.tx.publish(n);
        }
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
            match sys::kick(self.fd.load(Ordering::Relaxed)) {
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

    /// What lies in the transmit ring is not sent any more: `give` gets the frames that are free by that. Nobody may send.
    pub(crate) fn recall(&self, arena: &Arena, mut give: impl FnMut(FrameId)) {
        for id in self.tx.untaken().map(|d| id_at(d.addr)) {
            if arena.frames_shared().get(id as usize).is_some_and(FrameShared::complete) {
                give(id);
            }
        }
    }

    /// The frames that wait for the kernel: those to be filled, and those to be sent.
    pub(crate) fn for_each_to_kernel(&self, see: &mut impl FnMut(FrameId)) {
        self.shared.for_each_to_be_filled(see);
        self.tx.untaken().for_each(|d| see(id_at(d.addr)));
    }

    /// The frames that the kernel is done with: those received, and those sent.
    pub(crate) fn for_each_from_kernel(&self, see: &mut impl FnMut(FrameId)) {
        (0..self.rx.ready()).for_each(|n| see(id_at(self.rx.peek(n).addr)));
        self.shared.for_each_completed(see);
    }

    /// Frames in the queue's fill ring.
    pub(crate) fn to_be_filled(&self) -> u32 {
        self.shared.to_be_filled()
    }

    /// Whether completions wait.
    pub(crate) fn has_completions(&self) -> bool {
        self.shared.has_completions()
    }

    /// Takes the completions of this queue, whosever they are. `mine` gets the frames that `owner` may use again now.
    pub(crate) fn complete(&self, lock: &QueueShared, arena: &Arena, owner: u16, mut mine: impl FnMut(FrameId)) {
        if self.has_completions() || SharedRings::is_left_undone(lock) {
            let bring = |id, whose| if whose == owner { mine(id) } else { arena.return_frame(id) };
            self.shared.try_complete(lock, arena.pool(), bring);
        }
    }

    /// Puts up to `wanted` frames, which `next` gives, on the fill ring; returns how many it took.
    pub(crate) fn refill(
        &self,
        lock: &QueueShared,
        wanted: u32,
        next: impl FnMut() -> Option<FrameId>,
        arena: &Arena,
    ) -> u32 {
        self.shared.refill(lock, wanted, next, arena.frames_shared())
    }
}
