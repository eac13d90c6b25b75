//! SYNs to a port that somebody serves here, but not at the address that they name.
//!
//! The XDP program steers by port, so they come here although another program may listen at that address, in the kernel or in
//! another stack. So the first is dropped, not refused, and the daemon looks who listens there. If somebody does, it gives the
//! port to the kernel, and the SYN that comes again finds him; if nobody does, that one is refused.

use super::Engine;
use crate::addr::Endpoint;
use crate::time::{Instant, SEC};

/// So long the daemon's word counts that nobody else listens: the SYN that was dropped comes again after a second (RFC 6298 §2),
/// or somewhat more where the peer is busy.
const NOBODY_US: u64 = 2 * SEC;

/// What is to be asked of the daemon, and what it answered last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Strays {
    wanted: Endpoint,
    nobody_at: Endpoint,
    until: Instant,
}

impl Engine<'_> {
    /// Whether a SYN that nobody here listens for may be somebody else's; the daemon is asked.
    pub(super) fn may_be_elsewhere(&mut self, now: Instant, local: Endpoint) -> bool {
        let strays = &self.state.strays;
        if !self.has_listener(local.port) || strays.nobody_at == local && now < strays.until {
            return false;
        }
        (self.state.strays.wanted, self.state.has_stray) = (local, true);
        true
    }

    /// Whether the daemon is to look who listens somewhere.
    #[inline]
    pub fn has_stray(&self) -> bool {
        self.state.has_stray
    }

    /// Where.
    pub fn take_stray(&mut self) -> Option<Endpoint> {
        core::mem::take(&mut self.state.has_stray).then_some(self.state.strays.wanted)
    }

    /// Nobody listens there: who comes is refused.
    pub fn note_nobody(&mut self, now: Instant, local: Endpoint) {
        let strays = &mut self.state.strays;
        (strays.nobody_at, strays.until) = (local, now.after_us(NOBODY_US));
    }

    /// Somebody came to the port, who may.
    pub fn forget_nobody(&mut self, port: u16) {
        if self.state.strays.nobody_at.port == port {
            self.state.strays.nobody_at = Endpoint::default();
        }
    }
}
