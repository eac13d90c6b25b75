//! The map ABI: what the XDP program and the daemon agree on, as plain types.
//!
//! Every map of the program is listed in [`names`]; its key and value types are here. All integers are in host byte order
//! unless a field says otherwise, and addresses are the 16 bytes of the wire (IPv4 as `::ffff:a.b.c.d`).
//! Each type that crosses the boundary has `to_bytes`/`from_bytes`, so a loader can hand plain byte arrays to its map library
//! and needs no unsafe code to do it.

/// Bumped when anything in this file changes meaning. The daemon writes it to [`Config::abi`], and compares it before it takes over
/// pinned maps of another build.
pub const ABI_VERSION: u32 = 3;

/// Stacks per device: the slots in [`names::XSKS`] are `MAX_STACKS * MAX_QUEUES`.
pub const MAX_STACKS: u32 = 64;
/// Receive queues per device that can be steered.
pub const MAX_QUEUES: u32 = 64;
/// Groups per device: sets of stacks that serve one listening port.
pub const MAX_GROUPS: u32 = 256;
/// Buckets over which a group spreads its flows.
pub const BUCKETS_PER_GROUP: u32 = 256;
/// log2 of the ports in one ephemeral block: blocks of 256 ports are handed to stacks that open connections.
pub const EPHEMERAL_BLOCK_BITS: u32 = 8;
/// Ephemeral blocks in the whole port range: the entries of [`names::EPHEMERAL`].
pub const EPHEMERAL_BLOCKS: u32 = 65_536 >> EPHEMERAL_BLOCK_BITS;
/// Entries of [`names::DATAGRAM_PORTS`]: every port.
pub const DATAGRAM_PORTS: u32 = 65_536;
/// Exact-match flows per device.
pub const MAX_FLOWS: u32 = 65_536;
/// TCP packets of which the first fragment was seen, and not yet the last: the longest unused gives way.
pub const MAX_FRAGMENTED: u32 = 1024;
/// Local addresses per device.
pub const MAX_LOCAL: u32 = 1024;
/// Entries of [`names::POLICY`]: every port of every protocol.
pub const POLICY_ENTRIES: u32 = 2 * 65_536;

/// "No stack" in [`BlockEntry::stack`], [`names::DATAGRAM_PORTS`] and [`names::BUCKETS`], which hold `stack + 1` so that a fresh, zeroed map steers nothing.
pub const NO_STACK: u32 = 0;

/// The names of the maps and of the program inside the object.
pub mod names {
    /// `Array[1]` of [`Config`](super::Config).
    pub const CONFIG: &str = "CONFIG";
    /// `XskMap[MAX_STACKS * MAX_QUEUES]`; see [`xsk_index`](super::xsk_index).
    pub const XSKS: &str = "XSKS";
    /// `Array[256]` of [`BlockEntry`](super::BlockEntry), by `local port >> 8`. For TCP alone.
    pub const EPHEMERAL: &str = "EPHEMERAL";
    /// `Array[65536]` of `u64`, mappable, by local UDP port: `stack + 1`, or 0. A stack writes the entry of a port of its blocks while it
    /// has a socket there. The block alone decides nothing for UDP: any program may bind a port in it, and that one is the kernel's.
    /// (The kernel keeps elements of an array eight bytes apart, so a mapping is a plain slice of these.)
    pub const DATAGRAM_PORTS: &str = "DATAGRAM_PORTS";
    /// `Array[2 * 65536]` of [`PortEntry`](super::PortEntry); see [`policy_index`](super::policy_index).
    pub const POLICY: &str = "POLICY";
    /// `Array[MAX_GROUPS * BUCKETS_PER_GROUP]` of `u32`: `stack + 1`, or 0; see [`bucket_index`](super::bucket_index).
    pub const BUCKETS: &str = "BUCKETS";
    /// `Hash` (not preallocated) of [`FlowKey`](super::FlowKey) to `u32`: the stack itself, not `stack + 1`.
    pub const FLOWS: &str = "FLOWS";
    /// `LruHash` of `u64` to `u32`: a packet that comes in fragments ([`packet_of`](crate::fragment::packet_of)) to the stack itself. The
    /// program's own notes.
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// `Hash` of `[u8; 16]` to `u32`: the addresses of the device. The value is reserved; write 1.
    pub const LOCAL: &str = "LOCAL";
    /// `PerCpuArray` of `u64`, by [`Verdict`](super::Verdict).
    pub const COUNTERS: &str = "COUNTERS";
    /// The XDP program.
    pub const PROGRAM: &str = "steer";
}

