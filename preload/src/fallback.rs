//! Why something stays on the kernel, and the one line that says so.

use crate::config::config;
use crate::sys;
use core::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Why the application, or one of its sockets, stays on the kernel although sidestep was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// Nobody listens on the daemon's control socket.
    NoDaemon,
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

static SAID: AtomicBool = AtomicBool::new(false);

/// Says once in a process tree that it runs on the kernel, and why. Under `--strict` it ends the process instead.
pub(crate) fn warn(why: Why, detail: fmt::Arguments<'_>) {
    if config().strict {
        say(format_args!("sidestep: {}: {detail} (--strict)\n", why.describe()));
        sys::exit_now(1);
    }
    if config().warned || SAID.swap(true, Ordering::Relaxed) {
        return;
    }
    say(format_args!("sidestep: running on the kernel: {}: {detail}\n", why.describe()));
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
