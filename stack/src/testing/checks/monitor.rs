//! The monitor: a view of each connection at each host, asked at every frame; and the trace, for whoever wants to read.

use super::counters::Tally;
use super::sight::{ACK, FIN, RST, SYN, Sight, look};
use super::view::View;
use super::{answers, hosts, sending};
use crate::addr::{Endpoint, Flow, Ip};
use crate::engine::flows::Entry;
use crate::tcp::State;
use crate::testing::Host;
use crate::testing::alloc::collections::{BTreeMap, BTreeSet};
use crate::testing::alloc::format;
use crate::testing::alloc::string::String;
use crate::testing::alloc::vec::Vec;
use crate::testing::network::Watcher;
use crate::time::Instant;

type Key = (Ip, u16, Ip, u16);

fn key(flow: &Flow) -> Key {
    (flow.local.ip, flow.local.port, flow.remote.ip, flow.remote.port)
}

fn flow_of(key: &Key) -> Flow {
    Flow { local: Endpoint::new(key.0, key.1), remote: Endpoint::new(key.2, key.3) }
}

/// What is known about one host.
#[derive(Default)]
struct Site {
    views: BTreeMap<Key, View>,
    /// Flows that were reset before they had a connection here.
    denied: BTreeSet<Key>,
    /// Connections that cookies made.
    by_cookie: u64,
    tally: Tally,
    mtu: u16,
}

/// Looks at all that passes.
pub(crate) struct Monitor {
    sites: Vec<Site>,
    /// The first thing that was wrong.
    pub(crate) violation: Option<String>,
    /// Where lines about frames and calls go.
    pub(crate) trace: Option<fn(&str)>,
}

impl Monitor {
    /// For hosts with these MTUs.
    pub(crate) fn new(mtus: impl Iterator<Item = u16>, trace: Option<fn(&str)>) -> Monitor {
        let sites = mtus.map(|mtu| Site { mtu, ..Site::default() }).collect();
        Monitor { sites, violation: None, trace }
    }

    pub(crate) fn tally(&self, host: usize) -> Tally {
        let site = &self.sites[host];
        let resent = site.views.values().map(|v| v.resent).sum::<u64>();
        Tally { resent: site.tally.resent + resent, ..site.tally }
    }

    /// Whether the host answered a segment of this flow with a RST, having said nothing but a SYN-ACK that it did not
    /// remember. A cookie is known by the first octet behind the SYN alone: whatever overtakes that, or comes when it found
    /// the accept queue full, is nobody's (RFC 4987 §3.6; so on Linux).
    pub(crate) fn was_denied(&self, host: usize, flow: &Flow) -> bool {
        self.sites[host].denied.contains(&key(flow))
    }

    /// The host started again.
    pub(crate) fn forget(&mut self, host: usize) {
        let mtu = self.sites[host].mtu;
        self.sites[host] = Site { mtu, ..Site::default() };
    }

    pub(crate) fn say(&self, now: Instant, line: impl FnOnce() -> String) {
        if let Some(trace) = self.trace {
            trace(&format!("{:>12.6} {}", now.micros() as f64 / 1e6, line()));
        }
    }

    pub(crate) fn note(&mut self, now: Instant, verdict: super::Verdict, what: impl FnOnce() -> String) {
        if let Err(why) = verdict {
            let text = format!("at {:.6} s, {}: {why}", now.micros() as f64 / 1e6, what());
            self.say(now, || format!("VIOLATION {text}"));
            self.violation.get_or_insert(text);
        }
    }
}

/// A segment in one line.
fn describe(sight: &Sight) -> String {
    let names = [(SYN, 'S'), (FIN, 'F'), (RST, 'R'), (8, 'P'), (ACK, '.'), (32, 'U'), (64, 'E'), (128, 'W')];
    let flags: String = names.iter().filter(|(bit, _)| sight.has(*bit)).map(|(_, c)| *c).collect();
    let Sight { flow, seq, ack, window, timestamp, sack, .. } = sight;
    let mut line =
        format!("{} > {} [{flags}] seq {seq}+{} ack {ack} win {window}", flow.local, flow.remote, sight.payload.len());
    if let Some((value, echo)) = timestamp {
        line += &format!(" ts {value}/{echo}");
    }
    for (left, right) in sack {
        line += &format!(" sack {left}..{right}");
    }
    line
}

