//! A single-producer single-consumer ring in memory that the kernel shares, see Documentation/networking/af_xdp.rst.

use crate::sys;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU32, Ordering};
use std::io;
use std::os::fd::RawFd;

/// One mapped ring of `T`: u64 addresses (fill, completion) or xdp_desc (receive, transmit). This side of it is
/// either producer or consumer; the other side is the kernel's. All calls on one side must be serialised by the caller.
#[derive(Debug)]
pub(crate) struct Ring<T> {
    base: *mut u8,
    producer: *const AtomicU32,
    consumer: *const AtomicU32,
    flags: *const AtomicU32,
    entries: *mut T,
    mask: u32,
    bytes: usize,
    _entry: PhantomData<T>,
}

// SAFETY: the mapping belongs to the ring; positions are atomics and entries are touched only by their side's owner.
unsafe impl<T: Send> Send for Ring<T> {}
// SAFETY: as above; callers serialise each side.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T: Copy> Ring<T> {
    /// Maps the ring at `page_offset` of an XSK. `size` is a power of two and what the socket was set up with.
    pub(crate) fn map(fd: RawFd, page_offset: u64, at: &libc::xdp_ring_offset, size: u32) -> io::Result<Ring<T>> {
        let bytes = at.desc as usize + size as usize * size_of::<T>();
        let base = sys::mmap_shared(fd, bytes, page_offset, true)?;
        // SAFETY: the kernel gave these offsets for this mapping; they are aligned for what lies there.
        unsafe {
            Ok(Ring {
                base,
                producer: base.add(at.producer as usize).cast(),
                consumer: base.add(at.consumer as usize).cast(),
                flags: base.add(at.flags as usize).cast(),
                entries: base.add(at.desc as usize).cast(),
                mask: size - 1,
                bytes,
                _entry: PhantomData,
            })
        }
    }

    /// A ring in memory of the test's own: the kernel's side is played by another view of it.
    #[cfg(test)]
    pub(crate) fn fake(memory: &mut [u64], size: u32) -> Ring<T> {
        assert!(memory.len() * 8 >= 64 + size as usize * size_of::<T>());
        let base: *mut u8 = memory.as_mut_ptr().cast();
        // SAFETY: the assertion above; 64 bytes of head hold three words.
        unsafe {
            Ring {
                base,
                producer: base.cast(),
                consumer: base.add(16).cast(),
                flags: base.add(32).cast(),
                entries: base.add(64).cast(),
                mask: size - 1,
                bytes: 0,
                _entry: PhantomData,
            }
        }
    }

    fn word(at: *const AtomicU32) -> &'static AtomicU32 {
        // SAFETY: set in `map` to words of the mapping, which lives as long as the ring; the reference does not
        // leave the ring's own methods.
        unsafe { &*at }
    }

    /// Whether the kernel asks to be told of new entries.
    pub(crate) fn needs_wakeup(&self) -> bool {
        Self::word(self.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// Consumer: where the producer is.
    pub(crate) fn produced(&self) -> u32 {
        Self::word(self.producer).load(Ordering::Acquire)
    }

    /// Consumer: whether all was taken that had been produced when the producer was there.
    pub(crate) fn is_consumed_to(&self, produced: u32) -> bool {
        Self::word(self.consumer).load(Ordering::Acquire).wrapping_sub(produced).cast_signed() >= 0
    }

    /// Consumer: entries ready to be taken.
    pub(crate) fn ready(&self) -> u32 {
        let produced = Self::word(self.producer).load(Ordering::Acquire);
        produced.wrapping_sub(Self::word(self.consumer).load(Ordering::Relaxed)).min(self.mask + 1)
    }

    /// Consumer: where the next entry is taken.
    pub(crate) fn consumed(&self) -> u32 {
        Self::word(self.consumer).load(Ordering::Relaxed)
    }

    /// Consumer: the `n`-th entry ready; `n` below [`Ring::ready`].
    pub(crate) fn peek(&self, n: u32) -> T {
        let at = Self::word(self.consumer).load(Ordering::Relaxed).wrapping_add(n) & self.mask;
        // SAFETY: masked, so inside the ring; the producer published it.
        unsafe { self.entries.add(at as usize).read() }
    }

    /// Consumer: gives the first `n` entries' places back.
    pub(crate) fn consume(&self, n: u32) {
        let at = Self::word(self.consumer).load(Ordering::Relaxed);
        Self::word(self.consumer).store(at.wrapping_add(n), Ordering::Release);
    }

    /// Producer: places that are free.
    pub(crate) fn room(&self) -> u32 {
        (self.mask + 1).saturating_sub(self.pending())
    }

    /// Producer: entries that the other side has not taken yet.
    pub(crate) fn pending(&self) -> u32 {
        let consumed = Self::word(self.consumer).load(Ordering::Acquire);
        Self::word(self.producer).load(Ordering::Relaxed).wrapping_sub(consumed)
    }

    /// Producer: where the next entry is published.
    pub(crate) fn position(&self) -> u32 {
        Self::word(self.producer).load(Ordering::Relaxed)
    }

    /// Producer: writes the `n`-th new entry, `n` below [`Ring::room`]; not seen before [`Ring::publish`].
    pub(crate) fn write(&self, n: u32, entry: T) {
        let at = Self::word(self.producer).load(Ordering::Relaxed).wrapping_add(n) & self.mask;
        // SAFETY: masked, so inside the ring; the place is free, so the kernel does not read it.
        unsafe { self.entries.add(at as usize).write(entry) };
    }

    /// Producer: reads the `n`-th of the new entries again.
    pub(crate) fn written(&self, n: u32) -> T {
        let at = Self::word(self.producer).load(Ordering::Relaxed).wrapping_add(n) & self.mask;
        // SAFETY: masked, so inside the ring; the place is ours yet, and every value of its bytes is valid.
        unsafe { self.entries.add(at as usize).read() }
    }

    /// Producer: reads the entries that the other side has not taken now; it may take some meanwhile.
    pub(crate) fn untaken(&self) -> impl Iterator<Item = T> {
        let consumed = Self::word(self.consumer).load(Ordering::Acquire);
        (0..self.position().wrapping_sub(consumed).min(self.mask + 1)).map(move |n| {
            let at = consumed.wrapping_add(n) & self.mask;
            // SAFETY: masked, so inside the ring; the place was written before it was published.
            unsafe { self.entries.add(at as usize).read() }
        })
    }

    /// Producer: shows `n` new entries to the other side.
    pub(crate) fn publish(&self, n: u32) {
        let at = Self::word(self.producer).load(Ordering::Relaxed);
        Self::word(self.producer).store(at.wrapping_add(n), Ordering::Release);
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        if self.bytes != 0 {
            // SAFETY: the mapping is the ring's own and nothing refers to it any more.
            unsafe { sys::munmap(self.base, self.bytes) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_meet_over_the_wrap() {
        let mut memory = [0u64; 8 + 8];
        let ours: Ring<u64> = Ring::fake(&mut memory, 8);
        let mut next_in = 0u64;
        let mut next_out = 0u64;
        for step in 0..100u32 {
            let n = ours.room().min(step % 8 + 1);
            for i in 0..n {
                ours.write(i, next_in);
                next_in += 1;
            }
            assert_eq!(ours.ready(), ours.pending(), "nothing is seen before it is published");
            ours.publish(n);
            let ready = ours.ready().min(step % 5 + 1);
            for i in 0..ready {
                assert_eq!(ours.peek(i), next_out);
                next_out += 1;
            }
            ours.consume(ready);
            assert!(ours.pending() <= 8);
        }
        assert!(next_out > 50);
    }

    #[test]
    fn what_is_untaken_is_listed_once_while_it_is_taken() {
        let mut memory = [0u64; 8 + 8];
        let ring: Ring<u64> = Ring::fake(&mut memory, 8);
        ring.publish(5);
        ring.consume(5);
        (0..6).for_each(|n| ring.write(n, n.into()));
        ring.publish(6);
        let mut seen = Vec::new();
        for entry in ring.untaken() {
            seen.push(entry);
            ring.consume(1);
        }
        assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
        assert_eq!(ring.untaken().count(), 0);
    }

    #[test]
    fn what_had_been_produced_is_consumed_when_the_consumer_has_passed_it() {
        let mut memory = [0u64; 8 + 8];
        let ring: Ring<u64> = Ring::fake(&mut memory, 8);
        let here = u32::MAX - 1;
        [ring.producer, ring.consumer].into_iter().for_each(|at| Ring::<u64>::word(at).store(here, Ordering::Relaxed));
        assert!(ring.is_consumed_to(ring.produced()), "there was nothing");
        ring.publish(3);
        let produced = ring.produced();
        ring.publish(2);
        for taken in 1..=5 {
            ring.consume(1);
            assert_eq!(ring.is_consumed_to(produced), taken >= 3, "after {taken}");
        }
    }

    #[test]
    fn a_full_ring_has_no_room_and_a_mad_kernel_cannot_overrun_us() {
        let mut memory = [0u64; 8 + 4];
        let ring: Ring<u64> = Ring::fake(&mut memory, 4);
        ring.publish(4);
        assert_eq!(ring.room(), 0);
        assert_eq!(ring.ready(), 4);
        ring.publish(1000);
        assert_eq!(ring.ready(), 4, "never more than the ring holds");
        assert_eq!(ring.room(), 0);
    }
}
