//! What an application may set on a connection.

use super::Algorithm;
use crate::time::MS;
use crate::tunables::Tunables;

/// Options of one connection; an accepted one inherits its listener's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Options {
    /// TCP_NODELAY: small segments do not wait for acknowledgements (RFC 1122 §4.2.3.4).
    pub nodelay: bool,
    /// TCP_CORK: hold partial segments back, 200 ms at most.
    pub cork: bool,
    /// SO_KEEPALIVE. Set it with [`super::Tcb::set_keepalive`] on a live connection, so that its timer starts.
    pub keepalive: bool,
    /// TCP_KEEPCNT.
    pub keepalive_probes: u8,
    /// TCP_MAXSEG: cap on the segment size, both ways; 0 is none. Counts from the SYN on.
    pub mss_clamp: u16,
    /// TCP_CONGESTION.
    pub congestion: Algorithm,
    /// IP_TOS and IPV6_TCLASS; the two low bits are not the application's (RFC 3168 §5).
    pub tos: u8,
    /// IP_TTL and IPV6_UNICAST_HOPS; 0 leaves it to the tunables.
    pub ttl: u8,
    pub _pad: [u8; 3],
    /// TCP_KEEPIDLE and TCP_KEEPINTVL.
    pub keepalive_idle_ms: u32,
    pub keepalive_intvl_ms: u32,
    /// TCP_USER_TIMEOUT; 0 leaves it to `retries2`.
    pub user_timeout_ms: u32,
    /// TCP_LINGER2: how long an orphan may stay in FIN-WAIT-2.
    pub fin_timeout_ms: u32,
    /// SO_SNDBUF and SO_RCVBUF.
    pub sndbuf_bytes: u32,
    pub rcvbuf_bytes: u32,
    /// SO_MAX_PACING_RATE, octets a second; `u64::MAX` is none, and so is 0, as on Linux.
    pub max_pacing_rate: u64,
}

impl Options {
    /// What a new socket has.
    pub fn new(tunables: &Tunables) -> Options {
        let ms = |us: u64| u32::try_from(us / MS).unwrap_or(u32::MAX);
        Options {
            congestion: Algorithm::from_code(tunables.congestion),
            keepalive_probes: tunables.keepalive_probes.min(255) as u8,
            keepalive_idle_ms: ms(tunables.keepalive_time_us),
            keepalive_intvl_ms: ms(tunables.keepalive_intvl_us),
            fin_timeout_ms: ms(tunables.fin_timeout_us),
            sndbuf_bytes: tunables.sndbuf_bytes,
            rcvbuf_bytes: tunables.rcvbuf_bytes,
            max_pacing_rate: super::pacing::UNLIMITED,
            ..Options::default()
        }
    }
}

impl From<&Tunables> for Options {
    fn from(tunables: &Tunables) -> Options {
        Options::new(tunables)
    }
}
