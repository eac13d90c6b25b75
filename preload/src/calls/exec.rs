//! exec in all its forms, and what starts another program beside this one. Each prepares the connections that the other program will
//! find ([`crate::bequest`]), and goes on as libc's function.

use crate::bequest;
use crate::real::{Real, outcome, real};
use crate::stdio::File;
use crate::successor::{Environment, Strings};
use crate::sys::{self, AsIs, Result};
use core::ffi::c_char;
use libc::{ENOSYS, c_int, c_void, pid_t};

unsafe extern "C" {
    static environ: Strings;
}

fn own_environment() -> Strings {
    // SAFETY: libc's variable; who changes it beside an exec races with that.
    unsafe { (&raw const environ).read() }
}

static EXECVE: Real = Real::new(c"execve");
static EXECVPE: Real = Real::new(c"execvpe");
static EXECVEAT: Real = Real::new(c"execveat");
static FEXECVE: Real = Real::new(c"fexecve");
static POSIX_SPAWN: Real = Real::new(c"posix_spawn");
static POSIX_SPAWNP: Real = Real::new(c"posix_spawnp");
static SYSTEM: Real = Real::new(c"system");
static POPEN: Real = Real::new(c"popen");

/// Finds them all: a child of a process with threads must not, because one of them may have had the loader's lock.
pub(crate) fn at_load() {
    let all = [&EXECVE, &EXECVPE, &EXECVEAT, &FEXECVE, &POSIX_SPAWN, &POSIX_SPAWNP, &SYSTEM, &POPEN];
    for real in all {
        let _ = real.address();
    }
}

pub(crate) unsafe fn execve(path: *const c_char, argv: Strings, envp: Strings) -> Result<isize> {
    let Some(real) = real!(EXECVE as unsafe extern "C" fn(*const c_char, Strings, Strings) -> c_int) else {
        return Err(ENOSYS);
    };
    // SAFETY: the application's arguments.
    let environment = unsafe { Environment::for_program(path, envp) };
    let envp = environment.or(envp);
    let _execution = bequest::begin_execution(envp);
    // SAFETY: as above.
    outcome(unsafe { real(path, argv, envp) })
}

pub(crate) unsafe fn execv(path: *const c_char, argv: Strings) -> Result<isize> {
    // SAFETY: the same contract.
    unsafe { execve(path, argv, own_environment()) }
}

pub(crate) unsafe fn execvpe(file: *const c_char, argv: Strings, envp: Strings) -> Result<isize> {
    let Some(real) = real!(EXECVPE as unsafe extern "C" fn(*const c_char, Strings, Strings) -> c_int) else {
        return Err(ENOSYS);
    };
    let _execution = bequest::begin_execution(envp);
    // SAFETY: the application's arguments.
    outcome(unsafe { real(file, argv, envp) })
}

pub(crate) unsafe fn execvp(file: *const c_char, argv: Strings) -> Result<isize> {
    // SAFETY: the same contract.
    unsafe { execvpe(file, argv, own_environment()) }
}

pub(crate) unsafe fn fexecve(fd: c_int, argv: Strings, envp: Strings) -> Result<isize> {
    let Some(real) = real!(FEXECVE as unsafe extern "C" fn(c_int, Strings, Strings) -> c_int) else {
        return Err(ENOSYS);
    };
    let _execution = bequest::begin_execution(envp);
    // SAFETY: the application's arguments.
    outcome(unsafe { real(fd, argv, envp) })
}

pub(crate) unsafe fn execveat(
    dir: c_int,
    path: *const c_char,
    argv: Strings,
    envp: Strings,
    flags: c_int,
) -> Result<isize> {
    let Some(real) = real!(EXECVEAT as unsafe extern "C" fn(c_int, *const c_char, Strings, Strings, c_int) -> c_int)
    else {
        return Err(ENOSYS);
    };
    let _execution = bequest::begin_execution(envp);
    // SAFETY: the application's arguments.
    outcome(unsafe { real(dir, path, argv, envp, flags) })
}

/// execl: its arguments lie as an array on the caller's stack.
pub(crate) unsafe extern "C" fn execl(path: *const c_char, argv: Strings) -> c_int {
    // SAFETY: the caller's arguments, as C has them.
    sys::finish(unsafe { execv(path, argv) })
}

pub(crate) unsafe extern "C" fn execlp(file: *const c_char, argv: Strings) -> c_int {
    // SAFETY: as above.
    sys::finish(unsafe { execvp(file, argv) })
}

/// The environment follows the null that ends the arguments.
pub(crate) unsafe extern "C" fn execle(path: *const c_char, argv: Strings) -> c_int {
    let mut end = argv;
    // SAFETY: the caller's arguments, which a null ends; then comes one more.
    unsafe {
        while !end.read().is_null() {
            end = end.add(1);
        }
        sys::finish(execve(path, argv, end.add(1).read().cast()))
    }
}

type Spawn = unsafe extern "C" fn(*mut pid_t, *const c_char, *const c_void, *const c_void, Strings, Strings) -> c_int;

pub(crate) unsafe fn posix_spawn(
    pid: *mut pid_t,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: Strings,
    envp: Strings,
) -> AsIs<c_int> {
    let Some(real) = real!(POSIX_SPAWN as Spawn) else { return AsIs(ENOSYS) };
    // SAFETY: the application's arguments.
    AsIs(unsafe {
        bequest::begin_spawn(actions);
        real(pid, path, actions, attributes, argv, envp)
    })
}

pub(crate) unsafe fn posix_spawnp(
    pid: *mut pid_t,
    file: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: Strings,
    envp: Strings,
) -> AsIs<c_int> {
    let Some(real) = real!(POSIX_SPAWNP as Spawn) else { return AsIs(ENOSYS) };
    // SAFETY: the application's arguments.
    AsIs(unsafe {
        bequest::begin_spawn(actions);
        real(pid, file, actions, attributes, argv, envp)
    })
}

pub(crate) unsafe fn system(command: *const c_char) -> Result<isize> {
    let Some(real) = real!(SYSTEM as unsafe extern "C-unwind" fn(*const c_char) -> c_int) else { return Err(ENOSYS) };
    // SAFETY: no actions; the application's command.
    outcome(unsafe {
        bequest::begin_spawn(core::ptr::null());
        real(command)
    })
}

pub(crate) unsafe fn popen(command: *const c_char, mode: *const c_char) -> AsIs<*mut File> {
    let Some(real) = real!(POPEN as unsafe extern "C" fn(*const c_char, *const c_char) -> *mut File) else {
        sys::set_errno(ENOSYS);
        return AsIs(core::ptr::null_mut());
    };
    // SAFETY: no actions; the application's command and mode.
    AsIs(unsafe {
        bequest::begin_spawn(core::ptr::null());
        real(command, mode)
    })
}
