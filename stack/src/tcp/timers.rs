//! Deadlines.

use super::{Arrival, Context, Tcb};
use crate::time::Instant;

impl Tcb {
    /// The earliest of the connection's deadlines.
    pub fn deadline(&self) -> Option<Instant> {
        todo!()
    }

    /// Some deadline may have come. Calling early does no harm.
    pub fn handle_deadline(&mut self, cx: &mut Context<'_, '_>) -> Arrival {
        let _ = cx;
        todo!()
    }
}
