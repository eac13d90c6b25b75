//! What an input reached: the compiler's eight-bit counters, one for each edge (`-C passes=sancov-module`).

use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

static START: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static LEN: AtomicUsize = AtomicUsize::new(0);

/// Called by instrumented code before `main`; never without instrumentation.
#[unsafe(no_mangle)]
pub extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    START.store(start, Ordering::Relaxed);
    LEN.store(stop as usize - start as usize, Ordering::Relaxed);
}

#[unsafe(no_mangle)]
pub extern "C" fn __sanitizer_cov_pcs_init(_start: *const usize, _stop: *const usize) {}

fn counters() -> &'static mut [u8] {
    let start = START.load(Ordering::Relaxed);
    if start.is_null() {
        return &mut [];
    }
    // SAFETY: the compiler's section, alive for ever. Instrumented code adds to it; the one thread that fuzzes reads it
    // between runs. A count that the other thread spoils costs nothing.
    unsafe { std::slice::from_raw_parts_mut(start, LEN.load(Ordering::Relaxed)) }
}

pub(crate) fn reset() {
    counters().fill(0);
}

/// What was reached so far: for each edge a bit per magnitude of its count.
#[derive(Default)]
pub(crate) struct Map(Vec<u8>);

impl Map {
    /// Adds what the last run reached; whether any of it is new.
    pub(crate) fn take(&mut self) -> bool {
        let counters = counters();
        self.0.resize(counters.len(), 0);
        let mut is_new = false;
        for (seen, count) in self.0.iter_mut().zip(counters) {
            if *count != 0 {
                let bit = 1 << count.ilog2();
                is_new |= *seen & bit == 0;
                *seen |= bit;
            }
        }
        is_new
    }

    /// Edges reached at all.
    pub(crate) fn places(&self) -> usize {
        self.0.iter().filter(|seen| **seen != 0).count()
    }
}
