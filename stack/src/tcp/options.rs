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
    /// TCP_DEFER_ACCEPT: SYN-ACKs that may go while a handshake waits for data; 0 is off.
    pub defer_accept: u8,
    /// IP_TOS and IPV6_TCLASS; the two low bits are not the application's (RFC 3168 §5).
    pub tos: u8,
    /// IP_TTL and IPV6_UNICAST_HOPS; 0 leaves it to the tunables.
    pub ttl: u8,
    /// TCP_SYNCNT: SYNs that go again; 0 leaves it to `syn_retries`.
    pub syn_retries: u8,
    /// SO_OOBINLINE: urgent octets stay where they are in the stream.
    pub oob_inline: bool,
    /// The application set the size of the buffer itself: it does not grow any more.
    pub sndbuf_locked: bool,
    pub rcvbuf_locked: bool,
    pub _pad: [u8; 2],
    /// TCP_KEEPIDLE and TCP_KEEPINTVL.
    pub keepalive_idle_ms: u32,
    pub keepalive_intvl_ms: u32,
    /// TCP_USER_TIMEOUT; 0 leaves it to `retries2`.
    pub user_timeout_ms: u32,
    /// TCP_LINGER2: how long an orphan may stay in FIN-WAIT-2; [`Options::NO_FIN_WAIT`]: not at all.
    pub fin_timeout_ms: u32,
    /// SO_SNDBUF and SO_RCVBUF, as getsockopt tells them: set, or grown to.
    pub sndbuf_bytes: u32,
    pub rcvbuf_bytes: u32,
    /// TCP_NOTSENT_LOWAT, and TCP_WINDOW_CLAMP (0 is none).
    pub notsent_lowat_bytes: u32,
    pub window_clamp_bytes: u32,
    /// SO_MAX_PACING_RATE, octets a second; `u64::MAX` is none, and so is 0, as on Linux.
    pub max_pacing_rate: u64,
}

impl Options {
    /// `fin_timeout_ms`: an orphan whose FIN was acknowledged is over.
    pub const NO_FIN_WAIT: u32 = u32::MAX;

    /// What a new socket has.
    pub fn new(tunables: &Tunables) -> Options {
        let ms = |us: u64| u32::try_from(us / MS).unwrap_or(u32::MAX);
        Options {
            congestion: Algorithm::from_code(tunables.congestion),
            keepalive_probes: tunables.keepalive_probes.min(255) as u8,
            keepalive_idle_ms: ms(tunables.keepalive_time_us),
            keepalive_intvl_ms: ms(tunables.keepalive_intvl_us),
            fin_timeout_ms: ms(tunables.fin_timeout_us),
            sndbuf_bytes: tunables.wmem_bytes[1],
            rcvbuf_bytes: tunables.rmem_bytes[1],
            notsent_lowat_bytes: tunables.notsent_lowat_bytes,
            max_pacing_rate: super::pacing::UNLIMITED,
            ..Options::default()
        }
    }

    /// A receive window, no larger than TCP_WINDOW_CLAMP says.
    pub(super) fn clamp(&self, window: u32) -> u32 {
        if self.window_clamp_bytes == 0 { window } else { window.min(self.window_clamp_bytes) }
    }
}

impl From<&Tunables> for Options {
    fn from(tunables: &Tunables) -> Options {
        Options::new(tunables)
    }
}
