//! `sidestep status`: what every daemon says of itself, for people and for programs.

use crate::args::Status;
use crate::daemon::state;
use crate::failure::{Context, Outcome, fail, print};
use crate::json::Json;
use crate::snapshot::{Snapshot, StackLines};
use sidestep_stack::drops::Drop;
use sidestep_stack::runtime::control::Client;
use sidestep_xdp::maps::Verdict;
use std::fmt::Write as _;

pub(crate) fn status(options: &Status) -> Outcome<()> {
    let names = options.device.clone().map_or_else(state::devices, |name| vec![name]);
    let mut snapshots = Vec::new();
    let mut silent = Vec::new();
    for name in names {
        match ask(&name)? {
            Some(snapshot) => snapshots.push(snapshot),
            None => silent.push(name),
        }
    }
    if options.json {
        print(format_args!("{}", json(&snapshots)));
        return Ok(());
    }
    for snapshot in &snapshots {
        print(format_args!("{}", text(snapshot).trim_end()));
    }
    match (snapshots.is_empty(), silent.first()) {
        (_, Some(name)) if options.device.is_some() => {
            fail!("{name} has no daemon; the kernel serves it (sidestep up {name} starts one)")
        }
        (_, Some(name)) => {
            fail!("the daemon of {name} died; sidestep up {name} starts a new one, sidestep down {name} clears up")
        }
        (true, None) => fail!("no daemon is up here; the kernel serves everything (sidestep up DEV starts one)"),
        (false, None) => Ok(()),
    }
}

