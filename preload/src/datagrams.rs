//! Datagram sockets: when one becomes a user socket, and what a call works with then.
//!
//! Every one has a kernel socket, its shadow, under the same descriptor. bind, connect, shutdown and all options go to the
//! shadow first; the engine's half learns what came of it. Datagrams come from both: what the XDP program does not steer
//! (fragments, multicast, loopback, other devices) arrives at the shadow, and what the engine cannot send leaves by it.
//!
//! A socket that was bound to a port becomes a user socket with the first interest in receiving or sending, so that each
//! of several forked workers has one in a stack of its own. One that was not is given a port of the stack's blocks when it
//! is bound to port 0, connected, or first sent from, and its shadow is bound to that.

use crate::critical::Mutex;
use crate::fallback::{Why, warn};
use crate::fd_table::{Entry, Kind, TABLE};
use crate::local::{self, Flag, Local};
use crate::reason::Reason;
use crate::sys::{self, Result, raw};
use crate::user::{endpoint_from, number, on_stack, take_in};
use crate::{attach, interest, options, owner};
use libc::{AF_INET, AF_INET6, EADDRINUSE, O_NONBLOCK, SOL_IP, SOL_IPV6, SOL_SOCKET, c_int, sockaddr, socklen_t};
use sidestep_stack::addr::{Endpoint, Ip};
use sidestep_stack::arena::Proto;
use sidestep_stack::ip::tables::RouteVerdict;
use sidestep_stack::runtime::{Guard, Stack, now};
use sidestep_stack::socket::{DatagramFacts, Errno, Family, SocketId};
use sidestep_stack::time::Instant;
use sidestep_stack::udp::{Cutting, Marks};
use std::sync::atomic::Ordering::Relaxed;

/// Ports that are tried for a shadow before it is left to the kernel to find one.
const TRIES: usize = 16;

/// A user-mode datagram socket as a call works with it.
#[derive(Clone, Copy)]
pub(crate) struct Datagram {
    /// The descriptor, which is the shadow's.
    pub(crate) fd: c_int,
    pub(crate) id: SocketId,
    pub(crate) stack: &'static Stack,
    pub(crate) local: &'static Local,
}

impl Datagram {
    /// The user socket of a descriptor's entry.
    #[inline]
    pub(crate) fn of(fd: c_int, entry: Entry) -> Option<Datagram> {
        if entry.kind() != Kind::Datagram {
            return None;
        }
        let id = SocketId { index: entry.index(), generation: entry.generation() };
        Some(Datagram { fd, id, stack: attach::stack()?, local: local::of(entry.index())? })
    }

