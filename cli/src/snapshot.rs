//! What `status` and `port list` show: the daemon writes it as lines of text, under its stacks' locks; the tools read it.

use crate::failure::{Context, Outcome};
use sidestep_stack::counters::Counters;
use sidestep_stack::drops::{Drop, DropCounters};
use sidestep_stack::runtime::control::{Client, FdSet, Op, Request};
use std::fmt::Write as _;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};

/// One device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) name: String,
    pub(crate) mode: String,
    /// `zero-copy` or `copy`.
    pub(crate) copy: String,
    /// Why it is not faster; may be empty.
    pub(crate) reason: String,
    /// ifindex, queues, daemon_pid and the frames, in the order of the lines.
    pub(crate) numbers: Vec<(String, u64)>,
    pub(crate) verdicts: Vec<(String, u64)>,
    pub(crate) stacks: Vec<StackLines>,
    /// What stacks dropped that are no more.
    pub(crate) gone: Vec<(String, u64)>,
    pub(crate) ports: Vec<PortLine>,
    /// Processes attached.
    pub(crate) processes: Vec<u32>,
}

/// One stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StackLines {
    pub(crate) index: u32,
    /// The process that opened it; 0 when it is gone and the daemon finishes its connections.
    pub(crate) pid: u32,
    pub(crate) numbers: Vec<(String, u64)>,
    pub(crate) drops: Vec<(String, u64)>,
}

/// One port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortLine {
    pub(crate) port: u16,
    pub(crate) proto: String,
    pub(crate) policy: String,
    /// Stacks that serve it.
    pub(crate) members: u32,
    /// TCP connections that live in stacks, and in the kernel (not those over loopback).
    pub(crate) connections: u32,
    pub(crate) in_kernel: u32,
}

impl Snapshot {
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.numbers.iter().find(|(n, _)| n == name).map_or(0, |(_, v)| *v)
    }

    pub(crate) fn to_text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "name {}\nmode {}\ncopy {}\nreason {}", self.name, self.mode, self.copy, self.reason);
        let mut pairs = |kind: &str, pairs: &[(String, u64)]| {
            for (name, value) in pairs {
                let _ = writeln!(out, "{kind} {name} {value}");
            }
        };
        pairs("number", &self.numbers);
        pairs("verdict", &self.verdicts);
        pairs("gone", &self.gone);
        for stack in &self.stacks {
            pairs("stack", &[(stack.index.to_string(), u64::from(stack.pid))]);
            pairs("counter", &stack.numbers);
            pairs("drop", &stack.drops);
        }
        for p in &self.ports {
            let (live, kernel) = (p.connections, p.in_kernel);
            let _ = writeln!(out, "port {} {} {} {} {live} {kernel}", p.port, p.proto, p.policy, p.members);
        }
        for pid in &self.processes {
            let _ = writeln!(out, "process {pid}");
        }
        out
    }

    /// Reads it back. Lines of kinds that this build does not know are skipped.
    pub(crate) fn parse(text: &str) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for line in text.lines() {
            let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
            let mut words = rest.split(' ');
            let (first, second) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let pair = || (first.to_owned(), second.parse().unwrap_or(0));
            match kind {
                "name" => snapshot.name = rest.to_owned(),
                "mode" => snapshot.mode = rest.to_owned(),
                "copy" => snapshot.copy = rest.to_owned(),
                "reason" => snapshot.reason = rest.to_owned(),
                "number" => snapshot.numbers.push(pair()),
                "verdict" => snapshot.verdicts.push(pair()),
                "gone" => snapshot.gone.push(pair()),
                "stack" => snapshot.stacks.push(StackLines {
                    index: first.parse().unwrap_or(0),
                    pid: second.parse().unwrap_or(0),
                    ..StackLines::default()
                }),
                "counter" => snapshot.stacks.last_mut().into_iter().for_each(|s| s.numbers.push(pair())),
                "drop" => snapshot.stacks.last_mut().into_iter().for_each(|s| s.drops.push(pair())),
                "port" => {
                    let policy = words.next().unwrap_or("").to_owned();
                    let mut number = || words.next().and_then(|m| m.parse().ok()).unwrap_or(0);
                    snapshot.ports.push(PortLine {
                        port: first.parse().unwrap_or(0),
                        proto: second.to_owned(),
                        policy,
                        members: number(),
                        connections: number(),
                        in_kernel: number(),
                    });
                }
                "process" => snapshot.processes.extend(first.parse::<u32>()),
                _ => {}
            }
        }
        snapshot
    }

    /// Asks a daemon for its snapshot.
    pub(crate) fn ask(client: &Client) -> Outcome<Snapshot> {
        let mut fds = FdSet::default();
        let reply =
            client.call(&Request::new(Op::Refresh, [1, 0, 0, 0]), &mut fds).context("the daemon does not answer")?;
        // SAFETY: the descriptors came with this reply and belong to nobody else.
        let files: Vec<OwnedFd> = fds.as_slice().iter().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }).collect();
        if reply.status != 0 {
            return Err(crate::failure::Failure::new(reply.text()));
        }
        let Some(file) = files.into_iter().next() else {
            crate::failure::fail!("the daemon sent no report: it is of another build")
        };
        let mut text = String::new();
        std::fs::File::from(file).read_to_string(&mut text).context("cannot read the daemon's report")?;
        Ok(Snapshot::parse(&text))
    }
}

