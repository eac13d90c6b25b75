//! The device changes under live connections: its MAC, its MTU.

use super::{Engine, context};
use crate::addr::Mac;
use crate::tcp::State;
use crate::time::Instant;

impl Engine<'_> {
    /// The device has another MAC or MTU. Frames go out under the new MAC from now on, and those that are addressed to
    /// it are taken; neighbours learn of it from the kernel. A smaller MTU cuts what live connections send, in flight or
    /// not; a larger one is for those to come.
    pub fn set_device(&mut self, now: Instant, mac: Mac, mtu: u16) {
        let shrinks = mtu < self.state.config.mtu;
        (self.state.config.mac, self.state.config.mtu) = (mac, mtu);
        if !shrinks {
            return;
        }
        for conn in 0..self.conns.used() {
            // A slot is given back when its connection is over or has become a TIME-WAIT record: such a one has nothing
            // in flight, and neither has one that waits to be given back.
            if !matches!(self.conns[conn].state(), State::Closed | State::TimeWait) {
                self.conns[conn].handle_device_mtu(&mut context!(self, now), mtu);
                self.schedule(now, conn);
            }
        }
    }
}
