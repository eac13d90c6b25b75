//! What a thread holds while a call of its waits: its socket; and while it sleeps, a bell, its place among those who wait, and
//! its count among the sleepers.
//!
//! A handler may leave the sleep without coming back, by siglongjmp() or pthread_exit(). So each such call is known to its
//! thread, the innermost first, and whoever leaves gives back what it held ([`crate::signals::jumps`]).

use crate::bells::{self, Bell};
use crate::{critical, thread};
use core::cell::Cell;
use core::sync::atomic::Ordering::Relaxed;
use sidestep_stack::runtime::{Guard, Stack};

/// Takes a thread's bell off what it waited on.
pub(crate) type Forget<'a> = &'a dyn Fn(&mut Guard<'_>, u8);

/// A call that waits, with its sleeps. It stays where it is while it is known.
pub(crate) struct Vigil<'a> {
    /// `None`: it sleeps for the kernel's descriptors alone.
    stack: Option<&'a Stack>,
    bell: Cell<Option<Bell<'a>>>,
    forget: Forget<'a>,
    give_back: &'a dyn Fn(),
    sleeps: Cell<bool>,
    /// The one that a handler interrupted to begin this one.
    outer: *mut (),
    known: Cell<bool>,
}

impl<'a> Vigil<'a> {
    /// Begins; `keep` has to follow. `forget` undoes what the caller registers for a sleep; it may run although nothing was.
    /// `give_back` undoes what it took for all of them.
    pub(crate) fn begin(stack: &'a Stack, forget: Forget<'a>, give_back: &'a dyn Fn()) -> Vigil<'a> {
        Vigil::new(Some(stack), forget, give_back)
    }

    /// As [`Vigil::begin`], for a call that needs no bell.
    pub(crate) fn begin_without_stack(give_back: &'a dyn Fn()) -> Vigil<'a> {
        Vigil::new(None, &|_, _| {}, give_back)
    }

    fn new(stack: Option<&'a Stack>, forget: Forget<'a>, give_back: &'a dyn Fn()) -> Vigil<'a> {
        let (bell, sleeps, known) = (Cell::new(None), Cell::new(false), Cell::new(false));
        Vigil { stack, bell, forget, give_back, sleeps, outer: core::ptr::null_mut(), known }
    }

    /// From here on the thread can leave it by a jump. Until then it is inside, so that it cannot.
    pub(crate) fn keep(&mut self) {
        let innermost = &thread::current().vigil;
        self.outer = innermost.load(Relaxed);
        self.known.set(true);
        innermost.store(core::ptr::from_mut(self).cast(), Relaxed);
    }

    /// A look at the bell, which no handler sees meanwhile: the thread is inside.
    pub(crate) fn with_bell<T>(&self, look: impl FnOnce(&Bell<'a>) -> T) -> Option<T> {
        let bell = self.bell.take();
        let seen = bell.as_ref().map(look);
        self.bell.set(bell);
        seen
    }

    /// Claims a bell for a sleep, or silences the one that it has.
    pub(crate) fn claim(&self) {
        if self.with_bell(Bell::clear).is_none() {
            self.bell.set(self.stack.and_then(bells::claim));
        }
    }

    pub(crate) fn bit(&self) -> Option<u8> {
        self.with_bell(Bell::bit)
    }

    pub(crate) fn bell_fd(&self) -> Option<libc::c_int> {
        self.with_bell(Bell::fd)
    }

    /// Counted among those whom arriving frames wake.
    pub(crate) fn fall_asleep(&self) {
        if let Some(stack) = self.stack {
            stack.sleep_begin();
            self.sleeps.set(true);
        }
    }

    /// After a sleep; it keeps the bell for the next.
    pub(crate) fn wake(&self) {
        if let Some(stack) = self.stack.filter(|_| self.sleeps.replace(false)) {
            stack.sleep_end();
        }
    }

    /// After a sleep, or instead of one.
    pub(crate) fn get_up(&self) {
        self.wake();
        if let (Some(bell), Some(stack)) = (self.bell.take(), self.stack) {
            (self.forget)(&mut stack.lock(), bell.bit());
        }
    }

    /// Gives everything back, once.
    fn end(&self) {
        let _held = critical::hold();
        if self.stack.is_some() {
            self.get_up();
        }
        if self.known.replace(false) {
            (self.give_back)();
            thread::current().vigil.store(self.outer, Relaxed);
        }
    }
}

impl Drop for Vigil<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Ends the sleeps of this thread that `is_left` says are left, the innermost first; up to the outermost of them.
pub(crate) fn abandon(is_left: impl Fn(usize) -> bool) {
    let mut count = 0;
    for (i, at) in chain().enumerate() {
        if is_left(at as usize) {
            count = i + 1;
        }
    }
    for _ in 0..count {
        let at = thread::current().vigil.load(Relaxed).cast::<Vigil<'_>>();
        // SAFETY: as in `chain`.
        unsafe { (*at).end() };
    }
}

fn chain() -> impl Iterator<Item = *mut Vigil<'static>> {
    let mut at = thread::current().vigil.load(Relaxed).cast::<Vigil<'static>>();
    core::iter::from_fn(move || {
        if at.is_null() {
            return None;
        }
        let this = at;
        // SAFETY: what is known lies in a frame of this thread that has not been left: whoever leaves it ends it before.
        at = unsafe { (*this).outer.cast() };
        Some(this)
    })
}
