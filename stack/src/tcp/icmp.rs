//! What routers say about a connection (RFC 5461, RFC 1191, RFC 8201).

use super::{Arrival, Context, Seq, Tcb};

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
        let _ = (cx, kind, quoted);
        todo!()
    }
}
