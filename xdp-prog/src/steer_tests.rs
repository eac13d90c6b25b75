//! The decision, rule by rule, over tables that are plain collections.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use super::*;
use crate::frames::{self, ACK, RST, SYN};
use crate::maps::{BUCKETS_PER_GROUP, ipv4_mapped};

const US: [u8; 4] = [10, 0, 0, 1];
const THEM: [u8; 4] = [10, 0, 0, 2];
const GROUP: u16 = 9;

/// Maps as the daemon might have filled them.
#[derive(Default)]
struct Fake {
    local: HashSet<[u8; 16]>,
    ephemeral: RefCell<HashMap<u32, BlockEntry>>,
    datagram_ports: HashMap<u16, u64>,
    policy: HashMap<u32, PortEntry>,
    flows: HashMap<FlowKey, u32>,
    buckets: HashMap<u32, u32>,
    fragments: RefCell<HashMap<u64, u32>>,
    kernel: HashMap<FlowKey, KernelSocket>,
}

impl Tables for Fake {
    fn is_local(&self, address: &[u8; 16]) -> bool {
        self.local.contains(address)
    }

    fn ephemeral(&self, index: u32) -> BlockEntry {
        self.ephemeral.borrow().get(&index).copied().unwrap_or_default()
    }

    fn share_block(&self, index: u32) {
        self.ephemeral.borrow_mut().entry(index).or_default().shared = 1;
    }

    fn datagram_port(&self, port: u16) -> u64 {
        self.datagram_ports.get(&port).copied().unwrap_or_default()
    }

    fn policy(&self, index: u32) -> PortEntry {
        self.policy.get(&index).copied().unwrap_or_default()
    }

    fn flow(&self, key: &FlowKey) -> Option<u32> {
        self.flows.get(key).copied()
    }

    fn bucket(&self, index: u32) -> u32 {
        self.buckets.get(&index).copied().unwrap_or_default()
    }

    fn fragments(&self, packet: u64) -> Option<u32> {
        self.fragments.borrow().get(&packet).copied()
    }

    fn note_fragments(&self, packet: u64, stack: Option<u32>) {
        match stack {
            Some(stack) => self.fragments.borrow_mut().insert(packet, stack),
            None => self.fragments.borrow_mut().remove(&packet),
        };
    }

    fn kernel_socket(&self, key: &FlowKey) -> KernelSocket {
        assert_eq!(key.proto, 6, "only TCP is looked up in the kernel");
        self.kernel.get(key).copied().unwrap_or(KernelSocket::None)
    }
}

impl Fake {
    /// Port 80 is of a block of stack 5.
    fn block(&self, shared: bool) {
        self.block_of(5, shared);
    }

    fn block_of(&self, stack: u32, shared: bool) {
        self.ephemeral.borrow_mut().insert(ephemeral_index(80), BlockEntry::new(stack, shared));
    }

    fn is_shared(&self) -> bool {
        self.ephemeral(ephemeral_index(80)).shared != 0
    }
}

/// Port 80 in `state`, served by stack 5 whatever the bucket.
fn tables(state: PortState, flags: u8) -> Fake {
    let mut tables = Fake::default();
    tables.local.insert(ipv4_mapped(US));
    for proto in [Proto::Tcp, Proto::Udp] {
        let entry = PortEntry::new(state, flags, GROUP);
        tables.policy.insert(policy_index(proto, 80), entry);
    }
    for bucket in 0..BUCKETS_PER_GROUP {
        tables.buckets.insert(bucket_index(GROUP, bucket), 5 + 1);
    }
    tables
}

fn key(proto: Proto) -> FlowKey {
    FlowKey::new(proto, ipv4_mapped(US), 80, ipv4_mapped(THEM), 999)
}

fn frame(proto: u8, payload: &[u8]) -> Vec<u8> {
    frames::ethernet(0x0800, &frames::ipv4(THEM, US, proto, &[], payload))
}

fn tcp(flags: u8) -> Vec<u8> {
    frame(6, &frames::tcp(999, 80, flags))
}

fn udp() -> Vec<u8> {
    frame(17, &frames::udp(999, 80, b"x"))
}

