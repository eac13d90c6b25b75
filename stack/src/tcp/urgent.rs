//! Urgent data (RFC 9293 §3.8.5, RFC 6093), as Linux does it: the pointer names the octet behind the urgent one
//! (tcp_stdurg is 0), there is one urgent octet at a time, and it is taken out of the stream unless SO_OOBINLINE is set.
//!
//! The octet stays in the receive queue; whoever reads past the mark passes over it. A copy waits for `recv(MSG_OOB)`.
//! Readiness tells of it, and SIGURG (`engine/owners.rs`) when the octet is here: Linux sends that when it is announced.

use super::{Context, Events, Seq, State, Tcb};
use crate::buf::FrameId;
use crate::wire::tcp::{Flags, Segment};

/// How far the urgent octet has got.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(u8)]
enum Mark {
    /// There is none, or the reader is past it.
    #[default]
    None,
    /// The peer pointed at it.
    Announced,
    Here,
    /// The application fetched it; the mark stands until it is read past.
    Taken,
}

/// Both directions' urgent pointers.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Urgent {
    /// The octet that the peer called urgent last.
    mark_at: Seq,
    /// SND.UP: behind the octet that we called urgent last.
    up: Seq,
    mark: Mark,
    octet: u8,
    /// SND.UP may be ahead of SND.UNA.
    is_sending: bool,
    _pad: u8,
}

/// What `recv(MSG_OOB)` finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UrgentOctet {
    /// No mark, fetched already, or in line.
    None,
    /// Announced, but not here.
    Awaited,
    Here(u8),
}

impl Urgent {
    /// Whether some segment to come has the octet: the fast path does not look.
    #[inline]
    pub(super) fn is_awaited(&self) -> bool {
        self.mark == Mark::Announced
    }

    #[inline]
    fn has_mark(&self) -> bool {
        self.mark != Mark::None
    }
}

impl Tcb {
    /// Sixth: URG. It counts while the peer may send.
    pub(super) fn sixth_urgent(&mut self, cx: &mut Context<'_, '_>, seg: &Segment, frame: FrameId) -> Events {
        if !matches!(self.state, State::Established | State::FinWait1 | State::FinWait2) {
            return Events::NONE;
        }
        if seg.has(Flags::URG) {
            self.note_urgent(cx, seg);
        }
        if self.urgent.is_awaited() { self.catch_octet(cx, seg, frame) } else { Events::NONE }
    }

    /// The peer points at an octet; a pointer to what was received already, or no newer one, tells nothing.
    fn note_urgent(&mut self, cx: &mut Context<'_, '_>, seg: &Segment) {
        let at = seg.seq + u32::from(seg.urgent.saturating_sub(1));
        let is_old = at.is_before(self.rcv.nxt);
        if is_old || self.urgent.has_mark() && !at.is_after(self.urgent.mark_at) {
            return;
        }
        // The reader stands before the last urgent octet: it must not find it in the stream now.
        if self.urgent.has_mark() && self.urgent.mark_at == self.read_seq() && self.available() > 0 {
            self.pass_octet(cx);
        }
        (self.urgent.mark, self.urgent.mark_at) = (Mark::Announced, at);
    }

    /// The octet that is waited for may be in this segment.
    fn catch_octet(&mut self, cx: &Context<'_, '_>, seg: &Segment, frame: FrameId) -> Events {
        let offset = self.urgent.mark_at.since(seg.seq);
        let at = usize::from(seg.payload_off) + offset as usize;
        match cx.frames.bytes(frame).get(at).filter(|_| offset < u32::from(seg.payload_len)) {
            Some(octet) => {
                (self.urgent.mark, self.urgent.octet) = (Mark::Here, *octet);
                Events::URGENT
            }
            None => Events::NONE,
        }
    }

    /// The next octet that the application reads.
    fn read_seq(&self) -> Seq {
        self.rcv.nxt - u32::from(self.rcv.fin_reached) - self.rcv.queue.bytes()
    }

    /// Octets in front of the mark, when it is not behind the reader.
    pub(crate) fn until_mark(&self) -> Option<u32> {
        let at = self.read_seq();
        (self.urgent.has_mark() && !self.urgent.mark_at.is_before(at)).then(|| self.urgent.mark_at.since(at))
    }