/// A stack's counters by name, in the order of their declaration.
pub(crate) fn counters(c: &Counters) -> Vec<(String, u64)> {
    macro_rules! named { ($($field:ident)*) => { vec![$((stringify!($field).to_owned(), c.$field)),*] } }
    named! {
        rx_frames rx_bytes tx_frames tx_bytes kicks rx_segments tx_segments tx_pure_acks tx_rsts retransmits
        fast_retransmits rto_expiries active_opens passive_opens accepts out_of_order fast_path zero_window_probes
        keepalive_probes time_wait_made time_wait_reused resets_received challenge_acks sleeps daemon_runs
        syn_cookies_sent syn_cookies_accepted syn_cookies_failed
        fast_open_active fast_open_active_failed fast_open_passive fast_open_passive_failed fast_open_cookies_given
        mtu_black_holes mtu_probes time_wait_overflows port_exhaustions
        ecn_marks ecn_reductions
        sack_blocks sack_garbage dsacks tlp_probes tlp_recoveries rack_timeouts spurious_rtos undos sack_reneging
        lost_retransmits rx_datagrams tx_datagrams kernel_datagrams reassembled io_uring_refused emigrants
        immigrants inherited inherited_refused foreign_datagrams start_overs
    }
}

/// A stack's drops that happened.
pub(crate) fn drops(counts: &DropCounters) -> Vec<(String, u64)> {
    let named = Drop::ALL.iter().map(|d| (d.name().to_owned(), counts.of(*d)));
    named.filter(|(_, n)| *n != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut c = Counters { rx_frames: 3, ..Counters::default() };
        c.drops.count(Drop::NoSocket);
        let snapshot = Snapshot {
            name: "veth0".into(),
            mode: "native".into(),
            copy: "copy".into(),
            reason: "the driver (veth) has no zero-copy".into(),
            numbers: vec![("queues".into(), 2)],
            verdicts: vec![("pass_icmp".into(), 9)],
            stacks: vec![StackLines { index: 4, pid: 77, numbers: counters(&c), drops: drops(&c.drops) }],
            gone: vec![("NoSocket".into(), 3)],
            ports: vec![PortLine {
                port: 80,
                proto: "tcp".into(),
                policy: "auto".into(),
                members: 1,
                connections: 7,
                in_kernel: 2,
            }],
            processes: vec![77, 78],
        };
        let text = snapshot.to_text();
        assert_eq!(Snapshot::parse(&text), snapshot);
        assert_eq!(Snapshot::parse(&format!("{text}future thing\n\nstack\n")).stacks.len(), 2);
        assert_eq!(snapshot.number("queues"), 2);
        assert_eq!(snapshot.stacks[0].drops, [("NoSocket".to_owned(), 1)]);
        assert_eq!(Snapshot::parse("counter x 1\ndrop y 2\nport\n").ports.len(), 1);
    }
}