/// "Fragmentation needed", about a segment of ours.
fn quoting() -> Vec<u8> {
    let sent = frames::ipv4(US, THEM, 6, &[], &frames::tcp(80, 999, ACK));
    frame(1, &frames::icmp(3, 4, &sent))
}

/// "Port unreachable", about a datagram of ours.
fn quoting_udp() -> Vec<u8> {
    let sent = frames::ipv4(US, THEM, 17, &[], &frames::udp(80, 999, b"x"));
    frame(1, &frames::icmp(3, 3, &sent))
}

fn decided(frame: &[u8], tables: &Fake) -> Decision {
    steer(&frame, tables, false)
}

fn pass(verdict: Verdict) -> Decision {
    Decision::Pass(verdict)
}

fn to(verdict: Verdict) -> Decision {
    Decision::Redirect(verdict, 5)
}

#[test]
fn fresh_maps_pass_everything() {
    assert_eq!(decided(&tcp(SYN), &Fake::default()), pass(Verdict::PassNotLocal));
    let mut known = Fake::default();
    known.local.insert(ipv4_mapped(US));
    assert_eq!(decided(&tcp(SYN), &known), pass(Verdict::PassPolicyOff));
    assert_eq!(decided(&udp(), &known), pass(Verdict::PassPolicyOff));
    assert_eq!(decided(&quoting(), &known), pass(Verdict::PassIcmp));
}

#[test]
fn a_port_that_is_on_takes_everything() {
    let tables = tables(PortState::On, 0);
    for frame in [tcp(SYN), tcp(ACK), udp()] {
        assert_eq!(decided(&frame, &tables), to(Verdict::RedirectBucket));
    }
    assert_eq!(decided(&quoting(), &tables), to(Verdict::RedirectIcmp));
}

#[test]
fn what_the_parser_passes_is_passed_on() {
    let tables = tables(PortState::On, 0);
    let tagged = frames::tagged(0x8100, &tcp(SYN));
    assert_eq!(decided(&tagged, &tables), pass(Verdict::PassTagged));
    assert_eq!(steer(&tagged.as_slice(), &tables, true), to(Verdict::RedirectBucket));
}

#[test]
fn an_empty_bucket_leaves_its_flows_to_the_kernel() {
    let mut tables = tables(PortState::On, 0);
    tables.buckets.insert(bucket_index(GROUP, bucket_of(&key(Proto::Tcp))), NO_STACK);
    assert_eq!(decided(&tcp(SYN), &tables), pass(Verdict::PassNoStack));
    assert_eq!(decided(&quoting(), &tables), pass(Verdict::PassIcmp));
}

#[test]
fn exact_flows_come_before_buckets_in_every_state() {
    for (state, flags) in [(PortState::On, 0), (PortState::Draining, 0), (PortState::Off, PORT_HAS_FLOWS)] {
        let mut tables = tables(state, flags);
        for proto in [Proto::Tcp, Proto::Udp] {
            tables.flows.insert(key(proto), 5);
        }
        tables.buckets.clear();
        // A SYN too: whoever has the 4-tuple answers for it.
        for frame in [tcp(SYN), tcp(ACK), udp()] {
            assert_eq!(decided(&frame, &tables), to(Verdict::RedirectFlow), "{state:?}");
        }
        assert_eq!(decided(&quoting(), &tables), to(Verdict::RedirectIcmp), "{state:?}");
    }
}

#[test]
fn a_port_that_is_off_with_flows_gives_only_those() {
    let tables = tables(PortState::Off, PORT_HAS_FLOWS);
    for frame in [tcp(SYN), tcp(ACK), udp()] {
        assert_eq!(decided(&frame, &tables), pass(Verdict::PassPolicyOff));
    }
}

#[test]
fn flows_of_a_port_that_is_plainly_off_are_not_consulted() {
    let mut tables = tables(PortState::Off, 0);
    tables.flows.insert(key(Proto::Tcp), 5);
    assert_eq!(decided(&tcp(ACK), &tables), pass(Verdict::PassPolicyOff));
}

#[test]
fn a_draining_port_keeps_the_living_and_takes_nobody_new() {
    let tables = tables(PortState::Draining, 0);
    assert_eq!(decided(&tcp(SYN), &tables), pass(Verdict::PassDraining));
    assert_eq!(decided(&udp(), &tables), pass(Verdict::PassDraining));
    assert_eq!(decided(&tcp(ACK), &tables), to(Verdict::RedirectBucket));
    assert_eq!(decided(&tcp(SYN | ACK), &tables), to(Verdict::RedirectBucket));
    assert_eq!(decided(&quoting(), &tables), to(Verdict::RedirectIcmp));
}

