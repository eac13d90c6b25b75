//! Functions of libc whose names we export, as they are behind us.

use crate::sys::Result;
use core::ffi::{CStr, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};
use libc::c_int;

/// One of them, found when it is first needed.
pub(crate) struct Real {
    name: &'static CStr,
    at: AtomicPtr<c_void>,
}

impl Real {
    pub(crate) const fn new(name: &'static CStr) -> Real {
        Real { name, at: AtomicPtr::new(core::ptr::null_mut()) }
    }

    /// Its address; null if libc has no such function.
    pub(crate) fn address(&self) -> *mut c_void {
        let at = self.at.load(Ordering::Relaxed);
        if !at.is_null() {
            return at;
        }
        // SAFETY: a NUL-terminated name.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.at.store(found, Ordering::Relaxed);
        found
    }
}

/// libc's function of that name, as one of the type that is wanted here; `None`: it has none.
macro_rules! real {
    ($real:ident as $type:ty) => {{
        let at = $real.address();
        // SAFETY: libc's function of this name has this type.
        (!at.is_null()).then(|| unsafe { core::mem::transmute::<*mut core::ffi::c_void, $type>(at) })
    }};
}
pub(crate) use real;

/// What a function of libc returned, and left in errno.
pub(crate) fn outcome(returned: c_int) -> Result<isize> {
    // SAFETY: libc's errno is always valid.
    if returned < 0 { Err(unsafe { *libc::__errno_location() }) } else { Ok(returned as isize) }
}

/// Where a call goes that is none of ours: a word that machine code jumps through.
#[cfg(target_arch = "x86_64")]
#[repr(transparent)]
pub(crate) struct Behind(AtomicPtr<()>);

#[cfg(target_arch = "x86_64")]
impl Behind {
    /// At first a function of our own that does the same.
    pub(crate) const fn new(ours: *const ()) -> Behind {
        Behind(AtomicPtr::new(ours.cast_mut()))
    }

    /// Where it goes now.
    pub(crate) fn address(&self) -> *const () {
        self.0.load(Ordering::Acquire)
    }

    /// Libc's function, if there is one; `name` ends with a NUL.
    pub(crate) fn find(&self, name: &'static str) {
        // SAFETY: a NUL-terminated name.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr().cast()) };
        if !found.is_null() {
            self.0.store(found.cast(), Ordering::Release);
        }
    }
}
