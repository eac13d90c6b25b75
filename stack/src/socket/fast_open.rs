//! Fast Open (RFC 7413): which connections may be early, how many, and what is remembered of servers.
//!
//! `tunables.fastopen` is Linux's net.ipv4.tcp_fastopen: 1 clients, 2 servers, 4 clients send data without a cookie, 0x200
//! servers take it without one, 0x400 every listener does.
//!
//! Connections whose data was taken before their handshake was complete are bounded: no more in a stack than the listener's
//! TCP_FASTOPEN says (RFC 7413 §5.1; Linux counts each listener's own). One that a RST ends counts for another minute: it
//! was a reflection of a forged SYN. At the limit SYNs are answered as ever, and their data comes again.

use super::table::{Kind, Progress};
use super::{Errno, SocketId};
use crate::addr::{Endpoint, Flow, Ip};
use crate::buf::FrameId;
use crate::drops::Drop;
use crate::engine::{Engine, Fate, context};
use crate::tcp::{Arrival, Events, Tcb, fast_open_cookie};
use crate::time::{Instant, SEC};
use crate::wire::tcp::{FastOpenCookie, Segment};

const CLIENT: u32 = 1;
const SERVER: u32 = 2;
const CLIENT_WITHOUT_COOKIE: u32 = 4;
const SERVER_WITHOUT_COOKIE: u32 = 0x200;
const ALL_LISTENERS: u32 = 0x400;

/// `Socket::fast_open`: TCP_FASTOPEN_CONNECT, TCP_FASTOPEN_NO_COOKIE.
pub(super) const ON_CONNECT: u8 = 1;
pub(super) const NO_COOKIE: u8 = 2;
/// And no option: something waits in the error queue, which is the shim's.
pub(super) const NOTICES: u8 = 128;

/// How long a RST counts against the limit.
const RESET_REST_US: u64 = 60 * SEC;

/// What a stack counts of connections that were early.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct EarlyCount {
    /// Those whose handshake is not complete.
    pending: u32,
    /// Those that were reset, until when they count.
    resets: u32,
    resets_until: Instant,
}

impl EarlyCount {
    /// A connection goes to another stack, which counts it from now on.
    pub(crate) fn count_emigrant(&mut self, tcb: &Tcb) {
        self.pending = self.pending.saturating_sub(tcb.is_early().into());
    }

    pub(crate) fn count_immigrant(&mut self, tcb: &Tcb) {
        self.pending += u32::from(tcb.is_early());
    }
}

/// What a SYN's Fast Open option leads to.
#[derive(Clone, Copy, Default)]
pub(super) struct Grant {
    /// Its data is taken.
    pub(super) is_early: bool,
    /// The SYN-ACK gives a cookie.
    pub(super) gives_cookie: bool,
}

/// How a connection of ours is to begin.
#[derive(Clone, Copy)]
pub(super) struct Opening {
    /// The SYN carries the option: a cookie, or the request for one.
    has_option: bool,
    /// The SYN waits for data.
    pub(super) may_carry_data: bool,
    mss: u16,
}

