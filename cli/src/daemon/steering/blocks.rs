//! Blocks of local ports, from which stacks open connections.
//!
//! The kernel gives none of these ports to anybody who leaves the choice to it. But programs may name one, to listen at or to connect
//! from: then the block is shared, and the XDP program looks each segment up. It finds out itself about what is the kernel's; about
//! ports that are served by stacks it is told.

use super::{Port, Steering, proto_of};
use crate::daemon::kernel_sockets::{self, KernelSocket};
use crate::daemon::sysctl::block_ports;
use crate::failure::{Context, Outcome};
use aya::maps::MapError;
use sidestep_xdp::maps::{BlockEntry, Proto, ephemeral_index};

/// An ephemeral block that a stack has.
pub(super) struct Block {
    pub(super) number: u8,
    pub(super) stack: u32,
    /// Others have sockets there, as far as the daemon knows; the program may know better.
    pub(super) is_shared: bool,
}

impl Steering {
    /// Whether [`Steering::take_block`] would find one.
    pub(crate) fn has_block(&self) -> bool {
        !self.free_blocks.is_empty()
    }

    /// A block of local ports for a stack's active opens. None that holds a port which is served.
    pub(crate) fn take_block(&mut self, stack: u32) -> Outcome<Option<u8>> {
        if self.free_blocks.is_empty() {
            return Ok(None);
        }
        let sockets = kernel_sockets::tcp();
        // One without the sockets of others if there is any; else the program must look each packet up.
        let find = |may_be_used| {
            let fits = |b: &u8| !self.is_served_in(*b) && (may_be_used || !is_used(*b, &sockets));
            self.free_blocks.iter().rposition(fits)
        };
        let Some(at) = find(false).or_else(|| find(true)) else { return Ok(None) };
        let number = self.free_blocks[at];
        let is_shared = is_used(number, &sockets);
        self.write_block(number, BlockEntry::new(stack, is_shared)).context("cannot steer a block of ports")?;
        self.free_blocks.remove(at);
        self.blocks.push(Block { number, stack, is_shared });
        Ok(Some(number))
    }

    fn write_block(&mut self, number: u8, entry: BlockEntry) -> Result<(), MapError> {
        self.ephemeral.set(ephemeral_index(*block_ports(number).start()), entry.to_bytes(), 0)
    }

    /// Whether stacks serve a TCP port of the block, or have connections there that came by one.
    fn is_served_in(&self, block: u8) -> bool {
        let ports = block_ports(block);
        let is_in = |port: Port| proto_of(port) == Proto::Tcp && ports.contains(&port.1);
        self.ports().any(is_in) || self.pinned.keys().map(Self::port_of).any(is_in)
    }

    /// The stack that opens connections from a block with this port.
    pub(crate) fn opener_from(&self, port: Port) -> Option<u32> {
        let block = self.blocks.iter().find(|b| block_ports(b.number).contains(&port.1));
        block.filter(|_| proto_of(port) == Proto::Tcp).map(|b| b.stack)
    }

    /// From now on the port's segments are the server's, but for flows that are pinned.
    pub(crate) fn share_block_of(&mut self, port: Port) -> Outcome<()> {
        let Some(block) = self.blocks.iter_mut().find(|b| block_ports(b.number).contains(&port.1)) else {
            return Ok(());
        };
        block.is_shared = true;
        let (number, entry) = (block.number, BlockEntry::new(block.stack, true));
        self.write_block(number, entry).context("cannot share a block of ports")
    }

    /// A stack is no more.
    pub(super) fn take_blocks_back(&mut self, stack: u32) {
        for block in self.blocks.extract_if(.., |b| b.stack == stack).collect::<Vec<_>>() {
            let _ = self.write_block(block.number, BlockEntry::default());
            self.free_blocks.insert(0, block.number); // used last: peers may hold its ports in TIME-WAIT
        }
    }

    /// Blocks in which nobody else has a socket any more are their stacks' alone again.
    pub(super) fn clear_blocks(&mut self, sockets: &[KernelSocket]) -> Outcome<()> {
        let is_over = |b: &Block| b.is_shared && !is_used(b.number, sockets) && !self.is_served_in(b.number);
        let over: Vec<(u8, u32)> = self.blocks.iter().filter(|b| is_over(b)).map(|b| (b.number, b.stack)).collect();
        for (number, stack) in &over {
            self.write_block(*number, BlockEntry::new(*stack, false)).context("cannot steer a block of ports")?;
        }
        // Somebody may have come meanwhile, and the program's mark of it may be what was wiped out.
        let sockets = if over.is_empty() { Vec::new() } else { kernel_sockets::tcp() };
        for (number, stack) in over {
            let is_shared = is_used(number, &sockets);
            if is_shared {
                self.write_block(number, BlockEntry::new(stack, true)).context("cannot steer a block of ports")?;
            }
            self.blocks.iter_mut().filter(|b| b.number == number).for_each(|b| b.is_shared = is_shared);
            if !is_shared {
                self.cleared.push((number, stack));
            }
        }
        Ok(())
    }

    /// Blocks that are their stacks' alone again: they may connect from there, if they did not for the sake of a server.
    pub(crate) fn take_cleared(&mut self) -> Vec<(u8, u32)> {
        std::mem::take(&mut self.cleared)
    }

    /// What the program found out meanwhile.
    pub(super) fn look_at_blocks(&mut self) {
        for block in &mut self.blocks {
            let entry = self.ephemeral.get(&ephemeral_index(*block_ports(block.number).start()), 0);
            block.is_shared |= entry.is_ok_and(|entry| BlockEntry::from_bytes(entry).shared != 0);
        }
    }
}

/// Whether the kernel has sockets on ports of the block.
fn is_used(block: u8, sockets: &[KernelSocket]) -> bool {
    sockets.iter().any(|s| block_ports(block).contains(&s.port))
}
