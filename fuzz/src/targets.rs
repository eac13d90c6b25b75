//! What is fuzzed: functions of octets that panic when something is wrong.

use sidestep_stack::addr::{Ip, Mac};
use sidestep_stack::link::Family;
use sidestep_stack::testing::torture;
use sidestep_stack::wire::{ethernet, fragment, icmp, ipv4, ipv6, tcp, udp};
use sidestep_stack::{ip, link};
use sidestep_xdp::maps::{BlockEntry, FlowKey, PortEntry};
use sidestep_xdp::steer::{Decision, KernelSocket, Tables, steer};

/// One target.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&[u8]),
}

pub(crate) const ALL: &[Target] = &[
    Target { name: "ethernet", run: fuzz_ethernet },
    Target { name: "ipv4", run: fuzz_ipv4 },
    Target { name: "ipv6", run: fuzz_ipv6 },
    Target { name: "fragment", run: fuzz_fragment },
    Target { name: "tcp", run: fuzz_tcp },
    Target { name: "udp", run: fuzz_udp },
    Target { name: "icmp", run: fuzz_icmp },
    Target { name: "steer", run: fuzz_steer },
    Target { name: "connection", run: fuzz_connection },
];

fn fuzz_ethernet(data: &[u8]) {
    let ours = Mac([2, 0, 0, 0, 0, 1]);
    if let Ok(received) = link::receive(data, ours) {
        assert!(matches!(received.family, Family::V4 | Family::V6));
        let header = ethernet::parse(data).expect("it was received");
        let mut out = vec![0; header.len()];
        ethernet::emit(&header, &mut out);
        // Priority bits are not kept: it is the same header all the same.
        assert_eq!(ethernet::parse(&out), Some(header));
    }
}

fn fuzz_ipv4(data: &[u8]) {
    let _ = ipv4::parse_quoted(data);
    if let Ok(packet) = ipv4::parse(data) {
        assert!(packet.payload_off >= 20 && packet.payload_off + packet.payload_len <= data.len());
    }
    let _ = ip::receive(data, 0, Family::V4);
}

fn fuzz_ipv6(data: &[u8]) {
    let _ = ipv6::parse_quoted(data);
    if let Ok(packet) = ipv6::parse(data) {
        assert!(packet.payload_off >= 40 && packet.payload_off + packet.payload_len <= data.len());
    }
    let _ = ip::receive(data, 0, Family::V6);
}

/// A first fragment that is called whole is a packet of as many octets from and to the same.
fn fuzz_fragment(data: &[u8]) {
    for family in [Family::V4, Family::V6] {
        let Ok(first) = fragment::parse(data, family) else { continue };
        assert!(first.at + usize::from(first.len) <= data.len());
        let mut whole = data.to_vec();
        let len = fragment::make_whole(&mut whole, &first, first.len.into(), 0);
        match family {
            Family::V4 => {
                let again = fragment::parse(&whole[..len], family).expect("a packet of one part");
                assert_eq!(again, fragment::Fragment { offset: 0, more: false, ..first });
            }
            Family::V6 => {
                assert_eq!(len, ipv6::HEADER_LEN + usize::from(first.len));
                assert_eq!((whole[6], &whole[8..40]), (first.protocol, &data[8..40]));
                assert_eq!(&whole[ipv6::HEADER_LEN..len], &data[first.at..first.at + usize::from(first.len)]);
            }
        }
    }
}

/// What was read and sealed has a right checksum.
fn fuzz_udp(data: &[u8]) {
    let Ok(header) = udp::parse(data) else { return };
    let (src, dst) = (Ip::v4([10, 0, 0, 1]), Ip::v4([10, 0, 0, 2]));
    let _ = udp::is_checksum_right(&src, &dst, data, true);
    let mut out = data[..udp::HEADER_LEN + usize::from(header.payload_len)].to_vec();
    out[udp::CHECKSUM_AT..udp::HEADER_LEN].fill(0);
    udp::seal(&src, &dst, &mut out, true);
    assert!(udp::is_checksum_right(&src, &dst, &out, false));
    assert_eq!(udp::parse(&out), Ok(header));
}

