//! What this process knows of a user socket beside the engine: how many of its descriptors refer to it, and the
//! options that only the shim gives effect to.

use crate::sys;
use sidestep_stack::socket::SocketId;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// Engine sockets have lower indices than this.
const MAX_SOCKETS: usize = 1 << 16;

/// One socket's record. All zeroes: not held by this process.
#[derive(Debug)]
pub(crate) struct Local {
    /// Descriptors of this process.
    refs: AtomicU32,
    /// The socket's name: a slot of the engine serves many in turn.
    id: AtomicU64,
    /// Bits of [`Flag`].
    flags: AtomicU32,
    /// SO_RCVTIMEO and SO_SNDTIMEO, microseconds; 0 is "for ever".
    pub(crate) receive_timeout_us: AtomicU64,
    pub(crate) send_timeout_us: AtomicU64,
    /// SO_LINGER's time as it is told: seconds, as many as an `int` holds.
    pub(crate) linger_s: AtomicU32,
    /// Zero-copy sends so far, and the first that was not yet told to be complete ([`crate::notices`]).
    pub(crate) zerocopy_next: AtomicU32,
    pub(crate) zerocopy_untold: AtomicU32,
    /// Datagram sockets: the port whose group was joined for it; control messages that readers want; UDP_SEGMENT; receives,
    /// for the shadow's turn.
    joined_port: AtomicU32,
    pub(crate) wants: AtomicU32,
    pub(crate) segment: AtomicU32,
    /// IPV6_MTU of a datagram socket; 0: not set.
    pub(crate) ipv6_mtu: AtomicU32,
    pub(crate) looks: AtomicU32,
    /// The daemon that holds it beside us, because its shadow was given away; 0: none.
    kept_by: AtomicU32,
    pub(crate) waiters: crate::holder::Waiters,
}

/// Facts of a socket that is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Flag {
    /// An AF_INET6 socket: addresses are reported as such.
    V6 = 1,
    /// The descriptor is a kernel socket of its own, not a copy of the template.
    Shadow = 2,
    /// The last send said MSG_MORE: the socket is corked until the next one.
    More = 4,
    /// UDP_CORK is on: the kernel puts the pieces together.
    Corked = 8,
    /// SO_TIMESTAMP, SO_TIMESTAMPNS, TCP_INQ, SO_ZEROCOPY are on; the times are those of 64-bit libcs on 32 bits.
    Stamps = 16,
    StampsNs = 32,
    TellsQueue = 64,
    ZeroCopy = 128,
    StampsNew = 256,
    /// What it sends goes by the kernel, for an option that is only there.
    ByKernel = 512,
}

/// Flags that stand for options.
const FOLLOWED: u32 = Flag::Stamps as u32
    | Flag::StampsNs as u32
    | Flag::TellsQueue as u32
    | Flag::ZeroCopy as u32
    | Flag::StampsNew as u32;

static BASE: AtomicPtr<Local> = AtomicPtr::new(core::ptr::null_mut());
/// One past the highest index that was ever held.
static USED: AtomicU32 = AtomicU32::new(0);

/// Maps the records.
pub(crate) fn map() -> sys::Result<()> {
    if BASE.load(Ordering::Acquire).is_null() {
        let at = sys::map_lazily(MAX_SOCKETS * size_of::<Local>())?;
        BASE.store(at.cast(), Ordering::Release);
    }
    Ok(())
}

/// The record of the engine socket with this index.
#[inline]
pub(crate) fn of(index: u32) -> Option<&'static Local> {
    let base = BASE.load(Ordering::Acquire);
    if base.is_null() || index as usize >= MAX_SOCKETS {
        return None;
    }
    // SAFETY: the mapping has MAX_SOCKETS zeroed records, is never unmapped, and zeroes are valid atomics.
    Some(unsafe { &*base.add(index as usize) })
}

/// Indices that this process holds.
pub(crate) fn held() -> impl Iterator<Item = u32> {
    (0..USED.load(Ordering::Acquire)).filter(|i| of(*i).is_some_and(Local::is_held))
}

