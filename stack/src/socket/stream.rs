//! Streams: connect, send, receive, shutdown. The order of checks is Linux's, so that the errors are.

use super::table::{Holders, Kind, Progress};
use super::{Errno, ProcId, SocketId, readiness};
use crate::addr::{Endpoint, Flow};
use crate::buf::Pressure;
use crate::engine::{Engine, context};
use crate::ip::tables::RouteVerdict;
use crate::slab::NONE;
use crate::tcp::{Info, State, Tcb, TcpError, UrgentOctet, isn, ts_offset};
use crate::time::Instant;

/// The second argument of shutdown().
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    Read,
    Write,
    Both,
}

impl From<TcpError> for Errno {
    fn from(error: TcpError) -> Errno {
        match error {
            TcpError::Reset => Errno::ECONNRESET,
            TcpError::Refused => Errno::ECONNREFUSED,
            TcpError::TimedOut => Errno::ETIMEDOUT,
            TcpError::HostUnreachable => Errno::EHOSTUNREACH,
            TcpError::NetUnreachable => Errno::ENETUNREACH,
            TcpError::Pipe => Errno::EPIPE,
            TcpError::NoProtocol => Errno::ENOPROTOOPT,
            TcpError::Protocol => Errno::EPROTO,
            TcpError::Forbidden => Errno::EACCES,
        }
    }
}

/// Free frames that writes leave alone.
const RESERVED_FRAMES: u32 = 32;

/// The handshake is still under way.
fn is_opening(state: State) -> bool {
    matches!(state, State::SynSent | State::SynReceived)
}