/// A daemon's snapshot; `None` without a daemon. One may be going down at this very moment: then it is asked again.
fn ask(name: &str) -> Outcome<Option<Snapshot>> {
    let mut tries = 5;
    loop {
        let Ok(client) = Client::connect(name) else { return Ok(None) };
        match Snapshot::ask(&client) {
            Ok(snapshot) => return Ok(Some(snapshot)),
            Err(e) if tries == 0 => return Err(e).context(name),
            Err(_) => tries -= 1,
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn comm(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// Counters that a reader wants in any case; the others only when they counted something.
const ALWAYS: [&str; 8] =
    ["connections", "time_waits", "sockets", "frames", "rx_frames", "tx_frames", "kicks", "retransmits"];

fn text(s: &Snapshot) -> String {
    let mut out = String::new();
    let reason = if s.reason.is_empty() { String::new() } else { format!(" ({})", s.reason) };
    let _ = writeln!(out, "{}: {} XDP, {} queue(s), {}{reason}", s.name, s.mode, s.number("queues"), s.copy);
    let processes: Vec<String> = s.processes.iter().map(u32::to_string).collect();
    let attached = if processes.is_empty() { "none".to_owned() } else { processes.join(" ") };
    let _ = writeln!(out, "  daemon pid {}, processes attached: {attached}", s.number("daemon_pid"));
    let frames = ["total", "pool", "fill", "stacks"].map(|name| s.number(name));
    let [total, pool, fill, stacks] = frames;
    let _ = writeln!(out, "  frames: {total} in all, {pool} in the pool, {fill} with the kernel, {stacks} with stacks");
    let _ = writeln!(out, "  packets that the XDP program saw:");
    for (name, count) in s.verdicts.iter().filter(|(_, n)| *n != 0) {
        let sentence = Verdict::ALL.iter().find(|v| v.name() == name).map_or("", |v| v.describe());
        let _ = writeln!(out, "  {count:>14}  {name}: {sentence}");
    }
    for stack in &s.stacks {
        stack_text(&mut out, stack);
    }
    for p in &s.ports {
        let _ = writeln!(out, "  port {}/{}: {}, served by {} stack(s)", p.port, p.proto, p.policy, p.members);
    }
    out
}

fn stack_text(out: &mut String, stack: &StackLines) {
    let owner = match stack.pid {
        0 => "its process is gone; the daemon finishes its connections".to_owned(),
        pid => format!("pid {pid} ({})", comm(pid)),
    };
    let _ = writeln!(out, "  stack {}: {owner}", stack.index);
    let shown = stack.numbers.iter().filter(|(name, n)| *n != 0 || ALWAYS.contains(&name.as_str()));
    let words: Vec<String> = shown.map(|(name, n)| format!("{name} {n}")).collect();
    for line in words.chunks(6) {
        let _ = writeln!(out, "      {}", line.join(", "));
    }
    for (name, count) in &stack.drops {
        let sentence = Drop::ALL.iter().find(|d| d.name() == name).map_or("", |d| d.describe());
        let _ = writeln!(out, "  {count:>14}  dropped, {name}: {sentence}");
    }
}

fn json(snapshots: &[Snapshot]) -> String {
    let mut j = Json::default();
    j.object(|j| {
        j.array_field("devices", |j| {
            for s in snapshots {
                j.object(|j| device_json(j, s));
            }
        });
    });
    j.finish()
}

fn device_json(j: &mut Json, s: &Snapshot) {
    j.text("name", &s.name);
    j.number("ifindex", s.number("ifindex"));
    j.text("mode", &s.mode);
    j.number("queues", s.number("queues"));
    j.text("copy", &s.copy);
    j.text("reason", &s.reason);
    j.number("daemon_pid", s.number("daemon_pid"));
    j.object_field("frames", |j| {
        for name in ["total", "pool", "fill", "stacks"] {
            j.number(name, s.number(name));
        }
    });
    j.object_field("verdicts", |j| s.verdicts.iter().for_each(|(name, n)| j.number(name, *n)));
    j.array_field("stacks", |j| {
        for stack in &s.stacks {
            j.object(|j| {
                j.number("index", stack.index);
                j.number("pid", stack.pid);
                j.text("comm", &comm(stack.pid));
                stack.numbers.iter().for_each(|(name, n)| j.number(name, *n));
                j.object_field("drops", |j| stack.drops.iter().for_each(|(name, n)| j.number(name, *n)));
            });
        }
    });
    j.object_field("gone", |j| s.gone.iter().for_each(|(name, n)| j.number(name, *n)));
    j.array_field("ports", |j| {
        for p in &s.ports {
            j.object(|j| {
                j.number("port", p.port);
                j.text("proto", &p.proto);
                j.text("policy", &p.policy);
                j.number("members", p.members);
                j.number("connections", p.connections);
                j.number("in_kernel", p.in_kernel);
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Snapshot {
        Snapshot::parse(
            "name eth1\nmode native\ncopy copy\nreason no \"zero-copy\"\nnumber ifindex 4\nnumber queues 2\nnumber total 8\n\
             verdict pass_icmp 3\nverdict pass_not_ip 0\nstack 0 0\ncounter connections 2\ncounter rx_frames 5\n\
             drop NoSocket 1\nport 80 tcp auto 1\nprocess 9\n",
        )
    }

    #[test]
    fn for_people() {
        let text = text(&example());
        assert!(text.starts_with("eth1: native XDP, 2 queue(s), copy (no \"zero-copy\")\n"), "{text}");
        assert!(text.contains("pass_icmp: ICMP that quotes"), "{text}");
        assert!(!text.contains("pass_not_ip"), "{text}");
        assert!(text.contains("dropped, NoSocket: no connection and no listener"), "{text}");
        assert!(text.contains("port 80/tcp: auto, served by 1 stack(s)"), "{text}");
    }

    #[test]
    fn for_programs() {
        assert_eq!(json(&[]), r#"{"devices":[]}"#);
        let json = json(&[example()]);
        assert!(
            json.starts_with(r#"{"devices":[{"name":"eth1","ifindex":4,"mode":"native","queues":2,"copy":"copy","#),
            "{json}"
        );
        assert!(json.contains(r#""verdicts":{"pass_icmp":3,"pass_not_ip":0}"#), "{json}");
        assert!(json.contains(r#""connections":2,"rx_frames":5,"drops":{"NoSocket":1}"#), "{json}");
        assert!(
            json.ends_with(
                r#""ports":[{"port":80,"proto":"tcp","policy":"auto","members":1,"connections":0,"in_kernel":0}]}]}"#
            ),
            "{json}"
        );
    }
}
