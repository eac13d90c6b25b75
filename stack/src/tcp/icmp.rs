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
    /// Administratively prohibited, source quench and the rest: nothing to do.
    Other,
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
            IcmpKind::PortUnreachable | IcmpKind::ProtocolUnreachable => TcpError::Refused,
            IcmpKind::Other => return Arrival::default(),
        };
        // Before the handshake the application hears it at once, as Linux does it; after it, an unreachable host may be
        // back soon: the error is kept for when we give up (RFC 5461 §4).
        let events = if self.state == State::SynSent || self.state == State::SynReceived {
            self.end(cx, Some(error))
        } else {
            if matches!(error, TcpError::HostUnreachable | TcpError::NetUnreachable) {
                self.note_soft_error(error);
            }
            Events::NONE
        };
        Arrival { events, reply: None }
    }

    /// Our own device carries packets of `mtu` octets from now on; more than the path did is of no use to a live connection.
    pub fn handle_device_mtu(&mut self, cx: &mut Context<'_, '_>, mtu: u16) {
        self.shrink_path(cx, u32::from(mtu));
    }

    /// The path carries less than we thought: what is in flight and too long goes again, in shorter segments. No sign of
    /// congestion. The floors are Linux's `min_pmtu` and IPv6's minimum MTU: less is an attack.
    fn shrink_path(&mut self, cx: &mut Context<'_, '_>, mtu: u32) {
        let (ip_header, floor) = if self.flow().local.ip.is_v4() { (20, 552) } else { (40, 1280) };
        let mss = mtu.max(floor).saturating_sub(ip_header + 20).min(u32::from(u16::MAX)) as u16;
        if mss >= self.snd.wire_mss {
            return;
        }
        self.snd.wire_mss = mss;
        self.settle_mss();
        if self.state.is_synchronized() {
            self.resend_shorter(cx);
        }
    }
}