/// Draining asks the kernel without being told: the connections it accepts meanwhile are its own.
#[test]
fn what_the_kernel_owns_passes_while_ports_change_hands() {
    for (state, flags) in [
        (PortState::On, PORT_KERNEL_FLOWS),
        (PortState::Draining, 0),
        (PortState::Off, PORT_KERNEL_FLOWS | PORT_HAS_FLOWS),
    ] {
        let mut tables = tables(state, flags);
        tables.kernel.insert(key(Proto::Tcp), KernelSocket::Connection);
        tables.flows.insert(key(Proto::Tcp), 5);
        for frame in [tcp(SYN), tcp(ACK)] {
            assert_eq!(decided(&frame, &tables), pass(Verdict::PassKernelFlow), "{state:?}");
        }
        assert_eq!(decided(&quoting(), &tables), pass(Verdict::PassIcmp), "{state:?}");
        assert_ne!(decided(&udp(), &tables), pass(Verdict::PassKernelFlow), "{state:?}");
    }
}

#[test]
fn the_kernel_is_not_asked_about_a_port_that_is_simply_on() {
    let mut tables = tables(PortState::On, 0);
    tables.kernel.insert(key(Proto::Tcp), KernelSocket::Connection);
    assert_eq!(decided(&tcp(ACK), &tables), to(Verdict::RedirectBucket));
}

#[test]
fn a_shadow_listener_owns_nothing() {
    let mut tables = tables(PortState::On, PORT_KERNEL_FLOWS);
    tables.kernel.insert(key(Proto::Tcp), KernelSocket::Listener);
    assert_eq!(decided(&tcp(SYN), &tables), to(Verdict::RedirectBucket));
    assert_eq!(decided(&tcp(ACK), &tables), to(Verdict::RedirectBucket));
}

#[test]
fn an_ephemeral_block_belongs_to_its_stack_before_any_policy() {
    for state in [PortState::Off, PortState::On] {
        let tables = tables(state, 0);
        tables.block(false);
        for frame in [tcp(SYN | ACK), tcp(SYN), tcp(ACK), tcp(RST)] {
            assert_eq!(decided(&frame, &tables), to(Verdict::RedirectEphemeral));
        }
        assert_eq!(decided(&quoting(), &tables), to(Verdict::RedirectIcmp));
        assert!(!tables.is_shared());
    }
}

#[test]
fn a_block_decides_nothing_for_datagrams() {
    let (off, on) = (tables(PortState::Off, 0), tables(PortState::On, 0));
    for tables in [&off, &on] {
        tables.block_of(7, true);
    }
    assert_eq!(decided(&udp(), &off), pass(Verdict::PassPolicyOff));
    assert_eq!(decided(&quoting_udp(), &off), pass(Verdict::PassIcmp));
    assert_eq!(
        decided(&udp(), &on),
        to(Verdict::RedirectBucket),
        "a server's port in somebody's block is the server's"
    );
}

#[test]
fn a_port_with_a_datagram_socket_is_its_stacks_alone() {
    let mut tables = tables(PortState::Off, 0);
    tables.datagram_ports.insert(80, 5 + 1);
    assert_eq!(decided(&udp(), &tables), to(Verdict::RedirectEphemeral));
    assert_eq!(decided(&quoting_udp(), &tables), to(Verdict::RedirectIcmp));
    assert_eq!(decided(&tcp(ACK), &tables), pass(Verdict::PassPolicyOff), "it is said for UDP");
    let neighbour = frame(17, &frames::udp(999, 81, b"x"));
    assert_eq!(decided(&neighbour, &tables), pass(Verdict::PassPolicyOff), "of the same block");
    tables.datagram_ports.insert(80, 0);
    assert_eq!(decided(&udp(), &tables), pass(Verdict::PassPolicyOff), "the socket is closed");
    // Processes write the table: what no daemon would write names no stack.
    tables.datagram_ports.insert(80, 1 << 32 | 6);
    assert_eq!(decided(&udp(), &tables), pass(Verdict::PassPolicyOff));
}

