//! Dialogues of packets and calls with one stack, in virtual time: see README.md beside this file.
//!
//! - `script.rs`: files and their cases; `line.rs`: what a line says; `run.rs`: doing it; `calls.rs`: the application's calls;
//! - `world.rs`: the stack, and relative numbers; `packet.rs`: frames, written and read without the stack's own code;
//! - `runner.rs`: scripts that have to fail; `rfc.rs`: docs/rfc.md names only what exists.

mod calls;
mod expect;
mod line;
mod packet;
mod rfc;
mod run;
mod runner;
mod script;
mod world;

/// Runs every case of every script, the states' also over IPv6; DIALOGUE=part-of-a-name runs some.
#[test]
fn scripts_pass() {
    #[allow(clippy::disallowed_methods)] // A developer's filter; it is no tunable.
    let only = std::env::var("DIALOGUE").unwrap_or_default();
    let mut failures = Vec::new();
    let mut count = 0;
    for path in script::files() {
        let cases = script::cases_of(&path).unwrap_or_else(|wrong| panic!("{wrong}"));
        for case in cases.iter().filter(|case| case.name.contains(&only)) {
            let families: &[bool] = if case.name.starts_with("states/") { &[false, true] } else { &[false] };
            for is_v6 in families {
                count += 1;
                failures.extend(run::run(case, *is_v6).err().map(|failure| failure.to_string()));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {count} cases fail\n\n{}", failures.len(), failures.join("\n"));
    println!("{count} cases");
}
