//! What a segment tells its receiver: acknowledgements, windows, timestamps and selective acknowledgements, all true.

use super::Verdict;
use super::sight::{ACK, RST, SYN, Sight};
use super::view::{View, older_by};
use crate::testing::alloc::format;

pub(crate) fn check(view: &View, sight: &Sight) -> Verdict {
    if sight.has(RST) || !view.is_open() {
        return Ok(());
    }
    check_timestamp(view, sight)?;
    if sight.has(ACK) && view.peer().is_some() {
        check_ack(view, sight)?;
        check_edge(view, sight)?;
    }
    check_sack(view, sight)
}

/// It acknowledges what came, all of it up to there, and never less than before.
fn check_ack(view: &View, sight: &Sight) -> Verdict {
    let ack = view.peer_place(sight.ack);
    let whole = view.got.whole() as i64;
    if ack > whole {
        return Err(format!("acknowledges up to {ack}, but only {whole} came"));
    }
    match view.acked {
        Some(before) if ack < before => Err(format!("acknowledges up to {ack}, after {before}")),
        _ => Ok(()),
    }
}

/// RFC 9293 §3.8.6: the right edge does not move left. What it can say is whole units of the scale, though: it may say less
/// than it offered once, by less than one unit (RFC 7323 §2.4), but never further, however often it rounds.
fn check_edge(view: &View, sight: &Sight) -> Verdict {
    if sight.has(SYN) {
        return Ok(()); // Its field is not scaled: one that comes again cannot say more than 65535.
    }
    let unit = 1i64 << view.shifts().0;
    let edge = view.peer_place(sight.ack) + i64::from(sight.window) * unit;
    match view.edge {
        Some(furthest) if edge + unit <= furthest => {
            Err(format!("the window's edge moves from {furthest} back to {edge}"))
        }
        _ => Ok(()),
    }
}

/// RFC 7323 §3.2, §4: on every segment once agreed; never older, whatever callers' clocks say; and the echo is of one that came.
fn check_timestamp(view: &View, sight: &Sight) -> Verdict {
    let Some((value, echo)) = sight.timestamp else {
        let is_missing = view.has_timestamps() && !sight.has(SYN);
        return if is_missing { Err("no timestamp, though both ends agreed".into()) } else { Ok(()) };
    };
    if let Some(last) = view.tsval
        && older_by(value, last) > 0
    {
        return Err(format!("timestamp {value} after {last}"));
    }
    match view.peer_tsval {
        Some(newest) if sight.has(ACK) && older_by(newest, echo) > 0 => {
            Err(format!("echoes timestamp {echo}, but the newest that came is {newest}"))
        }
        _ => Ok(()),
    }
}

/// RFC 2018 §4, RFC 2883: octets that came, beyond the acknowledgement; only the first block may tell of duplicates.
fn check_sack(view: &View, sight: &Sight) -> Verdict {
    if sight.sack.is_empty() {
        return Ok(());
    }
    if !view.has_sack() {
        return Err("selective acknowledgement, which was not agreed on".into());
    }
    let ack = view.peer_place(sight.ack);
    let blocks = || sight.sack.iter().map(|(l, r)| (view.peer_place(*l), view.peer_place(*r)));
    for (i, (left, right)) in blocks().enumerate() {
        if left < 0 || left >= right {
            return Err(format!("block {i} is {left}..{right}"));
        }
        if !view.got.has(left as u64, right as u64) {
            return Err(format!("block {i}, {left}..{right}, of octets that never came"));
        }
        if i > 0 && left <= ack {
            return Err(format!("block {i}, {left}..{right}, is not beyond the acknowledgement {ack}"));
        }
        let overlaps = |(l, r): (i64, i64)| left < r && l < right;
        let others = blocks().skip(i + 1).filter(|b| overlaps(*b)).count();
        // A duplicate's block may lie in the one behind it (RFC 2883 §4.1.2).
        let is_duplicate = i == 0 && blocks().nth(1).is_some_and(|(l, r)| l <= left && right <= r);
        if others > usize::from(is_duplicate) {
            return Err(format!("block {i}, {left}..{right}, overlaps another"));
        }
    }
    Ok(())
}