/// The two protocols that are steered, numbered as [`policy_index`] wants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Proto {
    /// IP protocol 6.
    Tcp = 0,
    /// IP protocol 17.
    Udp = 1,
}

impl Proto {
    /// The number in the IP header, which is also the one in [`FlowKey::proto`].
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Proto::Tcp => 6,
            Proto::Udp => 17,
        }
    }
}

/// Device-wide settings. An all-zero `CONFIG` (queues = 0) makes the program pass everything.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Receive queues of the device, 1..=[`MAX_QUEUES`]; the stride of [`xsk_index`]. 0: not configured, pass everything.
    pub queues: u32,
    /// `CONFIG_*` bits.
    pub flags: u32,
    /// [`ABI_VERSION`] of the daemon that wrote this. The program ignores it.
    pub abi: u32,
    /// Zero.
    pub reserved: u32,
}

/// [`Config::flags`]: the engine understands VLAN tags, so tagged frames may be steered; otherwise they pass.
pub const CONFIG_VLAN_OK: u32 = 1 << 0;

/// Whose a block of ephemeral ports is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockEntry {
    /// The stack that opens connections from it, + 1, or 0.
    pub stack: u32,
    /// Not 0: others have sockets on ports of this block, too, in the kernel or in other stacks (listeners, connections from a port that
    /// was asked for, connections older than the block), so every TCP packet is looked up. The program sets it when it finds one; the
    /// daemon clears it when there is none any more. A word of its own, so that neither undoes what the other writes to `stack`.
    pub shared: u32,
}

impl BlockEntry {
    /// The block of a stack.
    #[must_use]
    pub const fn new(stack: u32, shared: bool) -> Self {
        Self { stack: stack + 1, shared: shared as u32 }
    }
}

/// What the operator wants with a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum PortState {
    /// The kernel's.
    #[default]
    Off = 0,
    /// Ours, old and new connections alike.
    On = 1,
    /// Being switched off: new connections go to the kernel, live ones stay with their stack.
    Draining = 2,
}

/// The policy of one (protocol, port).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortEntry {
    /// A [`PortState`]; any other value counts as off.
    pub state: u8,
    /// `PORT_*` bits.
    pub flags: u8,
    /// The group whose buckets serve this port, < [`MAX_GROUPS`].
    pub group: u16,
}

/// [`PortEntry::flags`]: the kernel may still own connections on this TCP port, so each packet is looked up with
/// `bpf_skc_lookup_tcp` first, and what a kernel socket other than a listener owns passes. A draining port behaves as if it were set,
/// because the kernel is accepting connections on it again. Without meaning for UDP.
pub const PORT_KERNEL_FLOWS: u8 = 1 << 0;
/// [`PortEntry::flags`]: look in `FLOWS` although the port is off, for the connections of a dead or closing server that still
/// have to finish. (`FLOWS` is always consulted when the port is on or draining.)
pub const PORT_HAS_FLOWS: u8 = 1 << 1;

impl PortEntry {
    /// An entry in `state`, served by `group`.
    #[must_use]
    pub const fn new(state: PortState, flags: u8, group: u16) -> Self {
        Self { state: state as u8, flags, group }
    }

    /// The state, read defensively: an unknown value is off.
    #[must_use]
    pub const fn state(self) -> PortState {
        match self.state {
            1 => PortState::On,
            2 => PortState::Draining,
            _ => PortState::Off,
        }
    }
}

