//! When the scheduler lets the daemon run.

/// A real-time priority, if we may, until dropped.
#[derive(Debug)]
pub(super) struct Urgency {
    is_raised: bool,
}

impl Urgency {
    /// Whoever has another priority than the usual one, by the operator's will or ours, keeps that.
    pub(super) fn raise() -> Urgency {
        // SAFETY: 0 is this thread.
        let is_usual = unsafe { libc::sched_getscheduler(0) } == libc::SCHED_OTHER;
        Urgency { is_raised: is_usual && schedule(libc::SCHED_FIFO, 1) }
    }
}

impl Drop for Urgency {
    fn drop(&mut self) {
        if self.is_raised {
            schedule(libc::SCHED_OTHER, 0);
        }
    }
}

fn schedule(policy: libc::c_int, sched_priority: libc::c_int) -> bool {
    // SAFETY: the parameters are readable for the call; 0 is this thread.
    unsafe { libc::sched_setscheduler(0, policy, &libc::sched_param { sched_priority }) == 0 }
}
