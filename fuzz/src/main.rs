//! Fuzzing on a stable toolchain: the committed corpus, then mutations of it, steered by coverage.
//!
//! - `targets.rs`: what is fuzzed, as plain functions of octets; `seeds.rs`: where a corpus begins;
//! - `mutate.rs`: how an input becomes another; `coverage.rs`: what an input reached.
//!
//! `run.sh` builds it with the compiler's coverage counters. Without them it works too, blindly.

mod coverage;
mod mutate;
mod seeds;
mod targets;

use mutate::Random;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, panic};
use targets::Target;

const USAGE: &str = "usage: fuzz list | seeds | run TARGET --seconds N [--seed N] [--keep] | replay TARGET FILE";
/// An input that takes longer hangs.
const HANG: Duration = Duration::from_secs(20);
const INPUT_MAX: usize = 4096;

fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    match given.as_slice() {
        ["list"] => {
            targets::ALL.iter().for_each(|t| println!("{}", t.name));
            ExitCode::SUCCESS
        }
        ["seeds"] => write_seeds(),
        ["replay", name, file] => replay(name, file),
        ["run", name, options @ ..] => run(name, options),
        _ => fail(USAGE),
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(2)
}

fn target(name: &str) -> Option<&'static Target> {
    targets::ALL.iter().find(|t| t.name == name)
}

/// The corpus that code makes; what was found later lies beside it.
fn write_seeds() -> ExitCode {
    for (name, n, bytes) in seeds::all() {
        let folder = home().join("corpus").join(name);
        let written = fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join(format!("seed-{n:02}")), bytes));
        if let Err(e) = written {
            return fail(&format!("{}: {e}", folder.display()));
        }
    }
    ExitCode::SUCCESS
}

fn replay(name: &str, file: &str) -> ExitCode {
    let (Some(target), Ok(bytes)) = (target(name), fs::read(file)) else { return fail("no such target or file") };
    (target.run)(&bytes);
    println!("{name}: nothing wrong with {file}");
    ExitCode::SUCCESS
}

fn number(options: &[&str], name: &str, otherwise: u64) -> u64 {
    let at = options.iter().position(|o| *o == name);
    at.and_then(|at| options.get(at + 1)).and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

/// What a run of one target has.
struct Fuzz {
    target: &'static Target,
    corpus: Vec<Vec<u8>>,
    map: coverage::Map,
    runs: u64,
    keep: bool,
}

/// How many inputs were begun: whoever watches sees when that stands still.
static BEGUN: AtomicU64 = AtomicU64::new(0);

fn run(name: &str, options: &[&str]) -> ExitCode {
    let Some(target) = target(name) else { return fail("no such target") };
    let seconds = number(options, "--seconds", 5);
    let mut random = Random(number(options, "--seed", 1));
    let folder = home().join("corpus").join(name);
    let files = fs::read_dir(&folder).map(|d| d.flatten().map(|e| e.path()).collect::<Vec<_>>()).unwrap_or_default();
    let mut files: Vec<PathBuf> = files;
    files.sort();
    let mut fuzz =
        Fuzz { target, corpus: Vec::new(), map: coverage::Map::default(), runs: 0, keep: options.contains(&"--keep") };
    panic::set_hook(Box::new(|_| {}));
    watch_for_hangs(name.to_string());
    for file in &files {
        let Ok(bytes) = fs::read(file) else { continue };
        if !fuzz.one(&bytes, true) {
            return ExitCode::FAILURE;
        }
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        let input = mutate::next(&fuzz.corpus, &mut random, INPUT_MAX);
        if !fuzz.one(&input, false) {
            return ExitCode::FAILURE;
        }
    }
    let (runs, corpus, places) = (fuzz.runs, fuzz.corpus.len(), fuzz.map.places());
    println!("{name}: {} files, {runs} inputs, {corpus} of interest, {places} places reached", files.len());
    ExitCode::SUCCESS
}

impl Fuzz {
    /// False when the input is a crash.
    fn one(&mut self, input: &[u8], is_seed: bool) -> bool {
        self.runs += 1;
        if let Ok(mut current) = CURRENT.lock() {
            current.clear();
            current.extend_from_slice(input);
        }
        BEGUN.fetch_add(1, Ordering::Relaxed);
        coverage::reset();
        let run = self.target.run;
        if let Err(cause) = panic::catch_unwind(|| run(input)) {
            let text = cause.downcast_ref::<String>().cloned();
            let text = text.or_else(|| cause.downcast_ref::<&str>().map(|s| (*s).to_string())).unwrap_or_default();
            report_crash(self.target.name, input, &text);
            return false;
        }
        if self.map.take() || is_seed {
            self.corpus.push(input.to_vec());
            if self.keep && !is_seed {
                let _ = fs::write(home().join("corpus").join(self.target.name).join(name_of(input)), input);
            }
        }
        true
    }
}

/// The input that is being run: for whoever finds that it does not end.
static CURRENT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn name_of(input: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn report_crash(target: &str, input: &[u8], why: &str) {
    let folder = home().join("crashes");
    let file = folder.join(format!("{target}-{}", name_of(input)));
    let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, input));
    println!("{target}: {why}\n  replay: fuzz/run.sh --replay {target} {}", relative(&file));
    if let Err(e) = written {
        println!("  (could not be written: {e}; the input is {input:02x?})");
    }
}

fn relative(file: &Path) -> String {
    file.strip_prefix(home().parent().unwrap_or(Path::new("/"))).unwrap_or(file).display().to_string()
}

/// An input that does not end is reported like a crash.
fn watch_for_hangs(name: String) {
    std::thread::spawn(move || {
        let mut last = u64::MAX;
        loop {
            std::thread::sleep(HANG);
            let begun = BEGUN.load(Ordering::Relaxed);
            if begun == last {
                let input = CURRENT.lock().map(|input| input.clone()).unwrap_or_default();
                report_crash(&name, &input, "does not end");
                std::process::exit(1);
            }
            last = begun;
        }
    });
}
