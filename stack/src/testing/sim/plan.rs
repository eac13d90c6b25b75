//! What a seed chooses: the network, what goes wrong in it, and what each application does.

use crate::testing::alloc::vec::Vec;
use crate::testing::link::{Burst, LinkConfig};
use crate::testing::network::Attachment;
use crate::testing::{HostConfig, Random};
use crate::time::{MS, SEC};
use crate::tunables::Tunables;

/// The kind of network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    Lan,
    Wan,
    Lossy,
    Satellite,
    /// Everything at once: burst loss, corruption, few frames, clocks that disagree, machines that restart.
    Hostile,
}

impl Profile {
    pub const ALL: [Profile; 5] = [Profile::Lan, Profile::Wan, Profile::Lossy, Profile::Satellite, Profile::Hostile];

    pub fn name(self) -> &'static str {
        match self {
            Profile::Lan => "lan",
            Profile::Wan => "wan",
            Profile::Lossy => "lossy",
            Profile::Satellite => "satellite",
            Profile::Hostile => "hostile",
        }
    }
}

/// How an application waits for its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    /// It looks after every event.
    Busy,
    /// It looks every so many microseconds.
    Sleeps(u64),
    /// It looks when its epoll set says so: level-triggered, edge-triggered, one-shot.
    Level,
    Edge,
    OneShot,
}

/// How an application ends its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// When it has written and read all: close.
    Close,
    /// When it has written all: shutdown for writing; it closes when it has read the end.
    HalfClose,
    /// It holds the connection for so long after that, then closes.
    Stay(u64),
    /// At some time: it shuts its reading side, and closes when it has written all.
    ShutRead(u64),
    /// At some time: SO_LINGER with zero seconds, and close.
    Abort(u64),
    /// At some time: close, whatever is unread.
    CloseEarly(u64),
    /// At some time: the process dies.
    Die(u64),
}

/// What one end does.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndPlan {
    pub(super) total: u64,
    pub(super) write_chunk: u64,
    pub(super) read_chunk: u64,
    pub(super) wait: Wait,
    pub(super) ending: Ending,
    pub(super) nodelay: bool,
    pub(super) cork: bool,
    pub(super) keepalive: bool,
    pub(super) user_timeout_ms: u32,
    pub(super) sndbuf: u32,
    pub(super) rcvbuf: u32,
    pub(super) mss: u32,
    /// Some of its writes are urgent; what is urgent to it, it reads in line; it looks for urgent octets.
    pub(super) urgent: bool,
    pub(super) oob_inline: bool,
    pub(super) fetches: bool,
}

/// One connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnPlan {
    pub(super) client: usize,
    pub(super) v6: bool,
    pub(super) starts_at: u64,
    /// To a port where nobody listens.
    pub(super) to_closed_port: bool,
    pub(super) local_port: u16,
    /// The client's first octets are to travel with its SYN (RFC 7413).
    pub(super) is_fast: bool,
    pub(super) ends: [EndPlan; 2],
}

/// What goes wrong at some time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Down {
        host: usize,
    },
    Up {
        host: usize,
    },
    Mtu {
        host: usize,
        mtu: u16,
        tells: bool,
    },
    Reboot {
        host: usize,
    },
    /// The host has another hardware address; the others hear of it later.
    Readdress {
        host: usize,
    },
    Introduce,
    /// Nothing is lost any more.
    Heal,
}

/// All that a seed chooses.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) profile: Profile,
    pub(super) hosts: Vec<HostConfig>,
    pub(super) attachments: Vec<Attachment>,
    pub(super) conns: Vec<ConnPlan>,
    /// By time.
    pub(super) faults: Vec<(u64, Fault)>,
    pub(super) heals_at: u64,
    pub(super) backlog: u32,
    pub(super) accept_pause_us: u64,
    /// The network is bad enough for handshakes to fail.
    pub(super) is_rough: bool,
    /// Segments come twice: so may a connection that a SYN's data begins (RFC 7413 §2.1).
    pub(super) has_duplicates: bool,
    /// Something happens that may end any connection.
    pub(super) may_break: bool,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Plan {
        // Neighbouring seeds shall not be neighbours in the generator.
        let mut r = Random::new(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x5157_4e45);
        let profile = Profile::ALL[(seed % 5) as usize];
        let is_hostile = profile == Profile::Hostile;
        let n = r.between(2, 3) as usize;
        let hosts: Vec<HostConfig> = (0..n).map(|i| host(&mut r, i as u8 + 1, is_hostile)).collect();
        let attachments: Vec<Attachment> = hosts.iter().map(|_| attachment(&mut r, profile)).collect();
        let heals_at = r.between(3, if is_hostile { 60 } else { 30 }) * SEC;
        let conns = (0..r.between(1, 7)).map(|_| conn(&mut r, n, profile)).collect();
        let (faults, may_break) = faults(&mut r, n, is_hostile, heals_at);
        let is_lossy = |l: &LinkConfig| l.loss > 50 || l.burst.enter > 0 || l.corrupt > 20;
        let is_rough = may_break || attachments.iter().any(|a| is_lossy(&a.up.config) || is_lossy(&a.down.config));
        let has_duplicates = attachments.iter().any(|a| a.up.config.duplicate + a.down.config.duplicate > 0);
        let backlog = r.pick(&[0, 1, 4, 64, 64]);
        let accept_pause_us = r.pick(&[0, 0, 0, 20 * MS, SEC]);
        Plan {
            profile,
            hosts,
            attachments,
            conns,
            faults,
            heals_at,
            backlog,
            accept_pause_us,
            is_rough,
            has_duplicates,
            may_break,
        }
    }
}

