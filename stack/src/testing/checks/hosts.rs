//! What holds inside a host after everything it did: nothing outstanding without a deadline, and sane numbers.

use super::Verdict;
use crate::tcp::State;
use crate::testing::Host;
use crate::testing::alloc::format;
use crate::time::Instant;

pub(crate) fn check(host: &mut Host, now: Instant) -> Verdict {
    let engine = host.engine();
    for conn in 0..engine.conns.used() {
        let tcb = &engine.conns[conn];
        let flow = tcb.flow();
        if tcb.state() == State::Closed || !engine.is_flow_of(flow, conn) {
            continue; // Over, or a slot that is free again.
        }
        let err = |what: &str| Err(format!("{} to {}, {:?}: {what}", flow.local, flow.remote, tcb.state()));
        let info = tcb.info(now);
        if tcb.state().is_synchronized() && info.snd_cwnd < info.snd_mss {
            return err(&format!("a congestion window of {} with an MSS of {}", info.snd_cwnd, info.snd_mss));
        }
        let deadline = tcb.deadline();
        let is_opening = matches!(tcb.state(), State::SynSent | State::SynReceived);
        let is_outstanding = is_opening || tcb.unacked_bytes() > 0 || tcb.state() == State::TimeWait;
        if is_outstanding && deadline.is_none() && !tcb.link.in_transmit {
            return err(&format!("{} octets outstanding, and no deadline", tcb.unacked_bytes()));
        }
        if let Some(deadline) = deadline {
            // Without a frame to build a segment in, a connection waits for that, whatever comes due. Frames may have come
            // back just now: then it has its turn next.
            let waits_for_turn = tcb.link.in_transmit && (engine.frames.free_count() == 0 || deadline <= now);
            let is_in_wheel = engine.state.wheel.knows(&tcb.link, deadline.max(now));
            if !is_in_wheel && !waits_for_turn {
                return err(&format!("a deadline at {}, and the wheel does not know it", deadline.micros()));
            }
        }
    }
    Ok(())
}

/// In the end nothing is left of what all let go of.
pub(crate) fn check_empty(host: &mut Host) -> Verdict {
    let population = host.engine().population();
    if !host.engine().is_idle_forever() || population.epoll_sets + population.epoll_items != 0 {
        return Err(format!("left: {population:?}"));
    }
    let held = host.frames_held();
    if held != 0 {
        return Err(format!("{held} frames are not free again"));
    }
    let engine = host.engine();
    let has_timer = engine.next_deadline().is_some() || !engine.state.wheel.is_empty();
    let has_work = engine.has_transmit() || !engine.state.waiting.is_empty();
    if has_timer || has_work {
        return Err(format!("left: a timer ({has_timer}) or a place in a list ({has_work})"));
    }
    Ok(())
}