impl Engine<'_> {
    /// Server: looks at the Fast Open option of a SYN.
    pub(super) fn grant_fast_open(&mut self, now: Instant, listener: u32, flow: &Flow, syn: &Segment) -> Grant {
        let mode = self.state.tunables.fastopen;
        let socket = &self.sockets[listener];
        let most = match socket.fast_open_qlen {
            0 if mode & ALL_LISTENERS != 0 => self.own(listener).backlog,
            n => u32::from(n),
        };
        let needs_cookie = mode & SERVER_WITHOUT_COOKIE == 0 && socket.fast_open & NO_COOKIE == 0;
        let is_wanted = syn.options.fast_open.is_some() || !needs_cookie && syn.payload_len > 0;
        if mode & SERVER == 0 || most == 0 || !is_wanted {
            return Grant::default();
        }
        let secret = self.state.config.isn_secret;
        let ours = |age| fast_open_cookie(&secret, flow, now, age);
        let given = syn.options.fast_open.filter(|cookie| !cookie.is_request());
        let is_current = given == Some(ours(0));
        let is_good = !needs_cookie || is_current || given == Some(ours(1));
        let is_early = is_good && self.has_room_for_early(now, most);
        let counters = &mut self.state.counters;
        counters.fast_open_passive += u64::from(is_early);
        counters.fast_open_passive_failed += u64::from(!is_early && given.is_some());
        // A cookie that is still right is not given again.
        let gives_cookie = syn.options.fast_open.is_some() && !is_current;
        counters.fast_open_cookies_given += u64::from(gives_cookie);
        Grant { is_early, gives_cookie }
    }

    fn has_room_for_early(&mut self, now: Instant, most: u32) -> bool {
        let early = &mut self.state.early;
        if early.resets_until <= now {
            early.resets = 0;
        }
        early.pending + early.resets < most
    }

    /// Server: the connection goes to the accept queue before its handshake is complete, with the data of its SYN.
    pub(super) fn open_early(&mut self, now: Instant, conn: u32, syn: &Segment, frame: FrameId) -> Result<Fate, Drop> {
        self.state.early.pending += 1;
        let events = self.conns[conn].open_early(&mut context!(self, now), syn, frame);
        self.connected(conn);
        self.after(now, conn, Arrival { events, reply: None });
        Ok(Fate::Taken)
    }

    /// The handshake of a connection is over, one way or the other: counts and remembers.
    pub(crate) fn settle_fast_open(&mut self, now: Instant, conn: u32, events: Events) {
        if self.conns[conn].take_early() {
            let early = &mut self.state.early;
            early.pending = early.pending.saturating_sub(1);
            if events.has(Events::RESET) {
                early.resets = early.resets.saturating_add(1);
                early.resets_until = now.after_us(RESET_REST_US);
            }
        }
        let Some(has_failed) = self.conns[conn].has_fast_open_failed() else { return };
        let ip = self.conns[conn].flow().remote.ip;
        if has_failed || events.has(Events::CONNECTED) {
            self.state.destinations.note_fast_open(&ip, has_failed, now);
        }
    }

    /// What a SYN that offers a cookie carries: the server's if we know it, or the request for one. What a SYN-ACK does: the
    /// client's.
    pub(crate) fn cookie_for(&self, now: Instant, conn: u32) -> Option<FastOpenCookie> {
        let tcb = &self.conns[conn];
        if tcb.is_passive() {
            return Some(fast_open_cookie(&self.state.config.isn_secret, tcb.flow(), now, 0));
        }
        self.state.destinations.fast_open(&tcb.flow().remote.ip, now).map(|(cookie, _)| cookie)
    }

    /// Client: keeps the cookie that a SYN-ACK brought, if the connection had asked for it.
    pub(crate) fn keep_cookie(&mut self, now: Instant, conn: u32, syn_ack: &Segment) {
        let granted = self.conns[conn].take_granted().zip(syn_ack.options.fast_open);
        if let Some((mss, cookie)) = granted {
            let ip = self.conns[conn].flow().remote.ip;
            self.state.destinations.note_cookie(&ip, cookie, mss, now);
        }
    }

    /// Client: how connect() to `ip` begins; `None`: as ever.
    pub(super) fn plan_opening(&self, now: Instant, index: u32, ip: &Ip, is_asked: bool) -> Option<Opening> {
        let (mode, own) = (self.state.tunables.fastopen, self.sockets[index].fast_open);
        if mode & CLIENT == 0 || !is_asked && own & ON_CONNECT == 0 {
            return None;
        }
        let (cookie, mss) = self.state.destinations.fast_open(ip, now)?;
        let is_free = mode & CLIENT_WITHOUT_COOKIE != 0 || own & NO_COOKIE != 0;
        let may_carry_data = is_free || !cookie.is_request();
        let mss = if mss == 0 { MSS_UNKNOWN } else { mss };
        Some(Opening { has_option: !is_free || !cookie.is_request(), may_carry_data, mss })
    }

    /// Client: a connection that was just made begins as planned.
    pub(super) fn begin_fast(tcb: &mut crate::tcp::Tcb, opening: &Opening) {
        tcb.open_fast(opening.has_option, opening.may_carry_data, opening.mss);
    }

    /// sendto() with MSG_FASTOPEN: connect, and the first data with the SYN where the server's cookie is known; returns how
    /// much of it was taken. EINPROGRESS: the connection is on its way, and nothing was taken.
    pub fn send_fast(
        &mut self,
        now: Instant,
        s: SocketId,
        local: Option<Endpoint>,
        remote: Endpoint,
        data: &[u8],
    ) -> Result<usize, Errno> {
        if self.state.tunables.fastopen & CLIENT == 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let Some(index) = self.may_connect(now, s)? else { return Err(Errno::EISCONN) };
        let conn = self.open_connection(now, index, local, remote, true)?;
        if !self.conns[conn].is_deferred() {
            return Err(Errno::EINPROGRESS);
        }
        let sent = if data.is_empty() { Ok(0) } else { self.send(now, s, data) };
        // Without data, or room for it, the SYN goes all the same.
        self.conns[conn].end_deferral(&context!(self, now));
        self.schedule(now, conn);
        match sent {
            Ok(n) if n > 0 || data.is_empty() => Ok(n),
            _ => Err(Errno::EINPROGRESS),
        }
    }

    /// TCP_FASTOPEN on a listener: how many connections may be early; 0 is none.
    pub fn set_fast_open_queue(&mut self, s: SocketId, most: i32) -> Result<(), Errno> {
        let index = self.slot(s)?;
        let somaxconn = self.state.tunables.somaxconn.min(u32::from(u16::MAX));
        let most = u32::try_from(most).map_err(|_| Errno::EINVAL)?.min(somaxconn);
        self.sockets[index].fast_open_qlen = most as u16;
        Ok(())
    }

    /// TCP_FASTOPEN_CONNECT and TCP_FASTOPEN_NO_COOKIE.
    pub(super) fn set_fast_open_flag(&mut self, index: u32, flag: u8, value: i32) -> Result<(), Errno> {
        let is_idle = self.is_idle(index);
        let socket = &mut self.sockets[index];
        if !(0..=1).contains(&value) {
            return Err(Errno::EINVAL);
        }
        if flag == ON_CONNECT && self.state.tunables.fastopen & CLIENT == 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if socket.kind == Kind::Stream && socket.progress != Progress::Unconnected && !is_idle {
            return Err(Errno::EINVAL);
        }
        socket.fast_open = if value == 1 { socket.fast_open | flag } else { socket.fast_open & !flag };
        Ok(())
    }
}

/// Segments for a server that was not met before (RFC 9293 §3.7.1).
const MSS_UNKNOWN: u16 = 536;
