//! A robust mutex that processes share: the POSIX one, because the kernel tells the next owner when one died inside.

use crate::sys;
use core::cell::UnsafeCell;
use std::io;

/// How long a thread sleeps for a lock before it looks whether it is free.
const SLEEP_US: u64 = 10_000;

unsafe extern "C" {
    /// Of glibc since 2.30.
    fn pthread_mutex_clocklock(
        mutex: *mut libc::pthread_mutex_t,
        clock: libc::clockid_t,
        until: *const libc::timespec,
    ) -> libc::c_int;
}

/// pthread_mutex_t with PTHREAD_PROCESS_SHARED and PTHREAD_MUTEX_ROBUST. Zeroed memory is not one: call `init`.
#[repr(C, align(64))]
pub struct RobustMutex {
    inner: UnsafeCell<libc::pthread_mutex_t>,
}

// SAFETY: a process-shared pthread mutex is meant to be used from anywhere at once.
unsafe impl Sync for RobustMutex {}
// SAFETY: it stays where it is (in the arena); only references to it travel.
unsafe impl Send for RobustMutex {}

/// How a lock was got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockOutcome {
    Clean,
    /// The last owner died inside: what the lock guards may be half-written.
    OwnerDied,
}

impl RobustMutex {
    /// Makes the mutex. Nobody may hold or wait for it.
    pub fn init(&self) -> io::Result<()> {
        let check = |e: i32| if e == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(e)) };
        let mut attr = core::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        // SAFETY: `attr` is initialised by the first call and destroyed by the last; the mutex is ours alone.
        unsafe {
            check(libc::pthread_mutexattr_init(attr.as_mut_ptr()))?;
            check(libc::pthread_mutexattr_setpshared(attr.as_mut_ptr(), libc::PTHREAD_PROCESS_SHARED))?;
            check(libc::pthread_mutexattr_setrobust(attr.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST))?;
            let made = check(libc::pthread_mutex_init(self.inner.get(), attr.as_ptr()));
            libc::pthread_mutexattr_destroy(attr.as_mut_ptr());
            made
        }
    }

    /// Waits for the lock. Who is woken to take it, and killed before he does, while another who came by takes it, leaves those
    /// asleep who waited with him: the kernel cannot know. So nobody sleeps for long.
    pub fn lock(&self) -> LockOutcome {
        loop {
            if let Some(outcome) = self.try_lock() {
                return outcome;
            }
            let until = sys::monotonic_after(SLEEP_US);
            // SAFETY: as in `try_lock`; the time is ours.
            let e = unsafe { pthread_mutex_clocklock(self.inner.get(), libc::CLOCK_MONOTONIC, &raw const until) };
            if e != libc::ETIMEDOUT {
                return self.outcome(e);
            }
        }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<LockOutcome> {
        // SAFETY: the mutex was initialised when the arena, or the stack's slot, was made.
        let e = unsafe { libc::pthread_mutex_trylock(self.inner.get()) };
        (e == 0 || e == libc::EOWNERDEAD).then(|| self.outcome(e))
    }

    fn outcome(&self, error: i32) -> LockOutcome {
        if error != libc::EOWNERDEAD {
            return LockOutcome::Clean;
        }
        // SAFETY: the caller owns the mutex in its inconsistent state.
        unsafe { libc::pthread_mutex_consistent(self.inner.get()) };
        LockOutcome::OwnerDied
    }

    /// Lets go of the lock; the caller holds it.
    pub fn unlock(&self) {
        // SAFETY: as in `lock`; unlocking what one does not hold is an error for robust mutexes, not a hazard.
        unsafe { libc::pthread_mutex_unlock(self.inner.get()) };
    }
}

impl core::fmt::Debug for RobustMutex {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("RobustMutex")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn who_was_not_woken_finds_the_lock_free() {
        // SAFETY: zeroes are valid; the mutex is made next.
        let mutex: RobustMutex = unsafe { core::mem::zeroed() };
        mutex.init().unwrap();
        // SAFETY: the first word of glibc's mutex: its owner's thread.
        let owner = unsafe { &*mutex.inner.get().cast::<AtomicU32>() };
        owner.store(1, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| (mutex.lock(), mutex.unlock()).0);
            sys::nap_us(30_000);
            assert!(!waiter.is_finished() && mutex.try_lock().is_none());
            owner.store(0, Ordering::SeqCst); // and nobody is woken
            assert_eq!(waiter.join().unwrap(), LockOutcome::Clean);
        });
    }
}