#[test]
fn who_listens_in_a_block_is_found_by_a_syn_and_takes_nothing_from_the_stack() {
    let mut tables = tables(PortState::Off, 0);
    tables.block(false);
    tables.kernel.insert(key(Proto::Tcp), KernelSocket::Listener);
    assert_eq!(decided(&tcp(ACK), &tables), to(Verdict::RedirectEphemeral), "not looked up");
    assert_eq!(decided(&tcp(SYN), &tables), pass(Verdict::PassPolicyOff));
    assert!(tables.is_shared(), "what follows is looked up");
    // The handshake makes a connection of the kernel's; until then, and beside it, the stack may have one from there.
    for frame in [tcp(ACK), tcp(SYN | ACK), tcp(RST)] {
        assert_eq!(decided(&frame, &tables), to(Verdict::RedirectEphemeral));
    }
    tables.kernel.insert(key(Proto::Tcp), KernelSocket::Connection);
    for frame in [tcp(ACK), tcp(SYN), tcp(RST)] {
        assert_eq!(decided(&frame, &tables), pass(Verdict::PassKernelFlow));
    }
    assert_eq!(decided(&quoting(), &tables), pass(Verdict::PassIcmp));
}

#[test]
fn who_connects_from_a_block_is_found_by_what_answers_him() {
    for answer in [tcp(SYN | ACK), tcp(RST | ACK), quoting()] {
        let mut tables = tables(PortState::Off, 0);
        tables.block(false);
        tables.kernel.insert(key(Proto::Tcp), KernelSocket::Connection);
        assert_eq!(decided(&tcp(ACK), &tables), to(Verdict::RedirectEphemeral), "not looked up");
        assert!(matches!(decided(&answer, &tables), Decision::Pass(_)) && tables.is_shared());
        assert_eq!(decided(&tcp(ACK), &tables), pass(Verdict::PassKernelFlow));
    }
}

#[test]
fn a_port_that_is_served_in_a_block_is_its_servers() {
    let mut tables = tables(PortState::On, 0);
    tables.block_of(7, false);
    tables.kernel.insert(key(Proto::Tcp), KernelSocket::Listener); // the shadow
    assert_eq!(decided(&tcp(SYN), &tables), to(Verdict::RedirectBucket));
    assert!(tables.is_shared());
    assert_eq!(decided(&tcp(ACK), &tables), to(Verdict::RedirectBucket));
    tables.flows.insert(key(Proto::Tcp), 5);
    assert_eq!(decided(&tcp(ACK), &tables), to(Verdict::RedirectFlow), "the connection of a stack that connects");
    tables.policy.insert(policy_index(Proto::Tcp, 80), PortEntry::new(PortState::Off, PORT_HAS_FLOWS, GROUP));
    assert_eq!(decided(&tcp(ACK), &tables), to(Verdict::RedirectFlow));
    assert_eq!(decided(&tcp(SYN), &tables), to(Verdict::RedirectFlow));
}

#[test]
fn the_mark_alone_names_no_stack() {
    let tables = tables(PortState::Off, 0);
    tables.share_block(ephemeral_index(80));
    assert_eq!(decided(&tcp(ACK), &tables), pass(Verdict::PassPolicyOff));
}

/// Two fragments of a segment to port 80, and one that nothing follows, of IPv4.
fn fragments4(port: u16, proto: u8) -> [Vec<u8>; 3] {
    [(0x2000, frames::tcp(999, port, ACK)), (0x2003, vec![7; 24]), (0x0006, vec![8; 9])].map(
        |(place, payload): (u16, _)| {
            let mut packet = frames::ipv4(THEM, US, proto, &[], &payload);
            packet[4..6].copy_from_slice(&[0x12, 0x34]);
            packet[6..8].copy_from_slice(&place.to_be_bytes());
            frames::ethernet(0x0800, &packet)
        },
    )
}

/// The same of IPv6.
fn fragments6(us: [u8; 16], them: [u8; 16]) -> [Vec<u8>; 3] {
    [(1u16, frames::tcp(999, 80, ACK)), (24 | 1, vec![7; 24]), (48, vec![8; 9])].map(|(place, payload)| {
        let mut extension = vec![6, 0];
        extension.extend(place.to_be_bytes());
        extension.extend([0, 1, 2, 3]);
        extension.extend(payload);
        frames::ethernet(0x86dd, &frames::ipv6(them, us, 44, &extension))
    })
}

