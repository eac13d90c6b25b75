//! Reading a packet that may end anywhere.
//!
//! The same parser runs over a byte slice on the host and over `data..data_end` inside the kernel. All it may do is ask for
//! `N` bytes at an offset and be refused; that is the whole interface, and so the whole of what has to be proven safe.

/// A frame whose every read is bounds-checked.
pub trait Packet {
    /// Bytes in the frame.
    fn len(&self) -> usize;

    /// `N` bytes at `at`, or `None` when the frame ends before.
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]>;

    /// Whether the frame holds nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The host's packet.
impl Packet for &[u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.get(at..at.checked_add(N)?)?.try_into().ok()
    }
}

/// The 16-bit number that starts at `AT` of a header. `AT` is a constant so that no bounds check, and no panic, is compiled into BPF.
#[inline(always)]
pub(crate) fn be16<const AT: usize, const N: usize>(header: &[u8; N]) -> u16 {
    const { assert!(AT + 1 < N) };
    u16::from_be_bytes([header[AT], header[AT + 1]])
}
