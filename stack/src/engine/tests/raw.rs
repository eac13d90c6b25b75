//! Segments made by hand, and what a host answers to them.

use super::*;
use crate::addr::Ip;
use crate::link::Tags;
use crate::wire::checksum::Sum;
use crate::wire::tcp::{self, Header, Segment};
use crate::wire::{ethernet, ipv4};
use std::cell::RefCell;

/// A segment that a host sent: whereto, its header, its payload.
pub(super) type Answer = (Endpoint, Segment, Vec<u8>);

/// A frame for host `to` with this TCP segment from `from`.
pub(super) fn frame(net: &Net, to: usize, from: Endpoint, header: &Header, payload: &[u8]) -> Vec<u8> {
    let config = &net.hosts[to].config;
    let (src, dst) = (from.ip, config.ip());
    let tcp_len = header.len() + payload.len();
    let mut f = vec![0; 34 + tcp_len];
    let (src_mac, tags) = (net.hosts[1 - to].config.mac, Tags::NONE);
    let link = ethernet::Header { dst: config.mac, src: src_mac, tags, ethertype: ethernet::IPV4 };
    ethernet::emit(&link, &mut f);
    ipv4::emit(&src, &dst, 6, ipv4::Service { tos: 0, ttl: 64 }, tcp_len as u16, &mut f[14..]);
    let header = Header { local_port: from.port, ..*header };
    tcp::emit(&header, &mut f[34..]);
    f[34 + header.len()..].copy_from_slice(payload);
    let sum = Sum::pseudo_header(&src, &dst, 6, tcp_len as u16).add_bytes(&f[34..]).checksum();
    f[50..52].copy_from_slice(&sum.to_be_bytes());
    f
}

/// The frame arrives, and the host sends at once what it has to: the segments, with their payload.
pub(super) fn exchange(net: &mut Net, to: usize, frame: &[u8]) -> Vec<Answer> {
    let now = net.now();
    assert!(net.hosts[to].receive(now, frame), "no frame to receive into");
    sent(net, to)
}

/// All that a host wants to send now; none of it gets to the wire.
pub(super) fn sent(net: &mut Net, host: usize) -> Vec<Answer> {
    let now = net.now();
    let mut all = vec![];
    loop {
        let mut engine = net.hosts[host].engine();
        let Some(tx) = engine.poll_transmit(now) else { return all };
        let bytes = engine.frames().bytes(tx.frame)[usize::from(tx.off)..][..usize::from(tx.len)].to_vec();
        let destination = Ip::v4([bytes[30], bytes[31], bytes[32], bytes[33]]);
        let seg = tcp::parse(&bytes[34..], 0).unwrap();
        let remote = Endpoint::new(destination, tcp::ports(&bytes[34..]).unwrap().destination);
        all.push((remote, seg, bytes[34 + usize::from(seg.payload_off)..].to_vec()));
        net.hosts[host].complete(tx.frame);
    }
}

thread_local! {
    static SEEN: RefCell<Vec<(usize, Segment)>> = const { RefCell::new(Vec::new()) };
}

/// From now on the TCP segments on the wire are remembered, with the host that they go to.
pub(super) fn watch(net: &mut Net) {
    SEEN.with(|s| s.borrow_mut().clear());
    net.tap = Some(|_, to, bytes| {
        let seg = tcp::parse(&bytes[34..], 0).unwrap();
        SEEN.with(|s| s.borrow_mut().push((to, seg)));
    });
}

/// What went to a host since [`watch`], or since this was last asked.
pub(super) fn seen(to: usize) -> Vec<Segment> {
    SEEN.with(|s| {
        let mut all = s.borrow_mut();
        let found = all.iter().filter(|(t, _)| *t == to).map(|(_, seg)| *seg).collect();
        all.retain(|(t, _)| *t != to);
        found
    })
}

/// What went before does not matter.
pub(super) fn forget_seen() {
    SEEN.with(|s| s.borrow_mut().clear());
}
