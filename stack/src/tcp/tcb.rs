//! The record of one connection: RFC 9293's transmission control block.

use super::{Context, Links, Options, Seq, State};
use crate::addr::Flow;
use crate::slab::SlabItem;
use crate::wire::tcp::Segment;

/// One connection.
#[repr(C)]
pub struct Tcb {
    pub link: Links,
    flow: Flow,
    state: State,
    options: Options,
    iss: Seq,
}

impl SlabItem for Tcb {
    fn free_link(&mut self) -> &mut u32 {
        &mut self.link.free
    }
}

impl Tcb {
    /// OPEN, active: SYN-SENT, with a SYN owed. `mss` is what the device carries: MTU − IP header − 20.
    pub fn connect(cx: &mut Context<'_, '_>, flow: Flow, iss: u32, ts_offset: u32, mss: u16, options: &Options) -> Tcb {
        let _ = (cx, ts_offset, mss);
        Tcb { link: Links::default(), flow, state: State::SynSent, options: *options, iss: Seq(iss) }
    }

    /// OPEN, passive: a listener took the SYN `seg`. SYN-RECEIVED, with a SYN-ACK owed.
    pub fn accept_syn(
        cx: &mut Context<'_, '_>,
        flow: Flow,
        seg: &Segment,
        iss: u32,
        ts_offset: u32,
        mss: u16,
        options: &Options,
    ) -> Tcb {
        let _ = (cx, seg, ts_offset, mss);
        Tcb { link: Links::default(), flow, state: State::SynReceived, options: *options, iss: Seq(iss) }
    }

    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }
}
