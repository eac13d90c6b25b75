//! Messages between the application's memory and the engine: buffers, addresses, control messages.

use crate::memory;
use crate::sys::{self, Result};
use crate::user::encode;
use libc::{AF_INET6, MSG_CTRUNC, SOL_IP, SOL_IPV6, SOL_SOCKET, SOL_UDP, c_int, iovec, msghdr};
use sidestep_stack::addr::{Endpoint, Ip};
use sidestep_stack::runtime::now;
use sidestep_stack::time::Instant;
use sidestep_stack::udp::{Facts, Reported};

/// Control messages that a receiver asked for, a bit each: (bit, level, option). Written in this order, which is Linux's.
const WANTS: [(u32, c_int, c_int); 13] = [
    (want::TIMESTAMP, SOL_SOCKET, libc::SO_TIMESTAMP),
    (want::TIMESTAMP_NS, SOL_SOCKET, libc::SO_TIMESTAMPNS),
    (want::OVERFLOWS, SOL_SOCKET, libc::SO_RXQ_OVFL),
    (want::MARK, SOL_SOCKET, SO_RCVMARK),
    (want::PRIORITY, SOL_SOCKET, SO_RCVPRIORITY),
    (want::SEGMENT, SOL_UDP, crate::datagrams::UDP_GRO),
    (want::INFO_V6, SOL_IPV6, libc::IPV6_RECVPKTINFO),
    (want::HOP_LIMIT, SOL_IPV6, libc::IPV6_RECVHOPLIMIT),
    (want::TRAFFIC_CLASS, SOL_IPV6, libc::IPV6_RECVTCLASS),
    (want::INFO_V4, SOL_IP, libc::IP_PKTINFO),
    (want::TTL, SOL_IP, libc::IP_RECVTTL),
    (want::TOS, SOL_IP, libc::IP_RECVTOS),
    (want::DESTINATION, SOL_IP, libc::IP_RECVORIGDSTADDR),
];

/// linux/errqueue.h.
const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;

const SO_RCVMARK: c_int = 75;
const SO_RCVPRIORITY: c_int = 82;

mod want {
    pub(super) const TIMESTAMP: u32 = 1;
    pub(super) const TIMESTAMP_NS: u32 = 2;
    pub(super) const OVERFLOWS: u32 = 4;
    pub(super) const INFO_V6: u32 = 8;
    pub(super) const HOP_LIMIT: u32 = 16;
    pub(super) const TRAFFIC_CLASS: u32 = 32;
    pub(super) const INFO_V4: u32 = 64;
    pub(super) const TTL: u32 = 128;
    pub(super) const TOS: u32 = 256;
    pub(super) const DESTINATION: u32 = 512;
    pub(super) const MARK: u32 = 1024;
    pub(super) const PRIORITY: u32 = 2048;
    pub(super) const SEGMENT: u32 = 4096;
    /// What is told of an entry of the error queue as well.
    pub(super) const OF_ERRORS: u32 = !(OVERFLOWS | MARK | PRIORITY | SEGMENT);
}

/// What the shadow was asked to tell with each datagram.
pub(crate) fn wants_of(fd: c_int, is_v6: bool) -> u32 {
    let is_on = |level, name| sys::option::<c_int>(fd, level, name).is_ok_and(|v| v != 0);
    let asked = WANTS.iter().filter(|(_, level, name)| (is_v6 || *level != SOL_IPV6) && is_on(*level, *name));
    asked.fold(0, |wants, (bit, ..)| wants | bit)
}

// ---- buffers ----

/// Reads the header of a message.
///
/// # Safety
/// `header` is the application's.
pub(crate) unsafe fn read_header(header: *const msghdr) -> Result<msghdr> {
    // SAFETY: the caller's promise; integers and pointers.
    unsafe { memory::read(header) }
}

