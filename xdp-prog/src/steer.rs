//! The decision: which stack gets a packet, if any.
//!
//! Pure: the tables are asked through [`Tables`], so the code that runs in the kernel is the code that the host tests and fuzzes.
//! One rule stands above the order below: **all packets of one 4-tuple meet the same answer until the connection is over**, because a
//! connection split between the kernel and a stack is reset by whichever half sees the wrong packet first.

use crate::fragment::{Fragment, parse_fragment};
use crate::maps::{
    BlockEntry, FlowKey, NO_STACK, PORT_HAS_FLOWS, PORT_KERNEL_FLOWS, PortEntry, PortState, Proto, Verdict,
    bucket_index, ephemeral_index, policy_index,
};
use crate::packet::Packet;
use crate::parse::{Kind, Segment, parse};

/// The maps, as the decision sees them. A look-up that finds nothing answers with the value of a fresh map.
pub trait Tables {
    /// Whether the address belongs to the device.
    fn is_local(&self, address: &[u8; 16]) -> bool;
    /// Entry of `EPHEMERAL`.
    fn ephemeral(&self, index: u32) -> BlockEntry;
    /// Notes in that entry that others have sockets in the block, too.
    fn share_block(&self, index: u32);
    /// Entry of `DATAGRAM_PORTS`.
    fn datagram_port(&self, port: u16) -> u64;
    /// Entry of `POLICY`.
    fn policy(&self, index: u32) -> PortEntry;
    /// The stack that `FLOWS` names.
    fn flow(&self, key: &FlowKey) -> Option<u32>;
    /// Entry of `BUCKETS`.
    fn bucket(&self, index: u32) -> u32;
    /// The stack that gets the fragments of this packet.
    fn fragments(&self, packet: u64) -> Option<u32>;
    /// Notes it, or forgets it.
    fn note_fragments(&self, packet: u64, stack: Option<u32>);
    /// What the kernel has for this TCP 4-tuple.
    fn kernel_socket(&self, key: &FlowKey) -> KernelSocket;
}

/// What the kernel has for a TCP 4-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelSocket {
    /// Nothing.
    None,
    /// A listener, which may well be the shadow of ours.
    Listener,
    /// A connection: full, half-open, or in TIME-WAIT.
    Connection,
}

/// What to do with a packet, and which counter to count it under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Leave it to the kernel.
    Pass(Verdict),
    /// Hand it to this stack.
    Redirect(Verdict, u32),
}

/// The whole way from a frame to a decision.
#[inline(always)]
pub fn steer<P: Packet, T: Tables>(packet: &P, tables: &T, vlan_ok: bool) -> Decision {
    let (segment, noted) = match parse(packet, vlan_ok) {
        Ok(segment) => (segment, None),
        Err(Verdict::PassFragment) => match parse_fragment(packet, vlan_ok) {
            Some(Fragment { first: Some(segment), packet, is_last }) => (segment, Some((packet, is_last))),
            Some(Fragment { first: None, packet, is_last }) => return follow(packet, is_last, tables),
            None => return Decision::Pass(Verdict::PassFragment),
        },
        Err(verdict) => return Decision::Pass(verdict),
    };
    let decision = decide(&segment, tables);
    match noted {
        None => decision,
        Some((packet, is_last)) => lead(packet, is_last, decision, tables),
    }
}

/// A first fragment goes where its segment would go, and the others follow it.
///
/// Notes are kept from the first fragment to the last, and no longer: the identification will come again, for another flow.
#[inline(always)]
fn lead<T: Tables>(packet: u64, is_last: bool, decision: Decision, tables: &T) -> Decision {
    let (noted, decision) = match decision {
        Decision::Redirect(_, stack) => (Some(stack), Decision::Redirect(Verdict::RedirectFragment, stack)),
        Decision::Pass(_) => (None, Decision::Pass(Verdict::PassFragment)),
    };
    tables.note_fragments(packet, noted.filter(|_| !is_last));
    decision
}

#[inline(always)]
fn follow<T: Tables>(packet: u64, is_last: bool, tables: &T) -> Decision {
    let Some(stack) = tables.fragments(packet) else {
        return Decision::Pass(Verdict::PassFragment);
    };
    if is_last {
        tables.note_fragments(packet, None);
    }
    Decision::Redirect(Verdict::RedirectFragment, stack)
}

/// The way from a parsed segment to a decision.
#[inline(always)]
pub fn decide<T: Tables>(segment: &Segment, tables: &T) -> Decision {
    if !tables.is_local(&segment.key.local) {
        return Decision::Pass(Verdict::PassNotLocal);
    }
    let decision = by_port(segment, tables);
    if segment.kind != Kind::Quoted {
        return decision;
    }
    match decision {
        Decision::Pass(_) => Decision::Pass(Verdict::PassIcmp),
        Decision::Redirect(_, stack) => Decision::Redirect(Verdict::RedirectIcmp, stack),
    }
}

/// Ephemeral ports belong to stacks that connect, the others to whom the policy says.
#[inline(always)]
fn by_port<T: Tables>(segment: &Segment, tables: &T) -> Decision {
    let owner = match segment.proto {
        Proto::Tcp => by_block(segment, tables),
        Proto::Udp => by_datagram_port(segment.key.local_port, tables),
    };
    owner.unwrap_or_else(|| by_policy(segment, tables))
}

