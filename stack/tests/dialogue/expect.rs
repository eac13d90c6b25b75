//! What a script may ask about: states, readiness, counters, drops, TCP_INFO. And the tunables it may set.

use crate::line;
use crate::world::World;
use sidestep_stack::drops::Drop;
use sidestep_stack::socket::Errno;
use sidestep_stack::socket::readiness::{ERR, HUP, IN, OUT, PRI, RDHUP};
use sidestep_stack::tunables::Tunables;
use std::collections::BTreeMap;

/// `expect …`; the words behind it.
pub(crate) fn check(world: &mut World, what: &[&str]) -> Result<(), String> {
    match *what {
        ["state", state] => same("state", &state_of(world), state),
        ["drop", name, count] => {
            let count = line::number(count, &world.numbers)?;
            let reason = Drop::ALL.iter().find(|drop| drop.name() == name).ok_or(format!("{name}: no such drop"))?;
            let before = world.drops_before.get(*reason as usize).copied().unwrap_or(0);
            same(name, &(world.host.engine().counters().drops.of(*reason) - before), &count)
        }
        ["counter", name, count] => {
            let count = line::number(count, &world.numbers)?;
            let all = fields(&format!("{:?}", world.host.engine().counters()));
            let now: u64 = all.get(name).and_then(|n| n.parse().ok()).ok_or(format!("{name}: no such counter"))?;
            same(name, &(now - world.counters_before.get(name).copied().unwrap_or(0)), &count)
        }
        ["poll", ref bits @ ..] => {
            let mut wanted = bits.to_vec();
            wanted.retain(|bit| *bit != "nothing");
            let s = world.socket().map_err(|e| format!("{e:?}"))?;
            poll(world.host.engine().readiness(s), &wanted)
        }
        ["poll-listener", ref bits @ ..] => {
            let s = world.listener.ok_or("there is no listener")?;
            let wanted: Vec<&str> = bits.iter().copied().filter(|bit| *bit != "nothing").collect();
            poll(world.host.engine().readiness(s), &wanted)
        }
        ["info", name, ref value @ ..] => info(world, name, value),
        ["connections", n] => same("connections", &world.host.engine().population().connections, n),
        ["time_waits", n] => same("time_waits", &world.host.engine().population().time_waits, n),
        ["idle"] => match world.host.engine().next_deadline() {
            None => Ok(()),
            Some(at) => Err(format!("a timer is armed, for {} ms from now", at.since_us(world.now) as f64 / 1000.0)),
        },
        _ => Err(format!("expect {}: nothing a script can ask", what.join(" "))),
    }
}

fn same(name: &str, is: &impl ToString, wanted: &(impl ToString + ?Sized)) -> Result<(), String> {
    let (is, wanted) = (is.to_string(), wanted.to_string());
    if is == wanted { Ok(()) } else { Err(format!("{name} is {is}, not {wanted}")) }
}

/// Counting starts here: behind the prelude.
pub(crate) fn remember(world: &mut World) {
    let counters = *world.host.engine().counters();
    world.drops_before = Drop::ALL.iter().map(|drop| counters.drops.of(*drop)).collect();
    let all = fields(&format!("{counters:?}"));
    world.counters_before = all.into_iter().filter_map(|(name, n)| Some((name, n.parse().ok()?))).collect();
}

/// The fields of a record, out of its Debug form: so that whatever is added to it can be asked for.
fn fields(debug: &str) -> BTreeMap<String, String> {
    let inside = debug.split_once('{').map_or("", |(_, inside)| inside);
    let pairs = inside.split([',', '{', '}']).filter_map(|field| field.split_once(": "));
    pairs.map(|(name, value)| (name.trim().to_string(), value.trim().to_string())).collect()
}

/// The RFC's name of the state of the flow's socket.
fn state_of(world: &mut World) -> String {
    let now = world.now;
    let info = world.socket().and_then(|s| world.host.engine().info(now, s));
    info.map_or("none".into(), |info| rfc_name(&format!("{:?}", info.state)))
}

/// `FinWait1` is FIN-WAIT-1.
fn rfc_name(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if !out.is_empty() && (letter.is_uppercase() || letter.is_ascii_digit()) {
            out.push('-');
        }
        out.extend(letter.to_uppercase());
    }
    out
}

fn poll(readiness: Result<u32, Errno>, wanted: &[&str]) -> Result<(), String> {
    const NAMES: [(&str, u32); 6] =
        [("in", IN), ("pri", PRI), ("out", OUT), ("err", ERR), ("hup", HUP), ("rdhup", RDHUP)];
    let bits = readiness.map_err(|e| format!("{e:?}"))?;
    if let Some(unknown) = wanted.iter().find(|bit| NAMES.iter().all(|(name, _)| name != *bit)) {
        return Err(format!("{unknown}: no readiness"));
    }
    let is: Vec<&str> = NAMES.iter().filter(|(_, bit)| bits & bit != 0).map(|(name, _)| *name).collect();
    let is_right = NAMES.iter().all(|(name, bit)| wanted.contains(name) == (bits & bit != 0));
    if is_right { Ok(()) } else { Err(format!("ready for: {}; not: {}", is.join(" "), wanted.join(" "))) }
}

/// `expect info NAME [>=|<=|>|<] VALUE`.
fn info(world: &mut World, name: &str, value: &[&str]) -> Result<(), String> {
    let s = world.socket().map_err(|e| format!("{e:?}"))?;
    let info = world.host.engine().info(world.now, s).map_err(|e| format!("{e:?}"))?;
    let all = fields(&format!("{info:?}"));
    let is = all.get(name).ok_or_else(|| format!("{name}: no such field; {}", names(&all)))?;
    let (compare, wanted) = match *value {
        [wanted] => return same(name, is, wanted),
        [compare, wanted] => (compare, wanted),
        _ => return Err("a value, or a comparison and a value".into()),
    };
    let number = |text: &str| text.parse::<i64>().map_err(|_| format!("{text}: no number"));
    let (is, wanted) = (number(is)?, number(wanted)?);
    let is_right = match compare {
        ">=" => is >= wanted,
        "<=" => is <= wanted,
        ">" => is > wanted,
        "<" => is < wanted,
        _ => return Err(format!("{compare}: no comparison")),
    };
    if is_right { Ok(()) } else { Err(format!("{name} is {is}, not {compare} {wanted}")) }
}

fn names(all: &BTreeMap<String, String>) -> String {
    all.keys().map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// `tunable NAME N`: what a sysctl would have set.
pub(crate) fn set_tunable(tunables: &mut Tunables, name: &str, value: &str) -> Result<(), String> {
    let n: u64 = value.parse().map_err(|_| format!("{value}: no number"))?;
    macro_rules! set {
        ($($field:ident)*) => {
            match name {
                $(stringify!($field) => tunables.$field = n.try_into().map_err(|_| format!("{n}: too much"))?,)*
                _ => return Err(format!("{name}: no tunable that scripts know")),
            }
        };
    }
    set!(somaxconn syn_backlog syn_retries synack_retries retries2 rto_min_us rto_max_us
        rto_initial_us delayed_ack_us time_wait_us fin_timeout_us keepalive_time_us keepalive_intvl_us keepalive_probes
        timestamps window_scaling challenge_ack_limit sack dsack slow_start_after_idle ecn syncookies fastopen tw_reuse
        mtu_probing abort_on_overflow congestion ttl reassembly_frames);
    Ok(())
}
