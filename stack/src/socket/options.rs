//! Socket options, by name and as the `int` that setsockopt and getsockopt carry.

use super::{Errno, SocketId, fast_open};
use crate::engine::{Engine, context};
use crate::ip::ecn;
use crate::slab::NONE;
use crate::tcp::{self, Algorithm, State, Tcb};
use crate::time::{Instant, MS};
use crate::tunables::Tunables;

/// The options that the engine itself minds. All others are the shadow socket's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketOption {
    /// TCP_NODELAY, TCP_CORK, SO_KEEPALIVE: 0 or 1.
    NoDelay,
    Cork,
    KeepAlive,
    /// TCP_KEEPIDLE, TCP_KEEPINTVL in seconds, TCP_KEEPCNT.
    KeepIdle,
    KeepInterval,
    KeepCount,
    /// TCP_USER_TIMEOUT, in milliseconds.
    UserTimeout,
    /// TCP_LINGER2, in seconds.
    FinTimeout,
    /// TCP_MAXSEG.
    MaxSegment,
    /// SO_SNDBUF, SO_RCVBUF; Linux doubles what is set.
    SendBuffer,
    ReceiveBuffer,
    /// SO_SNDBUFFORCE, SO_RCVBUFFORCE: beyond what the sysctls allow. SO_BUF_LOCK: 1 and 2, which of them was set.
    SendBufferForce,
    ReceiveBufferForce,
    BufferLock,
    /// SO_RCVLOWAT.
    ReceiveLowat,
    /// SO_OOBINLINE: 0 or 1.
    OobInline,
    /// TCP_WINDOW_CLAMP, TCP_NOTSENT_LOWAT, in bytes; 0 is none, and the sysctl's.
    WindowClamp,
    NotSentLowat,
    /// TCP_FASTOPEN of a listener: how many connections may be early.
    FastOpen,
    /// TCP_FASTOPEN_CONNECT, TCP_FASTOPEN_NO_COOKIE: 0 or 1.
    FastOpenConnect,
    FastOpenNoCookie,
    /// TCP_DEFER_ACCEPT, in seconds; TCP_SYNCNT.
    DeferAccept,
    SynCount,
    /// Not kept: setting it acknowledges at once; it tells whether acknowledgements wait for data.
    QuickAck,
    /// IP_TOS and IPV6_TCLASS, one octet; its two low bits are the transport's.
    Tos,
    TrafficClass,
    /// IP_TTL and IPV6_UNICAST_HOPS; −1 is the default.
    Ttl,
    HopLimit,
}

const KEEPALIVE_MAX_S: i32 = 32_767;
const KEEPALIVE_COUNT_MAX: i32 = 127;
const MSS_MIN: i32 = 88;
const MSS_MAX: i32 = 32_767;
const SNDBUF_MIN: u32 = 4_608;
const RCVBUF_MIN: u32 = 2_304;
const FIN_TIMEOUT_MAX_MS: u32 = 120_000;
const RTO_MAX_S: u32 = 120;
/// TCP_NOTSENT_LOWAT set to −1: no limit either, but read back as what was set.
const LOWAT_NONE: u32 = u32::MAX - 1;

fn checked(value: i32, min: i32, max: i32) -> Result<u32, Errno> {
    if (min..=max).contains(&value) { Ok(value as u32) } else { Err(Errno::EINVAL) }
}

/// Linux reads the number as unsigned: a negative one is the most.
fn buffer(value: i32, min: u32, max: u32) -> u32 {
    (value as u32).min(max).min(i32::MAX as u32 / 2).saturating_mul(2).max(min)
}

/// SO_SNDBUFFORCE and SO_RCVBUFFORCE: nothing but the number's own range bounds it.
fn forced(value: i32, min: u32) -> u32 {
    (value.max(0) as u32).min(i32::MAX as u32 / 2).saturating_mul(2).max(min)
}