    /// How many of `n` octets may be read in one go: a read ends at the mark. One that begins there passes over the
    /// urgent octet, or has it as its first, in line.
    #[inline]
    pub(super) fn read_limit(&mut self, cx: &mut Context<'_, '_>, n: usize) -> usize {
        if self.urgent.has_mark() { self.read_limit_by_mark(cx, n) } else { n }
    }

    #[cold]
    fn read_limit_by_mark(&mut self, cx: &mut Context<'_, '_>, n: usize) -> usize {
        match self.until_mark() {
            Some(0) if n > 0 && self.available() > 0 => {
                self.urgent.mark = Mark::None;
                if !self.options.oob_inline {
                    self.pass_octet(cx);
                }
                n
            }
            Some(ahead) if ahead > 0 => n.min(ahead as usize),
            Some(_) => n,
            None => {
                self.urgent.mark = Mark::None;
                n
            }
        }
    }

    /// As [`Tcb::read_limit`], for a look that takes nothing: octets to leave out first, and how many there are then.
    pub(super) fn peek_limit(&self, n: usize) -> (usize, usize) {
        match self.until_mark() {
            Some(0) if !self.options.oob_inline => (1, n),
            Some(ahead) if ahead > 0 => (0, n.min(ahead as usize)),
            _ => (0, n),
        }
    }

    fn pass_octet(&mut self, cx: &mut Context<'_, '_>) {
        if !self.options.oob_inline {
            self.take_front(cx, 1, |_, _| {});
        }
    }

    /// FIONREAD: what one read may give. With a mark ahead that is what lies before it.
    pub fn readable_bytes(&self) -> u32 {
        let available = self.available();
        match self.until_mark() {
            Some(ahead) if !self.options.oob_inline && ahead < available => ahead,
            _ => available,
        }
    }

    /// Octets that have to be here before `wanted` can be read: the urgent one does not count.
    pub fn needed_for(&self, wanted: u32) -> u32 {
        let is_next = !self.options.oob_inline && self.until_mark() == Some(0);
        wanted.saturating_add(u32::from(is_next))
    }

    /// SIOCATMARK.
    pub fn is_at_mark(&self) -> bool {
        self.until_mark() == Some(0)
    }

    /// Whether an urgent octet is here that nobody fetched.
    pub fn has_urgent_octet(&self) -> bool {
        self.urgent.mark == Mark::Here
    }

    /// The urgent octet; with `peek` it stays.
    pub fn take_urgent(&mut self, peek: bool) -> UrgentOctet {
        match self.urgent.mark {
            _ if self.options.oob_inline => UrgentOctet::None,
            Mark::None | Mark::Taken => UrgentOctet::None,
            Mark::Announced => UrgentOctet::Awaited,
            Mark::Here => {
                if !peek {
                    self.urgent.mark = Mark::Taken;
                }
                UrgentOctet::Here(self.urgent.octet)
            }
        }
    }

    /// As [`Tcb::write`]; the last octet that was taken is urgent.
    pub fn write_urgent(&mut self, cx: &mut Context<'_, '_>, data: &[u8]) -> usize {
        let n = self.write(cx, data);
        if n > 0 {
            (self.urgent.up, self.urgent.is_sending) = (self.snd.queued_end, true);
        }
        n
    }

    /// Whether urgent data of ours is not acknowledged yet: it does not wait to be joined by more.
    #[inline]
    pub(super) fn is_sending_urgent(&self) -> bool {
        self.urgent.is_sending && self.urgent.up.is_after(self.snd.una)
    }

    /// The urgent pointer of a segment that begins at `seq`, until SND.UP is acknowledged. What lies further ahead than
    /// the field can say is announced as far as that goes, by what is sent for the first time (as on Linux).
    #[inline]
    pub(super) fn urgent_pointer(&mut self, seq: Seq) -> Option<u16> {
        if !self.urgent.is_sending {
            return None;
        }
        self.urgent.is_sending = self.is_sending_urgent();
        let ahead = self.urgent.up.since(seq);
        match u16::try_from(ahead) {
            _ if !self.urgent.is_sending || !seq.is_before(self.urgent.up) => None,
            Ok(pointer) => Some(pointer),
            Err(_) => (seq + u32::from(u16::MAX)).is_after(self.snd.nxt).then_some(u16::MAX),
        }
    }
}
