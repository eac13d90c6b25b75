//! `sidestep doctor`: is anything lost on a device?

use crate::args::Doctor;
use crate::checkup::{Checkup, Finding};
use crate::daemon::state;
use crate::failure::{Context, Outcome, fail, print};
use sidestep_stack::runtime::control::Client;
use std::time::{Duration, Instant};

/// What is in motion is counted again, with so much time between.
const PAUSE: Duration = Duration::from_millis(30);
/// What does not come right for so long is lost. The daemon finds some things by a look in every second.
const PATIENCE: Duration = Duration::from_secs(4);

pub(crate) fn doctor(options: &Doctor) -> Outcome<()> {
    let names = options.device.clone().map_or_else(state::devices, |name| vec![name]);
    if names.is_empty() {
        fail!("no daemon is up here (sidestep up DEV starts one)")
    }
    let mut lost = 0;
    for name in names {
        let client = Client::connect(&name).context(format_args!("{name} has no daemon that answers"))?;
        let checkup = examine(&client)?;
        lost += checkup.findings.iter().filter(|f| !f.is_right()).count();
        print(format_args!("{}", text(&checkup, options.verbose).trim_end()));
    }
    if lost > 0 { fail!("{lost} count(s) do not add up") } else { Ok(()) }
}

/// What is wrong in every look is wrong.
fn examine(client: &Client) -> Outcome<Checkup> {
    let since = Instant::now();
    loop {
        let checkup = Checkup::ask(client)?;
        if checkup.is_right() || since.elapsed() > PATIENCE {
            return Ok(checkup);
        }
        std::thread::sleep(PAUSE);
    }
}

fn text(checkup: &Checkup, verbose: bool) -> String {
    let mut out = format!("{}: ", checkup.device);
    let wrong = checkup.findings.iter().filter(|f| !f.is_right()).count();
    out += &match wrong {
        0 => format!("{} counts add up\n", checkup.findings.len()),
        n => format!("{n} of {} counts do not add up\n", checkup.findings.len()),
    };
    for f in checkup.findings.iter().filter(|f| verbose || !f.is_right()) {
        out += &line(f);
    }
    out
}

fn line(f: &Finding) -> String {
    let word = if f.is_right() { "ok" } else { "LOST" };
    format!("  {word:<5} {}: {} booked, {} found\n", f.what, f.booked, f.found)
}
