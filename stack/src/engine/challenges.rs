//! How many challenge ACKs a stack sends (RFC 5961 §7): `tunables.challenge_ack_limit` a second on average, and in each second
//! anything from half of it to one and a half times as many. A limit that all connections share and that could be counted
//! exactly would tell a stranger whether a connection exists (CVE-2016-5696). What goes beyond it is not sent, and counted.

use super::Engine;
use crate::time::{Instant, SEC};
use core::hash::Hasher;
use siphasher::sip::SipHasher24;

/// What is left for the present second.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct ChallengeBudget {
    second: u64,
    left: u32,
    _pad: u32,
}

impl Engine<'_> {
    /// Takes one from the budget; false when there is none left.
    pub(super) fn may_challenge(&mut self, now: Instant) -> bool {
        let second = now.micros() / SEC + 1;
        let budget = &mut self.state.challenges;
        if budget.second < second {
            let [a, b] = self.state.config.isn_secret;
            let mut hasher = SipHasher24::new_with_keys(a, b);
            hasher.write(&second.to_be_bytes());
            // The last octet says what is hashed; 0 to 3 are others'.
            hasher.write(&[4]);
            let limit = u64::from(self.state.tunables.challenge_ack_limit);
            let left = limit.div_ceil(2) + hasher.finish() % limit.max(1);
            *budget = ChallengeBudget { second, left: left.min(u64::from(u32::MAX)) as u32, _pad: 0 };
        }
        let may = budget.left > 0;
        budget.left -= u32::from(may);
        may
    }
}
