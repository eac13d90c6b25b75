//! Runs the network simulation for many seeds, on all cores, and names those that fail.
//!
//! `cargo run --release -p sidestep-stack --features testing --example sim -- --seed 1 --count 1000`; one seed with
//! `--verbose` prints every frame, call and fault.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program for a terminal, which tells how long it took"
)]

use sidestep_stack::testing::{Profile, simulate};
use std::panic;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

struct Arguments {
    seed: u64,
    count: u64,
    seconds: Option<u64>,
    /// So many failing seeds are listed.
    list: usize,
    verbose: bool,
}

const USAGE: &str = "usage: sim [--seed FIRST] [--count N] [--seconds AT-MOST] [--list FAILURES] [--verbose]";
/// More failing seeds than these are not listed, unless asked for.
const FAILURES_LISTED: u64 = 20;

fn arguments() -> Result<Arguments, String> {
    let mut arguments =
        Arguments { seed: 1, count: 1000, seconds: None, list: FAILURES_LISTED as usize, verbose: false };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        if name == "--verbose" {
            arguments.verbose = true;
            continue;
        }
        let value = given.next().and_then(|v| v.parse().ok()).ok_or(USAGE)?;
        match name.as_str() {
            "--seed" => arguments.seed = value,
            "--count" => arguments.count = value,
            "--list" => arguments.list = value as usize,
            "--seconds" => arguments.seconds = Some(value),
            _ => return Err(USAGE.into()),
        }
    }
    Ok(arguments)
}

/// What all seeds together were worth.
#[derive(Default)]
struct Total {
    seeds: [u64; 5],
    frames: u64,
    octets: u64,
    virtual_us: u64,
    failures: Vec<(u64, &'static str, String)>,
}

fn run(seed: u64, verbose: bool, total: &Mutex<Total>) {
    let trace: Option<fn(&str)> = if verbose { Some(|line| println!("{line}")) } else { None };
    let result = panic::catch_unwind(|| simulate(seed, trace));
    let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match result {
        Ok(outcome) => {
            let profile = Profile::ALL.iter().position(|p| *p == outcome.profile).unwrap_or(0);
            total.seeds[profile] += 1;
            total.frames += outcome.frames;
            total.octets += outcome.octets;
            total.virtual_us += outcome.virtual_us;
            if let Some(violation) = outcome.violation {
                total.failures.push((seed, outcome.profile.name(), violation));
            }
        }
        Err(cause) => {
            let text = cause.downcast_ref::<String>().cloned();
            let text = text.or_else(|| cause.downcast_ref::<&str>().map(|s| (*s).to_string()));
            total.failures.push((seed, "?", format!("panic: {}", text.unwrap_or_default())));
        }
    }
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    let (next, total, began) = (AtomicU64::new(0), Mutex::new(Total::default()), Instant::now());
    let deadline = arguments.seconds.map(|s| began + Duration::from_secs(s));
    let threads = if arguments.verbose { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= arguments.count || deadline.is_some_and(|d| Instant::now() > d) {
                        return;
                    }
                    run(arguments.seed + n, arguments.verbose, &total);
                }
            });
        }
    });
    report(total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner), began, arguments.list)
}

fn report(mut total: Total, began: Instant, list: usize) -> ExitCode {
    let by_profile: Vec<String> =
        Profile::ALL.iter().zip(total.seeds).map(|(profile, n)| format!("{} {n}", profile.name())).collect();
    let seeds: u64 = total.seeds.iter().sum();
    println!(
        "{seeds} seeds ({}), {} frames, {} MB, {} hours of virtual time in {} s",
        by_profile.join(", "),
        total.frames,
        total.octets / 1_000_000,
        total.virtual_us / 3_600_000_000,
        began.elapsed().as_secs()
    );
    if total.failures.is_empty() {
        println!("every check held");
        return ExitCode::SUCCESS;
    }
    total.failures.sort();
    println!("{} seeds failed", total.failures.len());
    for (seed, profile, violation) in total.failures.iter().take(list) {
        println!("seed {seed} ({profile}): {violation}\n  replay: make sim SEED={seed} N=1 SIM_ARGS=--verbose");
    }
    ExitCode::FAILURE
}
