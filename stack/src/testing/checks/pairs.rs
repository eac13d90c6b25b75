//! The states that the two ends of one connection can be in at the same time.

use super::Verdict;
use crate::addr::Flow;
use crate::tcp::{Seq, State};
use crate::testing::Host;
use crate::testing::alloc::format;
use crate::testing::alloc::vec::Vec;

/// For each state, those that the other end may be in. CLOSED is possible beside all: an end may be lost at any time.
/// An end reached the other's FIN only if that was queued; its own FIN was acknowledged only if the other reached it.
const LEGAL: &[(State, &[State])] = {
    use State::*;
    &[
        (SynSent, &[SynSent, SynReceived]),
        (SynReceived, &[SynSent, SynReceived, Established, FinWait1]),
        (Established, &[SynReceived, Established, FinWait1]),
        (FinWait1, &[SynReceived, Established, FinWait1, Closing, CloseWait, LastAck]),
        (FinWait2, &[Closing, CloseWait, LastAck]),
        (CloseWait, &[FinWait1, FinWait2]),
        (Closing, &[FinWait1, FinWait2, Closing, TimeWait]),
        (LastAck, &[FinWait1, FinWait2, TimeWait]),
        (TimeWait, &[Closing, LastAck, TimeWait]),
    ]
};

fn is_legal(a: State, b: State) -> bool {
    let of = |s: State| LEGAL.iter().find(|(from, _)| *from == s).map(|(_, to)| *to);
    a == State::Closed || b == State::Closed || of(a).is_some_and(|to| to.contains(&b))
}

/// One end, and the numbers that say which connection it is.
struct End {
    flow: Flow,
    state: State,
    /// Its FIN is queued.
    has_closed: bool,
    iss: Seq,
    irs: Seq,
}

fn ends(host: &mut Host) -> Vec<End> {
    let engine = host.engine();
    let live = (0..engine.conns.used()).filter(|i| engine.is_flow_of(engine.conns[*i].flow(), *i));
    let live = live.map(|i| &engine.conns[i]).filter(|tcb| tcb.state() != State::Closed);
    live.map(|tcb| {
        let (iss, irs) = tcb.initial_numbers();
        End { flow: *tcb.flow(), state: tcb.state(), has_closed: tcb.is_send_shutdown(), iss, irs }
    })
    .collect()
}

impl End {
    /// A server that took data from a SYN (RFC 7413) says SYN-RECEIVED until its SYN-ACK is acknowledged, and may have sent
    /// its FIN by then: to the peer it is as if it were in FIN-WAIT-1.
    fn seen_as(&self) -> State {
        if self.state == State::SynReceived && self.has_closed { State::FinWait1 } else { self.state }
    }
}

pub(crate) fn check(hosts: &mut [Host]) -> Verdict {
    let all: Vec<Vec<End>> = hosts.iter_mut().map(ends).collect();
    for (i, a) in all.iter().enumerate().flat_map(|(i, ends)| ends.iter().map(move |e| (i, e))) {
        for b in all.iter().skip(i + 1).flatten() {
            let is_same = a.flow.local == b.flow.remote && a.flow.remote == b.flow.local;
            let knows = |x: &End, y: &End| x.state == State::SynSent || x.irs == y.iss;
            let fit = is_legal(a.state, b.state) || is_legal(a.seen_as(), b.seen_as());
            if is_same && knows(a, b) && knows(b, a) && !fit {
                let flow = &a.flow;
                return Err(format!("{} is {:?} while {} is {:?}", flow.local, a.state, flow.remote, b.state));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_symmetric() {
        for (a, to) in LEGAL {
            for b in *to {
                assert!(is_legal(*b, *a), "{a:?} beside {b:?}");
            }
        }
    }
}
