//! `sidestep up`: starts the daemon in the background and waits until it is ready.

use crate::args::Up;
use crate::daemon::start;
use crate::failure::{Context, Failure, Outcome, fail, print};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};

pub(crate) fn up(options: &Up) -> Outcome<()> {
    start::check(options)?;
    if options.foreground {
        let daemon = start::start(options)?;
        print(format_args!("{}", daemon.headline()));
        return daemon.run();
    }
    print(format_args!("{}", background(options)?));
    Ok(())
}

/// Starts the daemon in the background; its headline when it is ready.
pub(crate) fn background(options: &Up) -> Outcome<String> {
    let log = log_file(options)?;
    let (reader, writer) = nix::unistd::pipe().context("cannot make a pipe")?;
    // SAFETY: this process has one thread, so the child may do whatever it likes.
    match unsafe { fork() }.context("cannot fork")? {
        ForkResult::Parent { child } => {
            drop((writer, log));
            let mut report = String::new();
            let read = File::from(reader).read_to_string(&mut report);
            let _ = waitpid(child, None);
            read.context("cannot hear from the daemon")?;
            understand(&report)
        }
        ForkResult::Child => {
            drop(reader);
            // A daemon's exit code is read by nobody.
            std::process::exit(i32::from(detach(options, &log, File::from(writer)).is_err()));
        }
    }
}

fn log_file(options: &Up) -> Outcome<File> {
    let path = options.log.clone().unwrap_or_else(|| "/dev/null".into());
    let file = OpenOptions::new().append(true).create(true).open(&path);
    file.context(format!("cannot open the log {}", path.display()))
}

/// The report: `+` and the headline, or `-` and what went wrong.
fn understand(report: &str) -> Outcome<String> {
    match report.split_at_checked(1) {
        Some(("+", headline)) => Ok(headline.to_owned()),
        Some(("-", reason)) => Err(Failure::new(reason)),
        _ => fail!("the daemon died while it started (--log FILE, or --foreground, shows more)"),
    }
}

/// Leaves the session, becomes nobody's child, and is the daemon from here on.
fn detach(options: &Up, log: &File, mut parent: File) -> Outcome<()> {
    setsid().context("setsid")?;
    // SAFETY: as above: one thread.
    if let ForkResult::Parent { .. } = unsafe { fork() }.context("cannot fork")? {
        return Ok(());
    }
    let _ = std::env::set_current_dir("/");
    let null = File::open("/dev/null").context("cannot open /dev/null")?;
    dup2_stdin(&null).and_then(|()| dup2_stdout(log)).and_then(|()| dup2_stderr(log)).context("cannot redirect")?;
    let daemon = match start::start(options) {
        Ok(daemon) => daemon,
        Err(e) => {
            let _ = write!(parent, "-{e}");
            return Err(e);
        }
    };
    let _ = write!(parent, "+{}", daemon.headline());
    drop(parent);
    let result = daemon.run();
    if let Err(e) = &result {
        crate::daemon::log(format_args!("{e}"));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports() {
        assert_eq!(understand("+eth1: up").unwrap(), "eth1: up");
        assert_eq!(understand("-no such device").unwrap_err().to_string(), "no such device");
        assert!(understand("").unwrap_err().to_string().contains("died"));
        assert!(understand("ä").is_err());
    }
}
