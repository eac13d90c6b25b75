//! What `sidestep doctor` finds: the daemon writes it as lines of text, the tool reads it.

use crate::failure::{Context, Outcome, fail};
use sidestep_stack::runtime::control::{Client, FdSet, Op, Request};
use std::fmt::Write as _;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};

/// One thing that is counted twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) what: String,
    pub(crate) booked: u32,
    pub(crate) found: u32,
}

impl Finding {
    pub(crate) fn is_right(&self) -> bool {
        self.booked == self.found
    }
}

/// The state of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkup {
    pub(crate) device: String,
    pub(crate) findings: Vec<Finding>,
}

impl Checkup {
    pub(crate) fn is_right(&self) -> bool {
        self.findings.iter().all(Finding::is_right)
    }

    pub(crate) fn to_text(&self) -> String {
        let mut out = format!("device {}\n", self.device);
        for f in &self.findings {
            let _ = writeln!(out, "{} {} {}", f.booked, f.found, f.what);
        }
        out
    }

    /// Reads it back; a line that is none is an error, or a loss would be overlooked.
    pub(crate) fn parse(text: &str) -> Outcome<Checkup> {
        let mut checkup = Checkup::default();
        for line in text.lines() {
            if let Some(device) = line.strip_prefix("device ") {
                checkup.device = device.to_owned();
                continue;
            }
            let mut words = line.splitn(3, ' ');
            let mut number = || words.next().and_then(|word| word.parse().ok());
            let (Some(booked), Some(found)) = (number(), number()) else { fail!("not a finding: {line}") };
            let what = words.next().unwrap_or_default().to_owned();
            checkup.findings.push(Finding { what, booked, found });
        }
        Ok(checkup)
    }

    /// Asks a daemon.
    pub(crate) fn ask(client: &Client) -> Outcome<Checkup> {
        let mut fds = FdSet::default();
        let reply = client.call(&Request::new(Op::Doctor, [0; 4]), &mut fds).context("the daemon does not answer")?;
        // SAFETY: the descriptors came with this reply and belong to nobody else.
        let files: Vec<OwnedFd> = fds.as_slice().iter().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }).collect();
        if reply.status != 0 {
            fail!("{}", reply.text())
        }
        let Some(file) = files.into_iter().next() else { fail!("the daemon's answer has no report") };
        let mut text = String::new();
        std::fs::File::from(file).read_to_string(&mut text).context("cannot read the report")?;
        Checkup::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_survive_the_way_through_text() {
        let finding = |what: &str, booked, found| Finding { what: what.to_owned(), booked, found };
        let findings = vec![finding("frames of the device", 9, 9), finding("stack 1: sockets", 3, 2)];
        let checkup = Checkup { device: "eth7".to_owned(), findings };
        assert_eq!(Checkup::parse(&checkup.to_text()).unwrap(), checkup);
        assert!(!checkup.is_right());
        assert!(Checkup::parse("9 x frames").is_err());
    }
}
