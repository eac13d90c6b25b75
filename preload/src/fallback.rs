//! Why something stays on the kernel, and the one line that says so.

use crate::config::config;
use crate::sys;
use core::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Why the application, or one of its sockets, stays on the kernel although sidestep was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Why {
    /// Nobody listens on the daemon's control socket.
    NoDaemon = 1,
    /// The daemon answered with a refusal, whose text is for people.
    Refused,
    /// Arena and shim are of different builds, or the arena cannot be mapped.
    Arena,
    /// The stack could not be mapped into this process.
    Attach,
    /// A table of ours is full.
    Full,
    /// The engine would not listen.
    Listen,
    /// The port's group could not be joined.
    Join,
}

impl Why {
    const fn describe(self) -> &'static str {
        match self {
            Why::NoDaemon => "no daemon serves this device (sidestep up DEV)",
            Why::Refused => "the daemon refused",
            Why::Arena => "the arena cannot be used",
            Why::Attach => "the stack cannot be attached",
            Why::Full => "a table of the shim is full",
            Why::Listen => "the stack cannot listen on the port",
            Why::Join => "the port's group cannot be joined",
        }
    }
}

/// A line being put together, without heap.
struct Line {
    bytes: [u8; 400],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if let Some(slot) = self.bytes.get_mut(self.len) {
                *slot = byte;
                self.len += 1;
            }
        }
        Ok(())
    }
}

/// What was in the way first: a [`Why`], or 0.
static FIRST: AtomicU8 = AtomicU8::new(0);

/// What was in the way first in this process, if anything.
pub(crate) fn first() -> Option<Why> {
    use Why::{Arena, Attach, Full, Join, Listen, NoDaemon, Refused};
    let all = [NoDaemon, Refused, Arena, Attach, Full, Listen, Join];
    all.into_iter().find(|why| *why as u8 == FIRST.load(Ordering::Relaxed))
}

static SAID: AtomicBool = AtomicBool::new(false);

/// Says once in a process tree that it runs on the kernel, and why. Under `--strict` it ends the process instead.
pub(crate) fn warn(why: Why, detail: fmt::Arguments<'_>) {
    let _ = FIRST.compare_exchange(0, why as u8, Ordering::Relaxed, Ordering::Relaxed);
    if config().strict {
        say(format_args!("sidestep: {}: {detail} (--strict)\n", why.describe()));
        sys::exit_now(1);
    }
    if config().warned || SAID.swap(true, Ordering::Relaxed) {
        return;
    }
    say(format_args!("sidestep: running on the kernel: {}: {detail}\n", why.describe()));
}

/// Says something once in a process tree that does not change how the process runs.
pub(crate) fn say_once(text: fmt::Arguments<'_>) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !config().warned && !TOLD.swap(true, Ordering::Relaxed) {
        say(text);
    }
}

fn say(text: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; 400], len: 0 };
    let _ = line.write_fmt(text);
    if let Some(last) = line.bytes.get_mut(line.len.saturating_sub(1)) {
        *last = b'\n';
    }
    sys::write_stderr(line.bytes.get(..line.len).unwrap_or(&[]));
}

/// Whether this process has warned: its children need not.
pub(crate) fn has_warned() -> bool {
    SAID.load(Ordering::Relaxed)
}
