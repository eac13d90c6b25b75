//! What a line says: times, numbers, segments.

use crate::packet::{self, Opt};
use sidestep_stack::time::{MS, SEC};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A segment as a script writes it; what is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pattern {
    pub(crate) flags: u8,
    pub(crate) seq: Option<i64>,
    pub(crate) len: u32,
    pub(crate) ack: Option<i64>,
    pub(crate) win: Option<u16>,
    pub(crate) urg: Option<u16>,
    pub(crate) ecn: Option<u8>,
    pub(crate) options: Vec<Wanted>,
    pub(crate) times: u32,
    /// The payload is not the stream's: SYN probes, forged data.
    pub(crate) is_garbage: bool,
    /// Of the peer's frames: other addresses than its own and ours, options of the IP header, a wrong checksum.
    pub(crate) from: Option<[u8; 4]>,
    pub(crate) to: Option<[u8; 4]>,
    pub(crate) ip_options: Vec<u8>,
    pub(crate) is_damaged: bool,
}

/// An option that a segment has to carry, in full or by name; or must not carry.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    Exactly(Opt),
    /// The value is not the script's business; for timestamps, perhaps only one of both.
    Named(String),
    Timestamp(Option<u32>, Option<u32>),
    Absent(String),
}

/// When something has to happen, after the last thing that did: in microseconds, and how much later it may be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct When {
    pub(crate) after_us: u64,
    pub(crate) slack_us: Option<u64>,
}

/// The stack's timers run by ticks of a millisecond: they may be late by one, and one more for rounding up.
const TICKS_US: u64 = 2_200;

impl When {
    /// Earliest and latest, for something the stack does by itself.
    pub(crate) fn range_us(&self) -> (u64, u64) {
        match self.slack_us {
            Some(slack) => (self.after_us.saturating_sub(slack), self.after_us + slack),
            None if self.after_us == 0 => (0, 0),
            None => (self.after_us, self.after_us + TICKS_US),
        }
    }
}

pub(crate) fn duration_us(text: &str) -> Result<u64, String> {
    let units = [("us", 1), ("ms", MS), ("min", 60 * SEC), ("h", 3600 * SEC), ("s", SEC)];
    let found = units.iter().find_map(|(unit, us)| Some((text.strip_suffix(unit)?, *us)));
    match (text, found) {
        ("0", _) => Ok(0),
        (_, Some((number, us))) => {
            let number: f64 = number.parse().map_err(|_| format!("{text}: not a time"))?;
            Ok((number * us as f64) as u64)
        }
        _ => Err(format!("{text}: a time has a unit (us, ms, s, min, h)")),
    }
}

/// `+20ms` or `+200ms~10ms` in front of a line, and the rest.
pub(crate) fn split_time(text: &str) -> Result<(When, &str), String> {
    let Some(rest) = text.strip_prefix('+') else { return Ok((When::default(), text)) };
    let (time, rest) = rest.split_once(char::is_whitespace).ok_or("nothing behind the time")?;
    let (after, slack) = match time.split_once('~') {
        Some((after, slack)) => (after, Some(duration_us(slack)?)),
        None => (time, None),
    };
    Ok((When { after_us: duration_us(after)?, slack_us: slack }, rest.trim()))
}

/// A number, a name, or a name and a number: `1001`, `rcv`, `rcv+100`, `snd-1`.
pub(crate) fn number(text: &str, names: &BTreeMap<String, i64>) -> Result<i64, String> {
    if let Ok(n) = text.parse() {
        return Ok(n);
    }
    let at = text.find(['+', '-']).unwrap_or(text.len());
    let (name, offset) = text.split_at(at);
    let base = names.get(name).ok_or_else(|| format!("{text}: neither a number nor a name that `let` made"))?;
    let offset = if offset.is_empty() { 0 } else { offset.parse::<i64>().map_err(|_| format!("{text}: no number"))? };
    Ok(base + offset)
}

