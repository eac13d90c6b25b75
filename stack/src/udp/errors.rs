//! What routers and hosts say of a socket's datagrams: the errno of the next call, and, for who asked (IP_RECVERR,
//! IPV6_RECVERR), the error queue. An entry of it is the frame that brought the message, with what it says in front.

use super::deliver::ttl_of;
use super::facts::FACTS_LEN;
use super::{Cutting, Facts, Flags, Place, append, take_first};
use crate::addr::Ip;
use crate::buf::FrameId;
use crate::drops::Drop;
use crate::engine::{Cause, Engine, Fate};
use crate::ip::Packet;
use crate::slab::NONE;
use crate::socket::readiness::{DATA_CAME, ERR};
use crate::socket::{Errno, SocketId};
use crate::time::Instant;
use crate::wire::icmp;

/// Entries that one socket's queue holds. Linux bounds them by SO_RCVBUF.
const ERRORS_MAX: u32 = 32;

/// An entry of the error queue: struct sock_extended_err, and whom it comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reported {
    /// Of the message that brought it, but the source is whom the datagram was for.
    pub facts: Facts,
    pub errno: Errno,
    /// The ICMP type and code; those of ICMPv6 when the offender's address is.
    pub number: u8,
    pub code: u8,
    /// The MTU, or where the bad parameter is.
    pub info: u32,
    pub offender: Ip,
}

/// Bytes that an entry takes at the start of its frame.
const REPORTED_LEN: usize = FACTS_LEN + 26;

impl Reported {
    fn put(&self, out: &mut [u8]) {
        self.facts.put(out);
        let out = &mut out[FACTS_LEN..REPORTED_LEN];
        out[..16].copy_from_slice(&self.offender.0);
        out[16..20].copy_from_slice(&self.errno.0.to_ne_bytes());
        out[20..24].copy_from_slice(&self.info.to_ne_bytes());
        out[24..].copy_from_slice(&[self.number, self.code]);
    }

    fn take(from: &[u8]) -> Reported {
        let facts = Facts::take(from);
        let from = &from[FACTS_LEN..REPORTED_LEN];
        let word = |at: usize| u32::from_ne_bytes([from[at], from[at + 1], from[at + 2], from[at + 3]]);
        let mut offender = Ip::UNSPECIFIED;
        offender.0.copy_from_slice(&from[..16]);
        Reported { facts, errno: Errno(word(16) as i32), number: from[24], code: from[25], info: word(20), offender }
    }
}

/// The errno of an error, and whether a connected socket that did not ask for the queue hears of it: Linux's tables
/// (`icmp_err_convert`, `icmpv6_err_convert`).
fn errno_of(error: &icmp::Error) -> (Errno, bool) {
    use Errno as E;
    if error.flow.remote.ip.is_v4() {
        return match (error.number, error.code) {
            (3, 0 | 11) => (E::ENETUNREACH, false),
            (3, 1 | 12) => (E::EHOSTUNREACH, false),
            (3, 2) => (E::ENOPROTOOPT, true),
            (3, 3) => (E::ECONNREFUSED, true),
            (3, 4) => (E::EMSGSIZE, true),
            (3, 5) => (E::EOPNOTSUPP, false),
            (3, 6 | 9) => (E::ENETUNREACH, true),
            (3, 7) => (E::EHOSTDOWN, true),
            (3, 8) => (E::ENONET, true),
            (3, _) => (E::EHOSTUNREACH, true),
            (12, _) => (E::EPROTO, true),
            _ => (E::EHOSTUNREACH, false),
        };
    }
    match (error.number, error.code) {
        (1, 0) => (E::ENETUNREACH, false),
        (1, 1 | 5 | 6) => (E::EACCES, true),
        (1, 2 | 3) => (E::EHOSTUNREACH, false),
        (1, 4) => (E::ECONNREFUSED, true),
        (2, _) => (E::EMSGSIZE, false),
        (3, _) => (E::EHOSTUNREACH, false),
        _ => (E::EPROTO, true),
    }
}