/// Gives the application what a receive changed in a header.
///
/// # Safety
/// `to` is the application's.
pub(crate) unsafe fn give_header(from: &msghdr, to: *mut msghdr) -> Result<()> {
    // SAFETY: the caller's promise; the fields of whatever is there.
    unsafe {
        if !from.msg_name.is_null() {
            memory::write(&raw mut (*to).msg_namelen, from.msg_namelen)?;
        }
        memory::write(&raw mut (*to).msg_flags, from.msg_flags)?;
        memory::write(&raw mut (*to).msg_controllen, from.msg_controllen)
    }
}

/// Bytes in all buffers.
pub(crate) fn total(iov: &[iovec]) -> usize {
    iov.iter().map(|v| v.iov_len).fold(0, usize::saturating_add)
}

/// Copies as much of `from` as there is room for behind `skip` octets; how much.
///
/// # Safety
/// The buffers are the application's.
pub(crate) unsafe fn scatter(from: &[u8], iov: &[iovec], mut skip: usize) -> Result<usize> {
    let mut rest = from;
    for v in iov {
        let start = skip.min(v.iov_len);
        skip -= start;
        let (part, later) = rest.split_at((v.iov_len - start).min(rest.len()));
        let to = v.iov_base.cast::<u8>().wrapping_add(start);
        // SAFETY: the caller's promise; `part` is no longer than the rest of the buffer.
        unsafe { memory::copy_out(to, part.as_ptr(), part.len()) }?;
        rest = later;
    }
    Ok(from.len() - rest.len())
}

/// Fills `out` with the buffers' bytes from byte `skip` on. Bytes that were probed and are gone are zeroes.
///
/// # Safety
/// The buffers are the application's, and hold that many bytes.
pub(crate) unsafe fn gather(iov: &[iovec], mut skip: usize, out: &mut [u8]) {
    let mut filled = 0;
    for v in iov {
        let start = skip.min(v.iov_len);
        skip -= start;
        let Some(part) = out.get_mut(filled..) else { return };
        let n = (v.iov_len - start).min(part.len());
        if n != 0 {
            // SAFETY: the caller's promise; `start + n` is within the buffer, and `part` has room for `n`.
            let copied = unsafe { memory::copy_in(part.as_mut_ptr(), v.iov_base.cast::<u8>().wrapping_add(start), n) };
            if copied.is_err() {
                part[..n].fill(0);
            }
        }
        filled += n;
    }
}

// ---- receiving ----

/// Who gets what besides the payload, of a datagram on a socket of `family` on the device `ifindex`.
pub(crate) struct Receiver {
    pub(crate) family: c_int,
    pub(crate) ifindex: u32,
    pub(crate) wants: u32,
}