/// Least, at first and at most: what one connection may hold in a buffer.
fn memory(r: &mut Random) -> [u32; 3] {
    let first = 8192 << r.below(6);
    [4096, first, first << r.below(5)]
}

fn host(r: &mut Random, n: u8, is_hostile: bool) -> HostConfig {
    let on = |r: &mut Random, per_mille| u32::from(r.chance(per_mille));
    let tunables = Tunables {
        timestamps: on(r, 800),
        window_scaling: on(r, 800),
        sack: on(r, 800),
        dsack: on(r, 800),
        ecn: r.below(3) as u32,
        slow_start_after_idle: on(r, 500),
        syncookies: r.pick(&[0, 1, 1, 2]),
        // Clients, servers; clients and servers that need no cookie.
        fastopen: r.pick(&[0, 1, 3, 3, 3 | 4 | 0x200]),
        tw_reuse: r.below(3) as u32,
        mtu_probing: r.below(3) as u32,
        congestion: r.below(4) as u32,
        wmem_bytes: memory(r),
        rmem_bytes: memory(r),
        reassembly_frames: 8 << r.below(6),
        delayed_ack_us: r.pick(&[40 * MS, 40 * MS, MS, 200 * MS]),
        ..Tunables::default()
    };
    let frames = if is_hostile { r.pick(&[160, 256, 1024]) } else { r.pick(&[512, 1024, 2048]) };
    let mtu = r.pick(&[1500, 1500, 1500, 1280, 1400]);
    HostConfig { frames, mtu, conns: 16, sockets: 32, time_waits: 12, tunables, ..HostConfig::nth(n) }
}

fn attachment(r: &mut Random, profile: Profile) -> Attachment {
    let up = link(r, profile);
    // Half of the networks are the same both ways.
    let down = if r.chance(500) { up } else { link(r, profile) };
    // Two flipped bits may make each other good in the checksum, and no protocol would notice: one frame, one bit at most.
    let down = LinkConfig { corrupt: 0, ..down };
    let ring_hold_us = r.pick(&[0, 0, 20, 2 * MS]);
    let skews: &[u64] = if profile == Profile::Hostile { &[0, 0, 10, 3 * MS] } else { &[0, 0, 5] };
    let clock_skew_us = r.pick(skews);
    Attachment { up: crate::testing::Link::new(up), down: crate::testing::Link::new(down), ring_hold_us, clock_skew_us }
}

fn link(r: &mut Random, profile: Profile) -> LinkConfig {
    let none = LinkConfig::default();
    let queue_bytes = r.between(8, 200) * 1500;
    let mark_above_bytes = if r.chance(300) { queue_bytes / 3 } else { 0 };
    match profile {
        Profile::Lan => LinkConfig {
            delay_us: r.between(5, 200),
            jitter_us: r.below(20),
            kbit_per_s: r.pick(&[0, 1_000_000, 100_000]),
            queue_bytes,
            mark_above_bytes,
            ..none
        },
        Profile::Wan => LinkConfig {
            delay_us: r.between(1, 50) * MS,
            jitter_us: r.below(3 * MS),
            loss: r.pick(&[0, 0, 1, 3]),
            kbit_per_s: r.pick(&[5_000, 20_000, 100_000]),
            queue_bytes,
            mark_above_bytes,
            ..none
        },
        Profile::Lossy => LinkConfig {
            delay_us: r.between(1, 20) * MS,
            jitter_us: r.below(5 * MS),
            loss: r.between(5, 50) as u32,
            reorder: r.below(60) as u32,
            duplicate: r.below(20) as u32,
            ..none
        },
        Profile::Satellite => LinkConfig {
            delay_us: r.between(100, 150) * MS,
            jitter_us: r.below(10 * MS),
            loss: r.pick(&[0, 2, 10]),
            kbit_per_s: r.pick(&[2_000, 10_000]),
            queue_bytes,
            ..none
        },
        Profile::Hostile => LinkConfig {
            delay_us: r.between(10, 40_000),
            jitter_us: r.below(10 * MS),
            loss: r.below(120) as u32,
            burst: Burst { enter: r.below(10) as u32, leave: r.between(50, 300) as u32, loss: 700 },
            reorder: r.below(200) as u32,
            duplicate: r.below(60) as u32,
            corrupt: r.below(40) as u32,
            kbit_per_s: r.pick(&[0, 1_000, 20_000]),
            queue_bytes,
            mark_above_bytes,
            ..none
        },
    }
}

