//! What routers say about a connection (RFC 5461, RFC 1191, RFC 8201).

use super::{Arrival, Context, Events, Seq, State, Tcb, TcpError};
use crate::drops::Drop;

/// An ICMP error, its family forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IcmpKind {
    /// A packet was too big for a link of this MTU (IP header included).
    TooBig {
        mtu: u32,
    },
    HostUnreachable,
    NetUnreachable,
    PortUnreachable,
    ProtocolUnreachable,
    /// A filter of IPv6 said no. (What one of IPv4 says counts as [`IcmpKind::HostUnreachable`], as on Linux.)
    Prohibited,
    /// Somebody could not read our header.
    ParameterProblem,
}

impl Tcb {
    /// An ICMP error came that quotes this flow and the sequence number `quoted`.
    pub fn handle_icmp(&mut self, cx: &mut Context<'_, '_>, kind: IcmpKind, quoted: Seq) -> Arrival {
        // Who does not know what is in flight did not see our packet (RFC 5927 §4.1).
        if self.state == State::Closed || quoted.since(self.snd.una) >= self.snd.flight().max(1) {
            cx.counters.drops.count(Drop::IcmpNoFlow);
            return Arrival::default();
        }
        let error = match kind {
            IcmpKind::TooBig { mtu } => {
                self.shrink_path(cx, mtu);
                return Arrival::default();
            }
            IcmpKind::HostUnreachable => TcpError::HostUnreachable,
            IcmpKind::NetUnreachable => TcpError::NetUnreachable,
            IcmpKind::PortUnreachable => TcpError::Refused,
            IcmpKind::ProtocolUnreachable => TcpError::NoProtocol,
            IcmpKind::Prohibited => TcpError::Forbidden,
            IcmpKind::ParameterProblem => TcpError::Protocol,
        };
        Arrival { events: self.hear(cx, error, quoted), reply: None }
    }

    /// What an error means depends on how far the connection has got (as on Linux). Before the handshake the application hears
    /// it at once. A listener's half-open connection is given up when there is no way to its peer, and outlasts all else. After
    /// the handshake, an unreachable host may be back soon: the error is kept for when we give up (RFC 5461 §4).
    fn hear(&mut self, cx: &mut Context<'_, '_>, error: TcpError, quoted: Seq) -> Events {
        let is_no_way = matches!(error, TcpError::HostUnreachable | TcpError::NetUnreachable);
        match self.state {
            State::SynSent => self.end(cx, Some(error)),
            State::SynReceived if !self.passive => self.end(cx, Some(error)),
            State::SynReceived if !self.is_early() => match is_no_way {
                true => self.end(cx, Some(error)),
                false => Events::NONE,
            },
            _ => {
                self.note_soft_error(error);
                if is_no_way && quoted == self.snd.una {
                    self.revert_backoff(cx);
                }
                Events::NONE
            }
        }
    }

    /// Our own device carries packets of `mtu` octets from now on; more than the path did is of no use to a live connection.
    pub fn handle_device_mtu(&mut self, cx: &mut Context<'_, '_>, mtu: u16) {
        self.shrink_path(cx, u32::from(mtu));
    }

    /// The path carries less than we thought: what is in flight and too long goes again, in shorter segments. No sign of
    /// congestion.
    fn shrink_path(&mut self, cx: &mut Context<'_, '_>, mtu: u32) {
        if self.limit_path(mtu) && self.state.is_synchronized() {
            self.resend_longer_than(cx, self.snd.mss);
        }
    }
}
