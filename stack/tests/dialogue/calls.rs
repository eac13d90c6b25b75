//! The application's calls: `NAME ARGUMENTS [= OUTCOME]`.

use crate::line;
use crate::world::{Flow, World, pattern};
use sidestep_stack::addr::{Endpoint, Ip};
use sidestep_stack::socket::{Errno, Family, How, SocketOption};
use sidestep_stack::tcp::Options;
use std::net::Ipv4Addr;

const PROCESS: u16 = 1;
const BACKLOG: u32 = 128;

/// Makes the call; its outcome has to be the one the line names, or else success.
pub(crate) fn call(world: &mut World, text: &str) -> Result<(), String> {
    let (call, wanted) = match text.split_once('=') {
        Some((call, wanted)) => (call.trim(), Some(wanted.trim())),
        None => (text, None),
    };
    let words: Vec<&str> = call.split_whitespace().collect();
    let (outcome, usual) = make(world, &words)?;
    let outcome = match outcome {
        Ok(n) => n.to_string(),
        Err(errno) => format!("{errno:?}"),
    };
    world.trace.push(format!("                   {call} = {outcome}"));
    world.collect();
    let wanted = wanted.unwrap_or(&usual);
    if outcome == wanted { Ok(()) } else { Err(format!("gave {outcome}, not {wanted}")) }
}

type Outcome = Result<u32, Errno>;

/// The outcome, and what it usually is.
fn make(world: &mut World, words: &[&str]) -> Result<(Outcome, String), String> {
    let names = world.numbers.clone();
    let number = |text: &str| line::number(text, &names).map(|n| n as u32);
    let done = |outcome: Result<(), Errno>| Ok((outcome.map(|()| 0), "0".to_string()));
    let now = world.now;
    let socket = world.socket();
    match *words {
        ["listen", ref rest @ ..] => done(listen(world, rest)?),
        ["fastopen", most] => {
            let (listener, most) = (world.listener.ok_or("there is no listener")?, number(most)? as i32);
            done(world.host.engine().set_fast_open_queue(listener, most))
        }
        ["connect"] => Ok((connect(world, None).map(|()| 0), "EINPROGRESS".into())),
        ["connect", "to", address] => {
            let address: Ipv4Addr = address.parse().map_err(|_| format!("{address}: no IPv4 address"))?;
            Ok((connect(world, Some(Ip::v4(address.octets()))).map(|()| 0), "EINPROGRESS".into()))
        }
        ["connect-status"] => {
            let outcome = socket.and_then(|s| world.host.engine().connect_status(now, s));
            done(outcome)
        }
        ["accept"] => done(accept(world)),
        ["write", n] => Ok((write(world, number(n)?), number(n)?.to_string())),
        ["read", n] => Ok((read(world, number(n)?, false)?, number(n)?.to_string())),
        ["peek", n] => Ok((read(world, number(n)?, true)?, number(n)?.to_string())),
        ["shutdown", how] => {
            let how = match how {
                "read" => How::Read,
                "write" => How::Write,
                "both" => How::Both,
                _ => return Err(format!("shutdown {how}: read, write or both")),
            };
            done(socket.and_then(|s| world.host.engine().shutdown(now, s, how)))
        }
        ["close"] => {
            let outcome = socket.and_then(|s| world.host.engine().release(now, s, PROCESS));
            world.flow_mut().socket = None;
            done(outcome)
        }
        ["close", "listener"] => {
            let listener = world.listener.take().ok_or("there is no listener")?;
            done(world.host.engine().release(now, listener, PROCESS))
        }
        ["abort"] => {
            let outcome = socket.and_then(|s| {
                let mut engine = world.host.engine();
                engine.set_linger(s, Some(0))?;
                engine.release(now, s, PROCESS)
            });
            world.flow_mut().socket = None;
            done(outcome)
        }
        ["linger", seconds] => {
            let seconds = number(seconds)? as u16;
            done(socket.and_then(|s| world.host.engine().set_linger(s, Some(seconds))))
        }
        ["setsockopt", name, value] => {
            let (option, value) = (option(name)?, line::number(value, &names)? as i32);
            done(socket.and_then(|s| world.host.engine().set_option(now, s, option, value)))
        }
        ["getsockopt", name] => {
            let option = option(name)?;
            let outcome = socket.and_then(|s| world.host.engine().option(s, option));
            Ok((outcome.map(|n| n as u32), "0".into()))
        }
        ["error"] => Ok((socket.and_then(|s| pending_error(world, s)), "0".into())),
        ["available"] => Ok((socket.and_then(|s| world.host.engine().available(s)), "0".into())),
        ["outq"] => Ok((socket.and_then(|s| world.host.engine().outq(s)), "0".into())),
        ["outq-unsent"] => Ok((socket.and_then(|s| world.host.engine().outq_unsent(s)), "0".into())),
        _ => Err(format!("{}: no such call", words.join(" "))),
    }
}

