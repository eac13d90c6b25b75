//! The name of a connection, written on its shadow: the kernel socket behind the connection's number. A shadow goes where
//! descriptors go, to the next program by exec and to other processes by SCM_RIGHTS, and whoever gets it there reads whose it is.
//!
//! The name stands in the shadow's two timeouts, which mean nothing to a kernel socket that never connects: 52 bits of each
//! are the seconds. No program waits for millions of years.

use crate::socket::SocketId;
use crate::sys;
use std::os::fd::RawFd;

/// Which connection, in which stack of which arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// [`crate::arena::Header::id`].
    pub arena: u64,
    pub stack: u32,
    pub id: SocketId,
}

/// In the highest bits of both words.
const SIGN: u64 = 0xd57;
const SIGN_SHIFT: u32 = 40;
const STACK_BITS: u32 = 8;
const INDEX_BITS: u32 = 16;
const GENERATION_BITS: u32 = 32;

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Time {
    seconds: i64,
    micros: i64,
}

const _: () = assert!(size_of::<Time>() == size_of::<libc::timeval>());

impl Mark {
    /// The two words; `None`: it does not fit.
    fn encode(&self) -> Option<[u64; 2]> {
        let fits = self.stack >> STACK_BITS == 0 && self.id.index >> INDEX_BITS == 0;
        let sign = SIGN << SIGN_SHIFT;
        let whose = (self.arena & 0xffff) << (STACK_BITS + INDEX_BITS);
        let first = sign | whose | u64::from(self.stack) << INDEX_BITS | u64::from(self.id.index);
        let second = sign | (self.arena >> 16 & 0xff) << GENERATION_BITS | u64::from(self.id.generation);
        fits.then_some([first, second])
    }

    /// What two words say of an arena.
    fn decode(words: [u64; 2], arena: u64) -> Option<Mark> {
        let index = words[0] & ((1 << INDEX_BITS) - 1);
        let stack = words[0] >> INDEX_BITS & ((1 << STACK_BITS) - 1);
        let id = SocketId { index: index as u32, generation: words[1] as u32 };
        let mark = Mark { arena, stack: stack as u32, id };
        (mark.encode() == Some(words)).then_some(mark)
    }

    /// Writes it on a shadow. False: the kernel would not have it.
    pub fn write(&self, shadow: RawFd) -> bool {
        let Some(words) = self.encode() else { return false };
        let mut names = [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO].into_iter().zip(words);
        names.all(|(name, word)| {
            let time = Time { seconds: word as i64, micros: 0 };
            sys::set_option(shadow, libc::SOL_SOCKET, name, &time).is_ok()
        })
    }

    /// What stands on a descriptor, if that is a shadow of a connection in this arena.
    pub fn read(fd: RawFd, arena: u64) -> Option<Mark> {
        let word = |name| {
            let mut time = Time::default();
            let told = sys::option(fd, libc::SOL_SOCKET, name, &mut time);
            told.ok().filter(|whole| *whole && time.micros == 0).map(|_| time.seconds as u64)
        };
        let first = word(libc::SO_RCVTIMEO).filter(|word| word >> SIGN_SHIFT == SIGN)?;
        Self::decode([first, word(libc::SO_SNDTIMEO)?], arena)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARENA: u64 = 0x1234_5678_9abc_def0;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        let names = [(0, 0, 1), (63, 16383, u32::MAX), (5, 77, 0x8000_0000)];
        for (stack, index, generation) in names {
            let mark = Mark { arena: ARENA, stack, id: SocketId { index, generation } };
            let shadow = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
            assert_eq!(Mark::read(shadow, ARENA), None);
            assert!(mark.write(shadow));
            assert_eq!(Mark::read(shadow, ARENA), Some(mark));
            assert_eq!(Mark::read(shadow, ARENA ^ 1), None, "another arena's");
            sys::close(shadow);
        }
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        let id = SocketId { index: 1 << INDEX_BITS, generation: 1 };
        assert_eq!(Mark { arena: ARENA, stack: 0, id }.encode(), None);
        assert_eq!(Mark::read(-1, ARENA), None);
    }
}
