//! When the scheduler lets us run.

/// Delays are only as exact as our wake-ups. Without the right to real-time priority the wire still works, less exactly.
pub(crate) fn hurry() {
    // SAFETY: the parameters live for the call; both calls change nothing but this thread's scheduling.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
        libc::sched_setscheduler(0, libc::SCHED_FIFO, &libc::sched_param { sched_priority: 1 });
    }
}
