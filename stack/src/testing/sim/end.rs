//! One end of a connection: an application that writes, reads and goes as its plan says, and checks what it gets.

use super::plan::{EndPlan, Ending, Wait};
use crate::addr::Endpoint;
use crate::engine::Engine;
use crate::socket::readiness::{ET, IN, ONESHOT, OUT, RDHUP};
use crate::socket::{Errno, How, SetId, SocketId, SocketOption};
use crate::testing::alloc::format;
use crate::testing::alloc::string::String;
use crate::testing::alloc::vec::Vec;
use crate::testing::content::{Side, first_wrong, octet};
use crate::time::Instant;

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Connecting,
    Working,
    /// It holds the connection until then.
    Staying(u64),
    Done,
}

/// One end.
#[derive(Debug)]
pub(super) struct End {
    pub(super) host: usize,
    pub(super) side: Side,
    pub(super) proc: u16,
    pub(super) socket: SocketId,
    pub(super) client_port: u16,
    pub(super) plan: EndPlan,
    /// What the other end is going to write.
    pub(super) peer_total: u64,
    pub(super) phase: Phase,
    pub(super) written: u64,
    pub(super) read: u64,
    pub(super) has_eof: bool,
    pub(super) error: Option<Errno>,
    /// When it looks next, if it does not wait for events; and when it began.
    pub(super) next_at: u64,
    pub(super) began_at: u64,
    looked_at: u64,
    /// Looks in vain: it sleeps longer and longer.
    idle_looks: u32,
    /// Its last look was worth it.
    pub(super) has_moved: bool,
    has_shut: bool,
    has_shut_read: bool,
    /// What its epoll item asks for.
    interest: u32,
    /// Where the octets stand that it called urgent.
    pub(super) marks: Vec<u64>,
    /// The place of the last urgent octet that it fetched.
    fetched: Option<u64>,
    /// Writes so far: some are urgent.
    writes: u64,
}

/// What octets go through: kept, so that it is not made anew.
pub(super) type Buffer = Vec<u8>;