/// What was read can be written, and reads the same.
fn fuzz_tcp(data: &[u8]) {
    let _ = tcp::ports(data);
    let Ok(segment) = tcp::parse(data, 100) else { return };
    let (off, len) = (usize::from(segment.payload_off), usize::from(segment.payload_len));
    assert_eq!(off + len, 100 + data.len());
    let options = segment.options;
    let header = tcp::Header {
        seq: segment.seq,
        ack: segment.ack,
        flags: segment.flags,
        window: segment.window,
        urgent: segment.urgent,
        mss: options.mss,
        window_scale: options.window_scale,
        timestamp: options.timestamp,
        sack_permitted: options.sack_permitted,
        sack: options.sack,
        fast_open: options.fast_open,
        ..tcp::Header::default()
    };
    if header.len() <= tcp::HEADER_LEN_MAX {
        let mut out = [0; tcp::HEADER_LEN_MAX];
        let n = tcp::emit(&header, &mut out);
        let again = tcp::parse(&out[..n], 0).expect("our own header");
        assert_eq!(
            (again.seq, again.ack, again.flags, again.options),
            (segment.seq, segment.ack, segment.flags, options)
        );
    }
}

fn fuzz_icmp(data: &[u8]) {
    let (a, b) = (Ip::v4([10, 0, 0, 1]), Ip::v4([10, 0, 0, 2]));
    let _ = icmp::parse_v4(data);
    let _ = icmp::parse_v6(data, &a, &b);
    // Nearly nothing has a right checksum by chance: it is put right.
    if data.len() >= 4 {
        let mut fixed = data.to_vec();
        fixed[2..4].fill(0);
        let sum = sidestep_stack::wire::checksum::Sum::ZERO.add_bytes(&fixed).checksum();
        fixed[2..4].copy_from_slice(&sum.to_be_bytes());
        let _ = icmp::parse_v4(&fixed);
        fixed[2..4].fill(0);
        let pseudo = sidestep_stack::wire::checksum::Sum::pseudo_header(&a, &b, 58, data.len() as u16);
        let sum = pseudo.add_bytes(&fixed).checksum();
        fixed[2..4].copy_from_slice(&sum.to_be_bytes());
        let _ = icmp::parse_v6(&fixed, &a, &b);
    }
}

/// Tables whose answers come from a few octets of the input.
struct Drawn(u64);

impl Drawn {
    fn bits(&self, salt: u64) -> u32 {
        ((self.0 ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32
    }
}

impl Tables for Drawn {
    fn is_local(&self, address: &[u8; 16]) -> bool {
        self.bits(u64::from(address[15])) % 4 != 0
    }

    fn ephemeral(&self, index: u32) -> BlockEntry {
        let bits = self.bits(u64::from(index));
        match bits % 4 {
            0 => BlockEntry { stack: self.bits(u64::from(index) + 1), shared: bits >> 8 & 1 },
            _ => BlockEntry::default(),
        }
    }

    fn share_block(&self, _index: u32) {}

    fn datagram_port(&self, port: u16) -> u64 {
        u64::from(self.bits(u64::from(port) << 12)) % 3 * u64::from(self.bits(u64::from(port)))
    }

    fn fragments(&self, packet: u64) -> Option<u32> {
        let bits = self.bits(packet);
        (bits % 2 == 0).then_some(bits)
    }

    fn note_fragments(&self, _packet: u64, _stack: Option<u32>) {}

    fn policy(&self, index: u32) -> PortEntry {
        let bits = self.bits(u64::from(index) ^ 0xabc);
        PortEntry { state: bits as u8 % 4, flags: (bits >> 8) as u8, group: (bits >> 16) as u16 }
    }

    fn flow(&self, key: &FlowKey) -> Option<u32> {
        let bits = self.bits(u64::from(key.remote_port) << 20);
        (bits % 3 == 0).then_some(bits)
    }

    fn bucket(&self, index: u32) -> u32 {
        self.bits(u64::from(index) << 8) % 5
    }

    fn kernel_socket(&self, key: &FlowKey) -> KernelSocket {
        assert_eq!(key.proto, 6, "only TCP is looked up in the kernel");
        match self.bits(u64::from(key.local_port)) % 3 {
            0 => KernelSocket::None,
            1 => KernelSocket::Listener,
            _ => KernelSocket::Connection,
        }
    }
}

/// Any decision will do, but the same packet meets the same one.
fn fuzz_steer(data: &[u8]) {
    let Some((seed, packet)) = data.split_first_chunk::<4>() else { return };
    let tables = Drawn(u64::from(u32::from_be_bytes(*seed)));
    let decide = |vlan| match steer(&packet, &tables, vlan) {
        Decision::Pass(_) => None,
        Decision::Redirect(_, stack) => Some(stack),
    };
    assert_eq!(decide(true), decide(true));
    decide(false);
}

fn fuzz_connection(data: &[u8]) {
    if let Err(why) = torture(data) {
        panic!("{why}");
    }
}
