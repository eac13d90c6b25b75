//! What a segment may carry: the right octets, within the window, the segment size and the stream, and no octet that was
//! acknowledged.

use super::Verdict;
use super::sight::{FIN, RST, SYN, Sight};
use super::view::View;
use crate::testing::alloc::format;
use crate::testing::content::{SERVER_PORT, Side, first_wrong};

/// What every segment with payload, FIN or SYN has to be.
pub(crate) fn check(view: &View, sight: &Sight, mtu: u16) -> Verdict {
    if sight.ip_len > usize::from(mtu) {
        return Err(format!("a packet of {} octets over an MTU of {mtu}", sight.ip_len));
    }
    if sight.has(RST) {
        return Ok(());
    }
    if !view.is_open() {
        return Err("a segment that is no RST, and there is no connection".into());
    }
    check_fin(view, sight)?;
    check_ecn(view, sight)?;
    if sight.payload.is_empty() {
        return Ok(());
    }
    check_content(view, sight)?;
    check_size(view, sight)?;
    check_window(view, sight)?;
    check_news(view, sight)
}

fn check_content(view: &View, sight: &Sight) -> Verdict {
    content_at(view.own_place(sight.text()), sight)
}

/// The model keeps its word: what it corrupts has a wrong checksum.
pub(crate) fn check_arrived(view: &View, sight: &Sight) -> Verdict {
    let from = view.peer_place(sight.text());
    match view.peer() {
        // What is far away is from an earlier connection of the flow.
        Some(_) if (0..1 << 21).contains(&from) => content_at(from, sight),
        _ => Ok(()),
    }
}

fn content_at(from: i64, sight: &Sight) -> Verdict {
    let (local, remote) = (sight.flow.local.port, sight.flow.remote.port);
    let (client, side) = if local == SERVER_PORT { (remote, Side::Server) } else { (local, Side::Client) };
    if from < 0 {
        return Err(format!("payload at {from}, before the stream begins"));
    }
    match first_wrong(client, side, from as u64, &sight.payload) {
        None => Ok(()),
        Some(at) => Err(format!("octet {at} of the stream is not what was written")),
    }
}

/// RFC 6691: the MSS counts payload and options.
fn check_size(view: &View, sight: &Sight) -> Verdict {
    let Some(peer) = view.peer() else { return Ok(()) };
    let mss = usize::from(peer.mss.unwrap_or(536).max(64));
    let size = sight.payload.len() + sight.options_len;
    if size > mss { Err(format!("{size} octets of payload and options over an MSS of {mss}")) } else { Ok(()) }
}

/// RFC 9293 §3.8.4: within the furthest edge that was ever offered.
fn check_window(view: &View, sight: &Sight) -> Verdict {
    let end = view.own_place(sight.text()) + sight.payload.len() as i64;
    if view.peer().is_some() && end > view.peer_edge {
        return Err(format!("payload up to {end} over the window's edge at {}", view.peer_edge));
    }
    Ok(())
}

/// What the peer acknowledged is not sent again.
fn check_news(view: &View, sight: &Sight) -> Verdict {
    let from = view.own_place(sight.text());
    if from < view.una {
        return Err(format!("octet {from} again, though {} was acknowledged", view.una));
    }
    Ok(())
}

/// Nothing behind the FIN, and the FIN in one place.
fn check_fin(view: &View, sight: &Sight) -> Verdict {
    let end = view.own_place(sight.text()) + sight.payload.len() as i64;
    match view.fin {
        Some(fin) if end > fin && !sight.payload.is_empty() => {
            Err(format!("payload up to {end} behind the FIN at {fin}"))
        }
        Some(fin) if sight.has(FIN) && end != fin => Err(format!("a FIN at {end}, after one at {fin}")),
        None if sight.has(FIN) && end < view.sent_to => {
            Err(format!("a FIN at {end}, though {} octets were sent", view.sent_to))
        }
        _ => Ok(()),
    }
}

/// RFC 3168 §6.1: only new data may be marked on its way.
fn check_ecn(view: &View, sight: &Sight) -> Verdict {
    let is_new = !sight.payload.is_empty() && view.own_place(sight.text()) >= view.sent_to;
    if sight.ecn != 0 && (!is_new || sight.has(SYN)) {
        return Err("ECN-capable transport on what is not new data".into());
    }
    Ok(())
}
