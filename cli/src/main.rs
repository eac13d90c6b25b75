//! sidestep: the command line, and the daemon of a device.
//!
//! - [`args`]: the commands; [`run`], [`up`], [`down`], [`port`], [`status`]: one file each;
//! - [`daemon`]: what `up` starts;
//! - [`snapshot`]: what it tells the tools; [`json`]: how they tell programs;
//! - [`rtnl`]: netlink; [`elf`]: can a program be preloaded; [`failure`]: errors in one line.

mod args;
mod daemon;
mod down;
mod elf;
mod failure;
mod json;
mod port;
mod rtnl;
mod run;
mod snapshot;
mod status;
mod up;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (name, result) = match &cli.command {
        Command::Up(options) => ("up", up::up(options).map(|()| 0)),
        Command::Down(options) => ("down", down::down(options).map(|()| 0)),
        Command::Run(options) => ("run", run::run(options)),
        Command::Port(command) => ("port", port::port(command).map(|()| 0)),
        Command::Status(options) => ("status", status::status(options).map(|()| 0)),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            failure::say(format_args!("sidestep {name}: {e}"));
            ExitCode::FAILURE
        }
    }
}