/// SO_ERROR, as an outcome: the pending error stands for itself.
fn pending_error(world: &mut World, s: sidestep_stack::socket::SocketId) -> Outcome {
    match world.host.engine().take_error(s)? {
        error if error.is_set() => Err(error),
        _ => Ok(0),
    }
}

/// `listen PORT [backlog N] [NAME VALUE]…`: options that connections inherit.
fn listen(world: &mut World, words: &[&str]) -> Result<Result<(), Errno>, String> {
    let value =
        |at: usize| -> Result<i64, String> { line::number(words.get(at).ok_or("a value is missing")?, &world.numbers) };
    let port = value(0)? as u16;
    let mut options = Options::new(world.host.engine().tunables());
    let mut backlog = BACKLOG;
    for at in (1..words.len()).step_by(2) {
        let n = value(at + 1)? as u32;
        match words[at] {
            "backlog" => backlog = n,
            "mss" => options.mss_clamp = n as u16,
            "rcvbuf" => options.rcvbuf_bytes = n,
            "sndbuf" => options.sndbuf_bytes = n,
            "nodelay" => options.nodelay = n != 0,
            "keepalive" => options.keepalive = n != 0,
            name => return Err(format!("listen {name}: backlog, mss, rcvbuf, sndbuf, nodelay or keepalive")),
        }
    }
    let local = Endpoint::new(world.wildcard(), port);
    let outcome = world.host.engine().listen(local, false, backlog, &options, PROCESS);
    world.flow_mut().our_port = port;
    Ok(outcome.map(|listener| world.listener = Some(listener)))
}

fn connect(world: &mut World, to: Option<Ip>) -> Result<(), Errno> {
    let (now, mut remote) = (world.now, world.peer_endpoint(world.flow().peer_port));
    remote.ip = to.unwrap_or(remote.ip);
    let family = if world.is_v6 { Family::V6 } else { Family::V4 };
    if world.flow().socket.is_none() {
        let s = world.host.engine().open_stream(family, false, PROCESS)?;
        world.flow_mut().socket = Some(s);
    }
    let s = world.socket()?;
    let outcome = world.host.engine().connect(now, s, None, remote);
    world.host.engine().local_endpoint(s).map(|local| world.flow_mut().our_port = local.port)?;
    outcome
}

fn accept(world: &mut World) -> Result<(), Errno> {
    let listener = world.listener.ok_or(Errno::EBADF)?;
    let (s, peer) = world.host.engine().accept(world.now, listener, PROCESS)?;
    let by_port = |flow: &&mut Flow| flow.peer_port == peer.port;
    let flow = world.flows.values_mut().find(by_port).expect("a flow of the script");
    flow.socket = Some(s);
    Ok(())
}

fn write(world: &mut World, n: u32) -> Outcome {
    let (now, s, written) = (world.now, world.socket()?, world.flow().written);
    let data: Vec<u8> = (0..n).map(|i| pattern(1 + written + i)).collect();
    let n = world.host.engine().send(now, s, &data)? as u32;
    world.flow_mut().written += n;
    Ok(n)
}

/// Reads, and checks that it is what the peer sent there.
fn read(world: &mut World, n: u32, peek: bool) -> Result<Outcome, String> {
    let Ok(s) = world.socket() else { return Ok(Err(Errno::EBADF)) };
    let mut out = vec![0; n as usize];
    let now = world.now;
    let n = match world.host.engine().recv(now, s, &mut out, peek) {
        Ok(n) => n,
        Err(errno) => return Ok(Err(errno)),
    };
    let first = 1 + world.flow().read;
    if let Some((at, _)) =
        out[..n].iter().zip(0..).find(|(octet, i)| **octet != pattern(first + i)).map(|(o, i)| (i, o))
    {
        return Err(format!("octet {at} of what was read is not what the peer sent"));
    }
    if !peek {
        world.flow_mut().read += n as u32;
    }
    Ok(Ok(n as u32))
}

fn option(name: &str) -> Result<SocketOption, String> {
    Ok(match name {
        "nodelay" => SocketOption::NoDelay,
        "cork" => SocketOption::Cork,
        "keepalive" => SocketOption::KeepAlive,
        "keepidle" => SocketOption::KeepIdle,
        "keepintvl" => SocketOption::KeepInterval,
        "keepcnt" => SocketOption::KeepCount,
        "user_timeout" => SocketOption::UserTimeout,
        "linger2" => SocketOption::FinTimeout,
        "maxseg" => SocketOption::MaxSegment,
        "sndbuf" => SocketOption::SendBuffer,
        "rcvbuf" => SocketOption::ReceiveBuffer,
        "rcvlowat" => SocketOption::ReceiveLowat,
        "quickack" => SocketOption::QuickAck,
        _ => return Err(format!("{name}: no option")),
    })
}