#[test]
fn tcp_fragments_follow_their_first() {
    let mut tables = tables(PortState::On, 0);
    let (us, them) = ([0x20; 16], [0x21; 16]);
    tables.local.insert(us);
    for [first, middle, last] in [fragments4(80, 6), fragments6(us, them)] {
        assert_eq!(decided(&middle, &tables), pass(Verdict::PassFragment), "overtook the first");
        assert_eq!(decided(&first, &tables), to(Verdict::RedirectFragment));
        assert_eq!(decided(&middle, &tables), to(Verdict::RedirectFragment));
        assert_eq!(decided(&last, &tables), to(Verdict::RedirectFragment));
        assert!(tables.fragments.borrow().is_empty(), "the identification is free for another flow");
        assert_eq!(decided(&middle, &tables), pass(Verdict::PassFragment));
        for len in 14..first.len() {
            let decision = decided(&first[..len], &tables);
            assert!(matches!(decision, Decision::Pass(_)), "cut at {len}: {decision:?}");
        }
    }
}

#[test]
fn fragments_that_are_not_ours_pass() {
    let mut tables = tables(PortState::On, PORT_KERNEL_FLOWS);
    tables.kernel.insert(key(Proto::Tcp), KernelSocket::Connection);
    // A note that was left by a packet of the same identification does not lead the kernel's fragments astray.
    let left = crate::fragment::packet_of(&ipv4_mapped(US), &ipv4_mapped(THEM), 0x1234);
    for (port, proto) in [(80, 6), (81, 6), (80, 17)] {
        let noted = if proto == 6 { Some(5) } else { None };
        tables.note_fragments(left, noted);
        for fragment in fragments4(port, proto) {
            assert_eq!(decided(&fragment, &tables), pass(Verdict::PassFragment), "{port} {proto}");
        }
    }
    let elsewhere = Fake::default();
    assert_eq!(decided(&fragments4(80, 6)[0], &elsewhere), pass(Verdict::PassFragment));
}

/// The daemon, the engine and the object in the kernel must agree on buckets for as long as flows live: these numbers are ABI.
#[test]
fn buckets_are_what_they_always_were() {
    let v6 = FlowKey::new(Proto::Udp, [0x20; 16], 53, [0x30; 16], 5353);
    assert_eq!([bucket_of(&key(Proto::Tcp)), bucket_of(&key(Proto::Udp)), bucket_of(&v6)], [152, 255, 243]);
}

/// Clients differ in little: neighbouring ports, neighbouring addresses. All of it must spread.
#[test]
fn buckets_spread_neighbouring_flows_evenly() {
    let ports = |n: u16| FlowKey::new(Proto::Tcp, ipv4_mapped(US), 80, ipv4_mapped(THEM), 32_768 + n);
    let even_ports = |n: u16| FlowKey::new(Proto::Tcp, ipv4_mapped(US), 80, ipv4_mapped(THEM), 2 * n);
    let hosts = |n: u16| {
        let [high, low] = n.to_be_bytes();
        FlowKey::new(Proto::Tcp, ipv4_mapped(US), 80, ipv4_mapped([10, 9, high, low]), 40_000)
    };
    let hosts6 = |n: u16| {
        let mut remote = [0x20; 16];
        remote[14..].copy_from_slice(&n.to_be_bytes());
        FlowKey::new(Proto::Tcp, [0x21; 16], 443, remote, 40_000)
    };
    let families: [&dyn Fn(u16) -> FlowKey; 4] = [&ports, &even_ports, &hosts, &hosts6];
    for (number, family) in families.iter().enumerate() {
        let mut filled = vec![0; BUCKETS_PER_GROUP as usize];
        (0..25_600).for_each(|n| filled[bucket_of(&family(n)) as usize] += 1);
        let (least, most) = (filled.iter().min(), filled.iter().max());
        // 100 expected in each; random placement stays within about four standard deviations, 60 to 140.
        assert!(least >= Some(&50) && most <= Some(&150), "family {number}: {least:?}..{most:?}");
    }
}
