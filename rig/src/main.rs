//! The test rig: tools that tests and benchmarks need and users do not.
//!
//! - [`lossy`]: `sidestep-rig drop`, a wire that loses frames, because not every kernel has netem.
//! - [`wire`]: `sidestep-rig wire`, a wire with delay, a bottleneck, loss, reordering and duplication, for the same reason.
//! - [`ending`], [`quantities`]: when a tool ends, and how its numbers are read.

mod ending;
mod lossy;
mod quantities;
mod wire;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tools for testing sidestep.
#[derive(Parser)]
#[command(name = "sidestep-rig")]
struct Cli {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Subcommand)]
enum Tool {
    Drop(lossy::Options),
    Wire(wire::Options),
}

fn main() -> ExitCode {
    let report = match Cli::parse().tool {
        Tool::Drop(options) => lossy::run(&options).map(|report| report.to_string()),
        Tool::Wire(options) => wire::run(&options),
    };
    match report {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sidestep-rig: {}", one_line(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes in one line. Causes that the line already tells are left out: many libraries print theirs themselves.
fn one_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line.replace('\n', " ")
}
