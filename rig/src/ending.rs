//! When a tool ends: a signal, the end of standard input (if that is a pipe), or its time is up.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::time::TimeSpec;

/// What to look at while waiting.
pub(crate) struct Ending {
    signals: SignalFd,
    watches_stdin: bool,
    deadline: Option<Instant>,
}

impl Ending {
    /// From here on no signal can end the process without its report.
    pub(crate) fn new(limit: Option<Duration>) -> nix::Result<Self> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
        signals.thread_block()?;
        Ok(Self {
            signals: SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?,
            watches_stdin: is_pipe(io::stdin().as_fd()),
            deadline: limit.and_then(|limit| Instant::now().checked_add(limit)),
        })
    }

    /// Sleeps until one of `sources` is readable, `pause` is over or the end has come; says whether it has.
    pub(crate) fn wait(&mut self, sources: &[BorrowedFd<'_>], pause: Option<Duration>) -> io::Result<bool> {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(true);
        }
        let stdin = io::stdin();
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if self.watches_stdin {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        let own = fds.len();
        fds.extend(sources.iter().map(|source| PollFd::new(*source, PollFlags::POLLIN)));
        let timeout = left.into_iter().chain(pause).min().map(TimeSpec::from_duration);
        ppoll(&mut fds, timeout, None)?;
        let is_ready = |fd: &PollFd<'_>| fd.any() == Some(true);
        if is_ready(&fds[0]) {
            return Ok(true);
        }
        if fds[1..own].iter().any(is_ready) {
            self.watches_stdin = stdin.lock().read(&mut [0; 512])? > 0;
            return Ok(!self.watches_stdin);
        }
        Ok(false)
    }
}

/// Whether the end of this file says that somebody went away. A background job's /dev/null is at its end from the beginning.
fn is_pipe(fd: BorrowedFd<'_>) -> bool {
    let kind = |mode| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
    fstat(fd).is_ok_and(|stat| matches!(kind(stat.st_mode), SFlag::S_IFIFO | SFlag::S_IFSOCK))
}
