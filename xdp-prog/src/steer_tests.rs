//! The decision, rule by rule, over tables that are plain collections.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::frames::{self, ACK, SYN};
use crate::maps::{BUCKETS_PER_GROUP, ipv4_mapped};

const US: [u8; 4] = [10, 0, 0, 1];
const THEM: [u8; 4] = [10, 0, 0, 2];
const GROUP: u16 = 9;

/// Maps as the daemon might have filled them.
#[derive(Default)]
struct Fake {
    local: HashSet<[u8; 16]>,
    ephemeral: HashMap<u32, u32>,
    policy: HashMap<u32, PortEntry>,
    flows: HashMap<FlowKey, u32>,
    buckets: HashMap<u32, u32>,
    kernel: HashMap<FlowKey, KernelSocket>,
}

impl Tables for Fake {
    fn is_local(&self, address: &[u8; 16]) -> bool {
        self.local.contains(address)
    }

    fn ephemeral(&self, index: u32) -> u32 {
        self.ephemeral.get(&index).copied().unwrap_or_default()
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

    fn kernel_socket(&self, key: &FlowKey) -> KernelSocket {
        assert_eq!(key.proto, 6, "only TCP is looked up in the kernel");
        self.kernel.get(key).copied().unwrap_or(KernelSocket::None)
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
    let mut tables = tables(PortState::Off, 0);
    tables.ephemeral.insert(ephemeral_index(80), 5 + 1);
    for frame in [tcp(SYN | ACK), tcp(SYN), tcp(ACK), udp()] {
        assert_eq!(decided(&frame, &tables), to(Verdict::RedirectEphemeral));
    }
    assert_eq!(decided(&quoting(), &tables), to(Verdict::RedirectIcmp));
}

#[test]
fn a_shared_ephemeral_block_leaves_the_kernel_whatever_socket_it_has() {
    let mut tables = tables(PortState::Off, 0);
    tables.ephemeral.insert(ephemeral_index(80), (5 + 1) | EPHEMERAL_KERNEL_FLOWS);
    assert_eq!(decided(&tcp(ACK), &tables), to(Verdict::RedirectEphemeral));
    assert_eq!(decided(&udp(), &tables), to(Verdict::RedirectEphemeral));
    for socket in [KernelSocket::Listener, KernelSocket::Connection] {
        tables.kernel.insert(key(Proto::Tcp), socket);
        assert_eq!(decided(&tcp(ACK), &tables), pass(Verdict::PassKernelFlow));
        assert_eq!(decided(&quoting(), &tables), pass(Verdict::PassIcmp));
    }
    // The flag alone names no stack.
    tables.ephemeral.insert(ephemeral_index(80), EPHEMERAL_KERNEL_FLOWS);
    assert_eq!(decided(&tcp(ACK), &tables), pass(Verdict::PassPolicyOff));
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
