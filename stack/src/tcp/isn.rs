//! Initial sequence numbers (RFC 6528) and timestamp offsets (RFC 7323 §5.4): keyed hashes of the flow.

use crate::addr::{Endpoint, Flow};
use crate::time::Instant;
use core::hash::Hasher;
use siphasher::sip::SipHasher24;

fn hash(secret: &[u64; 2], flow: &Flow, purpose: u8) -> u32 {
    let mut hasher = SipHasher24::new_with_keys(secret[0], secret[1]);
    for Endpoint { ip, port } in [flow.local, flow.remote] {
        hasher.write(&ip.0);
        hasher.write(&port.to_be_bytes());
    }
    hasher.write(&[purpose]);
    hasher.finish() as u32
}

/// The initial sequence number of a connection made at `now`: a clock of 4 µs plus a secret function of the flow.
pub fn isn(secret: &[u64; 2], flow: &Flow, now: Instant) -> u32 {
    hash(secret, flow, 0).wrapping_add((now.micros() / 4) as u32)
}

/// What is added to the clock in the timestamps of a flow, so that they tell nothing about the machine's uptime.
pub fn ts_offset(secret: &[u64; 2], flow: &Flow) -> u32 {
    hash(secret, flow, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Ip;

    #[test]
    fn first_numbers_depend_on_flow_secret_and_time() {
        let end = |n, port| Endpoint::new(Ip::v4([10, 0, 0, n]), port);
        let flow = Flow { local: end(1, 80), remote: end(2, 5000) };
        let other = Flow { remote: end(2, 5001), ..flow };
        let at = Instant::from_micros;
        let base = isn(&[1, 2], &flow, at(4000));
        assert_eq!(isn(&[1, 2], &flow, at(4000)), base);
        assert_eq!(isn(&[1, 2], &flow, at(4400)).wrapping_sub(base), 100);
        assert_ne!(isn(&[1, 2], &other, at(4000)), base);
        assert_ne!(isn(&[1, 3], &flow, at(4000)), base);
        assert_ne!(ts_offset(&[1, 2], &flow), ts_offset(&[1, 2], &other));
    }
}
