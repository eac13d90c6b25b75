//! The first pages of the arena: what the device is, what was decided for each port, what was counted outside stacks.

use super::layout::LAYOUT_VERSION;
use crate::addr::Mac;
use crate::tunables::Tunables;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

pub(super) const MAGIC: u64 = u64::from_be_bytes(*b"sidestep");

/// Room for the XDP program's verdict counters.
pub const VERDICTS: usize = 64;

/// What the daemon says of the device when it makes the arena.
#[derive(Clone, Debug)]
pub struct ArenaConfig {
    /// The interface's name, NUL-padded.
    pub device: [u8; 16],
    pub ifindex: u32,
    /// Inode number of its network namespace.
    pub netns: u64,
    /// Receive queues.
    pub queues: u32,
    /// Transmit queues; may be fewer.
    pub transmit_queues: u32,
    /// UMEM frames.
    pub frames: u32,
    pub mac: Mac,
    pub mtu: u16,
    /// veth, virtio and their like: peers may leave checksums for the hardware to finish.
    pub device_is_virtual: bool,
    /// What sequence numbers and cookies are made with ([`Header::isn_secret`]).
    pub isn_secret: [u64; 2],
    pub tunables: Tunables,
}

/// A protocol that ports belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Proto {
    Tcp = 0,
    Udp = 1,
}

/// What the operator decided for a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Policy {
    /// Nothing: a program under `sidestep run` that listens on it gets it.
    Auto = 0,
    On = 1,
    /// New connections go to the kernel.
    Off = 2,
    /// As `Off`, while connections of before still live in a stack.
    Draining = 3,
}

impl Policy {
    pub fn from_raw(raw: u8) -> Policy {
        match raw {
            1 => Policy::On,
            2 => Policy::Off,
            3 => Policy::Draining,
            _ => Policy::Auto,
        }
    }

    /// Whether new connections may go to a user stack.
    pub fn allows(self) -> bool {
        matches!(self, Policy::Auto | Policy::On)
    }
}

/// How the XDP program is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Mode {
    Unknown = 0,
    Native = 1,
    Generic = 2,
}

/// The arena's header. Written by the daemon; read by all.
#[repr(C)]
pub struct Header {
    magic: AtomicU64,
    version: AtomicU64,
    total: AtomicU64,
    netns: AtomicU64,
    frames: AtomicU32,
    queues: AtomicU32,
    ifindex: AtomicU32,
    mtu: AtomicU32,
    device: [AtomicU8; 16],
    mac: [AtomicU8; 6],
    device_is_virtual: AtomicU8,
    _pad: u8,
    /// The daemon's pid, 0 after an orderly end.
    pub daemon_pid: AtomicU32,
    /// Set by the daemon before it sleeps without a tick; whoever uses a stack then clears it and rings.
    pub daemon_asleep: AtomicU32,
    /// [`Mode`].
    mode: AtomicU32,
    /// 1: zero-copy.
    pub zero_copy: AtomicU32,
    pub xdp_program_id: AtomicU32,
    /// 1: the device's sockets finish TCP checksums, see `UmemOwner::finishes_checksums`.
    pub finishes_checksums: AtomicU32,
    /// Tells this arena from every other.
    id: AtomicU64,
    /// The kernel's number of the daemon's bell (`eventfd-id` in fdinfo), plus 1; 0: not known.
    pub daemon_bell_id: AtomicU32,
    transmit_queues: AtomicU32,
    /// Why it is not native or not zero-copy, for people, NUL-padded.
    reason: [AtomicU8; 128],
    /// The XDP program's counters, copied here when a tool asks.
    pub verdicts: [AtomicU64; VERDICTS],
    policies: [AtomicU8; 2 * 65536],
    members: [AtomicU8; 2 * 65536],
    isn_secret: [AtomicU64; 2],
    _reserved: [AtomicU16; 24],
}

