//! TCP, in the words of RFC 9293. Knows nothing of sockets: those are POSIX words, in `socket/`.
//!
//! Read `state.rs` (the table), then `arrive.rs` (the RFC's eight steps), then any step. In the order a segment travels:
//! - `listen.rs`, `handshake.rs`, `arrive.rs`: the three parts of RFC 9293 §3.10.7, SEGMENT ARRIVES;
//! - `fast_open.rs`: data on the SYN;
//! - `fast_path.rs`: one guard in front of the steps, for the segments that nearly all are;
//! - `receiver.rs`: RCV: the window we offer, what acknowledgement is owed; `reassembly.rs`: what came out of order;
//! - `buffers.rs`: how large the two buffers are;
//! - `sender.rs`: SND: what is queued, in flight, lost; `rtt.rs`, `recovery/`, `congestion/` say when and how much;
//! - `transmit.rs`: the one place where segments are made, out of what is owed; `pacing.rs`: when data may go;
//! - `ecn.rs`: the network's marks, ours and the peer's;
//! - `urgent.rs`: urgent pointers, both ways;
//! - `timers.rs`: the deadlines; `calls.rs`: what the application asks; `icmp.rs`: what the network says,
//!   `path_mtu.rs`: how long its packets may be;
//! - `time_wait.rs`: the record that a closed connection leaves; `info.rs`, `holdup.rs`: what tools may see; `isn.rs`: first numbers,
//!   `cookie.rs`: those that stand for a SYN;
//! - `tcb.rs`, `options.rs`, `links.rs`, `seq.rs`: the record of a connection and its vocabulary.
//!
//! A caller gives a segment, a deadline or a call to a [`Tcb`], reads the [`Events`] of the [`Arrival`], and then asks
//! [`Tcb::wants_transmit`] and [`Tcb::deadline`]. Nothing is sent but by [`Tcb::poll_transmit`], except the
//! [`Control`](crate::wire::tcp::Control) an [`Arrival`] carries.

mod arrive;
mod buffers;
mod calls;
mod congestion;
mod cookie;
mod ecn;
mod fast_open;
mod fast_path;
mod handshake;
mod holdup;
mod icmp;
mod info;
mod isn;
mod links;
mod listen;
mod options;
mod pacing;
mod path_mtu;
mod reassembly;
mod receiver;
mod recovery;
mod sender;
mod seq;
mod state;
mod tcb;
mod time_wait;
mod timers;
mod timestamps;
mod transmit;
mod urgent;

use crate::buf::{FrameId, Frames};
use crate::counters::Counters;
use crate::time::Instant;
use crate::tunables::Tunables;
use crate::wire::tcp::{Control, FastOpenCookie};

pub use calls::Linger;
pub use congestion::Algorithm;
pub use cookie::{COOKIE_LIFE_US, make_cookie, read_cookie};
pub use fast_open::fast_open_cookie;
pub use holdup::SpentTimes;
pub use icmp::IcmpKind;
pub use info::Info;
pub use isn::{isn, ts_offset};
pub use links::Links;
pub use listen::{ListenVerdict, arrive_at_listen};
pub use options::Options;
pub use seq::Seq;
pub use state::State;
pub use tcb::Tcb;
pub use time_wait::{TimeWait, TimeWaitVerdict};
pub use urgent::UrgentOctet;

/// What the machine works with, besides the connection itself.
pub struct Context<'a, 'm> {
    pub now: Instant,
    pub frames: &'a mut Frames<'m>,
    pub counters: &'a mut Counters,
    pub tunables: &'a Tunables,
    /// What a SYN or SYN-ACK that [offers](Tcb::offers_cookie) one carries.
    pub cookie: Option<FastOpenCookie>,
}

/// What became of a connection, for the socket layer.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(transparent)]
pub struct Events(pub u16);

impl Events {
    pub const NONE: Events = Events(0);
    /// The handshake is complete.
    pub const CONNECTED: Events = Events(1);
    /// More bytes may be read than before.
    pub const READABLE: Events = Events(1 << 1);
    /// Send room was freed, and there is enough of it ([`Tcb::is_writable`]).
    pub const WRITABLE: Events = Events(1 << 2);
    /// The peer's FIN was reached: after what is queued comes the end.
    pub const PEER_FIN: Events = Events(1 << 3);
    /// The peer reset the connection (or refused it); CLOSED comes with it.
    pub const RESET: Events = Events(1 << 4);
    /// [`Tcb::take_error`] has something to tell.
    pub const ERROR: Events = Events(1 << 5);
    /// The connection is over: nothing will come or go. Its slot may go once no socket holds it.
    pub const CLOSED: Events = Events(1 << 6);
    /// The connection entered TIME-WAIT (or, already there, was let go of by the application): when no socket holds
    /// it, a [`TimeWait`] may take its place.
    pub const TIME_WAIT: Events = Events(1 << 7);
    /// An urgent octet is here.
    pub const URGENT: Events = Events(1 << 8);
    /// A challenge ACK is owed; the stack may have sent too many ([`Tcb::withdraw_challenge`]).
    pub const CHALLENGE: Events = Events(1 << 12);

    pub const fn has(self, other: Events) -> bool {
        self.0 & other.0 == other.0
    }

    pub const fn has_any(self, other: Events) -> bool {
        self.0 & other.0 != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl core::ops::BitOr for Events {
    type Output = Events;
    fn bitor(self, other: Events) -> Events {
        Events(self.0 | other.0)
    }
}

impl core::ops::BitOrAssign for Events {
    fn bitor_assign(&mut self, other: Events) {
        self.0 |= other.0;
    }
}

/// What a segment, a deadline or a call led to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Arrival {
    pub events: Events,
    /// A segment to send at once, outside of [`Tcb::poll_transmit`]: the connection may be gone by then.
    pub reply: Option<Control>,
}

/// A segment to send: TCP header and payload lie at `off..off + len` of the frame, checksum zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outgoing {
    pub frame: FrameId,
    pub off: u16,
    pub len: u16,
    /// The TOS octet (traffic class) of the IP header.
    pub tos: u8,
    /// The frame stays in the send queue (it has data); otherwise whoever sends it releases it.
    pub keep: bool,
}

/// Why a connection ended before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum TcpError {
    /// RST on a connection that stood: ECONNRESET.
    Reset = 1,
    /// RST in answer to our SYN: ECONNREFUSED.
    Refused,
    /// Nobody answered for too long: ETIMEDOUT.
    TimedOut,
    HostUnreachable,
    NetUnreachable,
    /// RST after the peer's FIN: EPIPE, as Linux reports it.
    Pipe,
    /// ICMP: protocol unreachable, ENOPROTOOPT; parameter problem, EPROTO; prohibited (IPv6), EACCES.
    NoProtocol,
    Protocol,
    Forbidden,
}

impl TcpError {
    /// From the byte a [`Tcb`] keeps; 0 is no error.
    fn from_code(code: u8) -> Option<TcpError> {
        use TcpError::*;
        [Reset, Refused, TimedOut, HostUnreachable, NetUnreachable, Pipe, NoProtocol, Protocol, Forbidden]
            .into_iter()
            .find(|&e| e as u8 == code)
    }
}

#[cfg(test)]
mod tests;
