//! Stretches of code that a signal handler of the application must not interrupt: whoever holds a lock of ours is in one,
//! because the handler may make a call that takes the same lock.
//!
//! A thread counts how deep it is inside. Whoever delivers signals to the application (the shim) asks [`is_inside`], puts
//! the handler off with [`note_deferred`], and is called when the thread comes out. A process without handlers of others
//! (the daemon) pays for the count and nothing else.

use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed, compiler_fence};

/// What a thread and its own signal handlers share. Nobody else sees it, so the order of instructions is all that counts.
#[repr(C)]
struct Words {
    depth: AtomicU32,
    deferred: AtomicU32,
}

crate::thread_block!(fn words() -> Words, "sidestep_critical");

static WHEN_LEFT: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Names the function that runs when a thread comes out for which a handler was put off.
pub fn when_left(act: fn()) {
    WHEN_LEFT.store(act as *mut (), Relaxed);
}

/// The calling thread goes inside, or deeper.
#[inline]
pub fn enter() {
    let words = words();
    words.depth.store(words.depth.load(Relaxed).wrapping_add(1), Relaxed);
    compiler_fence(core::sync::atomic::Ordering::SeqCst);
}

/// And comes back.
#[inline]
pub fn leave() {
    compiler_fence(core::sync::atomic::Ordering::SeqCst);
    let words = words();
    let depth = words.depth.load(Relaxed).wrapping_sub(1);
    words.depth.store(depth, Relaxed);
    compiler_fence(core::sync::atomic::Ordering::SeqCst);
    if depth == 0 && words.deferred.load(Relaxed) != 0 {
        come_out(words);
    }
}

// A handler may end its thread from here, or jump: so this is a call, which unwinding finds in its tables.
#[cold]
#[inline(never)]
fn come_out(words: &Words) {
    words.deferred.store(0, Relaxed);
    let act = WHEN_LEFT.load(Relaxed);
    if !act.is_null() {
        // SAFETY: only `when_left` stores here, and it stores functions of this type.
        unsafe { core::mem::transmute::<*mut (), fn()>(act)() };
    }
}

/// Whether the calling thread is inside. For signal handlers.
#[inline]
pub fn is_inside() -> bool {
    words().depth.load(Relaxed) != 0
}

/// A handler was put off until this thread comes out.
pub fn note_deferred() {
    words().deferred.store(1, Relaxed);
}

/// Nothing was put off, after all: in a child, where it is the parent's. True if something was.
pub fn forget_deferred() -> bool {
    words().deferred.swap(0, Relaxed) != 0
}

/// Outside for a moment, however deep the thread was inside: what was put off happens now.
#[derive(Debug)]
#[must_use]
pub struct Opened {
    depth: u32,
    of_thread: core::marker::PhantomData<*const ()>,
}

/// Lets handlers in until the value is dropped. The caller holds no lock.
pub fn open() -> Opened {
    let words = words();
    let opened = Opened { depth: words.depth.load(Relaxed), of_thread: core::marker::PhantomData };
    compiler_fence(core::sync::atomic::Ordering::SeqCst);
    words.depth.store(0, Relaxed);
    compiler_fence(core::sync::atomic::Ordering::SeqCst);
    if words.deferred.load(Relaxed) != 0 {
        come_out(words);
    }
    opened
}

/// As [`open`], for as long as what was put off takes.
#[inline]
pub fn breathe() {
    if words().deferred.load(Relaxed) != 0 {
        drop(open());
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        compiler_fence(core::sync::atomic::Ordering::SeqCst);
        words().depth.store(self.depth, Relaxed);
        compiler_fence(core::sync::atomic::Ordering::SeqCst);
    }
}

/// Inside, as long as it lives.
#[derive(Debug)]
#[must_use]
pub struct Held(core::marker::PhantomData<*const ()>);

/// Goes inside until the value is dropped.
#[inline]
pub fn hold() -> Held {
    enter();
    Held(core::marker::PhantomData)
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static CALLS: AtomicU32 = AtomicU32::new(0);

    #[test]
    fn what_was_put_off_runs_once_when_the_outermost_stretch_ends() {
        when_left(|| {
            assert!(!is_inside());
            CALLS.fetch_add(1, Relaxed);
        });
        let outer = hold();
        {
            let _inner = hold();
            note_deferred();
        }
        assert!(is_inside());
        assert_eq!(CALLS.load(Relaxed), 0);
        std::thread::spawn(|| assert!(!is_inside())).join().unwrap();
        drop(outer);
        assert!(!is_inside());
        assert_eq!(CALLS.load(Relaxed), 1);
        drop(hold());
        assert_eq!(CALLS.load(Relaxed), 1);
    }
}