impl End {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        host: usize,
        side: Side,
        proc: u16,
        socket: SocketId,
        client_port: u16,
        plan: EndPlan,
        peer_total: u64,
        now: Instant,
    ) -> End {
        End {
            host,
            side,
            proc,
            socket,
            client_port,
            plan,
            peer_total,
            phase: if side == Side::Client { Phase::Connecting } else { Phase::Working },
            written: 0,
            read: 0,
            has_eof: false,
            error: None,
            next_at: now.micros(),
            began_at: now.micros(),
            looked_at: now.micros(),
            idle_looks: 0,
            has_moved: false,
            has_shut: false,
            has_shut_read: false,
            interest: 0,
            marks: Vec::new(),
            fetched: None,
            writes: 0,
        }
    }

    /// Sets the options of the plan, and joins the epoll set.
    pub(super) fn prepare(&mut self, engine: &mut Engine<'_>, now: Instant, set: SetId, key: u32) {
        use SocketOption::*;
        let plan = self.plan;
        let options = [
            (NoDelay, u32::from(plan.nodelay), plan.nodelay),
            (Cork, u32::from(plan.cork), plan.cork),
            (KeepIdle, 2, plan.keepalive),
            (KeepInterval, 1, plan.keepalive),
            (KeepAlive, 1, plan.keepalive),
            (UserTimeout, plan.user_timeout_ms, plan.user_timeout_ms != 0),
            (SendBuffer, plan.sndbuf, plan.sndbuf != 0),
            (ReceiveBuffer, plan.rcvbuf, plan.rcvbuf != 0),
            (MaxSegment, plan.mss, plan.mss != 0),
            (OobInline, 1, plan.oob_inline),
        ];
        for (option, value, _) in options.into_iter().filter(|o| o.2) {
            let _ = engine.set_option(now, self.socket, option, value as i32);
        }
        if self.waits_for_epoll() {
            self.interest = self.wanted();
            let _ = engine.epoll_add(set, self.socket, key, self.interest, u64::from(key));
        }
    }

    /// sendto() with MSG_FASTOPEN. As connect() does, it fails with EINPROGRESS when all is well.
    pub(super) fn begin_fast(
        &mut self,
        engine: &mut Engine<'_>,
        now: Instant,
        local: Endpoint,
        remote: Endpoint,
    ) -> Result<(), Errno> {
        let n = self.plan.write_chunk.min(self.plan.total);
        let data: Buffer = (0..n).map(|at| octet(local.port, self.side, at)).collect();
        match engine.send_fast(now, self.socket, Some(local), remote, &data) {
            Err(Errno::EOPNOTSUPP) => return engine.connect(now, self.socket, Some(local), remote),
            sent => self.written = sent? as u64,
        }
        Err(Errno::EINPROGRESS)
    }

    pub(super) fn waits_for_epoll(&self) -> bool {
        matches!(self.plan.wait, Wait::Level | Wait::Edge | Wait::OneShot)
    }

    /// The epoll bits that matter to it now.
    fn wanted(&self) -> u32 {
        let out = self.phase == Phase::Connecting || self.written < self.plan.total;
        let bits = if self.has_eof { 0 } else { IN } | if out { OUT } else { 0 };
        match self.plan.wait {
            Wait::Edge => IN | OUT | RDHUP | ET,
            Wait::OneShot => bits | ONESHOT,
            _ => bits,
        }
    }

    /// Its turn, at `time`, which its clock reads as `now`. `marks` are the other end's. What it finds wrong is returned.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn act(
        &mut self,
        engine: &mut Engine<'_>,
        time: u64,
        now: Instant,
        set: SetId,
        key: u32,
        buffer: &mut Buffer,
        marks: &[u64],
    ) -> Result<(), String> {
        self.looked_at = time;
        let before = (self.written, self.read);
        let result = self.work(engine, now, buffer, marks);
        if let Wait::Sleeps(pause) = self.plan.wait {
            self.idle_looks = if before == (self.written, self.read) { self.idle_looks + 1 } else { 0 };
            self.next_at = time + (pause << (self.idle_looks / 16).min(6));
        }
        if matches!(self.phase, Phase::Staying(_)) && self.waits_for_epoll() {
            let _ = engine.epoll_delete(set, self.socket, key); // It only waits for its time now.
            return result;
        }
        let wanted = self.wanted();
        let is_stale = wanted != self.interest || self.plan.wait == Wait::OneShot;
        if self.phase != Phase::Done && self.waits_for_epoll() && is_stale {
            self.interest = wanted;
            let _ = engine.epoll_modify(set, self.socket, key, wanted, u64::from(key));
        }
        result
    }

    fn work(
        &mut self,
        engine: &mut Engine<'_>,
        now: Instant,
        buffer: &mut Buffer,
        marks: &[u64],
    ) -> Result<(), String> {
        match self.phase {
            Phase::Done => return Ok(()),
            Phase::Connecting => match engine.connect_status(now, self.socket) {
                Ok(()) => self.phase = Phase::Working,
                Err(Errno::EINPROGRESS) => {}
                Err(error) => self.fail(engine, now, error),
            },
            Phase::Staying(until) if self.looked_at < until => {}
            Phase::Staying(_) => self.leave(engine, now),
            Phase::Working => {}
        }
        if self.is_time_to_break() {
            self.break_off(engine, now);
        }
        if self.phase == Phase::Working {
            self.fetch(engine, marks)?;
            self.read_some(engine, now, buffer, marks)?;
        }
        if self.phase == Phase::Working {
            self.write_some(engine, now, buffer);
        }
        if self.phase == Phase::Working {
            self.end_if_done(engine, now);
        }
        Ok(())
    }

    /// When the plan's abrupt ending is due, counted from the beginning.
    pub(super) fn breaks_at(&self) -> Option<u64> {
        match self.plan.ending {
            _ if self.phase == Phase::Done => None,
            Ending::ShutRead(_) if self.has_shut_read => None,
            Ending::ShutRead(us) | Ending::Abort(us) | Ending::CloseEarly(us) | Ending::Die(us) => {
                Some(self.began_at + us)
            }
            _ => None,
        }
    }

    fn is_time_to_break(&self) -> bool {
        self.breaks_at().is_some_and(|at| at <= self.looked_at)
    }

    fn break_off(&mut self, engine: &mut Engine<'_>, now: Instant) {
        match self.plan.ending {
            Ending::ShutRead(_) => {
                self.has_shut_read = true;
                let _ = engine.shutdown(now, self.socket, How::Read);
            }
            Ending::Abort(_) => {
                let _ = engine.set_linger(self.socket, Some(0));
                self.leave(engine, now);
            }
            Ending::Die(_) => {
                engine.release_process(now, self.proc);
                self.phase = Phase::Done;
            }
            _ => self.leave(engine, now),
        }
    }

    fn leave(&mut self, engine: &mut Engine<'_>, now: Instant) {
        let _ = engine.release(now, self.socket, self.proc);
        self.phase = Phase::Done;
    }

    fn fail(&mut self, engine: &mut Engine<'_>, now: Instant, error: Errno) {
        self.error = Some(error);
        self.leave(engine, now);
    }

    /// Edge-triggered and one-shot waiters have to go on until there is no more; a slow one does one thing at a time.
    fn tries(&self) -> usize {
        match self.plan.wait {
            Wait::Edge => usize::MAX,
            Wait::Sleeps(_) => 2,
            _ => 8,
        }
    }

    /// Fetches an urgent octet, if there is one: it is one that the other end called urgent, and a later one each time.
    fn fetch(&mut self, engine: &mut Engine<'_>, marks: &[u64]) -> Result<(), String> {
        if !self.plan.fetches {
            return Ok(());
        }
        let Ok(Some(value)) = engine.recv_urgent(self.socket, false) else { return Ok(()) };
        if self.plan.oob_inline {
            return Err("fetches an urgent octet that is in line".into());
        }
        let is_it = |at: &&u64| {
            self.fetched.is_none_or(|last| last < **at) && octet(self.client_port, self.peer(), **at) == value
        };
        let Some(at) = marks.iter().find(is_it).copied() else {
            return Err(format!("fetches {value:#x}, which was not urgent (urgent were {marks:?})"));
        };
        self.fetched = Some(at);
        Ok(())
    }

    fn peer(&self) -> Side {
        if self.side == Side::Client { Side::Server } else { Side::Client }
    }

    /// Passes over urgent octets, unless they are in line: those that begin what is read next, as it says. No two octets in
    /// a row are alike, so there is no doubt.
    fn pass_urgent(&mut self, next: Option<&u8>, marks: &[u64]) {
        let is_next = |at: u64| next.is_some_and(|value| octet(self.client_port, self.peer(), at) == *value);
        let mut at = self.read;
        while !self.plan.oob_inline && !is_next(at) && marks.contains(&at) {
            at += 1;
        }
        self.read = at;
    }

    fn read_some(
        &mut self,
        engine: &mut Engine<'_>,
        now: Instant,
        buffer: &mut Buffer,
        marks: &[u64],
    ) -> Result<(), String> {
        for _ in 0..self.tries() {
            if self.has_eof {
                return Ok(());
            }
            buffer.resize(self.plan.read_chunk as usize, 0);
            match engine.recv(now, self.socket, buffer, false) {
                Ok(0) => {
                    self.has_eof = true;
                    self.pass_urgent(None, marks);
                }
                Ok(n) => {
                    self.pass_urgent(buffer.first(), marks);
                    self.check_octets(&buffer[..n])?;
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => {
                    self.fail(engine, now, error);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn check_octets(&mut self, bytes: &[u8]) -> Result<(), String> {
        if let Some(at) = first_wrong(self.client_port, self.peer(), self.read, bytes) {
            return Err(format!("reads octet {at} wrong (read from {} on)", self.read));
        }
        self.read += bytes.len() as u64;
        Ok(())
    }

    fn write_some(&mut self, engine: &mut Engine<'_>, now: Instant, buffer: &mut Buffer) {
        for _ in 0..self.tries() {
            let n = self.plan.write_chunk.min(self.plan.total - self.written);
            if n == 0 || self.has_shut {
                return;
            }
            // Octets that do not fit need not be made; one too many says that there were more.
            let room = u64::from(engine.send_room(self.socket).unwrap_or(0)) + 1;
            buffer.clear();
            buffer.extend((self.written..self.written + n.min(room)).map(|at| octet(self.client_port, self.side, at)));
            // The last octet of all is not: its reader would wait for it.
            let is_urgent = self.plan.urgent && self.writes % 4 == 1 && self.written + n < self.plan.total;
            let sent = match is_urgent {
                true => engine.send_urgent(now, self.socket, buffer),
                false => engine.send(now, self.socket, buffer),
            };
            match sent {
                Ok(sent) => {
                    self.writes += 1;
                    self.written += sent as u64;
                    if is_urgent && sent > 0 {
                        self.marks.push(self.written - 1);
                    }
                }
                Err(Errno::EAGAIN) => return,
                Err(error) => return self.fail(engine, now, error),
            }
        }
    }

    fn end_if_done(&mut self, engine: &mut Engine<'_>, now: Instant) {
        if self.written < self.plan.total {
            return;
        }
        if self.plan.ending == Ending::HalfClose && !self.has_shut {
            self.has_shut = engine.shutdown(now, self.socket, How::Write).is_ok();
        }
        let has_read_all = self.has_eof || self.has_shut_read || self.read == self.peer_total;
        match self.plan.ending {
            Ending::HalfClose if !self.has_eof => {}
            Ending::Stay(us) if has_read_all => self.phase = Phase::Staying(self.looked_at + us),
            _ if has_read_all => self.leave(engine, now),
            _ => {}
        }
    }

    /// Whether it may have been told of an end that was none: it shut its reading side itself.
    pub(super) fn trusts_eof(&self) -> bool {
        self.has_eof && !self.has_shut_read
    }
}
