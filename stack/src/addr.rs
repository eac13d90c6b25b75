//! Addresses and flows. Every address is 128 bits; IPv4 is carried v4-mapped (RFC 4291 §2.5.5.2).

/// An IPv4 (v4-mapped) or IPv6 address in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Ip(pub [u8; 16]);

impl Ip {
    /// `::`, the IPv6 wildcard; also stands for "any address of either family".
    pub const UNSPECIFIED: Ip = Ip([0; 16]);
    /// `0.0.0.0`, v4-mapped.
    pub const UNSPECIFIED_V4: Ip = Ip::v4([0; 4]);

    /// The v4-mapped form of an IPv4 address.
    pub const fn v4(a: [u8; 4]) -> Ip {
        Ip([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a[0], a[1], a[2], a[3]])
    }

    /// Whether this is a v4-mapped address.
    pub const fn is_v4(&self) -> bool {
        let a = &self.0;
        u64::from_be_bytes([a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]]) == 0
            && u32::from_be_bytes([a[8], a[9], a[10], a[11]]) == 0xffff
    }

    /// The four bytes of the IPv4 address; meaningful only when [`Ip::is_v4`].
    pub const fn v4_bytes(&self) -> [u8; 4] {
        [self.0[12], self.0[13], self.0[14], self.0[15]]
    }

    /// The two eight-byte halves as they lie in memory: for sums and hashes, which do not care for the byte order.
    #[inline]
    pub(crate) const fn halves(&self) -> (u64, u64) {
        let a = &self.0;
        (
            u64::from_ne_bytes([a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]]),
            u64::from_ne_bytes([a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15]]),
        )
    }

    /// `::` or `0.0.0.0`.
    pub fn is_unspecified(&self) -> bool {
        *self == Ip::UNSPECIFIED || *self == Ip::UNSPECIFIED_V4
    }

    /// 127.0.0.0/8 or `::1`.
    pub fn is_loopback(&self) -> bool {
        if self.is_v4() { self.0[12] == 127 } else { *self == Ip([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]) }
    }

    /// fe80::/10.
    pub const fn is_link_local_v6(&self) -> bool {
        self.0[0] == 0xfe && self.0[1] & 0xc0 == 0x80
    }

    /// 224.0.0.0/4, the IPv4 limited broadcast, or ff00::/8.
    pub fn is_multicast_or_broadcast(&self) -> bool {
        if self.is_v4() {
            self.0[12] >= 224 && self.0[12] < 240 || self.v4_bytes() == [255; 4]
        } else {
            self.0[0] == 0xff
        }
    }

    /// Whether the first `bits` (0..=128, of the 128-bit form) of the two addresses agree.
    pub fn matches_prefix(&self, prefix: &Ip, bits: u8) -> bool {
        let (a, b) = (u128::from_be_bytes(self.0), u128::from_be_bytes(prefix.0));
        let mask = match bits {
            0 => 0,
            128.. => u128::MAX,
            n => u128::MAX << (128 - n),
        };
        a & mask == b & mask
    }
}

impl core::fmt::Display for Ip {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.is_v4() {
            write!(f, "{}", core::net::Ipv4Addr::from(self.v4_bytes()))
        } else {
            write!(f, "{}", core::net::Ipv6Addr::from(self.0))
        }
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

/// An address and a port (host byte order).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C)]
pub struct Endpoint {
    pub ip: Ip,
    pub port: u16,
}

impl Endpoint {
    pub const fn new(ip: Ip, port: u16) -> Endpoint {
        Endpoint { ip, port }
    }
}

impl core::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.ip.is_v4() { write!(f, "{}:{}", self.ip, self.port) } else { write!(f, "[{}]:{}", self.ip, self.port) }
    }
}

/// A connection's 4-tuple, seen from this host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C)]
pub struct Flow {
    pub local: Endpoint,
    pub remote: Endpoint,
}