/// One connection, seen from this host. Ports in host order; unused bytes zero, since the kernel hashes them too.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Our address.
    pub local: [u8; 16],
    /// The peer's address.
    pub remote: [u8; 16],
    /// Our port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
    /// IP protocol number: [`Proto::number`].
    pub proto: u8,
    /// Zero.
    pub pad: [u8; 3],
}

impl FlowKey {
    /// A key with its padding cleared.
    #[must_use]
    #[inline(always)]
    pub const fn new(proto: Proto, local: [u8; 16], local_port: u16, remote: [u8; 16], remote_port: u16) -> Self {
        Self { local, remote, local_port, remote_port, proto: proto.number(), pad: [0; 3] }
    }

    /// Whether this is an IPv4 flow. Unambiguous, because the program never steers IPv6 packets that carry IPv4-mapped addresses.
    #[must_use]
    #[inline(always)]
    pub const fn is_ipv4(&self) -> bool {
        is_ipv4_mapped(&self.local)
    }
}

/// Whether 16 address bytes are `::ffff:a.b.c.d`.
#[must_use]
#[inline(always)]
pub const fn is_ipv4_mapped(address: &[u8; 16]) -> bool {
    matches!(address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, _, _, _, _])
}

/// The 16-byte form of an IPv4 address.
#[must_use]
#[inline(always)]
pub const fn ipv4_mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// Where the XSK of (`stack`, receive queue) sits in `XSKS`.
#[must_use]
#[inline(always)]
pub const fn xsk_index(stack: u32, queues: u32, queue: u32) -> u32 {
    stack * queues + queue
}

/// Where (protocol, local port) sits in `POLICY`.
#[must_use]
#[inline(always)]
pub const fn policy_index(proto: Proto, port: u16) -> u32 {
    ((proto as u32) << 16) | port as u32
}

/// Where (group, bucket) sits in `BUCKETS`.
#[must_use]
#[inline(always)]
pub const fn bucket_index(group: u16, bucket: u32) -> u32 {
    group as u32 * BUCKETS_PER_GROUP + bucket
}

/// Where a local port's block sits in `EPHEMERAL`.
#[must_use]
#[inline(always)]
pub const fn ephemeral_index(port: u16) -> u32 {
    (port as u32) >> EPHEMERAL_BLOCK_BITS
}

/// Byte images of the map values and keys, exactly as the kernel stores them on this machine.
mod bytes {
    use super::{BlockEntry, Config, FlowKey, PortEntry};

    impl Config {
        /// The bytes of this value in the map.
        #[must_use]
        pub fn to_bytes(self) -> [u8; 16] {
            let mut out = [0; 16];
            for (chunk, word) in out.chunks_exact_mut(4).zip([self.queues, self.flags, self.abi, self.reserved]) {
                chunk.copy_from_slice(&word.to_ne_bytes());
            }
            out
        }

        /// The value those bytes are.
        #[must_use]
        pub fn from_bytes(bytes: [u8; 16]) -> Self {
            let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            Self { queues: word(0), flags: word(4), abi: word(8), reserved: word(12) }
        }
    }

    impl BlockEntry {
        /// The bytes of this value in the map.
        #[must_use]
        pub fn to_bytes(self) -> [u8; 8] {
            let mut out = [0; 8];
            out[..4].copy_from_slice(&self.stack.to_ne_bytes());
            out[4..].copy_from_slice(&self.shared.to_ne_bytes());
            out
        }

        /// The value those bytes are.
        #[must_use]
        pub fn from_bytes([a, b, c, d, e, f, g, h]: [u8; 8]) -> Self {
            Self { stack: u32::from_ne_bytes([a, b, c, d]), shared: u32::from_ne_bytes([e, f, g, h]) }
        }
    }

    impl PortEntry {
        /// The bytes of this value in the map.
        #[must_use]
        pub fn to_bytes(self) -> [u8; 4] {
            let group = self.group.to_ne_bytes();
            [self.state, self.flags, group[0], group[1]]
        }

        /// The value those bytes are.
        #[must_use]
        pub fn from_bytes([state, flags, low, high]: [u8; 4]) -> Self {
            Self { state, flags, group: u16::from_ne_bytes([low, high]) }
        }
    }

