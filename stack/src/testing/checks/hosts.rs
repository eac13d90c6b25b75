//! What holds inside a host after everything it did: nothing outstanding without a deadline, and sane numbers.

use super::Verdict;
use crate::tcp::State;
use crate::testing::Host;
use crate::testing::alloc::format;
use crate::time::Instant;

pub(crate) fn check(host: &mut Host, now: Instant) -> Verdict {
    let engine = host.engine();
    // Who looks may have read the clock before who acted last.
    let now = { engine.state.clock }.read(now);
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
            // One that is to be asked for segments meets the wheel when it was; until then it keeps its place on the list.
            let is_in_wheel = engine.state.wheel.knows(&tcb.link, deadline.max(now));
            if !is_in_wheel && !tcb.link.in_transmit {
                return err(&format!("a deadline at {}, and the wheel does not know it", deadline.micros()));
            }
        }
    }
    Ok(())
}

/// The books balance: whatever the stack has is somewhere.
pub(crate) fn check_books(host: &mut Host) -> Verdict {
    let audit = host.engine().audit(|_| true);
    let all = [audit.frames, audit.connections, audit.time_waits, audit.sockets];
    if all.iter().all(|count| count.is_right()) { Ok(()) } else { Err(format!("the books: {audit:?}")) }
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
