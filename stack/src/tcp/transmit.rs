//! Outgoing segments.

use super::{Context, Outgoing, Tcb};

impl Tcb {
    /// Whether [`Tcb::poll_transmit`] has something to send now.
    pub fn wants_transmit(&self) -> bool {
        todo!()
    }

    /// The next segment to send now; `None` when there is none, or no frame to build it in.
    pub fn poll_transmit(&mut self, cx: &mut Context<'_, '_>) -> Option<Outgoing> {
        let _ = cx;
        todo!()
    }
}
