//! Local ports for connect(). The daemon gives blocks of the ephemeral range; steering sends a block's packets here.
//!
//! Towards a destination all of them may be in use, by connections and TIME-WAITs. To find that out takes a look at each, so the next
//! ones are told so without a look for a while: about ten times as long as it took.

use super::Errno;
use crate::addr::{Endpoint, Flow, Ip};
use crate::engine::Engine;
use crate::time::Instant;

/// Ports of a block.
pub const PORTS_PER_BLOCK: u32 = 256;
/// Most blocks of a device, and of a stack: half of all ports.
pub const PORT_BLOCKS_MAX: usize = 128;
/// How long a search that found nothing holds, for each port that was looked at.
const SPENT_US_PER_PORT: u64 = 1;

/// Between these addresses there was no port left.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Spent {
    local: Ip,
    remote: Endpoint,
    until: Instant,
}

/// The blocks of one stack.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct PortBlocks {
    /// Block `n` begins at port `n * PORTS_PER_BLOCK`.
    blocks: [u8; PORT_BLOCKS_MAX],
    /// A bit for each place in `blocks`: no new connection begins there, because somebody serves one of the ports.
    retired: [u64; PORT_BLOCKS_MAX / 64],
    spent: Spent,
    count: u32,
    /// Where the search for the next port begins.
    next: u32,
    /// Ports of a block that are used: all, but for tests.
    used_ports: u16,
    /// The last search took long, or failed: another block would help.
    low: bool,
    _pad: [u8; 5],
}

impl Default for PortBlocks {
    fn default() -> Self {
        PortBlocks {
            blocks: [0; PORT_BLOCKS_MAX],
            retired: [0; PORT_BLOCKS_MAX / 64],
            spent: Spent::default(),
            count: 0,
            next: 0,
            used_ports: PORTS_PER_BLOCK as u16,
            low: false,
            _pad: [0; 5],
        }
    }
}

impl PortBlocks {
    pub(crate) fn is_low(&self) -> bool {
        self.low && (self.count as usize) < PORT_BLOCKS_MAX
    }

    fn blocks(&self) -> &[u8] {
        &self.blocks[..self.count as usize]
    }

    fn is_retired(&self, at: usize) -> bool {
        self.retired[at / 64] & 1 << (at % 64) != 0
    }

    /// Those from which connections are opened.
    fn open_blocks(&self) -> impl Iterator<Item = u8> {
        let open = self.blocks().iter().enumerate().filter(|(at, _)| !self.is_retired(*at));
        open.map(|(_, block)| *block)
    }

    fn total(&self) -> u32 {
        self.open_blocks().count() as u32 * u32::from(self.used_ports)
    }

    /// All ports, once, from where the last search ended.
    fn in_turn(&self) -> impl Iterator<Item = u16> {
        let first = |block: u8| u32::from(block) * PORTS_PER_BLOCK;
        let ports = move |block| first(block)..first(block) + u32::from(self.used_ports);
        let all = move || self.open_blocks().flat_map(ports);
        let next = self.next as usize;
        all().skip(next).chain(all().take(next)).filter_map(|port| u16::try_from(port).ok())
    }
}

impl Engine<'_> {
    /// The daemon gives another block of ports, which begins at `number * PORTS_PER_BLOCK`. False when the table of blocks is full.
    pub fn add_port_block(&mut self, number: u8) -> bool {
        let ports = &mut self.state.ports;
        let n = ports.count as usize;
        if n == PORT_BLOCKS_MAX {
            return false;
        }
        // A stack that starts anew begins somewhere else: its predecessor's flows may be in TIME-WAIT at the peers.
        let somewhere = self.state.config.hash_secret[0] % u64::from(ports.used_ports);
        ports.next = if n == 0 { somewhere as u32 } else { ports.total() };
        ports.blocks[n] = number;
        ports.count += 1;
        ports.low = false;
        ports.spent = Spent::default();
        true
    }

    /// The next search begins at this one of all ports.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn begin_ports_at(&mut self, n: u32) {
        self.state.ports.next = n;
    }

    /// Uses so many ports of each block alone.
    #[cfg(test)]
    pub(crate) fn use_ports_of_blocks(&mut self, ports: u16) {
        self.state.ports.used_ports = ports;
    }

    /// The stack has no blocks any more (the daemon took them back).
    pub fn forget_port_blocks(&mut self) {
        self.state.ports = PortBlocks::default();
    }

    /// Somebody serves this port: no connection is opened from its block any more. Those that were go on.
    pub fn retire_port_block(&mut self, port: u16) {
        let ports = &mut self.state.ports;
        if let Some(at) = ports.blocks().iter().position(|block| *block == block_of(port)) {
            ports.retired[at / 64] |= 1 << (at % 64);
            ports.next = 0;
        }
    }

    /// Nobody serves a port of the block any more.
    pub fn reopen_port_block(&mut self, number: u8) {
        let ports = &mut self.state.ports;
        if let Some(at) = ports.blocks().iter().position(|block| *block == number) {
            ports.retired[at / 64] &= !(1 << (at % 64));
            ports.spent = Spent::default();
        }
    }

    /// Whether another block should be asked for.
    pub fn ports_low(&self) -> bool {
        self.state.ports.is_low()
    }

    /// The daemon has no block to give: not asked again until a search is in need again.
    pub fn clear_ports_low(&mut self) {
        self.state.ports.low = false;
    }

    /// Whether a port lies in one of the stack's blocks.
    pub fn owns_port(&self, port: u16) -> bool {
        self.state.ports.blocks().contains(&block_of(port))
    }

    /// A free local endpoint towards `remote`: ports in turn, the first one whose flow is not in use.
    pub(crate) fn choose_port(&mut self, now: Instant, ip: Ip, remote: Endpoint) -> Result<Endpoint, Errno> {
        let spent = self.state.ports.spent;
        if now < spent.until && (spent.local, spent.remote) == (ip, remote) {
            self.state.counters.port_exhaustions += 1;
            return Err(Errno::EADDRNOTAVAIL);
        }
        let flow = |port| Flow { local: Endpoint::new(ip, port), remote };
        let chosen = self.choose_port_by(|engine, port| engine.is_flow_free(now, &flow(port)));
        if chosen.is_err() {
            let pause_us = u64::from(self.state.ports.total()) * SPENT_US_PER_PORT;
            self.state.ports.spent = Spent { local: ip, remote, until: now.after_us(pause_us) };
            self.state.counters.port_exhaustions += 1;
        }
        chosen.map(|port| Endpoint::new(ip, port))
    }

    /// Ports in turn, the first one that is free.
    pub(super) fn choose_port_by(&mut self, is_free: impl Fn(&mut Self, u16) -> bool) -> Result<u16, Errno> {
        // A copy, for the engine is asked about each.
        let ports = self.state.ports;
        let total = ports.total();
        for (tried, port) in (0u32..).zip(ports.in_turn()) {
            if is_free(self, port) {
                self.state.ports.next = (ports.next + tried + 1) % total;
                self.state.ports.low = tried > total / 4;
                return Ok(port);
            }
        }
        self.state.ports.low = true;
        self.state.daemon_told = false;
        Err(Errno::EADDRNOTAVAIL)
    }
}

fn block_of(port: u16) -> u8 {
    (u32::from(port) / PORTS_PER_BLOCK) as u8
}