impl Receiver {
    /// Writes the sender's address and the control messages; adds to the flags what did not fit. `segment`: several
    /// datagrams are received as one, so long each.
    ///
    /// # Safety
    /// The header's name and control buffers are the application's.
    pub(crate) unsafe fn describe(
        &self,
        header: &mut msghdr,
        facts: &Facts,
        overflows: u32,
        segment: Option<c_int>,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.name(header, facts.source) }?;
        let mut control = Control::new(header);
        let room = control.room;
        if self.wants != 0 {
            // SAFETY: the caller's promise.
            unsafe { self.tell(&mut control, facts, overflows, segment) };
        }
        header.msg_controllen = (room - control.room) as _;
        header.msg_flags |= if control.cut { MSG_CTRUNC } else { 0 };
        Ok(())
    }

    /// The same for an entry of the error queue.
    ///
    /// # Safety
    /// As for `describe`.
    pub(crate) unsafe fn describe_error(&self, header: &mut msghdr, entry: &Reported) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.name(header, entry.facts.source) }?;
        let mut control = Control::new(header);
        let room = control.room;
        let wants = self.wants & want::OF_ERRORS;
        // SAFETY: the caller's promise.
        unsafe { Receiver { wants, ..*self }.tell(&mut control, &entry.facts, 0, None) };
        // struct sock_extended_err, and the offender's address.
        let mut record = [0u8; 16 + 28];
        let mut address = [0u8; 28];
        let len = 16 + self.address(Endpoint::new(entry.offender, 0), &mut address);
        record[..4].copy_from_slice(&entry.errno.0.to_ne_bytes());
        let origin = if entry.offender.is_v4() { ORIGIN_ICMP } else { ORIGIN_ICMP6 };
        record[4..7].copy_from_slice(&[origin, entry.number, entry.code]);
        record[8..12].copy_from_slice(&entry.info.to_ne_bytes());
        record[16..].copy_from_slice(&address);
        let is_v6 = self.family == AF_INET6;
        let (level, kind) = if is_v6 { (SOL_IPV6, libc::IPV6_RECVERR) } else { (SOL_IP, libc::IP_RECVERR) };
        // SAFETY: the caller's promise.
        unsafe { control.put(level, kind, &record[..len]) };
        header.msg_controllen = (room - control.room) as _;
        header.msg_flags |= libc::MSG_ERRQUEUE | if control.cut { MSG_CTRUNC } else { 0 };
        Ok(())
    }

    /// # Safety
    /// The header's name buffer is the application's.
    unsafe fn name(&self, header: &mut msghdr, source: Endpoint) -> Result<()> {
        if !header.msg_name.is_null() {
            let mut bytes = [0u8; 28];
            let full = self.address(source, &mut bytes);
            let copied = full.min(header.msg_namelen as usize);
            // SAFETY: the caller's promise.
            unsafe { memory::copy_out(header.msg_name.cast(), bytes.as_ptr(), copied) }?;
            header.msg_namelen = full as libc::socklen_t;
        }
        Ok(())
    }

    /// The address of a neighbour on the link is good with the link's name only.
    fn address(&self, e: Endpoint, out: &mut [u8; 28]) -> usize {
        let len = encode(e, self.family, out);
        if self.family == AF_INET6 && e.ip.is_link_local_v6() {
            out[24..28].copy_from_slice(&self.ifindex.to_ne_bytes());
        }
        len
    }

    /// # Safety
    /// The control buffer is writable.
    unsafe fn tell(&self, control: &mut Control, facts: &Facts, overflows: u32, segment: Option<c_int>) {
        let is_v4 = facts.destination.is_v4();
        for (bit, level, name) in WANTS.iter().filter(|(bit, ..)| self.wants & bit != 0) {
            // SAFETY: the caller's promise.
            let mut put = |kind: c_int, data: &[u8]| unsafe { control.put(*level, kind, data) };
            match *bit {
                want::TIMESTAMP if self.wants & want::TIMESTAMP_NS == 0 => {
                    let (seconds, nanos) = wall_clock(facts.arrived);
                    put(*name, &pair(seconds, nanos / 1000));
                }
                want::TIMESTAMP_NS => {
                    let (seconds, nanos) = wall_clock(facts.arrived);
                    put(*name, &pair(seconds, nanos));
                }
                want::OVERFLOWS if overflows != 0 => put(*name, &overflows.to_ne_bytes()),
                // Nobody marks what comes past the kernel.
                want::MARK => put(libc::SO_MARK, &[0; 4]),
                want::PRIORITY => put(libc::SO_PRIORITY, &[0; 4]),
                want::SEGMENT => {
                    if let Some(len) = segment {
                        put(*name, &len.to_ne_bytes());
                    }
                }
                want::INFO_V6 => {
                    let mut info = [0; 20];
                    info[..16].copy_from_slice(&facts.destination.0);
                    info[16..].copy_from_slice(&self.ifindex.to_ne_bytes());
                    put(libc::IPV6_PKTINFO, &info);
                }
                want::HOP_LIMIT if !is_v4 => put(libc::IPV6_HOPLIMIT, &i32::from(facts.ttl).to_ne_bytes()),
                want::TRAFFIC_CLASS if !is_v4 => put(libc::IPV6_TCLASS, &i32::from(facts.tos).to_ne_bytes()),
                want::INFO_V4 if is_v4 => {
                    let mut info = [0; 12];
                    info[..4].copy_from_slice(&self.ifindex.to_ne_bytes());
                    info[4..8].copy_from_slice(&facts.destination.v4_bytes());
                    info[8..].copy_from_slice(&facts.destination.v4_bytes());
                    put(libc::IP_PKTINFO, &info);
                }
                want::TTL if is_v4 => put(libc::IP_TTL, &i32::from(facts.ttl).to_ne_bytes()),
                want::TOS if is_v4 => put(libc::IP_TOS, &[facts.tos]),
                _ => {}
            }
        }
    }
}