impl Engine<'_> {
    /// setsockopt().
    pub fn set_option(&mut self, now: Instant, s: SocketId, option: SocketOption, value: i32) -> Result<(), Errno> {
        let index = self.slot(s)?;
        if option == SocketOption::ReceiveLowat {
            self.set_receive_lowat(index, value);
            return Ok(());
        }
        if option == SocketOption::WindowClamp && value == 0 && self.sockets[index].conn != NONE {
            return Err(Errno::EINVAL);
        }
        match option {
            // Only who listens, or may come to, has such a queue.
            SocketOption::FastOpen if !self.is_idle(index) => return Err(Errno::EINVAL),
            SocketOption::FastOpen => return self.set_fast_open_queue(s, value),
            SocketOption::FastOpenConnect => return self.set_fast_open_flag(index, fast_open::ON_CONNECT, value),
            SocketOption::FastOpenNoCookie => return self.set_fast_open_flag(index, fast_open::NO_COOKIE, value),
            _ => {}
        }
        let conn = self.sockets[index].conn;
        if conn == NONE {
            let own = &mut self.unconnected[self.sockets[index].unconnected];
            return set(&mut own.options, &self.state.tunables, option, value);
        }
        let mut options = *self.conns[conn].options();
        set(&mut options, &self.state.tunables, option, value)?;
        let tcb = &mut self.conns[conn];
        match option {
            SocketOption::NoDelay => tcb.set_nodelay(value != 0),
            SocketOption::Cork => tcb.set_cork(value != 0),
            SocketOption::KeepAlive => tcb.set_keepalive(&mut context!(self, now), value != 0),
            SocketOption::ReceiveBuffer | SocketOption::ReceiveBufferForce => {
                tcb.set_receive_buffer(options.rcvbuf_bytes)
            }
            SocketOption::WindowClamp => tcb.clamp_window(options.window_clamp_bytes),
            SocketOption::QuickAck if value != 0 => tcb.acknowledge_now(),
            SocketOption::QuickAck => tcb.acknowledge_lazily(),
            _ => *tcb.options_mut() = options,
        }
        if matches!(option, SocketOption::KeepIdle | SocketOption::KeepInterval) && self.conns[conn].options().keepalive
        {
            self.conns[conn].set_keepalive(&mut context!(self, now), true);
        }
        self.reschedule(now, conn);
        Ok(())
    }

    /// getsockopt().
    pub fn option(&self, s: SocketId, option: SocketOption) -> Result<i32, Errno> {
        let index = self.slot(s)?;
        let (socket, options) = (&self.sockets[index], self.options_of(index));
        let conn = (socket.conn != NONE).then(|| &self.conns[socket.conn]);
        let value = match option {
            SocketOption::NoDelay => u32::from(options.nodelay),
            SocketOption::Cork => u32::from(options.cork),
            SocketOption::KeepAlive => u32::from(options.keepalive),
            SocketOption::KeepIdle => options.keepalive_idle_ms / 1000,
            SocketOption::KeepInterval => options.keepalive_intvl_ms / 1000,
            SocketOption::KeepCount => u32::from(options.keepalive_probes),
            SocketOption::UserTimeout => options.user_timeout_ms,
            SocketOption::FinTimeout if options.fin_timeout_ms == tcp::Options::NO_FIN_WAIT => return Ok(-1),
            SocketOption::FinTimeout => options.fin_timeout_ms / 1000,
            SocketOption::DeferAccept => seconds_of(options.defer_accept),
            SocketOption::SynCount if options.syn_retries == 0 => self.state.tunables.syn_retries,
            SocketOption::SynCount => u32::from(options.syn_retries),
            SocketOption::MaxSegment => conn.map_or(u32::from(options.mss_clamp), |c| c.info(Instant::ZERO).snd_mss),
            SocketOption::SendBuffer => options.sndbuf_bytes,
            SocketOption::ReceiveBuffer => options.rcvbuf_bytes,
            SocketOption::BufferLock => u32::from(options.sndbuf_locked) | u32::from(options.rcvbuf_locked) << 1,
            SocketOption::SendBufferForce | SocketOption::ReceiveBufferForce => return Err(Errno::ENOPROTOOPT),
            SocketOption::ReceiveLowat => socket.rcvlowat,
            SocketOption::OobInline => u32::from(options.oob_inline),
            SocketOption::WindowClamp => match (options.window_clamp_bytes, conn) {
                (0, Some(conn)) => conn.largest_window(),
                (clamp, _) => clamp,
            },
            SocketOption::NotSentLowat if options.notsent_lowat_bytes == self.state.tunables.notsent_lowat_bytes => 0,
            SocketOption::NotSentLowat if options.notsent_lowat_bytes == LOWAT_NONE => return Ok(-1),
            SocketOption::NotSentLowat => options.notsent_lowat_bytes,
            SocketOption::FastOpen => u32::from(socket.fast_open_qlen),
            SocketOption::FastOpenConnect => u32::from(socket.fast_open & fast_open::ON_CONNECT != 0),
            SocketOption::FastOpenNoCookie => u32::from(socket.fast_open & fast_open::NO_COOKIE != 0),
            SocketOption::QuickAck => conn.is_none_or(Tcb::acknowledges_quickly).into(),
            SocketOption::Tos | SocketOption::TrafficClass => u32::from(options.tos),
            SocketOption::Ttl | SocketOption::HopLimit if options.ttl == 0 => self.state.tunables.ttl,
            SocketOption::Ttl | SocketOption::HopLimit => u32::from(options.ttl),
        };
        Ok(value.min(i32::MAX as u32) as i32)
    }

    /// Nothing connects or is connected.
    pub(super) fn is_idle(&self, index: u32) -> bool {
        let conn = self.sockets[index].conn;
        conn == NONE || self.conns[conn].state() == State::Closed
    }

    /// What TCP_CC_INFO tells, if the algorithm tells anything.
    pub fn congestion_info(&self, s: SocketId) -> Result<Option<(u64, u32, u32, u32)>, Errno> {
        let conn = self.sockets[self.slot(s)?].conn;
        Ok(if conn == NONE { None } else { self.conns[conn].congestion_info() })
    }

    /// SO_RCVLOWAT: no more than half of the largest buffer, for it has to be reached.
    fn set_receive_lowat(&mut self, index: u32, value: i32) {
        let options = self.options_of(index);
        let buffer = if options.rcvbuf_locked { options.rcvbuf_bytes } else { self.state.tunables.rmem_bytes[2] };
        let wanted = if value < 0 { i32::MAX as u32 } else { value as u32 };
        self.sockets[index].rcvlowat = wanted.min(buffer / 2).max(1);
    }

    /// TCP_CONGESTION, set by name. A live connection keeps its window.
    pub fn set_congestion(&mut self, now: Instant, s: SocketId, name: &str) -> Result<(), Errno> {
        let index = self.slot(s)?;
        let algorithm = Algorithm::by_name(name).ok_or(Errno::ENOENT)?;
        match self.sockets[index].conn {
            NONE => self.own_mut(index).options.congestion = algorithm,
            conn => {
                self.conns[conn].set_congestion(now, algorithm);
                self.reschedule(now, conn);
            }
        }
        Ok(())
    }

    /// TCP_CONGESTION, read.
    pub fn congestion(&self, s: SocketId) -> Result<Algorithm, Errno> {
        Ok(self.options_of(self.slot(s)?).congestion)
    }

    /// SO_MAX_PACING_RATE: octets a second, [`u64::MAX`] for none.
    pub fn set_max_pacing_rate(&mut self, now: Instant, s: SocketId, rate: u64) -> Result<(), Errno> {
        let index = self.slot(s)?;
        match self.sockets[index].conn {
            NONE => self.own_mut(index).options.max_pacing_rate = rate,
            conn => {
                self.conns[conn].set_max_pacing_rate(rate);
                self.reschedule(now, conn);
            }
        }
        Ok(())
    }

    pub fn max_pacing_rate(&self, s: SocketId) -> Result<u64, Errno> {
        Ok(self.options_of(self.slot(s)?).max_pacing_rate)
    }

    /// An option of a connection changed: it may want something else now.
    fn reschedule(&mut self, now: Instant, conn: u32) {
        if self.conns[conn].state() != State::Closed {
            self.schedule(now, conn);
        }
    }

    /// SO_LINGER: `None` when it is off, else seconds. With zero seconds the last close resets the connection; waiting
    /// the others out is the shim's business.
    pub fn set_linger(&mut self, s: SocketId, linger: Option<u16>) -> Result<(), Errno> {
        let index = self.slot(s)?;
        let socket = &mut self.sockets[index];
        (socket.lingers, socket.linger_s) = (linger.is_some(), linger.unwrap_or(socket.linger_s));
        Ok(())
    }

    pub fn linger(&self, s: SocketId) -> Result<Option<u16>, Errno> {
        let socket = &self.sockets[self.slot(s)?];
        Ok(socket.lingers.then_some(socket.linger_s))
    }

    /// The options a connection of this socket starts with, or has: what listen() passes on to a new listener.
    pub fn options(&self, s: SocketId) -> Result<tcp::Options, Errno> {
        Ok(*self.options_of(self.slot(s)?))
    }
}

