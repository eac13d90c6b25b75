//! A port's flows go to other stacks: what the daemon needs to know of a stack then, and what it tells it.

use super::Engine;
use super::flows::Entry;
use crate::addr::Flow;
use crate::slab::NONE;
use crate::tcp::TimeWait;
use crate::time::Instant;

const LEFT_MAX: usize = 32;

/// Ports whose SYNs other stacks get. When the table is full the one that was left first is forgotten.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct LeftPorts {
    ports: [u16; LEFT_MAX],
    next: u32,
}

impl Default for LeftPorts {
    fn default() -> Self {
        LeftPorts { ports: [0; LEFT_MAX], next: 0 }
    }
}

impl LeftPorts {
    fn has(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }

    fn note(&mut self, port: u16) {
        if !self.has(port) {
            self.ports[self.next as usize % LEFT_MAX] = port;
            self.next = (self.next + 1) % LEFT_MAX as u32;
        }
    }

    fn forget(&mut self, port: u16) {
        self.ports.iter_mut().filter(|p| **p == port).for_each(|p| *p = 0);
    }
}

impl Engine<'_> {
    /// Calls `f` with the flow of every connection of a local port, half-open ones too: not with those of TIME-WAITs.
    pub fn connections_of_port(&self, port: u16, mut f: impl FnMut(&Flow)) {
        self.for_each_entry(|entry, flow| {
            if flow.local.port == port && self.is_live(entry) {
                f(flow);
            }
        });
    }

    /// As [`Engine::connections_of_port`], of all ports.
    pub fn for_each_connection(&self, mut f: impl FnMut(&Flow)) {
        self.for_each_entry(|entry, flow| {
            if self.is_live(entry) {
                f(flow);
            }
        });
    }

    fn is_live(&self, entry: Entry) -> bool {
        matches!(entry, Entry::Connection(_)) && !self.has_departed(entry)
    }

    /// Offers every TIME-WAIT of a local port; those that `takes` takes are another stack's from now on.
    pub fn hand_over_time_waits(&mut self, port: u16, mut takes: impl FnMut(&TimeWait) -> bool) {
        let mut at = self.state.time_waits.head;
        while at != NONE {
            let record = &self.time_waits[at];
            let next = record.queue_next;
            let is_over = record.expires_at == Instant::ZERO;
            if !is_over && record.flow.local.port == port && takes(record) {
                self.end_time_wait(at);
            }
            at = next;
        }
    }

    /// Takes a TIME-WAIT of another stack. Behind those that are here it may be kept twice as long as it has to be.
    pub fn take_over_time_wait(&mut self, record: &TimeWait) {
        if self.lookup(&record.flow).is_none() {
            self.keep_time_wait(*record);
        }
    }

    /// The stack does not serve the port any more, others may. A SYN that still comes here (its flow was steered to the
    /// connection that had it before) is dropped, not refused: it comes again, and finds its way.
    pub fn note_left_port(&mut self, port: u16) {
        self.state.left_ports.note(port);
    }

    pub(crate) fn forget_left_port(&mut self, port: u16) {
        self.state.left_ports.forget(port);
    }

    pub(super) fn has_left_port(&self, port: u16) -> bool {
        self.state.left_ports.has(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_that_was_left_first_is_forgotten_first() {
        let mut left = LeftPorts::default();
        (1..=LEFT_MAX as u16 + 1).for_each(|port| left.note(port));
        assert!(!left.has(1) && left.has(2) && left.has(LEFT_MAX as u16 + 1));
        left.note(2);
        left.forget(2);
        assert!(!left.has(2) && left.has(3));
    }
}