/// A port of a block is its stack's, unless somebody else has a socket there: programs may bind any port, to listen or to connect from.
/// Who does is found by the first segments of his connection, which are looked up in every block; those that follow are looked up too.
///
/// A listener of the kernel's gets SYNs alone, for the stack may have a connection from the same port. So in a block it cannot use SYN
/// cookies: the acknowledgement of one is indistinguishable from a segment of the stack's.
#[inline(always)]
fn by_block<T: Tables>(segment: &Segment, tables: &T) -> Option<Decision> {
    let key = &segment.key;
    let index = ephemeral_index(key.local_port);
    let block = tables.ephemeral(index);
    let owner = block.stack.checked_sub(1)?;
    if segment.kind != Kind::Belongs || block.shared != 0 {
        let socket = tables.kernel_socket(key);
        // Nobody connects to where a stack connected from: a SYN is for who listens, or crosses the stack's own.
        let is_for_listener = segment.kind == Kind::Opens && socket == KernelSocket::Listener;
        if socket == KernelSocket::Connection || is_for_listener {
            tables.share_block(index);
        }
        if socket == KernelSocket::Connection {
            return Some(Decision::Pass(Verdict::PassKernelFlow));
        }
        // A port that is served: the connections that the block's stack has from there are pinned.
        if is_for_listener || block.shared != 0 && is_served(key, tables) {
            return None;
        }
    }
    Some(Decision::Redirect(Verdict::RedirectEphemeral, owner))
}

/// Whether a stack has something on the port by policy.
#[inline(always)]
fn is_served<T: Tables>(key: &FlowKey, tables: &T) -> bool {
    let entry = tables.policy(policy_index(Proto::Tcp, key.local_port));
    entry.state() != PortState::Off || entry.flags & PORT_HAS_FLOWS != 0
}

/// Programs may bind any UDP port themselves, as resolvers do for every question, in our blocks too. So a port is a stack's only while
/// the stack says so; the kernel has the others, where the socket is, or the shadow of the one that was just closed.
#[inline(always)]
fn by_datagram_port<T: Tables>(port: u16, tables: &T) -> Option<Decision> {
    let stack = u32::try_from(tables.datagram_port(port)).ok()?.checked_sub(1)?;
    Some(Decision::Redirect(Verdict::RedirectEphemeral, stack))
}

/// A port with a server: exact flows first, then buckets.
#[inline(always)]
fn by_policy<T: Tables>(segment: &Segment, tables: &T) -> Decision {
    let key = &segment.key;
    let entry = tables.policy(policy_index(segment.proto, key.local_port));
    let state = entry.state();
    if state == PortState::Off && entry.flags & PORT_HAS_FLOWS == 0 {
        return Decision::Pass(Verdict::PassPolicyOff);
    }
    // SYNs are looked up too: one that the kernel's half-open or TIME-WAIT socket will answer must reach that socket, or the rest of the
    // handshake, which is looked up as well, would go elsewhere. While a port drains, the kernel accepts anew: the flag is implied.
    let may_be_kernels = entry.flags & PORT_KERNEL_FLOWS != 0 || state == PortState::Draining;
    if may_be_kernels && segment.proto == Proto::Tcp && tables.kernel_socket(key) == KernelSocket::Connection {
        return Decision::Pass(Verdict::PassKernelFlow);
    }
    if let Some(stack) = tables.flow(key) {
        return Decision::Redirect(Verdict::RedirectFlow, stack);
    }
    // A datagram has no SYN: on a draining port only exact flows still count as ours.
    let is_new = segment.kind == Kind::Opens || segment.proto == Proto::Udp;
    match state {
        PortState::Off => Decision::Pass(Verdict::PassPolicyOff),
        PortState::Draining if is_new => Decision::Pass(Verdict::PassDraining),
        PortState::Draining | PortState::On => by_bucket(key, entry.group, tables),
    }
}

#[inline(always)]
fn by_bucket<T: Tables>(key: &FlowKey, group: u16, tables: &T) -> Decision {
    match tables.bucket(bucket_index(group, bucket_of(key))) {
        NO_STACK => Decision::Pass(Verdict::PassNoStack),
        entry => Decision::Redirect(Verdict::RedirectBucket, entry - 1),
    }
}

/// The bucket of a flow, 0..[`BUCKETS_PER_GROUP`](crate::maps::BUCKETS_PER_GROUP). The daemon and the engine compute the same, to know
/// which live flows to pin before a bucket moves.
///
/// A multiply-and-fold over the 4-tuple. It need not resist an adversary: who can choose tuples could aim at one stack through any
/// unkeyed hash, and through most receive-side-scaling keys, too.
#[must_use]
#[inline(always)]
pub fn bucket_of(key: &FlowKey) -> u32 {
    let ports = u64::from(key.local_port) << 16 | u64::from(key.remote_port);
    let mut hash = ports | u64::from(key.proto) << 32;
    hash = mix(hash, word::<0>(&key.local));
    hash = mix(hash, word::<8>(&key.local));
    hash = mix(hash, word::<0>(&key.remote));
    hash = mix(hash, word::<8>(&key.remote));
    (hash >> 56) as u32
}

#[inline(always)]
pub(crate) fn mix(hash: u64, word: u64) -> u64 {
    // An odd constant with no pattern in its bits: 2^64 divided by the golden ratio.
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
}

/// Eight address bytes as a number; little-endian everywhere, so that every machine agrees on buckets.
#[inline(always)]
pub(crate) fn word<const AT: usize>(address: &[u8; 16]) -> u64 {
    const { assert!(AT + 7 < 16) };
    u64::from_le_bytes([
        address[AT],
        address[AT + 1],
        address[AT + 2],
        address[AT + 3],
        address[AT + 4],
        address[AT + 5],
        address[AT + 6],
        address[AT + 7],
    ])
}

#[cfg(test)]
#[path = "steer_tests.rs"]
mod tests;