impl Engine<'_> {
    /// connect(): EINPROGRESS, and the SYN is on its way; or Ok, and the SYN waits for the first write, to carry it (Fast
    /// Open, TCP_FASTOPEN_CONNECT). `local` is what the socket is bound to; its address or port
    /// may be unspecified. Called again: EALREADY while under way, then once the outcome, then EISCONN.
    pub fn connect(
        &mut self,
        now: Instant,
        s: SocketId,
        local: Option<Endpoint>,
        remote: Endpoint,
    ) -> Result<(), Errno> {
        let Some(index) = self.may_connect(now, s)? else { return Ok(()) };
        let conn = self.open_connection(now, index, local, remote, false)?;
        if self.conns[conn].is_deferred() {
            self.sockets[index].progress = Progress::Connected;
            return Ok(());
        }
        Err(Errno::EINPROGRESS)
    }

    /// The slot of a socket that may connect; `None` when it has, and this call is the one to be told.
    pub(super) fn may_connect(&mut self, now: Instant, s: SocketId) -> Result<Option<u32>, Errno> {
        let index = self.slot(s)?;
        let socket = &self.sockets[index];
        match (socket.kind, socket.progress) {
            (Kind::Stream, Progress::Unconnected) => Ok(Some(index)),
            (Kind::Stream, Progress::Connecting) if self.is_connecting(index) => Err(Errno::EALREADY),
            (Kind::Stream, Progress::Connecting) => self.finish_connect(now, index).map(|()| None),
            _ => Err(Errno::EISCONN),
        }
    }

    /// A new connection for a socket, its SYN on its way, or waiting for data (Fast Open, `is_fast` or by option).
    pub(super) fn open_connection(
        &mut self,
        now: Instant,
        index: u32,
        local: Option<Endpoint>,
        remote: Endpoint,
        is_fast: bool,
    ) -> Result<u32, Errno> {
        let flow = self.choose_flow(now, local.unwrap_or_default(), remote)?;
        let (secret, options) = (self.state.config.isn_secret, self.own(index).options);
        let offset = ts_offset(&secret, &flow);
        let mss = self.mss_towards(&remote.ip);
        if self.conns.live() as usize == self.conns.capacity() {
            return Err(Errno::ENOBUFS);
        }
        let iss = self.succeed_time_wait(now, &flow).unwrap_or_else(|| isn(&secret, &flow, now));
        let mut tcb = Tcb::connect(&mut context!(self, now), flow, iss, offset, mss, &options);
        tcb.link.socket = index;
        self.limit_path_of(now, &mut tcb);
        if let Some(opening) = self.plan_opening(now, index, &remote.ip, is_fast) {
            Engine::begin_fast(&mut tcb, &opening);
        }
        let conn = self.adopt(now, tcb).ok_or(Errno::ENOBUFS)?;
        self.attach(index, conn);
        self.drop_own(index);
        let socket = &mut self.sockets[index];
        (socket.progress, socket.error) = (Progress::Connecting, Errno::default());
        Ok(conn)
    }

    /// The flow of a new connection: source address by route, local port from the stack's blocks.
    fn choose_flow(&mut self, now: Instant, local: Endpoint, remote: Endpoint) -> Result<Flow, Errno> {
        let src = match self.state.net.route(&remote.ip) {
            RouteVerdict::Via { src, .. } => src,
            RouteVerdict::NotOurs => return Err(Errno::ENETUNREACH),
            RouteVerdict::Unreachable => return Err(Errno::EHOSTUNREACH),
        };
        let ip = if local.ip.is_unspecified() { src } else { local.ip };
        if ip.is_v4() != remote.ip.is_v4() || !self.state.net.is_local(&ip) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        if local.port == 0 {
            return Ok(Flow { local: self.choose_port(now, ip, remote)?, remote });
        }
        let flow = Flow { local: Endpoint::new(ip, local.port), remote };
        if self.is_flow_free(now, &flow) { Ok(flow) } else { Err(Errno::EADDRNOTAVAIL) }
    }

    /// What became of connect(): Ok when connected, EINPROGRESS while under way, else the error. After an error the
    /// socket may connect again.
    pub fn connect_status(&mut self, now: Instant, s: SocketId) -> Result<(), Errno> {
        let index = self.slot(s)?;
        match self.sockets[index].progress {
            Progress::Unconnected => Err(Errno::ENOTCONN),
            Progress::Connecting if self.is_connecting(index) => Err(Errno::EINPROGRESS),
            Progress::Connecting => self.finish_connect(now, index),
            Progress::Connected => Ok(()),
        }
    }

    fn finish_connect(&mut self, now: Instant, index: u32) -> Result<(), Errno> {
        let conn = self.sockets[index].conn;
        if self.conns[conn].state() != State::Closed {
            self.sockets[index].progress = Progress::Connected;
            return Ok(());
        }
        let error = self.take_error_of(index);
        self.forget_connection(now, index);
        Err(if error.is_set() { error } else { Errno::ECONNABORTED })
    }

    /// connect() called again: as [`Engine::connect`], but a socket that could begin anew is left alone, with ENOTCONN.
    pub fn connect_again(&mut self, now: Instant, s: SocketId) -> Result<(), Errno> {
        match self.may_connect(now, s)? {
            Some(_) => Err(Errno::ENOTCONN),
            None => Ok(()),
        }
    }

    /// connect() to AF_UNSPEC: the connection is over, with a RST where one is due, and the socket is as new. Whoever still uses
    /// it hears of ECONNRESET, as on Linux.
    pub fn disconnect(&mut self, now: Instant, s: SocketId) -> Result<(), Errno> {
        let (index, Some(conn)) = self.stream(s)? else { return Ok(()) };
        let was_lost =
            !matches!(self.conns[conn].state(), State::Closed | State::TimeWait | State::Closing | State::LastAck);
        self.forget_connection(now, index);
        if was_lost {
            self.sockets[index].error = Errno::ECONNRESET;
        }
        self.announce_change(index);
        Ok(())
    }

    /// The socket forgets its connection, which is closed, or is to be.
    fn forget_connection(&mut self, now: Instant, index: u32) {
        let socket = &mut self.sockets[index];
        let conn = core::mem::replace(&mut socket.conn, NONE);
        (socket.progress, socket.wants_room) = (Progress::Unconnected, false);
        self.restore_own(index, conn);
        self.orphan_connection(now, conn, crate::tcp::Linger::Reset);
    }

    /// The slot of a stream and its connection; `None` before connect().
    fn stream(&self, s: SocketId) -> Result<(u32, Option<u32>), Errno> {
        let index = self.slot(s)?;
        let conn = self.sockets[index].conn;
        Ok((index, (conn != NONE).then_some(conn)))
    }

    /// send(): takes what there is room for. EAGAIN when there is none, or while connecting.
    pub fn send(&mut self, now: Instant, s: SocketId, data: &[u8]) -> Result<usize, Errno> {
        self.give_out(now, s, data, false)
    }

    #[inline]
    fn give_out(&mut self, now: Instant, s: SocketId, data: &[u8], urgent: bool) -> Result<usize, Errno> {
        let (index, conn) = self.stream(s)?;
        let Some(conn) = conn.filter(|conn| self.conns[*conn].may_send()) else {
            return Err(self.why_not_send(index, conn));
        };
        if self.conns[conn].error().is_some() || self.sockets[index].error.is_set() {
            return Err(self.take_error_of(index));
        }
        let part = &data[..data.len().min(self.spare_bytes(conn))];
        let (tcb, cx) = (&mut self.conns[conn], &mut context!(self, now));
        let n = if urgent { tcb.write_urgent(cx, part) } else { tcb.write(cx, part) };
        if n < data.len() {
            self.want_room(index);
        }
        // Also when nothing was taken: the call looked whether what waits for its pace may go, and then nobody else will.
        self.schedule(now, conn);
        if n == 0 && !data.is_empty() { Err(Errno::EAGAIN) } else { Ok(n) }
    }

    /// What may be written now without taking the last frames: those are for what arrives, and for answering it. A send
    /// queue that holds them all would wait for acknowledgements that cannot be received.
    #[inline]
    fn spare_bytes(&mut self, conn: u32) -> usize {
        let spare = self.frames.free_count().saturating_sub(RESERVED_FRAMES);
        if spare < RESERVED_FRAMES {
            self.state.starved = true;
        }
        spare as usize * usize::from(self.conns[conn].frame_payload())
    }

    /// Tells those whose writes were cut short that there are frames again.
    pub(crate) fn feed_starved(&mut self) {
        if !self.state.starved
            || self.frames.free_count() < 2 * RESERVED_FRAMES
            || self.frames.pressure() == Pressure::Exhausted
        {
            return;
        }
        self.state.starved = false;
        self.feed_datagram_senders();
        for index in 0..self.sockets.used() {
            let socket = &mut self.sockets[index];
            if socket.wants_room && socket.conn != NONE && self.conns[socket.conn].is_writable(&self.frames) {
                socket.wants_room = false;
                self.announce(index, readiness::ROOM_CAME);
            }
        }
    }

    fn why_not_send(&mut self, index: u32, conn: Option<u32>) -> Errno {
        let error = self.take_error_of(index);
        if error.is_set() {
            return error;
        }
        let opening = conn.is_some_and(|c| is_opening(self.conns[c].state()) && !self.conns[c].is_send_shutdown());
        if opening { Errno::EAGAIN } else { Errno::EPIPE }
    }

    /// recv(): what has arrived; Ok(0) is the end. With `peek`, it stays.
    pub fn recv(&mut self, now: Instant, s: SocketId, out: &mut [u8], peek: bool) -> Result<usize, Errno> {
        let wanted = out.len();
        self.take_in(now, s, wanted, |tcb, cx| tcb.read(cx, out, peek))
    }

    /// recv() with MSG_PEEK, of what lies `ahead` octets from the next one. Behind what is there: 0, whatever the state.
    pub fn peek(&mut self, now: Instant, s: SocketId, ahead: usize, out: &mut [u8]) -> Result<usize, Errno> {
        if ahead == 0 {
            return self.recv(now, s, out, true);
        }
        let conn = self.stream(s)?.1;
        Ok(conn.map_or(0, |conn| self.conns[conn].peek(&context!(self, now), ahead, out)))
    }

    /// Whether a read that has got so far stops here, though it wants more: the urgent mark or the end of the stream lies
    /// `ahead` octets from the next one. An error stays for the next call.
    pub fn stops_at(&self, s: SocketId, ahead: u32) -> Result<bool, Errno> {
        let (index, Some(conn)) = self.stream(s)? else { return Ok(true) };
        let tcb = &self.conns[conn];
        let over = matches!(tcb.state(), State::Closed | State::TimeWait)
            || tcb.peer_fin_reached()
            || tcb.is_receive_shutdown()
            || tcb.error().is_some()
            || self.sockets[index].error.is_set();
        Ok(tcb.until_mark() == Some(ahead) || over && tcb.available() <= ahead)
    }

    /// How many octets a recv() that waits has to give, if it asks for more (SO_RCVLOWAT).
    #[inline]
    pub fn receive_lowat(&self, s: SocketId) -> Result<usize, Errno> {
        Ok(self.sockets[self.slot(s)?].rcvlowat as usize)
    }

    /// Whether more can ever be written. An error stays for the next call.
    pub fn takes_data(&self, s: SocketId) -> Result<bool, Errno> {
        let (index, conn) = self.stream(s)?;
        let takes = |conn: u32| self.conns[conn].may_send() && self.conns[conn].error().is_none();
        Ok(conn.is_some_and(takes) && !self.sockets[index].error.is_set())
    }

    /// recv() with MSG_TRUNC: as recv, but the bytes go nowhere.
    pub fn discard(&mut self, now: Instant, s: SocketId, n: usize) -> Result<usize, Errno> {
        self.take_in(now, s, n, |tcb, cx| tcb.discard(cx, n))
    }

    #[inline]
    fn take_in(
        &mut self,
        now: Instant,
        s: SocketId,
        wanted: usize,
        read: impl FnOnce(&mut Tcb, &mut crate::tcp::Context<'_, '_>) -> usize,
    ) -> Result<usize, Errno> {
        let (index, conn) = self.stream(s)?;
        match conn {
            Some(conn) if self.conns[conn].available() > 0 => {
                let tcb = &mut self.conns[conn];
                let n = read(tcb, &mut context!(self, now));
                // To read moves no deadline, and makes nothing ready to go but an acknowledgement.
                if tcb.owes_segment() {
                    self.ask_transmit(conn);
                }
                // All there was may have been an urgent octet, which is not in line.
                if n == 0 && wanted > 0 { self.why_not_receive(index, Some(conn)) } else { Ok(n) }
            }
            _ => self.why_not_receive(index, conn),
        }
    }

    /// recv() with MSG_OOB, which never waits: the urgent octet, or `None` at the end of the stream. EINVAL when there is
    /// none to fetch, EAGAIN while it is announced and not here.
    pub fn recv_urgent(&mut self, s: SocketId, peek: bool) -> Result<Option<u8>, Errno> {
        let conn = self.stream(s)?.1.ok_or(Errno::EINVAL)?;
        let tcb = &mut self.conns[conn];
        let over = matches!(tcb.state(), State::Closed | State::TimeWait);
        match tcb.take_urgent(peek) {
            UrgentOctet::None => Err(Errno::EINVAL),
            UrgentOctet::Here(octet) => Ok(Some(octet)),
            UrgentOctet::Awaited if over || tcb.peer_fin_reached() || tcb.is_receive_shutdown() => Ok(None),
            UrgentOctet::Awaited => Err(Errno::EAGAIN),
        }
    }

    /// send() with MSG_OOB: the last octet is urgent.
    pub fn send_urgent(&mut self, now: Instant, s: SocketId, data: &[u8]) -> Result<usize, Errno> {
        self.give_out(now, s, data, true)
    }

    /// SIOCATMARK: whether the next octet to read is, or was, the urgent one.
    pub fn is_at_mark(&self, s: SocketId) -> Result<bool, Errno> {
        Ok(self.stream(s)?.1.is_some_and(|conn| self.conns[conn].is_at_mark()))
    }

    /// Linux's order: the peer's end, then the error, then our own end, then "not connected", then "not yet".
    fn why_not_receive(&mut self, index: u32, conn: Option<u32>) -> Result<usize, Errno> {
        if conn.is_some_and(|c| self.conns[c].peer_fin_reached()) {
            return Ok(0);
        }
        let error = self.take_error_of(index);
        if error.is_set() {
            return Err(error);
        }
        let Some(conn) = conn else { return Err(Errno::ENOTCONN) };
        let over = matches!(self.conns[conn].state(), State::Closed | State::TimeWait);
        if over || self.conns[conn].is_receive_shutdown() { Ok(0) } else { Err(Errno::EAGAIN) }
    }

    /// When the last of the next `n` octets to be read came; `None` when there are none.
    pub fn arrival(&self, now: Instant, s: SocketId, n: u32) -> Result<Option<Instant>, Errno> {
        Ok(self.stream(s)?.1.and_then(|conn| self.conns[conn].arrival(&self.frames, now, n)))
    }

    /// FIONREAD.
    pub fn available(&self, s: SocketId) -> Result<u32, Errno> {
        Ok(self.stream(s)?.1.map_or(0, |conn| self.conns[conn].readable_bytes()))
    }

    /// SIOCOUTQ: bytes that the peer has not acknowledged.
    pub fn outq(&self, s: SocketId) -> Result<u32, Errno> {
        Ok(self.stream(s)?.1.map_or(0, |conn| self.conns[conn].unacked_bytes()))
    }

    /// SIOCOUTQNSD: bytes that were not sent yet.
    pub fn outq_unsent(&self, s: SocketId) -> Result<u32, Errno> {
        Ok(self.stream(s)?.1.map_or(0, |conn| self.conns[conn].unsent_bytes()))
    }

    /// Bytes that send() would take now.
    pub fn send_room(&self, s: SocketId) -> Result<u32, Errno> {
        Ok(self.stream(s)?.1.map_or(0, |conn| self.conns[conn].send_room(&self.frames)))
    }

    /// shutdown(). On a listener the receiving side's end is the end of listening: it becomes an unconnected socket.
    pub fn shutdown(&mut self, now: Instant, s: SocketId, how: How) -> Result<(), Errno> {
        let (index, conn) = self.stream(s)?;
        let Some(conn) = conn.filter(|conn| !matches!(self.conns[*conn].state(), State::Closed | State::TimeWait))
        else {
            return self.shutdown_unconnected(now, index, how);
        };
        if self.conns[conn].state() == State::SynSent {
            // As on Linux, the attempt is given up, and the socket is as new.
            return self.disconnect(now, s);
        }
        if how != How::Write {
            self.conns[conn].shutdown_receive();
        }
        if how != How::Read {
            let arrival = self.conns[conn].shutdown_send(&mut context!(self, now));
            self.after(now, conn, arrival);
        }
        self.announce_change(index);
        Ok(())
    }

    /// The last holder's close() of a socket with SO_LINGER: our end goes out, and the seconds to wait for its
    /// acknowledgement are told. 0: there is nothing to wait for.
    pub fn begin_linger(&mut self, now: Instant, s: SocketId, holder: ProcId) -> Result<u16, Errno> {
        let (index, Some(conn)) = self.stream(s)? else { return Ok(0) };
        let socket = &self.sockets[index];
        // What lies unread makes it a RST; and a handshake under way is given up at once.
        let ends_at_once = self.conns[conn].available() > 0 || self.conns[conn].state() == State::SynSent;
        if !socket.lingers || ends_at_once || socket.holders != Holders::of(holder) {
            return Ok(0);
        }
        let seconds = socket.linger_s;
        if seconds > 0 {
            self.conns[conn].shutdown_receive();
            let arrival = self.conns[conn].shutdown_send(&mut context!(self, now));
            self.after(now, conn, arrival);
        }
        Ok(seconds)
    }

    /// Whether our end is on its way and not acknowledged.
    pub fn is_closing(&self, s: SocketId) -> Result<bool, Errno> {
        let closing = |conn| matches!(self.conns[conn].state(), State::FinWait1 | State::Closing | State::LastAck);
        Ok(self.stream(s)?.1.is_some_and(closing))
    }

    fn shutdown_unconnected(&mut self, now: Instant, index: u32, how: How) -> Result<(), Errno> {
        if self.sockets[index].kind != Kind::Listener {
            return Err(Errno::ENOTCONN);
        }
        if how != How::Write {
            self.close_listener(now, index);
            self.sockets[index].kind = Kind::Stream;
            self.announce_change(index);
        }
        Ok(())
    }

    /// getsockname().
    pub fn local_endpoint(&self, s: SocketId) -> Result<Endpoint, Errno> {
        let (index, conn) = self.stream(s)?;
        Ok(conn.map_or_else(|| self.own(index).local, |conn| self.conns[conn].flow().local))
    }

    /// getpeername().
    pub fn peer_endpoint(&self, s: SocketId) -> Result<Endpoint, Errno> {
        let conn = self.stream(s)?.1.ok_or(Errno::ENOTCONN)?;
        match self.conns[conn].state() {
            State::Closed | State::TimeWait | State::SynSent => Err(Errno::ENOTCONN),
            _ => Ok(self.conns[conn].flow().remote),
        }
    }

    /// SO_ERROR: the pending error, or 0; it is gone afterwards.
    pub fn take_error(&mut self, s: SocketId) -> Result<Errno, Errno> {
        let index = self.slot(s)?;
        Ok(self.take_error_of(index))
    }

    pub(crate) fn take_error_of(&mut self, index: u32) -> Errno {
        let socket = &mut self.sockets[index];
        let own = core::mem::take(&mut socket.error);
        if own.is_set() || socket.conn == NONE {
            return own;
        }
        self.conns[socket.conn].take_error().map_or(own, Errno::from)
    }

    /// TCP_INFO; of a socket without connection, that of CLOSED.
    pub fn info(&self, now: Instant, s: SocketId) -> Result<Info, Errno> {
        Ok(self.stream(s)?.1.map_or_else(Info::default, |conn| self.conns[conn].info(now)))
    }
}
