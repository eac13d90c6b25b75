//! Segments in fragments: put together, given up, bounded.

use super::*;
use crate::drops::Drop;
use crate::wire::checksum::Sum;

const NETWORK: usize = 14;
const HEADER: usize = 34;

/// The client's next frame, which the wire does not get.
fn next_frame(net: &mut Net) -> Vec<u8> {
    let now = net.now();
    let host = &mut net.hosts[CLIENT];
    let mut engine = host.engine();
    let out = engine.poll_transmit(now).expect("a frame to send");
    let (from, to) = (usize::from(out.off), usize::from(out.off) + usize::from(out.len));
    let bytes = engine.frames().bytes(out.frame)[from..to].to_vec();
    host.complete(out.frame);
    bytes
}

/// A part of a frame's IP payload, as a router would send it.
fn part(frame: &[u8], id: u16, from: usize, to: usize) -> Vec<u8> {
    let more = HEADER + to < frame.len();
    let mut f = [&frame[..HEADER], &frame[HEADER + from..HEADER + to]].concat();
    f[16..18].copy_from_slice(&((20 + to - from) as u16).to_be_bytes());
    f[18..20].copy_from_slice(&id.to_be_bytes());
    f[20..22].copy_from_slice(&((from / 8) as u16 | if more { 0x2000 } else { 0 }).to_be_bytes());
    f[24..26].copy_from_slice(&[0, 0]);
    let checksum = Sum::ZERO.add_bytes(&f[NETWORK..HEADER]).checksum();
    f[24..26].copy_from_slice(&checksum.to_be_bytes());
    f
}

fn arrive(net: &mut Net, frame: &[u8]) {
    let now = net.now();
    assert!(net.hosts[SERVER].receive(now, frame));
}

fn drops(net: &mut Net, reason: Drop) -> u64 {
    net.hosts[SERVER].engine().counters().drops.of(reason)
}

fn held(net: &mut Net) -> u32 {
    net.hosts[SERVER].frames_held()
}

/// An established connection, and a frame of its client's with these bytes.
fn with_frame(data: &[u8]) -> (Net, SocketId, Vec<u8>) {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    net.run_for(SEC);
    send(&mut net, CLIENT, client, data).unwrap();
    let frame = next_frame(&mut net);
    assert_eq!(frame.len(), HEADER + 32 + data.len());
    (net, server, frame)
}

#[test]
fn a_segment_in_fragments_arrives_whatever_their_order() {
    let data: Vec<u8> = (0..1400u32).map(|i| (i % 251) as u8).collect();
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [0, 2, 1]] {
        let (mut net, server, frame) = with_frame(&data);
        let end = frame.len() - HEADER;
        let parts = [part(&frame, 7, 0, 576), part(&frame, 7, 576, 1152), part(&frame, 7, 1152, end)];
        for at in order {
            assert_eq!(recv(&mut net, SERVER, server), Err(Errno::EAGAIN));
            arrive(&mut net, &parts[at]);
        }
        assert_eq!(recv(&mut net, SERVER, server).as_deref(), Ok(&data[..]), "{order:?}");
        let c = *net.hosts[SERVER].engine().counters();
        assert_eq!((c.reassembled, c.tx_rsts), (1, 0));
        assert_eq!(held(&mut net), 0, "two of the frames went back at once, the third with its bytes");
        finish(net);
    }
}

#[test]
fn a_duplicate_is_nothing_and_an_overlap_the_end_of_all() {
    let data = [5; 800];
    let (mut net, server, frame) = with_frame(&data);
    let end = frame.len() - HEADER;
    arrive(&mut net, &part(&frame, 1, 0, 400));
    arrive(&mut net, &part(&frame, 1, 0, 400));
    assert_eq!((drops(&mut net, Drop::Duplicate), held(&mut net)), (1, 1));
    // The last says where the whole ends; the one that overlaps, or goes on behind that, is no part of it.
    for wrong in [part(&frame, 1, 392, end), part(&frame, 1, 200, 600)] {
        arrive(&mut net, &part(&frame, 1, 0, 400));
        arrive(&mut net, &wrong);
        assert_eq!(held(&mut net), 0);
    }
    assert_eq!(drops(&mut net, Drop::FragmentsOverlap), 4, "each time the packet, and the fragment that ended it");
    arrive(&mut net, &part(&frame[..HEADER + 600], 2, 400, 600));
    arrive(&mut net, &part(&frame[..HEADER + 400], 2, 200, 400));
    assert_eq!((held(&mut net), drops(&mut net, Drop::FragmentsOverlap)), (0, 6), "two ends");
    assert_eq!(recv(&mut net, SERVER, server), Err(Errno::EAGAIN));
    // The sender sends it again.
    net.run_for(5 * SEC);
    assert_eq!(recv(&mut net, SERVER, server).as_deref(), Ok(&data[..]));
    finish(net);
}

#[test]
fn what_stays_incomplete_is_bounded_and_given_up() {
    let (mut net, server, frame) = with_frame(&[5; 800]);
    for id in 0..40 {
        arrive(&mut net, &part(&frame, id, 0, 400));
    }
    assert_eq!((held(&mut net), drops(&mut net, Drop::FragmentsIncomplete)), (16, 24), "the oldest make room");
    for n in 0..8 {
        arrive(&mut net, &part(&frame, 39, 400 + 8 * n, 408 + 8 * n));
    }
    assert_eq!((held(&mut net), drops(&mut net, Drop::FragmentsOverlap)), (15, 2), "too many parts");
    net.run_for(29 * SEC);
    assert_eq!(recv(&mut net, SERVER, server).map(|d| d.len()), Ok(800), "sent again");
    assert_eq!(held(&mut net), 15);
    net.run_for(2 * SEC);
    assert_eq!((held(&mut net), drops(&mut net, Drop::FragmentsIncomplete)), (0, 39), "nobody had to ask");
    finish(net);
}

#[test]
fn what_is_not_for_a_frame_or_not_tcp_is_dropped() {
    let (mut net, _, frame) = with_frame(&[5; 800]);
    let long = [&frame[..], &[0; 3000]].concat();
    let end = long.len() - HEADER;
    for (from, to) in [(0, 1400), (1400, 2800), (2800, end)] {
        arrive(&mut net, &part(&long, 3, from, to));
    }
    assert_eq!((held(&mut net), drops(&mut net, Drop::FragmentsTooLong)), (0, 1));
    let mut udp = frame.clone();
    udp[23] = 17;
    arrive(&mut net, &part(&udp, 4, 0, 400));
    // Not cut at a multiple of eight, and one with nothing in it.
    arrive(&mut net, &part(&frame, 5, 0, 401));
    arrive(&mut net, &part(&frame, 5, 8, 8));
    assert_eq!((drops(&mut net, Drop::IpFragment), drops(&mut net, Drop::IpMalformed)), (1, 2));
    assert_eq!(held(&mut net), 0);
    // A damaged whole is found by its checksum.
    let mut damaged = frame.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let end = frame.len() - HEADER;
    arrive(&mut net, &part(&damaged, 6, 0, 400));
    arrive(&mut net, &part(&damaged, 6, 400, end));
    assert_eq!((drops(&mut net, Drop::TcpChecksum), held(&mut net)), (1, 0));
    finish(net);
}
