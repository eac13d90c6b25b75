//! SEGMENT ARRIVES.

use super::{Arrival, Context, Tcb};
use crate::buf::FrameId;
use crate::wire::tcp::Segment;

impl Tcb {
    /// A segment for this connection came; its frame is queued or released, in every case.
    pub fn arrive(&mut self, cx: &mut Context<'_, '_>, seg: &Segment, frame: FrameId) -> Arrival {
        let _ = (cx, seg, frame);
        todo!()
    }
}
