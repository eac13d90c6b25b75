//! `sidestep run`: finds library and daemon, sets the environment, and becomes the program.

use crate::args::{Run, Up};
use crate::daemon::{start, state};
use crate::failure::{Outcome, fail, say};
use crate::{port, program, up};
use sidestep_stack::arena::Policy;
use sidestep_stack::runtime::control::Client;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Exit codes of env(1) and nohup(1).
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Returns only when there is no program to become: with the exit code.
pub(crate) fn run(options: &Run) -> Outcome<u8> {
    let Some(name) = options.command.first() else { fail!("no program was given") };
    let mut command = Command::new(name);
    command.args(&options.command[1..]);
    match prepare(options, name) {
        Ok((library, device)) => environment(&mut command, options, &library, &device),
        Err(why) if options.strict => return Err(why),
        Err(why) => say(format_args!("sidestep: {why}; running on the kernel")),
    }
    let e = command.exec();
    say(format_args!("sidestep run: {}: {e}", name.display()));
    Ok(if e.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE })
}

/// The library and the device, with its daemon up and its ports switched on.
fn prepare(options: &Run, name: &OsStr) -> Outcome<(PathBuf, String)> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let program = program::find(name, &path);
    if let Some(why) = program.and_then(|program| program::check(&program, &path)) {
        fail!("{} is {}", name.display(), why.describe());
    }
    let Some(library) = find_library() else {
        fail!("libsidestep.so is neither beside this program nor in /usr/lib/sidestep (SIDESTEP_LIB names it)")
    };
    let device = match &options.dev {
        Some(device) => device.clone(),
        None => only_device()?,
    };
    let client = connect(options, &device)?;
    for port in &options.port {
        // Off a moment ago, perhaps; who may not switch it must live with what the operator said.
        if let Err(e) = port::request(&client, *port, Policy::On)
            && nix::unistd::geteuid().is_root()
        {
            say(format_args!("sidestep: port {port}: {e}"));
        }
    }
    client.close();
    Ok((library, device))
}

fn only_device() -> Outcome<String> {
    let up: Vec<String> = state::devices().into_iter().filter(|d| start::is_up(d)).collect();
    match up.as_slice() {
        [] => fail!("no daemon is up (sidestep up DEV starts one, or name a device with --dev)"),
        [device] => Ok(device.clone()),
        several => fail!("several devices are up ({}): choose one with --dev", several.join(", ")),
    }
}

/// The device's daemon, started if need be.
fn connect(options: &Run, device: &str) -> Outcome<Client> {
    if let Ok(client) = Client::connect(device) {
        return Ok(client);
    }
    if options.dev.is_none() || !nix::unistd::geteuid().is_root() {
        fail!("no daemon for {device} (sudo sidestep up {device} starts one)");
    }
    let wanted = Up::with_defaults(device);
    start::check(&wanted)?;
    say(format_args!("sidestep: {}", up::background(&wanted)?));
    match Client::connect(device) {
        Ok(client) => Ok(client),
        Err(e) => fail!("the daemon of {device} started and does not answer: {e}"),
    }
}

/// Where libsidestep.so is.
pub(crate) fn find_library() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("SIDESTEP_LIB").filter(|v| !v.is_empty()) {
        return Some(PathBuf::from(named)).filter(|p| p.is_file()).and_then(|p| p.canonicalize().ok());
    }
    let here = std::env::current_exe().ok()?;
    let beside = here.parent().unwrap_or(Path::new("/"));
    let candidates = [
        beside.join("libsidestep.so"),
        beside.join("../lib/sidestep/libsidestep.so"),
        PathBuf::from("/usr/local/lib/sidestep/libsidestep.so"),
        PathBuf::from("/usr/lib/sidestep/libsidestep.so"),
    ];
    candidates.into_iter().find(|p| p.is_file()).and_then(|p| p.canonicalize().ok())
}

fn environment(command: &mut Command, options: &Run, library: &Path, device: &str) {
    let existing = std::env::var_os("LD_PRELOAD").unwrap_or_default();
    command.env("LD_PRELOAD", preload(&existing, library));
    command.env("SIDESTEP_DEV", device);
    let ports: Vec<String> = options.port.iter().map(ToString::to_string).collect();
    command.env("SIDESTEP_PORTS", ports.join(","));
    if options.strict {
        command.env("SIDESTEP_STRICT", "1");
    }
    if let Some(us) = options.spin {
        command.env("SIDESTEP_SPIN_US", us.to_string());
    }
}

/// The library behind what is preloaded already; once is enough.
fn preload(existing: &OsStr, library: &Path) -> OsString {
    let is_there = existing
        .as_encoded_bytes()
        .split(|b| matches!(b, b':' | b' '))
        .any(|p| p == library.as_os_str().as_encoded_bytes());
    let mut value = existing.to_owned();
    if !is_there {
        if !value.is_empty() {
            value.push(":");
        }
        value.push(library);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preloads_are_kept() {
        let lib = Path::new("/x/libsidestep.so");
        assert_eq!(preload("".as_ref(), lib), "/x/libsidestep.so");
        assert_eq!(preload("/a.so".as_ref(), lib), "/a.so:/x/libsidestep.so");
        assert_eq!(preload("/x/libsidestep.so:/a.so".as_ref(), lib), "/x/libsidestep.so:/a.so");
    }
}