impl Header {
    pub(super) fn init(&self, c: &ArenaConfig, total: u64, id: u64) {
        self.id.store(id, Relaxed);
        self.version.store(LAYOUT_VERSION, Relaxed);
        self.total.store(total, Relaxed);
        self.netns.store(c.netns, Relaxed);
        self.frames.store(c.frames, Relaxed);
        self.queues.store(c.queues, Relaxed);
        self.transmit_queues.store(c.transmit_queues, Relaxed);
        self.ifindex.store(c.ifindex, Relaxed);
        self.mtu.store(u32::from(c.mtu), Relaxed);
        copy_bytes(&self.device, &c.device);
        copy_bytes(&self.mac, &c.mac.0);
        self.device_is_virtual.store(u8::from(c.device_is_virtual), Relaxed);
        self.isn_secret.iter().zip(c.isn_secret).for_each(|(to, word)| to.store(word, Relaxed));
        self.magic.store(MAGIC, core::sync::atomic::Ordering::Release);
    }

    pub(super) fn magic(&self) -> u64 {
        self.magic.load(core::sync::atomic::Ordering::Acquire)
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Relaxed)
    }

    pub(super) fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// A random number: two arenas of one device, one after the other, differ in it.
    pub fn id(&self) -> u64 {
        self.id.load(Relaxed)
    }

    /// The stacks of a device share it: a cookie that one gave is good at another, to which its port's flows were moved.
    pub fn isn_secret(&self) -> [u64; 2] {
        [0, 1].map(|i| self.isn_secret[i].load(Relaxed))
    }

    pub fn frames(&self) -> u32 {
        self.frames.load(Relaxed)
    }

    pub fn queues(&self) -> u32 {
        self.queues.load(Relaxed)
    }

    /// Queues that frames can leave by: the first ones of [`Header::queues`].
    pub fn transmit_queues(&self) -> u32 {
        self.transmit_queues.load(Relaxed).clamp(1, self.queues().max(1))
    }

    pub fn ifindex(&self) -> u32 {
        self.ifindex.load(Relaxed)
    }

    pub fn netns(&self) -> u64 {
        self.netns.load(Relaxed)
    }

    /// The device has another MTU now.
    pub fn set_mtu(&self, mtu: u16) {
        self.mtu.store(u32::from(mtu), Relaxed);
    }

    pub fn mtu(&self) -> u16 {
        self.mtu.load(Relaxed) as u16
    }

    pub fn mac(&self) -> Mac {
        let mut mac = [0; 6];
        read_bytes(&self.mac, &mut mac);
        Mac(mac)
    }

    pub fn device_is_virtual(&self) -> bool {
        self.device_is_virtual.load(Relaxed) != 0
    }

    /// The interface's name, NUL-padded.
    pub fn device(&self) -> [u8; 16] {
        let mut name = [0; 16];
        read_bytes(&self.device, &mut name);
        name
    }

    pub fn mode(&self) -> Mode {
        match self.mode.load(Relaxed) {
            1 => Mode::Native,
            2 => Mode::Generic,
            _ => Mode::Unknown,
        }
    }

    pub fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u32, Relaxed);
    }

    /// Why the device does not run in its fastest mode; NUL-padded.
    pub fn reason(&self) -> [u8; 128] {
        let mut text = [0; 128];
        read_bytes(&self.reason, &mut text);
        text
    }

    pub fn set_reason(&self, text: &str) {
        let mut padded = [0u8; 128];
        let n = text.len().min(127);
        padded[..n].copy_from_slice(&text.as_bytes()[..n]);
        copy_bytes(&self.reason, &padded);
    }

    pub fn policy(&self, proto: Proto, port: u16) -> Policy {
        Policy::from_raw(self.policies[index(proto, port)].load(Relaxed))
    }

    pub fn set_policy(&self, proto: Proto, port: u16, policy: Policy) {
        self.policies[index(proto, port)].store(policy as u8, Relaxed);
    }

    pub fn members(&self, proto: Proto, port: u16) -> u8 {
        self.members[index(proto, port)].load(Relaxed)
    }

    pub fn set_members(&self, proto: Proto, port: u16, members: u8) {
        self.members[index(proto, port)].store(members, Relaxed);
    }
}

fn index(proto: Proto, port: u16) -> usize {
    (proto as usize) << 16 | usize::from(port)
}

fn copy_bytes(to: &[AtomicU8], from: &[u8]) {
    for (t, f) in to.iter().zip(from) {
        t.store(*f, Relaxed);
    }
}

fn read_bytes(from: &[AtomicU8], to: &mut [u8]) {
    for (t, f) in to.iter_mut().zip(from) {
        *t = f.load(Relaxed);
    }
}

impl core::fmt::Debug for Header {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Header").field("ifindex", &self.ifindex()).field("queues", &self.queues()).finish()
    }
}
