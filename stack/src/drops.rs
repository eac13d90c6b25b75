//! Every reason for which a frame or segment is dropped or answered with a reset: one table, one counter each.

macro_rules! drops {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Why something was dropped. The sentence is in [`Drop::describe`]; the counter in [`DropCounters`].
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Drop { $($(#[$doc])* $name),* }

        impl Drop {
            /// All reasons, in counter order.
            pub const ALL: &'static [Drop] = &[$(Drop::$name),*];

            /// The reason's name, as tools print it.
            pub const fn name(self) -> &'static str {
                match self { $(Drop::$name => stringify!($name)),* }
            }

            /// One sentence for people.
            pub const fn describe(self) -> &'static str {
                match self { $(Drop::$name => $text),* }
            }
        }
    };
}

drops! {
    LinkTooShort = "frame shorter than an Ethernet header";
    LinkNotOurs = "destination MAC is neither ours nor a group";
    LinkTagged = "frame with more than two VLAN tags";
    LinkForeignVlan = "frame of a VLAN on which the device has no address";
    LinkNotIp = "EtherType is neither IPv4 nor IPv6";
    IpMalformed = "IP header truncated, wrong version or wrong lengths";
    IpChecksum = "IPv4 header checksum is wrong";
    IpFragment = "fragment of what is not TCP (the kernel reassembles those)";
    IpProtocol = "neither TCP nor UDP nor an ICMP error";
    IpBadSource = "source address is multicast, broadcast, unspecified or loopback";
    IpNotLocal = "destination address is not ours";
    TcpMalformed = "TCP header truncated or data offset wrong";
    TcpChecksum = "TCP checksum is wrong";
    IcmpMalformed = "ICMP error truncated, or its quote is";
    IcmpChecksum = "ICMP checksum is wrong";
    IcmpNoFlow = "ICMP error quotes no flow of ours, or a sequence number out of window";
    NoSocket = "no connection and no listener; answered with RST";
    RstForNobody = "RST for no connection of ours";
    SynBacklogFull = "listener's SYN queue is full";
    AcceptQueueFull = "listener's accept queue is full";
    NoConnectionSlot = "connection table is full";
    NoFrame = "no free frame";
    OutsideWindow = "segment outside the receive window; answered with ACK";
    PawsRejected = "timestamp older than the last one seen (RFC 7323 §5)";
    AckInvalid = "acknowledges what was never sent, or far too old (RFC 5961 §5)";
    Duplicate = "payload that was received before";
    ReassemblyFull = "out-of-order queue is full";
    RcvBufferFull = "receive buffer is full";
    FramePressure = "frames are nearly gone, and the connection holds some already; it comes again";
    RstInvalid = "RST not exactly at RCV.NXT (RFC 5961 §3)";
    SynInWindow = "SYN on a synchronized connection (RFC 5961 §4)";
    NoAck = "segment without ACK on a synchronized connection";
    DataAfterClose = "data for a receive side that was closed; answered with RST";
    ChallengeLimited = "challenge ACK suppressed by the rate limit (RFC 5961 §7)";
    ControlQueueFull = "no room to answer (RST, SYN cookie, TIME-WAIT ACK)";
    NoRoute = "no route to the destination";
    SynEvicted = "half-open connection made room for a newer SYN, its SYN-ACK unanswered (no SYN cookies)";
    SynCookieInvalid = "acknowledgement at a listener that sent SYN cookies, and of none of them; answered with RST";
    AcceptOverflowReset = "accept queue is full; answered with RST (tcp_abort_on_overflow)";
    AckDeferred = "bare ACK of a handshake that waits for data (TCP_DEFER_ACCEPT)";
    ChallengeLimitedStack = "challenge ACK suppressed by the stack's rate limit (tcp_challenge_ack_limit)";
    NeighbourUnresolved = "next hop's MAC address is not known yet";
    ReassemblyPruned = "came out of order, and its frame was needed for what lies lower; it comes again (RFC 2018 §8)";
    UdpMalformed = "UDP header truncated, or its length is wrong";
    UdpChecksum = "UDP checksum is wrong, or missing over IPv6";
    NoMailbox = "datagram for a port that no socket has";
    MailboxFull = "datagram socket's receive buffer is full (SO_RCVBUF)";
    FragmentsIncomplete = "segment in fragments of which some did not come in 30 s, or that made room for a newer one";
    FragmentsOverlap = "segment in fragments that overlap or contradict each other (RFC 5722), or in too many";
    FragmentsTooLong = "segment in fragments that is longer than a frame";
    SynElsewhere = "SYN for a port that the stack does not serve any more, or not at this address, and others may; it comes again";
    Departed = "late segment of a connection that another stack took over a moment ago";
    ErrorQueueFull = "ICMP error about a datagram whose socket has its error queue full (IP_RECVERR)";
    AfterReset = "segment of a connection that was reset a moment ago; answered with RST";
}

/// One counter per reason.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct DropCounters {
    counts: [u64; 64],
}

impl Default for DropCounters {
    fn default() -> Self {
        DropCounters { counts: [0; 64] }
    }
}

impl DropCounters {
    pub fn count(&mut self, reason: Drop) {
        self.counts[reason as usize] += 1;
    }

    /// Adds what another stack counted.
    pub fn add(&mut self, other: &DropCounters) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, n)| *sum += n);
    }

    pub fn of(&self, reason: Drop) -> u64 {
        self.counts[reason as usize]
    }
}

const _: () = assert!(Drop::ALL.len() <= 64);