impl Watcher for Monitor {
    fn sent(&mut self, now: Instant, host: usize, bytes: &[u8]) {
        let site = &mut self.sites[host];
        site.tally.sent += 1;
        let Some(sight) = look(bytes) else {
            return self.note(now, Err("a frame that holds no valid segment".into()), || format!("host {host} sends"));
        };
        site.tally.resets_sent += u64::from(sight.has(RST));
        let view = site.views.entry(key(&sight.flow)).or_default();
        if sight.has(SYN) {
            let resent = view.resent;
            view.open(&sight);
            site.tally.resent += resent - view.resent;
        } else if !sight.has(RST) {
            view.settle(&sight);
        }
        if sight.has(RST) && !sight.has(ACK) && view.is_untold() && view.own_place(sight.seq) == 0 {
            site.denied.insert(key(&sight.flow));
        }
        let verdict = sending::check(view, &sight, site.mtu).and_then(|()| answers::check(view, &sight));
        if !sight.has(RST) {
            view.note_sent(&sight);
        }
        self.say(now, || format!("{host} -> {}", describe(&sight)));
        self.note(now, verdict, || format!("host {host} sends {}", describe(&sight)));
    }

    fn received(&mut self, now: Instant, host: usize, bytes: &[u8]) {
        let site = &mut self.sites[host];
        site.tally.received += 1;
        let Some(sight) = look(bytes) else {
            return self.say(now, || format!("{host} <- {} octets, no valid segment", bytes.len()));
        };
        site.tally.segments_received += 1;
        let ours = Flow { local: sight.flow.remote, remote: sight.flow.local };
        let mut verdict = Ok(());
        if !sight.has(RST) {
            let view = site.views.entry(key(&ours)).or_default();
            view.note_received(&sight);
            verdict = sending::check_arrived(view, &sight);
        }
        self.say(now, || format!("{host} <- {}", describe(&sight)));
        self.note(now, verdict, || format!("host {host} gets {}", describe(&sight)));
    }

    fn lost(&mut self, now: Instant, host: usize, why: &'static str, bytes: &[u8]) {
        self.say(now, || {
            let what = look(bytes).map_or_else(|| format!("{} octets", bytes.len()), |sight| describe(&sight));
            format!("{host} XX {why}: {what}")
        });
    }

    fn worked(&mut self, now: Instant, index: usize, host: &mut Host) {
        let (site, engine) = (&mut self.sites[index], host.engine());
        let by_cookie = engine.counters().syn_cookies_accepted;
        if core::mem::replace(&mut site.by_cookie, by_cookie) != by_cookie {
            // One that ended in this very step was not seen to be over: the one in its place has said nothing yet.
            let is_young = |at: &Key, view: &View| match engine.lookup(&flow_of(at)) {
                Some(Entry::Connection(conn)) => {
                    let info = engine.conns[conn].info(now);
                    // A FIN is an octet of the view's, and none that Linux counts as sent.
                    let has_closed = !matches!(info.state, State::SynReceived | State::Established | State::CloseWait);
                    info.bytes_sent == 0
                        && !has_closed
                        && (view.sent_to > 0 || view.acked > Some(info.bytes_received as i64))
                }
                _ => false,
            };
            let again = |(at, view): &(&Key, &mut View)| view.is_over || is_young(at, view);
            site.views.iter_mut().filter(again).for_each(|(_, view)| view.begin_again());
        }
        for (at, view) in site.views.iter_mut().filter(|_| by_cookie > 0) {
            view.is_over = view.acked.is_some() && engine.lookup(&flow_of(at)).is_none();
        }
        let verdict = hosts::check(host, now);
        self.note(now, verdict, || format!("host {index}"));
    }
}
