//! Which local ports have their datagrams steered to a stack: the XDP program's table, as stacks write it.
//!
//! A block of ports is steered here whole for TCP. For UDP it is not: any program may bind a port of it explicitly, and
//! that socket is the kernel's. So a stack says of each port of its own blocks whether it has a socket there.

use crate::engine::Engine;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// An entry for every local port: the index of the stack plus 1, or 0. Each is read and written whole by itself, and
/// nothing else is published by it.
pub type DatagramPorts = [AtomicU64; PORTS];

/// Every port number.
pub const PORTS: usize = 1 << 16;

impl<'m> Engine<'m> {
    /// Gives the stack the table. Without one, datagrams to its own ports come by the sockets' shadows.
    pub fn steer_datagrams_by(&mut self, table: &'m DatagramPorts) {
        self.datagram_ports = Some(table);
    }

    fn own_entry(&self) -> u64 {
        u64::from(self.frames.owner())
    }

    /// A socket has the port now: its datagrams shall come here, if it is one of the stack's blocks. The others, of
    /// servers, are steered by the daemon.
    pub(super) fn steer_here(&self, port: u16) {
        if let Some(table) = self.datagram_ports.filter(|_| self.owns_port(port)) {
            table[usize::from(port)].store(self.own_entry(), Relaxed);
        }
    }

    /// No socket of the stack has the port any more.
    pub(super) fn steer_away(&self, port: u16) {
        if let Some(table) = self.datagram_ports {
            // Not ours: nobody's, or by a block that another stack got, whose word it is.
            let _ = table[usize::from(port)].compare_exchange(self.own_entry(), 0, Relaxed, Relaxed);
        }
    }

    /// All of the stack's sockets are gone at once.
    pub(crate) fn steer_all_away(&self) {
        (0..=u16::MAX).for_each(|port| self.steer_away(port));
    }
}