/// TCP_DEFER_ACCEPT counts in seconds, and means SYN-ACKs: as many as go in that time, doubling from one second.
fn retransmits_in(seconds: i32) -> u8 {
    let enough = (1..=255u8).find(|n| seconds_of(*n) >= seconds.max(0) as u32).unwrap_or(255);
    if seconds > 0 { enough } else { 0 }
}

fn seconds_of(retransmits: u8) -> u32 {
    (0..u32::from(retransmits)).map(|n| (1 << n.min(7)).min(RTO_MAX_S)).sum()
}

/// Linux's ranges.
fn set(options: &mut tcp::Options, tunables: &Tunables, option: SocketOption, value: i32) -> Result<(), Errno> {
    match option {
        SocketOption::NoDelay => options.nodelay = value != 0,
        SocketOption::Cork => options.cork = value != 0,
        SocketOption::KeepAlive => options.keepalive = value != 0,
        SocketOption::KeepIdle => options.keepalive_idle_ms = checked(value, 1, KEEPALIVE_MAX_S)? * 1000,
        SocketOption::KeepInterval => options.keepalive_intvl_ms = checked(value, 1, KEEPALIVE_MAX_S)? * 1000,
        SocketOption::KeepCount => options.keepalive_probes = checked(value, 1, KEEPALIVE_COUNT_MAX)? as u8,
        SocketOption::UserTimeout => options.user_timeout_ms = checked(value, 0, i32::MAX)?,
        SocketOption::FinTimeout => {
            options.fin_timeout_ms = match value {
                ..0 => tcp::Options::NO_FIN_WAIT,
                1.. => (value as u32).saturating_mul(1000).min(FIN_TIMEOUT_MAX_MS),
                0 => (tunables.fin_timeout_us / MS).min(u64::from(FIN_TIMEOUT_MAX_MS)) as u32,
            }
        }
        SocketOption::DeferAccept => options.defer_accept = retransmits_in(value),
        SocketOption::SynCount => options.syn_retries = checked(value, 1, 127)? as u8,
        SocketOption::MaxSegment if value == 0 => options.mss_clamp = 0,
        SocketOption::MaxSegment => options.mss_clamp = checked(value, MSS_MIN, MSS_MAX)? as u16,
        SocketOption::SendBuffer => {
            options.sndbuf_bytes = buffer(value, SNDBUF_MIN, tunables.wmem_max_bytes);
            options.sndbuf_locked = true;
        }
        SocketOption::ReceiveBuffer => {
            options.rcvbuf_bytes = buffer(value, RCVBUF_MIN, tunables.rmem_max_bytes);
            options.rcvbuf_locked = true;
        }
        SocketOption::SendBufferForce => {
            options.sndbuf_bytes = forced(value, SNDBUF_MIN);
            options.sndbuf_locked = true;
        }
        SocketOption::ReceiveBufferForce => {
            options.rcvbuf_bytes = forced(value, RCVBUF_MIN);
            options.rcvbuf_locked = true;
        }
        SocketOption::BufferLock => {
            let locks = checked(value, 0, 3)?;
            (options.sndbuf_locked, options.rcvbuf_locked) = (locks & 1 != 0, locks & 2 != 0);
        }
        SocketOption::OobInline => options.oob_inline = value != 0,
        SocketOption::WindowClamp if value == 0 => options.window_clamp_bytes = 0,
        SocketOption::WindowClamp => options.window_clamp_bytes = value.max(RCVBUF_MIN as i32 / 2) as u32,
        SocketOption::NotSentLowat if value == 0 => options.notsent_lowat_bytes = tunables.notsent_lowat_bytes,
        SocketOption::NotSentLowat => options.notsent_lowat_bytes = (value as u32).min(LOWAT_NONE),
        // Linux takes the low octet of whatever it is given.
        SocketOption::Tos => options.tos = value as u8 & !ecn::MASK,
        SocketOption::TrafficClass if value == -1 => options.tos = 0,
        SocketOption::TrafficClass => options.tos = checked(value, 0, 255)? as u8 & !ecn::MASK,
        SocketOption::Ttl if value == -1 => options.ttl = 0,
        SocketOption::Ttl => options.ttl = checked(value, 1, 255)? as u8,
        // Zero hops would be allowed, and reach nobody; it is the default here.
        SocketOption::HopLimit if value == -1 => options.ttl = 0,
        SocketOption::HopLimit => options.ttl = checked(value, 0, 255)? as u8,
        SocketOption::ReceiveLowat
        | SocketOption::QuickAck
        | SocketOption::FastOpen
        | SocketOption::FastOpenConnect
        | SocketOption::FastOpenNoCookie => {}
    }
    Ok(())
}
