//! Running a case, line by line. Whatever the stack sends has to be asked for by the next line: anything else is a failure.

use crate::line::{self, Pattern, Wanted, When};
use crate::packet::{self, ACK, Addr, FIN, Opt, PSH, Packet, SYN};
use crate::script::{Case, Line};
use crate::world::{PEER_MAC, World, pattern};
use crate::{calls, expect};
use sidestep_stack::testing::HostConfig;
use sidestep_stack::time::Instant;
use std::fmt;

/// Why a case failed: the line, what is wrong with it, and the last segments of both sides.
pub(crate) struct Failure {
    pub(crate) case: String,
    pub(crate) line: Line,
    pub(crate) what: String,
    pub(crate) trace: Vec<String>,
}

/// Segments a failure shows.
const TRACE: usize = 16;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}.script:{}:  {}", self.case, self.line.file, self.line.number, self.line.text)?;
        writeln!(f, "    {}", self.what.replace('\n', "\n    "))?;
        for segment in self.trace.iter().skip(self.trace.len().saturating_sub(TRACE)) {
            writeln!(f, "    {segment}")?;
        }
        Ok(())
    }
}

/// Before the first line that needs the stack, the script says what it is like.
struct Setup {
    config: HostConfig,
    is_v6: bool,
}

/// `is_v6`: over IPv6, whatever the script says.
pub(crate) fn run(case: &Case, is_v6: bool) -> Result<(), Failure> {
    let mut setup = Setup { config: HostConfig::nth(1), is_v6 };
    let mut world: Option<World> = None;
    let mut current = case.prelude.first().or(case.body.first()).cloned();
    let mut go = |lines: &[Line], world: &mut Option<World>, current: &mut Option<Line>| {
        for line in lines {
            *current = Some(line.clone());
            if world.is_none() && set_up(&mut setup, &line.text)? {
                continue;
            }
            let world = world.get_or_insert_with(|| World::new(setup.config.clone(), setup.is_v6));
            step(world, &line.text)?;
        }
        Ok(())
    };
    let outcome = go(&case.prelude, &mut world, &mut current)
        .and_then(|()| {
            world.as_mut().map_or(Ok(()), |world| {
                expect::remember(world);
                Ok(())
            })
        })
        .and_then(|()| go(&case.body, &mut world, &mut current))
        .and_then(|()| world.as_ref().map_or(Err("the script does nothing".into()), nothing_more));
    outcome.map_err(|what| Failure {
        case: format!("{}{}", case.name, if is_v6 { " over IPv6" } else { "" }),
        line: current.expect("a case has lines"),
        what,
        trace: world.map(|world| world.trace).unwrap_or_default(),
    })
}

