//! What came over an exec or in a message: listeners (socket activation, nginx's upgrade, haproxy's reload), and connections whose
//! shadows bear their names ([`crate::bequest`]). Nobody calls listen() or accept() for them again, so at load we look
//! through our descriptors, and later at those that arrive.

use crate::calls::socket::note_listener;
use crate::critical::Mutex;
use crate::fd_table::{Entry, TABLE};
use crate::local::{self, Flag};
use crate::user::Stream;
use crate::{attach, fallback, options, stdio, sys};
use libc::c_int;
use sidestep_stack::runtime::Mark;

/// Where struct tcp_info has `tcpi_sacked`, in words: of a listener it is how many may wait.
const SACKED: usize = core::mem::offset_of!(libc::tcp_info, tcpi_sacked) / size_of::<u32>();

/// Takes up what this process was started with.
pub(crate) fn take_up_all() {
    for_each_descriptor(take_up);
}

/// Takes up what stands on a number; what is none of ours stays as it is.
pub(crate) fn take_up(fd: c_int) {
    match sys::option::<c_int>(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN) {
        Ok(1) => note_if_listening(fd),
        Ok(_) => drop(take_up_connection(fd)),
        Err(_) => {}
    }
}

/// One at a time: two numbers may be one connection.
static TAKING: Mutex<()> = Mutex::new(());

/// In a forked child: whoever was at it is the parent's.
pub(crate) fn after_fork() {
    // SAFETY: the thread that holds it is not in this process.
    unsafe { TAKING.free() };
}

fn take_up_connection(fd: c_int) -> Option<()> {
    let arena = attach::arena()?;
    let mark = Mark::read(fd, arena.header().id())?;
    if !TABLE.lookup(fd).is_empty() {
        return None;
    }
    let Some(stack) = attach::share_stack(mark.stack) else {
        if let Some(own) = attach::stack() {
            own.lock().counters_mut().inherited_refused += 1;
        }
        fallback::say_once(format_args!(
            "sidestep: a connection was passed to a process that has a stack of its own: it cannot use it\n"
        ));
        return None;
    };
    let _taking = TAKING.lock();
    let local = local::of(mark.id.index)?;
    {
        let mut guard = stack.lock();
        guard.hold(mark.id, attach::process()).ok()?;
        guard.counters_mut().inherited += 1;
    }
    if local.id() == Some(mark.id) {
        local.add_descriptor();
    } else {
        let is_v6 = sys::option(fd, libc::SOL_SOCKET, libc::SO_DOMAIN) == Ok(libc::AF_INET6);
        local.begin(mark.id, Flag::Shadow as u32 | if is_v6 { Flag::V6 as u32 } else { 0 });
        local.follow(options::followed(fd));
    }
    local.note_kept(attach::daemon_pid());
    TABLE.set(fd, Stream::entry(mark.id));
    stdio::follow(fd);
    Some(())
}

/// Calls `f` with the number of each open descriptor.
pub(crate) fn for_each_descriptor(f: impl FnMut(c_int)) {
    for_each_number_in(c"/proc/self/fd", f);
}

/// Calls `f` with each name in a directory that is a number.
pub(crate) fn for_each_number_in(path: &core::ffi::CStr, mut f: impl FnMut(c_int)) {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: a NUL-terminated path.
    let Ok(dir) = (unsafe { sys::raw!(openat, libc::AT_FDCWD, path.as_ptr(), flags, 0) }) else { return };
    let mut records = [0u8; 4096];
    loop {
        // SAFETY: `records` is writable for its length.
        let filled = unsafe { sys::raw!(getdents64, dir as c_int, records.as_mut_ptr(), records.len()) };
        let Some(batch) = filled.ok().and_then(|n| records.get(..n as usize)).filter(|batch| !batch.is_empty()) else {
            break;
        };
        for_each_number(batch, &mut f);
    }
    let _ = sys::close(dir as c_int);
}

fn note_if_listening(fd: c_int) {
    if TABLE.lookup(fd).is_kernel() {
        let info = sys::option::<[u32; SACKED + 1]>(fd, libc::IPPROTO_TCP, libc::TCP_INFO).unwrap_or_default();
        note_listener(fd, Entry::KERNEL, info[SACKED].try_into().unwrap_or(c_int::MAX));
    }
}

/// Goes through directory records (struct linux_dirent64) whose names are numbers.
fn for_each_number(mut records: &[u8], mut f: impl FnMut(c_int)) {
    while let Some(length) = records.get(16..18) {
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        let Some(name) = records.get(19..length) else { return };
        let name = name.split(|b| *b == 0).next().unwrap_or_default();
        if let Some(number) = core::str::from_utf8(name).ok().and_then(|name| name.parse().ok()) {
            f(number);
        }
        records = records.get(length.max(1)..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_among_names() {
        let mut records = Vec::new();
        for name in [".", "..", "0", "17"] {
            let mut record = vec![0u8; 19];
            record.extend_from_slice(name.as_bytes());
            record.resize((record.len() + 1).next_multiple_of(8), 0);
            let len = (record.len() as u16).to_ne_bytes();
            record[16..18].copy_from_slice(&len);
            records.extend(record);
        }
        let mut numbers = Vec::new();
        for_each_number(&records, |n| numbers.push(n));
        assert_eq!(numbers, [0, 17]);
    }
}
