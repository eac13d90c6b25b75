//! A server that executes its successor and hands it the listeners: nginx' binary upgrade. nginx gives it an environment that it makes
//! itself, in which we are not. So what names us is added to it, as it was when this process was loaded.
//!
//! Only to the same program (by its path: the file may be a newer one), only when a listener goes with it, and only to an
//! environment that has neither LD_PRELOAD nor SIDESTEP_DEV. Any other program that somebody starts with an environment without us
//! is meant to run without us.

use crate::sys::{self, raw};
use crate::{attach, listeners};
use core::ffi::{CStr, c_char};
use libc::c_int;
use std::sync::OnceLock;

/// A NULL-terminated array of strings, as exec takes them.
pub(crate) type Strings = *const *const c_char;

/// What is added, if this process has it.
const NAMES: [&CStr; 5] = [c"LD_PRELOAD", c"SIDESTEP_DEV", c"SIDESTEP_PORTS", c"SIDESTEP_STRICT", c"SIDESTEP_SPIN_US"];
/// Environments with more strings are left as they are.
const STRINGS_MAX: usize = 250;
const BYTES_MAX: usize = 4096;
const PATH_MAX: usize = 1024;

/// This process as it was loaded.
struct Kept {
    /// `NAME=value`, each with its NUL.
    bytes: [u8; BYTES_MAX],
    len: usize,
    program: [u8; PATH_MAX],
    program_len: usize,
}

static KEPT: OnceLock<Kept> = OnceLock::new();

/// At load: later the program may have written over its environment.
pub(crate) fn at_load() {
    let mut kept = Kept { bytes: [0; BYTES_MAX], len: 0, program: [0; PATH_MAX], program_len: 0 };
    for name in NAMES {
        // SAFETY: NUL-terminated; nobody changes the environment while the program is loaded.
        let value = unsafe { libc::getenv(name.as_ptr()) };
        if !value.is_null() {
            // SAFETY: getenv returned a NUL-terminated string.
            let value = unsafe { CStr::from_ptr(value) };
            if !kept.add(name.to_bytes(), value.to_bytes()) {
                return;
            }
        }
    }
    kept.program_len = resolved(c"/proc/self/exe", &mut kept.program);
    let _ = KEPT.set(kept);
}