/// `tunable NAME N`, `host NAME N`, `ipv6`. False: the line is for the stack itself.
fn set_up(setup: &mut Setup, text: &str) -> Result<bool, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        ["ipv6"] => setup.is_v6 = true,
        ["tunable", name, value] => expect::set_tunable(&mut setup.config.tunables, name, value)?,
        ["host", name, value] => {
            let value: u32 = value.parse().map_err(|_| format!("{value}: no number"))?;
            match name {
                "mtu" => setup.config.mtu = value as u16,
                "frames" => setup.config.frames = value,
                "conns" => setup.config.conns = value,
                "time_waits" => setup.config.time_waits = value,
                "sockets" => setup.config.sockets = value,
                _ => return Err(format!("host {name}: mtu, frames, conns, time_waits or sockets")),
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn step(world: &mut World, text: &str) -> Result<(), String> {
    let (when, text) = line::split_time(text)?;
    if let Some(rest) = text.strip_prefix('>') {
        let wanted = line::segment(rest.trim(), &world.numbers)?;
        return take(world, &when, &wanted);
    }
    nothing_more(world)?;
    pass(world, when.after_us)?;
    if let Some(rest) = text.strip_prefix('<') {
        let segment = line::segment(rest.trim(), &world.numbers)?;
        for nth in 0..segment.times {
            give(world, &segment, nth)?;
        }
        return Ok(());
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        ["let", name, "=", value] => {
            let value = line::number(value, &world.numbers)?;
            world.numbers.insert(name.into(), value);
            Ok(())
        }
        ["flow", number] => {
            world.choose_flow(number.parse().map_err(|_| format!("{number}: no flow"))?);
            Ok(())
        }
        ["silence", time] => pass(world, line::duration_us(time)?),
        ["drain", time] => drain(world, line::duration_us(time)?),
        ["expect", ref what @ ..] => expect::check(world, what),
        ["icmp", ref what @ ..] => icmp(world, what),
        _ => calls::call(world, text),
    }
}

fn nothing_more(world: &World) -> Result<(), String> {
    match world.sent.front() {
        Some((_, packet)) => Err(format!("before it came, and nothing asked for it: {}", world.describe(packet, true))),
        None => Ok(()),
    }
}

/// Time passes, and nothing may come.
fn pass(world: &mut World, us: u64) -> Result<(), String> {
    let until = world.now.after_us(us);
    world.wait(until);
    nothing_more(world)
}

/// Time passes; whatever comes is not the script's business.
fn drain(world: &mut World, us: u64) -> Result<(), String> {
    let until = world.now.after_us(us);
    while world.now < until {
        world.wait(until);
        world.sent.clear();
    }
    Ok(())
}

/// The next segments of the stack have to look like this.
fn take(world: &mut World, when: &When, wanted: &Pattern) -> Result<(), String> {
    let (earliest, latest) = when.range_us();
    let start = world.now;
    for nth in 0..wanted.times {
        if world.sent.is_empty() {
            world.wait(start.after_us(latest));
        }
        let Some((at, packet)) = world.sent.pop_front() else {
            return Err(format!("nothing came within {} ms", latest as f64 / 1000.0));
        };
        let wrong = differences(world, wanted, nth, &packet);
        if !wrong.is_empty() {
            return Err(format!("came: {}\nwrong: {}", world.describe(&packet, true), wrong.join(", ")));
        }
        if nth == 0 && at < start.after_us(earliest) {
            return Err(format!("came too early, after {} ms", since_ms(start, at)));
        }
    }
    Ok(())
}

fn since_ms(start: Instant, at: Instant) -> f64 {
    at.since_us(start) as f64 / 1000.0
}

/// What of a segment is not as wanted.
fn differences(world: &World, wanted: &Pattern, nth: u32, packet: &Packet) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |is_right: bool, what: &str| {
        if !is_right {
            wrong.push(what.to_string());
        }
    };
    let push = if wanted.flags & PSH == 0 { PSH } else { 0 };
    check(packet.dst_port == world.flow().peer_port, "the flow");
    check(packet.flags & !push == wanted.flags, "flags");
    let seq = wanted.seq.map(|seq| world.our_seq(seq).wrapping_add(nth * wanted.len));
    check(seq.is_none_or(|seq| seq == packet.seq), "seq");
    check(wanted.len as usize == packet.payload.len(), "len");
    check(wanted.ack.is_none_or(|ack| world.peer_seq(ack) == packet.ack), "ack");
    check(packet.has(ACK) || packet.ack == 0, "an acknowledgement number without ACK");
    check(wanted.win.is_none_or(|win| win == packet.window), "win");
    check(wanted.urg.is_none_or(|urg| urg == packet.urgent), "urg");
    check(wanted.ecn.is_none_or(|ecn| ecn == packet.ecn), "the IP header's ECN bits");
    let options = world.options_of(packet, true);
    for option in &wanted.options {
        check(is_met(option, &options), &format!("option {option:?}"));
    }
    let first = world.relative_to_us(packet.seq).wrapping_add(u32::from(packet.has(SYN)));
    let is_stream = packet.payload.iter().zip(0..).all(|(octet, n)| *octet == pattern(first.wrapping_add(n)));
    check(is_stream || wanted.is_garbage, "the payload is not what the application wrote there");
    wrong
}

fn is_met(wanted: &Wanted, options: &[Opt]) -> bool {
    match wanted {
        Wanted::Exactly(option) => options.contains(option),
        Wanted::Named(name) => options.iter().any(|option| line::name_of(option) == name),
        Wanted::Absent(name) => options.iter().all(|option| line::name_of(option) != name),
        Wanted::Timestamp(value, echo) => options.iter().any(|option| match option {
            Opt::Timestamp(v, e) => value.is_none_or(|value| value == *v) && echo.is_none_or(|echo| echo == *e),
            _ => false,
        }),
    }
}

/// The `nth` segment of a line of the peer.
fn give(world: &mut World, segment: &Pattern, nth: u32) -> Result<(), String> {
    let flow = world.flow();
    let seq = segment.seq.ok_or("the peer's segments need a seq")? + i64::from(nth * segment.len);
    if (segment.flags & ACK != 0) != segment.ack.is_some() {
        return Err("the flag A and the field ack belong together".into());
    }
    let base = flow.ts_base.unwrap_or(0);
    let mut packet = Packet {
        src_port: flow.peer_port,
        dst_port: flow.our_port,
        seq: world.peer_seq(seq),
        ack: segment.ack.map_or(0, |ack| world.our_seq(ack)),
        flags: segment.flags,
        window: segment.win.unwrap_or(u16::MAX),
        urgent: segment.urg.unwrap_or(0),
        ecn: segment.ecn.unwrap_or(0),
        ip_options: segment.ip_options.clone(),
        is_damaged: segment.is_damaged,
        ..Packet::default()
    };
    for option in &segment.options {
        let option = match option {
            Wanted::Exactly(option) => option.clone(),
            Wanted::Named(name) if name == "fo" => Opt::FastOpen(world.cookie.clone()),
            _ => return Err("the peer's options need values".into()),
        };
        let absolute = match &option {
            Opt::Timestamp(value, echo) => Opt::Timestamp(*value, echo.wrapping_add(base)),
            Opt::Sack(blocks) => {
                let one = |seq: u32| world.our_seq(i64::from(seq));
                Opt::Sack(blocks.iter().map(|(left, right)| (one(*left), one(*right))).collect())
            }
            other => other.clone(),
        };
        packet::write_option(&absolute, &mut packet.options);
    }
    let first = (seq as u32).wrapping_add(u32::from(segment.flags & SYN != 0));
    let garbage = u8::from(segment.is_garbage) * 0x55;
    packet.payload = (0..segment.len).map(|n| pattern(first.wrapping_add(n)) ^ garbage).collect();
    let (ours, theirs) = world.addresses();
    let (from, to) = (segment.from.map_or(theirs, Addr::V4), segment.to.map_or(ours, Addr::V4));
    let frame = packet.frame(from, to, (PEER_MAC, world.host.config.mac.0));
    world.note("<", &packet);
    world.deliver(&frame);
    Ok(())
}

/// `icmp KIND [seq N] [mtu N]`: a router's word about a segment of ours.
fn icmp(world: &mut World, words: &[&str]) -> Result<(), String> {
    let value = |name: &str| -> Result<Option<i64>, String> {
        let at = words.iter().position(|word| *word == name);
        at.map(|at| line::number(words.get(at + 1).ok_or("a value is missing")?, &world.numbers)).transpose()
    };
    let (seq, mtu) = (value("seq")?.unwrap_or(0), value("mtu")?.unwrap_or(0) as u32);
    let v6 = world.is_v6;
    let kind = match words.first().copied().unwrap_or_default() {
        "net-unreachable" if v6 => (1, 0),
        "net-unreachable" => (3, 0),
        "host-unreachable" if v6 => (1, 3),
        "host-unreachable" => (3, 1),
        "protocol-unreachable" if v6 => (4, 1),
        "protocol-unreachable" => (3, 2),
        "port-unreachable" if v6 => (1, 4),
        "port-unreachable" => (3, 3),
        "too-big" if v6 => (2, 0),
        "too-big" => (3, 4),
        "source-quench" if !v6 => (4, 0),
        "prohibited" if v6 => (1, 1),
        "prohibited" => (3, 13),
        "time-exceeded" => (if v6 { 3 } else { 11 }, 0),
        "parameter-problem" => (if v6 { 4 } else { 12 }, 0),
        other => return Err(format!("icmp {other}: no such error")),
    };
    let flow = world.flow();
    let quoted = Packet {
        src_port: flow.our_port,
        dst_port: flow.peer_port,
        seq: world.our_seq(seq),
        flags: ACK | FIN,
        ..Packet::default()
    };
    let (ours, theirs) = world.addresses();
    let macs = (PEER_MAC, world.host.config.mac.0);
    let frame = packet::icmp_frame(theirs, ours, macs, kind, mtu, &quoted);
    world.trace.push(format!("                 < icmp {}", words.join(" ")));
    world.deliver(&frame);
    Ok(())
}
