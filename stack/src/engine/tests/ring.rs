use super::*;
use crate::testing::icmp::too_big;
use crate::time::MS;

/// A segment has to go again while its frame still lies in the transmit ring. It waits, but no longer than a moment:
/// the deadline that says so is earlier than the one the wheel knows.
#[test]
fn a_retransmission_that_waits_for_the_ring_is_not_forgotten() {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    net.run_for(SEC);
    let (now, data) = (net.now(), [7; 1448]);
    assert_eq!(send(&mut net, CLIENT, client, &data), Ok(data.len()));
    let mut engine = net.hosts[CLIENT].engine();
    let tx = engine.poll_transmit(now).unwrap();
    let at = usize::from(tx.off);
    let frame = engine.frames().bytes(tx.frame)[at..at + usize::from(tx.len)].to_vec();
    net.hosts[CLIENT].receive(now, &too_big(&frame, 1400).unwrap());
    let mut engine = net.hosts[CLIENT].engine();
    assert_eq!(engine.poll_transmit(now), None, "the kernel still reads the frame");
    let again_at = engine.next_deadline().unwrap();
    assert!(again_at.since_us(now) < 20 * MS, "in {} us", again_at.since_us(now));
    net.hosts[CLIENT].complete(tx.frame);
    net.run_for(30 * MS);
    assert_eq!(recv(&mut net, SERVER, server), Ok(data.to_vec()));
    finish(net);
}
