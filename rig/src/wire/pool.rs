//! The frames that are on their way: a fixed number of chunks, so that no sender can make the wire grow.

/// The longest frame; longer ones are bundles that the sender's device should have cut.
pub(crate) const FRAME_MAX: usize = 2048;

/// A chunk's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Chunk(u32);

impl Chunk {
    /// No chunk: fills arrays.
    pub(crate) const NONE: Chunk = Chunk(u32::MAX);
}

/// Memory is taken from the system when a chunk is first written, so a wire that never fills its pool never pays for it.
pub(crate) struct Pool {
    bytes: Vec<u8>,
    /// Freed chunks, last in first out: the warm ones go round.
    free: Vec<Chunk>,
    untouched: u32,
    chunks: u32,
}

impl Pool {
    pub(crate) fn new(chunks: u32) -> Self {
        Self { bytes: vec![0; chunks as usize * FRAME_MAX], free: Vec::new(), untouched: 0, chunks }
    }

    pub(crate) fn take(&mut self) -> Option<Chunk> {
        self.free.pop().or_else(|| {
            let chunk = Chunk(self.untouched);
            (self.untouched < self.chunks).then(|| {
                self.untouched += 1;
                chunk
            })
        })
    }

    pub(crate) fn give_back(&mut self, chunk: Chunk) {
        self.free.push(chunk);
    }

    pub(crate) fn bytes(&self, chunk: Chunk) -> &[u8] {
        &self.bytes[chunk.0 as usize * FRAME_MAX..][..FRAME_MAX]
    }

    pub(crate) fn bytes_mut(&mut self, chunk: Chunk) -> &mut [u8] {
        &mut self.bytes[chunk.0 as usize * FRAME_MAX..][..FRAME_MAX]
    }

    /// A second chunk with the same content; None when there is none left.
    pub(crate) fn copy(&mut self, chunk: Chunk, len: usize) -> Option<Chunk> {
        let twin = self.take()?;
        let from = chunk.0 as usize * FRAME_MAX;
        self.bytes.copy_within(from..from + len, twin.0 as usize * FRAME_MAX);
        Some(twin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_and_takes_back() {
        let mut pool = Pool::new(2);
        let first = pool.take().expect("two are there");
        pool.bytes_mut(first)[..3].copy_from_slice(b"abc");
        let second = pool.copy(first, 3).expect("one is left");
        assert_eq!(&pool.bytes(second)[..3], b"abc");
        assert_eq!(pool.take(), None);
        pool.give_back(first);
        assert_eq!(pool.take(), Some(first));
    }
}