/// Room for control messages in the application's memory.
pub(crate) struct Control {
    at: *mut u8,
    pub(crate) room: usize,
    /// Something did not fit.
    pub(crate) cut: bool,
}

/// Linux's header of a control message: length, level, kind.
const CMSG_HEADER: usize = size_of::<libc::cmsghdr>();

impl Control {
    pub(crate) fn new(header: &msghdr) -> Control {
        Control { at: header.msg_control.cast(), room: header.msg_controllen, cut: false }
    }

    /// Adds a message, cut to the room that is left, as Linux's put_cmsg does. Where nothing can be written nothing is, and
    /// nobody is told.
    ///
    /// # Safety
    /// `at` is null or the application's, for `room` bytes.
    pub(crate) unsafe fn put(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        if self.at.is_null() || self.room < CMSG_HEADER {
            self.cut = true;
            return;
        }
        let full = CMSG_HEADER + data.len();
        let len = full.min(self.room);
        self.cut |= len < full;
        let mut header = [0u8; CMSG_HEADER];
        header[..8].copy_from_slice(&len.to_ne_bytes());
        header[8..12].copy_from_slice(&level.to_ne_bytes());
        header[12..].copy_from_slice(&kind.to_ne_bytes());
        // SAFETY: the caller's promise; `len` is within the room.
        unsafe {
            let wrote = memory::copy_out(self.at, header.as_ptr(), CMSG_HEADER)
                .and_then(|()| memory::copy_out(self.at.add(CMSG_HEADER), data.as_ptr(), len - CMSG_HEADER));
            if wrote.is_err() {
                return;
            }
            let taken = full.next_multiple_of(size_of::<usize>()).min(self.room);
            self.at = self.at.add(taken);
            self.room -= taken;
        }
    }
}

pub(crate) fn pair(seconds: i64, fraction: i64) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&seconds.to_ne_bytes());
    out[8..].copy_from_slice(&fraction.to_ne_bytes());
    out
}

/// A moment of the monotonic clock, by the wall's.
pub(crate) fn wall_clock(at: Instant) -> (i64, i64) {
    let mut wall = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `wall` is writable; libc's clock_gettime is not among the calls that we export.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut wall) };
    let nanos = i128::from(wall.tv_sec) * 1_000_000_000 + i128::from(wall.tv_nsec);
    let then = nanos - i128::from(now().since_us(at)) * 1000;
    ((then / 1_000_000_000) as i64, (then % 1_000_000_000) as i64)
}

// ---- sending ----

/// What the control messages of a datagram say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    pub(crate) source: Option<Ip>,
    pub(crate) ttl: Option<u8>,
    pub(crate) tos: Option<u8>,
    /// UDP_SEGMENT.
    pub(crate) segment: Option<u16>,
}

/// Reads control messages; `None` when one of them is the kernel's to understand, or to refuse. `to_v4`: where the datagram
/// goes.
///
/// # Safety
/// The header's control buffer is the application's.
pub(crate) unsafe fn wishes(header: &msghdr, to_v4: bool, ifindex: u32) -> Option<Wishes> {
    let mut wishes = Wishes::default();
    let (mut at, mut left) = (header.msg_control.cast::<u8>().cast_const(), header.msg_controllen);
    if at.is_null() {
        return Some(wishes);
    }
    while left >= CMSG_HEADER {
        // SAFETY: the caller's promise: so many bytes are left.
        let head = unsafe { memory::read(at.cast::<libc::cmsghdr>()) }.ok()?;
        let len = head.cmsg_len;
        if len < CMSG_HEADER || len > left {
            return None;
        }
        let mut data = [0u8; 20];
        let size = len - CMSG_HEADER;
        // SAFETY: as above; at most `data` holds.
        unsafe { memory::copy_in(data.as_mut_ptr(), at.add(CMSG_HEADER), size.min(data.len())) }.ok()?;
        wishes.read(head.cmsg_level, head.cmsg_type, &data, size, to_v4, ifindex)?;
        let step = len.next_multiple_of(size_of::<usize>());
        if step >= left {
            break;
        }
        // SAFETY: within the buffer.
        at = unsafe { at.add(step) };
        left -= step;
    }
    Some(wishes)
}

