//! Frames that are lost with the rings of stacks whose processes died while there was no daemon: nobody could empty those.
//!
//! With the locks of all stacks that live, and so with nobody at any ring but the kernel, a frame that is in the kernel's hands and
//! lies in none of the living stacks' rings is nobody's. The kernel copies: what it sends it does not read for long, and what it
//! receives it puts into a receive ring before it does anything else.

use super::Guard;
use crate::arena::Arena;
use crate::buf::{FrameId, FrameShared};
use core::sync::atomic::Ordering;

/// Gives them to the pool, and says how many there were. `guards`: of all stacks that live. `await_runs` returns when all frames
/// are delivered whose reception had begun. Not for drivers that work without copies, which keep frames to themselves.
pub fn reclaim_frames(arena: &'static Arena, guards: &[&Guard<'_>], await_runs: impl Fn()) -> u32 {
    let mut seen = vec![false; arena.frame_count() as usize];
    let mut see = |id: FrameId| {
        if let Some(seen) = seen.get_mut(id as usize) {
            *seen = true;
        }
    };
    let queues = || guards.iter().flat_map(|guard| guard.queues());
    // In the order in which the kernel moves them.
    queues().for_each(|queue| queue.for_each_to_kernel(&mut see));
    await_runs();
    queues().for_each(|queue| queue.for_each_from_kernel(&mut see));
    replace(arena, guards);
    let is_lost = |(id, frame): &(usize, &FrameShared)| !seen[*id] && frame.is_with_kernel();
    let lost = arena.frames_shared().iter().enumerate().filter(is_lost);
    lost.map(|(id, _)| arena.pool().put(id as FrameId)).count() as u32
}

/// What a queue's rings do not hold any more is to be replaced by whoever has frames to spare.
fn replace(arena: &'static Arena, guards: &[&Guard<'_>]) {
    let Some(any) = guards.first() else { return };
    let circulate = crate::xsk::fill_frames(arena.frame_count(), arena.header().queues());
    for (q, queue) in any.queues().iter().enumerate() {
        let received: u32 = guards.iter().map(|guard| guard.queues()[q].received()).sum();
        let missing = circulate.saturating_sub(received + queue.to_be_filled());
        arena.queue(q).fill_deficit.store(missing.cast_signed(), Ordering::Release);
    }
}