    /// One step on the engine, with what it leaves to send sent or put off.
    #[inline]
    pub(crate) fn with<T>(&self, step: impl FnOnce(&mut Guard<'_>, Instant) -> Result<T>) -> Result<T> {
        on_stack(self.stack, step)
    }

    /// A question about what has come: what lies in the receive rings has.
    pub(crate) fn look<T>(&self, question: impl FnOnce(&mut Guard<'_>) -> core::result::Result<T, Errno>) -> Result<T> {
        self.with(|guard, now| {
            take_in(self.stack, guard, now);
            question(guard).map_err(number)
        })
    }

    /// A question to the engine, or a word to it: nothing to send afterwards.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(&mut Guard<'_>) -> core::result::Result<T, Errno>) -> Result<T> {
        question(&mut self.stack.lock()).map_err(number)
    }

    /// The address family that the application sees.
    pub(crate) fn family(&self) -> c_int {
        if self.local.has(Flag::V6) { AF_INET6 } else { AF_INET }
    }

    /// Whether the operator lets the socket's datagrams leave through the stack. They arrive there or not by the XDP
    /// program's word.
    pub(crate) fn may_send(&self) -> bool {
        if self.local.has(Flag::ByKernel) {
            return false;
        }
        let port = self.local.joined_port();
        port == 0 || self.stack.arena().policy(Proto::Udp, port).allows()
    }

    /// The engine's half learns to whom the shadow is connected now.
    pub(crate) fn follow_shadow(&self) -> Result<()> {
        let local = kernel_name(self.fd).unwrap_or_default();
        match peer_name(self.fd) {
            Some(remote) => self.ask(|guard| guard.connect_datagram(self.id, local.ip, remote)),
            None => self.ask(|guard| guard.disconnect_datagram(self.id, local.ip)),
        }
    }

    /// And what its options say that concern the engine.
    pub(crate) fn follow_options(&self) {
        let fd = self.fd;
        let is_v6 = self.family() == AF_INET6;
        let _ = self.ask(|guard| {
            guard.set_datagram_buffer(self.id, receive_buffer(fd))?;
            let ipv6_mtu = self.local.ipv6_mtu.load(Relaxed) as u16;
            guard.set_error_queue(self.id, keeps_errors(fd, SOL_IP), is_v6 && keeps_errors(fd, SOL_IPV6))?;
            guard.set_coalesces(self.id, sys::option::<c_int>(fd, libc::SOL_UDP, UDP_GRO).is_ok_and(|on| on != 0))?;
            guard.set_marks(self.id, Marks { ipv6_mtu, ..marks_of(fd, is_v6) })
        });
        self.local.wants.store(crate::message::wants_of(fd, is_v6), Relaxed);
        options::follow_timeouts(self.local, fd);
        let segment = sys::option::<c_int>(fd, libc::SOL_UDP, libc::UDP_SEGMENT).unwrap_or(0);
        self.local.segment.store(segment.max(0) as u32, Relaxed);
        let corked = sys::option::<c_int>(fd, libc::SOL_UDP, libc::UDP_CORK).unwrap_or(0);
        self.local.put(Flag::Corked, corked != 0);
    }

    /// The last descriptor of this process is gone.
    pub(crate) fn end(&self) {
        let port = self.local.joined_port();
        crate::epoll_members::forget_twins(self.stack, self.id);
        let is_last = self.with(|guard, now| {
            guard.release(now, self.id, attach::process()).map_err(number)?;
            Ok(port != 0 && !guard.has_mailbox(port))
        });
        if is_last == Ok(true) {
            attach::leave(Proto::Udp, port, self.stack);
        }
    }
}

/// A kernel socket's own address.
pub(crate) fn kernel_name(fd: c_int) -> Option<Endpoint> {
    let mut bytes = [0u64; 4];
    let mut len = size_of_val(&bytes) as socklen_t;
    // SAFETY: `bytes` is writable for `len` bytes, and then read for as many as the kernel wrote.
    unsafe {
        raw!(getsockname, fd, bytes.as_mut_ptr(), &raw mut len).ok()?;
        endpoint_from(bytes.as_ptr().cast(), len)
    }
}

fn peer_name(fd: c_int) -> Option<Endpoint> {
    let mut bytes = [0u64; 4];
    let mut len = size_of_val(&bytes) as socklen_t;
    // SAFETY: as above.
    unsafe {
        raw!(getpeername, fd, bytes.as_mut_ptr(), &raw mut len).ok()?;
        endpoint_from(bytes.as_ptr().cast(), len)
    }
}

fn receive_buffer(fd: c_int) -> u32 {
    sys::option::<c_int>(fd, SOL_SOCKET, libc::SO_RCVBUF).unwrap_or(212_992).max(0) as u32
}

/// IP_RECVERR, IPV6_RECVERR.
fn keeps_errors(fd: c_int, level: c_int) -> bool {
    let name = if level == SOL_IP { libc::IP_RECVERR } else { libc::IPV6_RECVERR };
    sys::option::<c_int>(fd, level, name) == Ok(1)
}

/// linux/udp.h.
pub(crate) const UDP_GRO: c_int = 104;

fn marks_of(fd: c_int, is_v6: bool) -> Marks {
    let byte = |level, name, default: u8| sys::option::<c_int>(fd, level, name).map_or(default, |v| v as u8);
    Marks {
        ttl: byte(SOL_IP, libc::IP_TTL, 64),
        tos: byte(SOL_IP, libc::IP_TOS, 0),
        hop_limit: if is_v6 { byte(SOL_IPV6, libc::IPV6_UNICAST_HOPS, 64) } else { 64 },
        traffic_class: if is_v6 { byte(SOL_IPV6, libc::IPV6_TCLASS, 0) } else { 0 },
        cutting: match sys::option::<c_int>(fd, SOL_IP, libc::IP_MTU_DISCOVER) {
            Ok(libc::IP_PMTUDISC_DO | libc::IP_PMTUDISC_PROBE) => Cutting::Never,
            Ok(libc::IP_PMTUDISC_WANT) | Err(_) => Cutting::ByPath,
            Ok(libc::IP_PMTUDISC_DONT) => Cutting::Unasked,
            Ok(_) => Cutting::Always,
        },
        ..Marks::default()
    }
}

/// A socket that the application has just made.
pub(crate) fn note(fd: c_int, family: c_int) {
    interest::forget(fd);
    TABLE.set(fd, Entry::new(Kind::FreshDatagram, 0, family as u32));
}

/// The user socket of a descriptor, if it is one or becomes one by this interest in receiving.
pub(crate) fn receiver(fd: c_int, entry: Entry) -> Option<Datagram> {
    match entry.kind() {
        Kind::Datagram => Datagram::of(fd, entry),
        Kind::FreshDatagram if interest::is_explicitly_bound(fd) => go_live(fd, entry),
        _ => None,
    }
}

/// The same, by a wish to send to `to`.
pub(crate) fn sender(fd: c_int, entry: Entry, to: Option<Endpoint>) -> Option<Datagram> {
    match entry.kind() {
        Kind::Datagram => Datagram::of(fd, entry),
        Kind::FreshDatagram if interest::is_explicitly_bound(fd) => go_live(fd, entry),
        Kind::FreshDatagram => {
            let to = to.filter(|to| to.port != 0 && (to.ip.is_v4() || entry.index() as c_int == AF_INET6))?;
            // One that will stay with the kernel leaves the stack's ports to those that need one.
            let stack = reaching(&to.ip).filter(|_| !interest::is_in_several(fd))?;
            let any = if entry.index() as c_int == AF_INET6 { Ip::UNSPECIFIED } else { Ip::UNSPECIFIED_V4 };
            if !bind_to_own_port(fd, entry, stack, any) {
                return None;
            }
            go_live(fd, entry)
        }
        _ => None,
    }
}

/// The stack, if a destination is behind its device.
fn reaching(to: &Ip) -> Option<&'static Stack> {
    if to.is_loopback() || to.is_unspecified() || to.is_multicast_or_broadcast() || to.is_link_local_v6() {
        return None;
    }
    let stack = attach::open_stack()?;
    let verdict = stack.lock().net().route(to);
    matches!(verdict, RouteVerdict::Via { .. }).then_some(stack)
}

