//! The words by which the engine chains connections into its lists. The protocol machine does not look at them.

use crate::link::Hop;
use crate::slab::NONE;

/// Intrusive links of one connection; they belong to the engine.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Links {
    /// The next of the same bucket of the flow table. Links free slots.
    pub hash_next: u32,
    pub wheel_prev: u32,
    pub wheel_next: u32,
    /// The tick of the wheel's entry, while there is one; wraps.
    pub wheel_tick: u32,
    pub transmit_next: u32,
    pub in_transmit: bool,
    /// No socket holds the connection any more.
    pub orphan: bool,
    pub rx_queue: u8,
    /// Which of its listener's queues it is in: 0 none, 1 SYN queue, 2 accept queue; 3: it went to another stack.
    pub queue: u8,
    pub queue_next: u32,
    pub queue_prev: u32,
    pub socket: u32,
    pub listener: u32,
    /// The next stop on the way to the peer.
    pub hop: Hop,
    /// The generation of the tables when `hop` was looked up; 0 before that.
    pub mac_generation: u16,
    /// Where in the timer wheel; [`Links::NO_SLOT`]: nowhere.
    pub wheel_slot: u16,
}

impl Links {
    pub const NO_SLOT: u16 = u16::MAX;

    /// What a connection takes along to another stack: where its peer's frames came from. In no list, and to be routed anew.
    pub(crate) fn without_places(&self) -> Links {
        Links { hop: self.hop, rx_queue: self.rx_queue, ..Links::default() }
    }
}

impl Default for Links {
    fn default() -> Self {
        Links {
            hash_next: NONE,
            wheel_prev: NONE,
            wheel_next: NONE,
            wheel_tick: 0,
            transmit_next: NONE,
            in_transmit: false,
            orphan: false,
            rx_queue: 0,
            queue: 0,
            queue_next: NONE,
            queue_prev: NONE,
            socket: NONE,
            listener: NONE,
            hop: Hop::default(),
            mac_generation: 0,
            wheel_slot: Links::NO_SLOT,
        }
    }
}
