//! sidestep: the command line, and the daemon of a device.
//!
//! - [`args`]: the commands; [`run`], [`up`], [`down`], [`port`], [`status`], [`doctor`], [`calls`]: one file each;
//! - [`daemon`]: what `up` starts;
//! - [`snapshot`], [`checkup`]: what it tells the tools; [`json`]: how they tell programs;
//! - [`rtnl`]: netlink; [`program`]: can it be preloaded; [`failure`]: errors in one line.

mod args;
mod calls;
mod checkup;
mod daemon;
mod doctor;
mod down;
mod failure;
mod json;
mod port;
mod program;
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
        Command::Doctor(options) => ("doctor", doctor::doctor(options).map(|()| 0)),
        Command::Status(options) => ("status", status::status(options).map(|()| 0)),
        Command::Calls => ("calls", calls::calls().map(|()| 0)),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            failure::say(format_args!("sidestep {name}: {e}"));
            ExitCode::FAILURE
        }
    }
}