impl Kept {
    fn add(&mut self, name: &[u8], value: &[u8]) -> bool {
        let parts = [name, b"=", value, b"\0"];
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let Some(room) = self.bytes.get_mut(self.len..self.len + total) else { return false };
        let mut at = 0;
        for part in parts {
            room[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.len += total;
        true
    }

    fn strings(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes[..self.len].split_inclusive(|b| *b == 0)
    }

    fn is_same_program(&self, path: *const c_char) -> bool {
        // SAFETY: the application's path; the kernel checks it.
        let opened = unsafe { raw!(openat, libc::AT_FDCWD, path, libc::O_PATH | libc::O_CLOEXEC, 0) };
        let Ok(fd) = opened.map(|fd| fd as c_int) else { return false };
        let mut name = [0u8; 32];
        let mut found = [0u8; PATH_MAX];
        let n = descriptor_path(fd, &mut name).map_or(0, |link| resolved(link, &mut found));
        let _ = sys::close(fd);
        n != 0 && self.program.get(..self.program_len) == found.get(..n)
    }
}

fn descriptor_path(fd: c_int, out: &mut [u8; 32]) -> Option<&CStr> {
    use std::io::Write;
    write!(std::io::Cursor::new(&mut out[..31]), "/proc/self/fd/{fd}\0").ok()?;
    CStr::from_bytes_until_nul(out).ok()
}

/// Where a link of /proc leads; the path's length, 0 when it cannot be told.
fn resolved(link: &CStr, out: &mut [u8; PATH_MAX]) -> usize {
    // SAFETY: a NUL-terminated path; `out` is writable for its length.
    let n = unsafe { raw!(readlinkat, libc::AT_FDCWD, link.as_ptr(), out.as_mut_ptr(), PATH_MAX) };
    n.ok().map(|n| n as usize).filter(|n| *n < PATH_MAX).unwrap_or(0)
}

/// An environment for a program that is about to be executed.
pub(crate) struct Environment {
    strings: [*const c_char; STRINGS_MAX + NAMES.len() + 1],
    is_completed: bool,
}

impl Environment {
    /// The one that was given, with us in it if `path` is to be this process's successor.
    ///
    /// # Safety
    /// Both as execve takes them.
    pub(crate) unsafe fn for_program(path: *const c_char, given: Strings) -> Environment {
        let mut made = Environment { strings: [core::ptr::null(); _], is_completed: false };
        let hands_on = attach::is_armed() && listeners::any_handed_on();
        if let Some(kept) = KEPT.get().filter(|kept| hands_on && kept.is_same_program(path)) {
            // SAFETY: the caller's promise.
            made.is_completed = unsafe { made.complete(kept, given) };
        }
        made
    }

    /// The strings: `given` itself, if nothing was to be added.
    pub(crate) fn or(&self, given: Strings) -> Strings {
        if self.is_completed { self.strings.as_ptr() } else { given }
    }

    /// # Safety
    /// As for [`Environment::for_program`].
    unsafe fn complete(&mut self, kept: &Kept, given: Strings) -> bool {
        let mut n = 0;
        loop {
            // SAFETY: a null ends the array, which may itself be null.
            let string = if given.is_null() { given.cast() } else { unsafe { given.add(n).read() } };
            if string.is_null() {
                break;
            }
            // SAFETY: NUL-terminated.
            let bytes = unsafe { CStr::from_ptr(string) }.to_bytes();
            if n == STRINGS_MAX || bytes.starts_with(b"LD_PRELOAD=") || bytes.starts_with(b"SIDESTEP_DEV=") {
                return false;
            }
            self.strings[n] = string;
            n += 1;
        }
        for (slot, string) in self.strings[n..].iter_mut().zip(kept.strings()) {
            *slot = string.as_ptr().cast();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(given: &[&CStr]) -> Option<Vec<String>> {
        let mut kept = Kept { bytes: [0; BYTES_MAX], len: 0, program: [0; PATH_MAX], program_len: 0 };
        assert!(kept.add(b"LD_PRELOAD", b"/x.so") && kept.add(b"SIDESTEP_DEV", b"eth1"));
        let mut strings: Vec<*const c_char> = given.iter().map(|s| s.as_ptr()).collect();
        strings.push(core::ptr::null());
        let mut made = Environment { strings: [core::ptr::null(); _], is_completed: false };
        // SAFETY: an environment as execve takes it.
        let is_completed = unsafe { made.complete(&kept, strings.as_ptr()) };
        let end = made.strings.iter().position(|s| s.is_null()).unwrap();
        // SAFETY: `given`'s strings, and `kept`'s.
        let text = |s: &*const c_char| unsafe { CStr::from_ptr(*s) }.to_str().unwrap().to_owned();
        is_completed.then(|| made.strings[..end].iter().map(text).collect())
    }

    #[test]
    fn what_names_us_is_added_to_an_environment_that_says_nothing_of_it() {
        let ours = ["LD_PRELOAD=/x.so", "SIDESTEP_DEV=eth1"];
        assert_eq!(completed(&[]).unwrap(), ours);
        assert_eq!(completed(&[c"NGINX=6;7;", c"TZ=UTC"]).unwrap(), [&["NGINX=6;7;", "TZ=UTC"], &ours[..]].concat());
        assert_eq!(completed(&[c"TZ=UTC", c"LD_PRELOAD=/other.so"]), None);
        assert_eq!(completed(&[c"SIDESTEP_DEV="]), None, "the way to say no");
        assert_eq!(completed(&[c"A=b"; STRINGS_MAX]).unwrap().len(), STRINGS_MAX + 2);
        assert_eq!(completed(&[c"A=b"; STRINGS_MAX + 1]), None);
    }

    #[test]
    fn a_program_is_known_by_its_path() {
        let mut kept = Kept { bytes: [0; BYTES_MAX], len: 0, program: [0; PATH_MAX], program_len: 0 };
        kept.program_len = resolved(c"/proc/self/exe", &mut kept.program);
        assert!(kept.is_same_program(c"/proc/self/exe".as_ptr()));
        assert!(!kept.is_same_program(c"/bin/sh".as_ptr()) && !kept.is_same_program(c"/no/such".as_ptr()));
    }
}