fn conn(r: &mut Random, hosts: usize, profile: Profile) -> ConnPlan {
    let starts_at = r.pick(&[0, 0, 1000, 300 * MS, 5 * SEC]) + r.below(200);
    ConnPlan {
        client: r.between(1, hosts as u64 - 1) as usize,
        v6: r.chance(300),
        starts_at,
        to_closed_port: r.chance(20),
        local_port: if r.chance(100) { 5000 + r.below(2) as u16 } else { 0 },
        is_fast: r.chance(200),
        ends: paced([end(r, profile), end(r, profile)]),
    }
}

/// A reader of single octets shall not need days for a long stream: so many reads at most. And when nobody reads any more,
/// both may wait for room for ever: one of them goes on.
fn paced([a, b]: [EndPlan; 2]) -> [EndPlan; 2] {
    let read_chunk = |end: &EndPlan, total: u64| end.read_chunk.max(total / 400);
    let is_deaf = |end: &EndPlan| matches!(end.ending, Ending::ShutRead(_));
    let ending = if is_deaf(&a) && is_deaf(&b) { Ending::Close } else { b.ending };
    [EndPlan { read_chunk: read_chunk(&a, b.total), ..a }, EndPlan { read_chunk: read_chunk(&b, a.total), ending, ..b }]
}

fn end(r: &mut Random, profile: Profile) -> EndPlan {
    let most = if profile == Profile::Hostile { 60_000 } else { 300_000 };
    let total = match r.below(6) {
        0 => 0,
        1 => r.below(10),
        2 | 3 => r.below(5_000),
        _ => r.below(most),
    };
    let sometime = r.below(3 * SEC);
    let ending = match r.below(20) {
        0..=7 => Ending::Close,
        8..=12 => Ending::HalfClose,
        13..=14 => Ending::Stay(r.pick(&[MS, SEC, 30 * SEC, 90 * SEC])),
        15 => Ending::ShutRead(sometime),
        16 => Ending::Abort(sometime),
        17 => Ending::CloseEarly(sometime),
        18 => Ending::Die(sometime),
        _ => Ending::Close,
    };
    EndPlan {
        total,
        write_chunk: r.pick(&[1, 50, 1000, 1448, 9000, 50_000]).max(total / 400),
        read_chunk: r.pick(&[1, 100, 1448, 16_384, 65_536]),
        wait: r.pick(&[
            Wait::Busy,
            Wait::Busy,
            Wait::Sleeps(MS),
            Wait::Sleeps(150 * MS),
            Wait::Level,
            Wait::Edge,
            Wait::OneShot,
        ]),
        ending,
        nodelay: r.chance(400),
        cork: r.chance(100),
        keepalive: r.chance(100),
        user_timeout_ms: if r.chance(50) { r.between(1, 20_000) as u32 } else { 0 },
        sndbuf: if r.chance(200) { r.between(1, 60_000) as u32 } else { 0 },
        rcvbuf: if r.chance(200) { r.between(1, 60_000) as u32 } else { 0 },
        mss: if r.chance(80) { r.between(88, 1500) as u32 } else { 0 },
        urgent: r.chance(150),
        oob_inline: r.chance(300),
        fetches: r.chance(500),
    }
}

/// The list, and whether something in it may break connections.
fn faults(r: &mut Random, hosts: usize, is_hostile: bool, heals_at: u64) -> (Vec<(u64, Fault)>, bool) {
    let mut list = Vec::from([(heals_at, Fault::Heal)]);
    let mut may_break = false;
    let n = if is_hostile { r.below(5) } else { r.below(6) / 4 };
    for _ in 0..n {
        let (at, host) = (r.below(heals_at), r.below(hosts as u64) as usize);
        match r.below(if is_hostile { 10 } else { 8 }) {
            0..=3 => {
                let for_us = r.pick(&[MS, 300 * MS, 2 * SEC, 20 * SEC]);
                list.push((at, Fault::Down { host }));
                list.push((at + for_us, Fault::Up { host }));
            }
            4..=5 => {
                let tells = r.chance(800);
                may_break |= !tells;
                list.push((at, Fault::Mtu { host, mtu: r.pick(&[1480, 1400, 1280]), tells }));
            }
            6..=7 => {
                list.push((at, Fault::Readdress { host }));
                list.push((at + r.pick(&[0, MS, SEC]), Fault::Introduce));
            }
            _ => {
                may_break = true;
                list.push((at, Fault::Reboot { host }));
            }
        }
    }
    list.sort_by_key(|(at, _)| *at);
    (list, may_break)
}
