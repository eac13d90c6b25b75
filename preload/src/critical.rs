//! Locks of this process that a signal handler cannot meet half-taken: whoever holds one is inside
//! ([`sidestep_stack::runtime::critical`]), and handlers wait until it comes out.

pub(crate) use sidestep_stack::runtime::critical::when_left;
pub(crate) use sidestep_stack::runtime::critical::{
    Held, breathe, forget_deferred, hold, is_inside, leave, note_deferred, open,
};

/// parking_lot's mutex, held inside.
pub(crate) struct Mutex<T>(parking_lot::Mutex<T>);

/// The lock, held. The fields go in this order.
pub(crate) struct MutexGuard<'a, T> {
    guard: parking_lot::MutexGuard<'a, T>,
    _held: Held,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex(parking_lot::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let held = hold();
        MutexGuard { guard: self.0.lock(), _held: held }
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let held = hold();
        Some(MutexGuard { guard: self.0.try_lock()?, _held: held })
    }

    /// Lets go of a lock whose guard was forgotten.
    ///
    /// # Safety
    /// This thread, or the one that it is the forked copy of, took it and forgot the guard.
    pub(crate) unsafe fn force_unlock(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.0.force_unlock() };
        leave();
    }

    /// In a forked child: lets go of the lock if a thread had it that is not in this process.
    ///
    /// # Safety
    /// The calling thread does not have it.
    pub(crate) unsafe fn free(&self) {
        if self.0.is_locked() {
            // SAFETY: the caller's promise: it is of a thread of the parent.
            unsafe { self.0.force_unlock() };
        }
    }
}

impl<T> core::ops::Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> core::ops::DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}