impl Engine<'_> {
    /// An ICMP error about a datagram of ours (RFC 1122 §4.1.3.3). As in Linux only a connected socket hears of it, or one
    /// that has an error queue: who sends to many could not tell whom it is about.
    pub(crate) fn handle_datagram_error(
        &mut self,
        now: Instant,
        place: Place,
        packet: &Packet,
        error: &icmp::Error,
    ) -> Result<Fate, Drop> {
        let index = self.find_mailbox(&error.flow).ok_or(Drop::IcmpNoFlow)?;
        let is_v4 = error.flow.remote.ip.is_v4();
        let mailbox = &mut self.own_mut(index).mailbox;
        let is_connected = mailbox.is_connected();
        if let icmp::Kind::TooBig { .. } = error.kind {
            // From now on the socket's larger datagrams may be cut up on their way. Over IPv6, where routers do not, nothing
            // changes: who sends such datagrams has to send smaller ones.
            mailbox.flags.put(Flags::NARROW_PATH, true);
            if is_v4 && mailbox.marks.cutting == Cutting::Unasked {
                return Ok(Fate::Done); // it does not want to know
            }
        }
        let keeps = mailbox.flags.has(if is_v4 { Flags::KEEPS_ERRORS_V4 } else { Flags::KEEPS_ERRORS_V6 });
        let (errno, is_hard) = errno_of(error);
        if !(keeps || is_hard && is_connected) {
            return Ok(Fate::Done);
        }
        let kept = if keeps { self.keep_error(now, index, place, packet, error) } else { Ok(Fate::Done) };
        self.sockets[index].error = errno;
        self.note_signal(index, Cause::Error);
        self.announce(index, ERR | DATA_CAME);
        kept
    }

    fn keep_error(
        &mut self,
        now: Instant,
        index: u32,
        place: Place,
        packet: &Packet,
        error: &icmp::Error,
    ) -> Result<Fate, Drop> {
        let (held, start) = (self.own(index).syn_queue.len, usize::from(place.off));
        if held >= ERRORS_MAX || held != 0 && self.frames.allowance() != u32::MAX || start < REPORTED_LEN {
            return Err(Drop::ErrorQueueFull);
        }
        let bytes = self.frames.bytes_mut(place.frame);
        let ttl = ttl_of(&bytes[start + place.network..], packet.src.is_v4());
        let (source, destination) = (error.flow.remote, packet.dst);
        let facts = Facts { source, destination, ttl, tos: packet.tos, arrived: now };
        let (errno, (number, code, info)) = (errno_of(error).0, (error.number, error.code, error.info));
        Reported { facts, errno, number, code, info, offender: packet.src }.put(bytes);
        let meta = self.frames.meta_mut(place.frame);
        meta.off = (start + packet.payload_off + error.quoted_off) as u16;
        meta.len = (packet.payload_len - error.quoted_off) as u16;
        append(&mut self.unconnected[self.sockets[index].unconnected].syn_queue, &mut self.frames, place.frame);
        Ok(Fate::Taken)
    }

    /// recvmsg() with MSG_ERRQUEUE: the oldest entry, with what it quotes of the datagram's payload. The next one's errno
    /// becomes the socket's, as in Linux.
    pub fn recv_error<T>(&mut self, s: SocketId, take: impl FnOnce(&Reported, &[u8]) -> T) -> Result<T, Errno> {
        let index = self.datagram_slot(s)?;
        let frame = self.pop_error(index).ok_or(Errno::EAGAIN)?;
        let taken = take(&Reported::take(self.frames.bytes(frame)), self.frames.payload(frame));
        self.frames.release(frame);
        let next = Some(self.own(index).syn_queue.head).filter(|head| *head != NONE);
        self.sockets[index].error = next.map_or(Errno::default(), |f| Reported::take(self.frames.bytes(f)).errno);
        if next.is_some() {
            self.announce(index, ERR);
        }
        Ok(taken)
    }

    pub(super) fn pop_error(&mut self, index: u32) -> Option<FrameId> {
        take_first(&mut self.unconnected[self.sockets[index].unconnected].syn_queue, &self.frames)
    }

    /// IP_RECVERR and IPV6_RECVERR.
    pub fn set_error_queue(&mut self, s: SocketId, v4: bool, v6: bool) -> Result<(), Errno> {
        let index = self.datagram_slot(s)?;
        let flags = &mut self.own_mut(index).mailbox.flags;
        flags.put(Flags::KEEPS_ERRORS_V4, v4);
        flags.put(Flags::KEEPS_ERRORS_V6, v6);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Endpoint;

    #[test]
    fn what_is_put_is_taken() {
        let facts = Facts {
            source: Endpoint::new(Ip([7; 16]), 0x1234),
            destination: Ip([9; 16]),
            ttl: 63,
            tos: 8,
            arrived: Instant::from_micros(0x1122_3344_5566),
        };
        let (errno, offender) = (Errno::EHOSTUNREACH, Ip::v4([1, 2, 3, 4]));
        let reported = Reported { facts, errno, number: 3, code: 1, info: 0x0102_0304, offender };
        let mut frame = [0xee; 80];
        reported.put(&mut frame);
        assert_eq!(Reported::take(&frame), reported);
        assert_eq!(frame[REPORTED_LEN..], [0xee; 6]);
    }
}