impl Wishes {
    fn read(
        &mut self,
        level: c_int,
        kind: c_int,
        data: &[u8; 20],
        size: usize,
        to_v4: bool,
        ifindex: u32,
    ) -> Option<()> {
        let int = i32::from_ne_bytes([data[0], data[1], data[2], data[3]]);
        let is_our_device = |index: i32| index == 0 || index as u32 == ifindex;
        let byte = |least: i32| u8::try_from(int).ok().filter(|_| int >= least);
        match (level, kind, size) {
            (SOL_IP, libc::IP_PKTINFO, 12) if to_v4 && is_our_device(int) => {
                self.source = Some(Ip::v4([data[4], data[5], data[6], data[7]]));
            }
            (SOL_IPV6, libc::IPV6_PKTINFO, 20) => {
                let mut ip = Ip::UNSPECIFIED;
                ip.0.copy_from_slice(&data[..16]);
                let index = i32::from_ne_bytes([data[16], data[17], data[18], data[19]]);
                if !is_our_device(index) || ip.is_v4() != to_v4 && !ip.is_unspecified() {
                    return None;
                }
                self.source = Some(ip);
            }
            (SOL_IP, libc::IP_TTL, 4) if to_v4 => self.ttl = Some(byte(1)?),
            (SOL_IP, libc::IP_TOS, 4) if to_v4 => self.tos = Some(byte(0)?),
            (SOL_IP, libc::IP_TOS, 1) if to_v4 => self.tos = Some(data[0]),
            (SOL_IPV6, libc::IPV6_HOPLIMIT, 4) if !to_v4 => self.ttl = Some(byte(0)?),
            (SOL_IPV6, libc::IPV6_TCLASS, 4) if !to_v4 => self.tos = Some(byte(0)?),
            (SOL_UDP, libc::UDP_SEGMENT, 2) => self.segment = Some(u16::from_ne_bytes([data[0], data[1]])),
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libc::AF_INET;

    fn iovecs(buffers: &mut [Vec<u8>]) -> Vec<iovec> {
        buffers.iter_mut().map(|b| iovec { iov_base: b.as_mut_ptr().cast(), iov_len: b.len() }).collect()
    }

    #[test]
    fn buffers_are_filled_and_emptied_in_order() {
        let mut buffers = [vec![0u8; 3], Vec::new(), vec![0; 4]];
        let iov = iovecs(&mut buffers);
        // SAFETY: the buffers live, and are as long as said.
        unsafe {
            assert_eq!(scatter(b"abcde", &iov, 0), Ok(5));
            assert_eq!(scatter(b"xyz", &iov, 5), Ok(2), "behind what is there");
            assert_eq!(scatter(b"0123456789", &iov, 0), Ok(7));
        }
        assert_eq!(total(&iov), 7);
        for skip in 0..7 {
            let mut out = [b'x'; 4];
            let n = (7 - skip).min(4);
            // SAFETY: as above.
            unsafe { gather(&iov, skip, &mut out[..n]) };
            assert_eq!(&out[..n], &b"0123456"[skip..skip + n], "from {skip}");
        }
        assert_eq!((buffers[0].as_slice(), buffers[2].as_slice()), (&b"012"[..], &b"3456"[..]));
    }

    fn message(control: &mut [u64]) -> msghdr {
        // SAFETY: all zeroes is a valid, empty header.
        let mut header: msghdr = unsafe { core::mem::zeroed() };
        (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(control));
        header
    }

    /// One control message, padded.
    fn cmsg(level: c_int, kind: c_int, data: &[u8]) -> Vec<u64> {
        let mut bytes = (CMSG_HEADER + data.len()).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&level.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.chunks(8).map(|c| u64::from_ne_bytes(c.try_into().unwrap())).collect()
    }

    fn read(control: &[Vec<u64>], to_v4: bool) -> Option<Wishes> {
        let mut all = control.concat();
        // SAFETY: the control buffer is as long as the header says.
        unsafe { wishes(&message(&mut all), to_v4, 7) }
    }

    #[test]
    fn wishes_are_read_and_what_is_odd_is_the_kernels() {
        let info = |index: i32| [&index.to_ne_bytes()[..], &[10, 0, 0, 1], &[9; 4]].concat();
        let ttl = cmsg(SOL_IP, libc::IP_TTL, &3i32.to_ne_bytes());
        let segment = cmsg(SOL_UDP, libc::UDP_SEGMENT, &1200u16.to_ne_bytes());
        let both = [cmsg(SOL_IP, libc::IP_PKTINFO, &info(0)), ttl.clone(), segment];
        let source = Some(Ip::v4([10, 0, 0, 1]));
        assert_eq!(read(&both, true), Some(Wishes { source, ttl: Some(3), tos: None, segment: Some(1200) }));
        assert_eq!(read(&both, false), None, "IPv4's wishes for IPv6");
        assert!(read(&[cmsg(SOL_IP, libc::IP_PKTINFO, &info(7))], true).is_some());
        assert_eq!(read(&[cmsg(SOL_IP, libc::IP_PKTINFO, &info(8))], true), None, "another device");
        assert_eq!(read(&[cmsg(SOL_IP, libc::IP_TTL, &0i32.to_ne_bytes())], true), None, "EINVAL, says the kernel");
        assert_eq!(read(&[cmsg(SOL_SOCKET, libc::SCM_RIGHTS, &[0; 4])], true), None);
        assert_eq!(read(&[cmsg(SOL_IP, libc::IP_TOS, &[0xb8])], true).and_then(|w| w.tos), Some(0xb8));
        let v6 = [&[0xfd; 16][..], &0i32.to_ne_bytes()].concat();
        assert_eq!(
            read(&[cmsg(SOL_IPV6, libc::IPV6_PKTINFO, &v6)], false).and_then(|w| w.source),
            Some(Ip([0xfd; 16]))
        );
        let mut cut = ttl;
        cut[0] = 9;
        assert_eq!(read(&[cut], true), None, "shorter than its header");
        assert_eq!(read(&[], true), Some(Wishes::default()));
    }

    #[test]
    fn what_a_receiver_wants_is_told_as_far_as_there_is_room() {
        let facts = Facts {
            source: Endpoint::new(Ip::v4([10, 0, 0, 2]), 53),
            destination: Ip::v4([10, 0, 0, 1]),
            ttl: 61,
            tos: 4,
            arrived: now(),
        };
        let receiver = Receiver { family: AF_INET, ifindex: 7, wants: want::INFO_V4 | want::TTL | want::TOS };
        for (room, used, cut) in [(20, 80, false), (9, 72, true), (8, 56, true), (4, 32, true), (1, 0, true)] {
            let mut control = vec![0u64; room];
            let mut name = [0u8; 28];
            let mut header = message(&mut control);
            (header.msg_name, header.msg_namelen) = (name.as_mut_ptr().cast(), 28);
            // SAFETY: both buffers are as long as the header says.
            unsafe { receiver.describe(&mut header, &facts, 0, None) }.unwrap();
            assert_eq!((header.msg_controllen, header.msg_flags & MSG_CTRUNC != 0), (used, cut), "room {room}");
            assert_eq!((header.msg_namelen, &name[2..8]), (16, &[0, 53, 10, 0, 0, 2][..]));
        }
    }
}