impl Local {
    /// Begins a socket's time in this process: one descriptor.
    pub(crate) fn begin(&self, id: SocketId, flags: u32) {
        self.id.store(id.to_bits(), Ordering::Relaxed);
        self.flags.store(flags, Ordering::Relaxed);
        self.receive_timeout_us.store(0, Ordering::Relaxed);
        self.send_timeout_us.store(0, Ordering::Relaxed);
        self.linger_s.store(0, Ordering::Relaxed);
        self.zerocopy_next.store(0, Ordering::Relaxed);
        self.zerocopy_untold.store(0, Ordering::Relaxed);
        self.joined_port.store(0, Ordering::Relaxed);
        self.wants.store(0, Ordering::Relaxed);
        self.segment.store(0, Ordering::Relaxed);
        self.ipv6_mtu.store(0, Ordering::Relaxed);
        self.looks.store(1, Ordering::Relaxed);
        self.kept_by.store(0, Ordering::Relaxed);
        self.refs.store(1, Ordering::Release);
        USED.fetch_max(id.index + 1, Ordering::AcqRel);
    }

    /// The port whose group this process joined for the socket; 0 when its port is one of the stack's own.
    pub(crate) fn joined_port(&self) -> u16 {
        self.joined_port.load(Ordering::Relaxed) as u16
    }

    /// The pid of the daemon that holds it beside us, because its shadow was given away.
    #[inline]
    pub(crate) fn kept_by(&self) -> u32 {
        self.kept_by.load(Ordering::Relaxed)
    }

    pub(crate) fn note_kept(&self, daemon: u32) {
        self.kept_by.store(daemon, Ordering::Relaxed);
    }

    pub(crate) fn note_joined(&self, port: u16) {
        self.joined_port.store(u32::from(port), Ordering::Relaxed);
    }

    /// The socket, while it is held.
    pub(crate) fn id(&self) -> Option<SocketId> {
        self.is_held().then(|| SocketId::from_bits(self.id.load(Ordering::Acquire)))
    }

    fn is_held(&self) -> bool {
        self.refs.load(Ordering::Acquire) != 0
    }

    /// Another descriptor refers to it.
    pub(crate) fn add_descriptor(&self) {
        self.refs.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn descriptors(&self) -> u32 {
        self.refs.load(Ordering::Acquire)
    }

    /// An accepted connection begins with what its listener was told.
    pub(crate) fn inherit(&self, listener: &Local) {
        let pairs = [
            (&self.receive_timeout_us, &listener.receive_timeout_us),
            (&self.send_timeout_us, &listener.send_timeout_us),
        ];
        pairs.into_iter().for_each(|(own, told)| own.store(told.load(Ordering::Relaxed), Ordering::Relaxed));
        self.linger_s.store(listener.linger_s.load(Ordering::Relaxed), Ordering::Relaxed);
        let told = listener.flags.load(Ordering::Relaxed) & FOLLOWED;
        self.flags.fetch_or(told, Ordering::Relaxed);
    }

    /// What the shim gives effect to of the options that are kept: bits of [`FOLLOWED`].
    pub(crate) fn follow(&self, flags: u32) {
        let others = self.flags.load(Ordering::Relaxed) & !FOLLOWED;
        self.flags.store(others | flags & FOLLOWED, Ordering::Relaxed);
    }

    /// One descriptor less; true when it was the last.
    pub(crate) fn remove_descriptor(&self) -> bool {
        self.refs.fetch_sub(1, Ordering::AcqRel) == 1
    }

    pub(crate) fn has(&self, flag: Flag) -> bool {
        self.flags.load(Ordering::Relaxed) & flag as u32 != 0
    }

    pub(crate) fn put(&self, flag: Flag, on: bool) {
        if on {
            self.flags.fetch_or(flag as u32, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!(flag as u32), Ordering::Relaxed);
        }
    }
}