/// bind(). A socket that leaves the choice of its port to the kernel gets one of the stack's.
pub(crate) unsafe fn bind(fd: c_int, entry: Entry, addr: *const sockaddr, len: socklen_t) -> Result<isize> {
    // SAFETY: the application's address.
    let wanted = unsafe { endpoint_from(addr, len) };
    if let Some(Endpoint { ip, port: 0 }) = wanted
        && may_be_ours(&ip)
        && let Some(stack) = attach::open_stack()
        && (ip.is_unspecified() || stack.lock().net().is_local(&ip))
        && kernel_name(fd).is_some_and(|e| e.port == 0)
        && is_family(addr, entry)
        && !interest::is_in_several(fd)
        && bind_to_own_port(fd, entry, stack, ip)
    {
        return Ok(0); // the kernel has what arrives there until the socket is used
    }
    // SAFETY: the application's pointer; the kernel checks it.
    let done = unsafe { raw!(bind, fd, addr, len) }?;
    match wanted {
        Some(e) if e.port != 0 && may_be_ours(&e.ip) => interest::note_bind(fd, true),
        _ => drop(TABLE.replace_if(fd, entry, Reason::of_datagram(fd).entry())),
    }
    Ok(done)
}

fn is_family(addr: *const sockaddr, entry: Entry) -> bool {
    // SAFETY: a number; the address may be anything.
    let family = unsafe { crate::memory::read(addr.cast::<libc::sa_family_t>()) };
    family.is_ok_and(|family| u32::from(family) == entry.index())
}

fn may_be_ours(ip: &Ip) -> bool {
    !(ip.is_loopback() || ip.is_multicast_or_broadcast() || ip.is_link_local_v6())
}

/// Binds the shadow to a port of the stack's blocks. The kernel keeps its own hands off those, but a socket of its may
/// have been bound to one explicitly.
fn bind_to_own_port(fd: c_int, entry: Entry, stack: &'static Stack, ip: Ip) -> bool {
    let mut asked = false;
    for _ in 0..TRIES {
        let chosen = stack.lock().choose_datagram_port();
        let Ok(port) = chosen else {
            if core::mem::replace(&mut asked, true) {
                return false;
            }
            attach::more_ports(stack);
            continue;
        };
        let mut bytes = [0u8; 28];
        let len = crate::user::encode(Endpoint::new(ip, port), entry.index() as c_int, &mut bytes);
        // SAFETY: `bytes` holds `len` bytes.
        match unsafe { raw!(bind, fd, bytes.as_ptr(), len) } {
            Ok(_) => {
                interest::note_bind(fd, true);
                return true;
            }
            Err(EADDRINUSE) => {}
            Err(_) => return false,
        }
    }
    false
}

/// Two threads may have the same idea.
static GOING_LIVE: Mutex<()> = Mutex::new(());

