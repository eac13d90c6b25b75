//! Local ports for connect(). The daemon gives blocks of the ephemeral range; steering sends a block's packets here.

use super::Errno;
use crate::addr::{Endpoint, Flow, Ip};
use crate::engine::Engine;
use crate::time::Instant;

const BLOCKS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
struct Block {
    first: u16,
    count: u16,
}

/// The blocks of one stack.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct PortBlocks {
    blocks: [Block; BLOCKS_MAX],
    count: u32,
    /// Where the search for the next port begins.
    next: u32,
    /// The last search took long, or failed: another block would help.
    low: bool,
    _pad: [u8; 3],
}

impl Default for PortBlocks {
    fn default() -> Self {
        PortBlocks { blocks: [Block::default(); BLOCKS_MAX], count: 0, next: 0, low: false, _pad: [0; 3] }
    }
}

impl PortBlocks {
    pub(crate) fn is_low(&self) -> bool {
        self.low && (self.count as usize) < BLOCKS_MAX
    }

    fn blocks(&self) -> &[Block] {
        &self.blocks[..self.count as usize]
    }

    fn total(&self) -> u32 {
        self.blocks().iter().map(|b| u32::from(b.count)).sum()
    }

    /// The `n`th port of all blocks.
    fn port(&self, mut n: u32) -> Option<u16> {
        for b in self.blocks() {
            if n < u32::from(b.count) {
                return Some(b.first + n as u16);
            }
            n -= u32::from(b.count);
        }
        None
    }
}

impl Engine<'_> {
    /// The daemon gives another block of ports. False when the table of blocks is full.
    pub fn add_port_block(&mut self, first: u16, count: u16) -> bool {
        let ports = &mut self.state.ports;
        let n = ports.count as usize;
        if n == BLOCKS_MAX || count == 0 || first.checked_add(count - 1).is_none() {
            return false;
        }
        // A stack that starts anew begins somewhere else: its predecessor's flows may be in TIME-WAIT at the peers.
        ports.next = if n == 0 { (self.state.config.hash_secret[0] % u64::from(count)) as u32 } else { ports.total() };
        ports.blocks[n] = Block { first, count };
        ports.count += 1;
        ports.low = false;
        true
    }

    /// The stack has no blocks any more (the daemon took them back).
    pub fn forget_port_blocks(&mut self) {
        self.state.ports = PortBlocks::default();
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
        self.state.ports.blocks().iter().any(|b| port >= b.first && port - b.first < b.count)
    }

    /// A free local endpoint towards `remote`: ports in turn, the first one whose flow is not in use.
    pub(crate) fn choose_port(&mut self, now: Instant, ip: Ip, remote: Endpoint) -> Result<Endpoint, Errno> {
        let flow = |port| Flow { local: Endpoint::new(ip, port), remote };
        self.choose_port_by(|engine, port| engine.is_flow_free(now, &flow(port))).map(|port| Endpoint::new(ip, port))
    }

    /// Ports in turn, the first one that is free.
    pub(super) fn choose_port_by(&mut self, is_free: impl Fn(&mut Self, u16) -> bool) -> Result<u16, Errno> {
        let total = self.state.ports.total();
        for tried in 0..total {
            let n = (self.state.ports.next + tried) % total;
            let Some(port) = self.state.ports.port(n) else { break };
            if is_free(self, port) {
                self.state.ports.next = (n + 1) % total;
                self.state.ports.low = tried > total / 4;
                return Ok(port);
            }
        }
        self.state.ports.low = true;
        self.state.daemon_told = false;
        Err(Errno::EADDRNOTAVAIL)
    }
}