/// A segment: `FLAGS seq N len N ack N win N urg N ect0|ect1|ce|notect garbage times N <options>`.
pub(crate) fn segment(text: &str, names: &BTreeMap<String, i64>) -> Result<Pattern, String> {
    let (fields, options) = match text.split_once('<') {
        Some((fields, options)) => (fields, options.strip_suffix('>').ok_or("the options do not end with >")?),
        None => (text, ""),
    };
    let mut words = fields.split_whitespace();
    let letters = words.next().ok_or("a segment without flags")?;
    let flags = packet::flags_from(letters).ok_or_else(|| format!("{letters}: flags are FSRPAUEW, or a dot"))?;
    let mut out = Pattern { flags, times: 1, ..Pattern::default() };
    while let Some(word) = words.next() {
        if words.clone().next() == Some("*") {
            words.next();
            continue;
        }
        match word {
            "from" | "to" => {
                let text = words.next().ok_or("which address?")?;
                let address: Ipv4Addr = text.parse().map_err(|_| format!("{text}: no IPv4 address"))?;
                *(if word == "from" { &mut out.from } else { &mut out.to }) = Some(address.octets());
                continue;
            }
            "ip-options" => {
                out.ip_options = octets(words.next().ok_or("which options?")?)?;
                continue;
            }
            _ => {}
        }
        let mut value = || number(words.next().ok_or(format!("{word} of what?"))?, names);
        match word {
            "seq" => out.seq = Some(value()?),
            "len" => out.len = value()? as u32,
            "ack" => out.ack = Some(value()?),
            "win" => out.win = Some(value()? as u16),
            "urg" => out.urg = Some(value()? as u16),
            "times" => out.times = value()? as u32,
            "notect" => out.ecn = Some(0),
            "ect1" => out.ecn = Some(1),
            "ect0" => out.ecn = Some(2),
            "ce" => out.ecn = Some(3),
            "garbage" => out.is_garbage = true,
            "damaged" => out.is_damaged = true,
            _ => return Err(format!("{word}: no field of a segment")),
        }
    }
    for option in options.split(',').map(str::trim).filter(|o| !o.is_empty()) {
        out.options.push(wanted(option, names)?);
    }
    Ok(out)
}

fn wanted(text: &str, names: &BTreeMap<String, i64>) -> Result<Wanted, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |at: usize| number(words.get(at).ok_or(format!("{text}: a value is missing"))?, names);
    let maybe = |at: usize| match words.get(at) {
        Some(&"*") => Ok(None),
        _ => number(at).map(|n| Some(n as u32)),
    };
    Ok(match words[0] {
        "no" => Wanted::Absent(words.get(1).ok_or("no what?")?.to_string()),
        "sackOK" => Wanted::Exactly(Opt::SackPermitted),
        "ts" if words.len() > 1 => match (maybe(1)?, maybe(2)?) {
            (Some(value), Some(echo)) => Wanted::Exactly(Opt::Timestamp(value, echo)),
            (value, echo) => Wanted::Timestamp(value, echo),
        },
        name if words.len() == 1 || words[1] == "*" => Wanted::Named(name.into()),
        "mss" => Wanted::Exactly(Opt::Mss(number(1)? as u16)),
        "wscale" => Wanted::Exactly(Opt::WindowScale(number(1)? as u8)),
        "sack" => {
            let block = |word: &&str| -> Result<(u32, u32), String> {
                let (left, right) = word.split_once(':').ok_or(format!("{word}: a block is left:right"))?;
                let one = |text| crate::line::number(text, names).map(|n| n as u32);
                Ok((one(left)?, one(right)?))
            };
            Wanted::Exactly(Opt::Sack(words[1..].iter().map(block).collect::<Result<_, _>>()?))
        }
        "fo" => Wanted::Exactly(Opt::FastOpen(octets(words[1])?)),
        "raw" => Wanted::Exactly(Opt::Other(octets(words[1])?)),
        name => return Err(format!("{name}: no option")),
    })
}

/// `0a1b`; `-` is none.
fn octets(hex: &str) -> Result<Vec<u8>, String> {
    let hex = if hex == "-" { "" } else { hex };
    let pair = |at: usize| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..hex.len()).step_by(2).map(|at| pair(at).ok_or(format!("{hex}: not octets in hexadecimal"))).collect()
}

/// The name that `no NAME` and `NAME *` know an option by.
pub(crate) fn name_of(option: &Opt) -> &'static str {
    match option {
        Opt::Mss(_) => "mss",
        Opt::WindowScale(_) => "wscale",
        Opt::SackPermitted => "sackOK",
        Opt::Sack(_) => "sack",
        Opt::Timestamp(..) => "ts",
        Opt::FastOpen(_) => "fo",
        Opt::Other(_) => "raw",
    }
}