/// A bound socket becomes a user socket; `None`, and the kernel's for good, when it cannot.
#[cold]
fn go_live(fd: c_int, entry: Entry) -> Option<Datagram> {
    let _locked = GOING_LIVE.lock();
    let current = TABLE.lookup(fd);
    if current != entry {
        return Datagram::of(fd, current);
    }
    let ipv6_mtu = interest::ipv6_mtu(fd); // before the record is taken
    // One that is in several epoll sets already stays where they look for it.
    let noted = interest::take_if_single(fd);
    let live = noted.is_ok().then(|| make_live(fd, entry, ipv6_mtu)).flatten();
    let new = live
        .map_or_else(|| Reason::of_datagram(fd).entry(), |d| Entry::new(Kind::Datagram, d.id.generation, d.id.index));
    TABLE.set(fd, new);
    if let (Some(datagram), Ok(Some(interest))) = (&live, noted) {
        crate::epoll_members::adopt_datagram(datagram, &interest);
    }
    if live.is_some() {
        crate::changes::announce();
    }
    live
}

fn make_live(fd: c_int, entry: Entry, ipv6_mtu: u16) -> Option<Datagram> {
    let is_v6 = entry.index() as c_int == AF_INET6;
    let endpoint = kernel_name(fd).filter(|e| e.port != 0 && may_be_ours(&e.ip))?;
    let is_own = is_own_port(endpoint.port);
    let is_allowed = || {
        let may = |arena: &sidestep_stack::arena::Arena| arena.policy(Proto::Udp, endpoint.port).allows();
        crate::config::config().ports.allow(Proto::Udp, endpoint.port) && attach::arena().is_some_and(may)
    };
    if !is_own && !is_allowed() {
        return None;
    }
    let stack = attach::open_stack()?;
    let id = open(fd, stack, endpoint, is_v6)?;
    if !is_own && attach::join(Proto::Udp, endpoint.port, stack) != attach::Joined::Yes {
        let _ = stack.lock().release(now(), id, attach::process());
        return None;
    }
    let local = local::of(id.index)?;
    local.begin(id, Flag::Shadow as u32 | if is_v6 { Flag::V6 as u32 } else { 0 });
    local.ipv6_mtu.store(ipv6_mtu.into(), Relaxed);
    local.note_joined(if is_own { 0 } else { endpoint.port });
    let datagram = Datagram { fd, id, stack, local };
    datagram.follow_options();
    let _ = owner::follow(fd, stack, id);
    let _ = datagram.follow_shadow();
    Some(datagram)
}

/// Whether the port is of our stack's blocks, if there is a stack.
fn is_own_port(port: u16) -> bool {
    attach::stack().is_some_and(|stack| stack.lock().owns_port(port))
}

/// The engine's half.
fn open(fd: c_int, stack: &Stack, local: Endpoint, is_v6: bool) -> Option<SocketId> {
    let is_on = |level, name| sys::option::<c_int>(fd, level, name).is_ok_and(|v| v != 0);
    let bound_to = sys::option::<c_int>(fd, SOL_SOCKET, SO_BINDTOIFINDEX).unwrap_or(0);
    let (reuses_port, reuses_address) = (is_on(SOL_SOCKET, libc::SO_REUSEPORT), is_on(SOL_SOCKET, libc::SO_REUSEADDR));
    let nonblocking = sys::file_flags(fd).is_ok_and(|f| f & O_NONBLOCK != 0);
    let facts = DatagramFacts {
        local,
        family: if is_v6 { Family::V6 } else { Family::V4 },
        v6only: is_v6 && is_on(SOL_IPV6, libc::IPV6_V6ONLY),
        // Without either option there can be no second socket: what looks like one is this one, in another process.
        shares_port: reuses_port || !reuses_address,
        rcvbuf_bytes: receive_buffer(fd),
        marks: Marks::default(), // nothing is sent before `follow_options` has read them
    };
    let mut guard = stack.lock();
    let is_elsewhere = bound_to != 0 && bound_to as u32 != guard.config().ifindex
        || !local.ip.is_unspecified() && !guard.net().is_local(&local.ip);
    if is_elsewhere {
        return None;
    }
    match guard.open_datagram(&facts, attach::process()) {
        Ok(id) => {
            let _ = guard.set_nonblocking(id, nonblocking);
            Some(id)
        }
        Err(e) => {
            drop(guard);
            warn(Why::Full, format_args!("datagram socket on port {}: {e:?}", local.port));
            None
        }
    }
}

const SO_BINDTOIFINDEX: c_int = 62;