    impl FlowKey {
        /// The bytes of this key in the map.
        #[must_use]
        pub fn to_bytes(&self) -> [u8; 40] {
            let mut out = [0; 40];
            out[..16].copy_from_slice(&self.local);
            out[16..32].copy_from_slice(&self.remote);
            out[32..34].copy_from_slice(&self.local_port.to_ne_bytes());
            out[34..36].copy_from_slice(&self.remote_port.to_ne_bytes());
            out[36] = self.proto;
            out
        }

        /// The key those bytes are.
        #[must_use]
        pub fn from_bytes(bytes: &[u8; 40]) -> Self {
            let mut key = Self { proto: bytes[36], ..Self::default() };
            key.local.copy_from_slice(&bytes[..16]);
            key.remote.copy_from_slice(&bytes[16..32]);
            key.local_port = u16::from_ne_bytes([bytes[32], bytes[33]]);
            key.remote_port = u16::from_ne_bytes([bytes[34], bytes[35]]);
            key
        }
    }
}

/// Declares [`Verdict`] with its counter names and sentences, so that a verdict without an explanation cannot exist.
macro_rules! verdicts {
    ($($variant:ident = $name:literal, $sentence:literal;)*) => {
        /// What became of a packet. Also the index of its counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Verdict {
            $(#[doc = $sentence] $variant,)*
        }

        impl Verdict {
            /// Every verdict, in the order of the counters.
            pub const ALL: &[Verdict] = &[$(Verdict::$variant,)*];
            /// How many there are: the entries of `COUNTERS`.
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// The counter's name, for tools and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Verdict::$variant => $name,)* }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn describe(self) -> &'static str {
                match self { $(Verdict::$variant => $sentence,)* }
            }
        }
    };
}

verdicts! {
    PassNotConfigured = "pass_not_configured", "The daemon has not configured the program yet, so everything passes to the kernel.";
    PassNotIp = "pass_not_ip", "Neither IPv4 nor IPv6 (ARP, for instance), or no whole Ethernet header.";
    PassTagged = "pass_tagged", "Carries a VLAN tag, which the engine does not understand.";
    PassFragment = "pass_fragment", "A fragment of an IP packet that is not a user-mode TCP flow's; the kernel reassembles.";
    PassMalformed = "pass_malformed", "Truncated, or a header that contradicts itself; the kernel decides what to do with it.";
    PassOptionsOdd = "pass_options_odd", "More IPv6 extension headers than the program walks, or one it does not know.";
    PassNotLocal = "pass_not_local", "Not addressed to an address of this device: forwarded, multicast or broadcast traffic.";
    PassProtocol = "pass_protocol", "Neither TCP nor UDP nor ICMP.";
    PassIcmp = "pass_icmp", "ICMP that quotes no packet of a user-mode flow: echo, neighbour discovery, errors for kernel flows.";
    PassPolicyOff = "pass_policy_off", "The destination port is not switched on.";
    PassDraining = "pass_draining", "A new connection (or a datagram of no known flow) for a port that is being switched off.";
    PassNoStack = "pass_no_stack", "The port is on, but nobody serves this bucket of its group.";
    PassKernelFlow = "pass_kernel_flow", "Belongs to a kernel socket that was there before the port was switched.";
    PassRedirectFailed = "pass_redirect_failed", "A stack was chosen, but it has no AF_XDP socket on this receive queue.";
    RedirectEphemeral = "redirect_ephemeral", "To the stack that has this ephemeral port: by its block for TCP, alone for UDP.";
    RedirectFlow = "redirect_flow", "To the stack that an exact-match flow names.";
    RedirectBucket = "redirect_bucket", "To the stack that serves this bucket of the port's group.";
    RedirectIcmp = "redirect_icmp", "An ICMP error, to the stack whose packet it quotes.";
    RedirectFragment = "redirect_fragment", "A fragment of a TCP segment, to the stack that gets the flow.";
}

#[cfg(test)]
#[path = "maps_tests.rs"]
mod tests;
