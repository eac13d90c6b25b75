//! What tools are told of what a connection went through.

use super::harness::*;
use crate::tcp::Info;
use crate::wire::tcp::{Flags, Segment};

const ACK: Flags = Flags::ACK;
const MSS32: u32 = 1460;

/// A window of so many octets.
fn ack_with(window: u16, ack: u32, flags: Flags) -> Segment {
    Segment { window, ..segment(5001, ack, flags) }
}

fn info(host: &Host, ms: u64) -> Info {
    host.tcb.info(at_ms(ms))
}

#[test]
fn what_is_delivered_counts_with_the_syn_and_the_fin() {
    let mut host = established();
    assert_eq!(info(&host, 1000).delivered, 1, "the SYN");
    host.write(at_ms(1001), &[7; 3 * MSS as usize + 1]);
    host.drain(at_ms(1001));
    host.arrive(at_ms(1010), &segment(5001, 1001 + 2 * MSS32, ACK), b"");
    assert_eq!(info(&host, 1010).delivered, 3);
    host.arrive(at_ms(1011), &segment(5001, 1001 + 3 * MSS32 + 1, ACK), b"");
    host.shutdown(at_ms(1012));
    host.drain(at_ms(1012));
    host.arrive(at_ms(1013), &segment(5001, 1001 + 3 * MSS32 + 2, ACK), b"");
    let told = info(&host, 1013);
    assert_eq!((told.delivered, told.delivered_ce), (6, 0));
}

#[test]
fn busy_is_from_the_write_to_the_last_acknowledgement() {
    let mut host = established();
    assert_eq!(info(&host, 3000).spent.busy_ms, 0);
    host.write(at_ms(3000), &[7; 10]);
    host.drain(at_ms(3000));
    assert_eq!(info(&host, 3020).spent.busy_ms, 20, "it runs");
    host.arrive(at_ms(3050), &segment(5001, 1011, ACK), b"");
    assert_eq!(info(&host, 9000).spent.busy_ms, 50);
    host.write(at_ms(9000), &[7; 10]);
    host.drain(at_ms(9000));
    host.arrive(at_ms(9007), &segment(5001, 1021, ACK), b"");
    let told = info(&host, 9999);
    assert_eq!((told.spent.busy_ms, told.spent.window_ms, told.spent.buffer_ms), (57, 0, 0));
}

#[test]
fn the_peers_window_is_told_apart() {
    let mut host = established();
    host.arrive(at_ms(2000), &ack_with(2000, 1001, ACK), b"x");
    host.write(at_ms(3000), &[7; 4000]);
    host.drain(at_ms(3000));
    host.arrive(at_ms(3010), &Segment { window: 0, ..segment(5002, 1001 + MSS32, ACK) }, b"");
    assert_eq!((info(&host, 3060).spent.window_ms, info(&host, 3060).spent.busy_ms), (60, 60));
    host.arrive(at_ms(3110), &Segment { window: 60_000, ..segment(5002, 1001 + MSS32, ACK) }, b"");
    host.drain(at_ms(3110));
    host.arrive(at_ms(3130), &Segment { window: 60_000, ..segment(5002, 5001, ACK) }, b"");
    assert_eq!((info(&host, 5000).spent.window_ms, info(&host, 5000).spent.busy_ms), (110, 130));
}

#[test]
fn so_is_our_own_buffer() {
    let mut host = established();
    host.tcb.options_mut().sndbuf_bytes = 4 * MSS32;
    host.tcb.options_mut().sndbuf_locked = true;
    let written = host.write(at_ms(3000), &[7; 20_000]);
    assert!(written < 20_000);
    host.drain(at_ms(3000));
    host.arrive(at_ms(3040), &segment(5001, 1001 + written as u32, ACK), b"");
    let told = info(&host, 4000);
    assert_eq!((told.spent.buffer_ms, told.spent.window_ms, told.spent.busy_ms), (40, 0, 40));
}

#[test]
fn timeouts_and_their_repairs_are_timed() {
    let mut host = established();
    host.write(at_ms(3000), &[7; 10]);
    host.drain(at_ms(3000));
    for _ in 0..3 {
        let at = host.tcb.deadline().unwrap();
        host.expire(at);
        host.drain(at);
    }
    let first_ms = 3200;
    let told = info(&host, first_ms + 1500);
    assert_eq!((told.timeouts, told.repairs), (3, 1));
    assert!(told.spent.repair_ms.abs_diff(1500) <= 1, "unfinished ones count: {}", told.spent.repair_ms);
    host.arrive(at_ms(first_ms + 1600), &segment(5001, 1011, ACK), b"");
    let told = info(&host, 60_000);
    assert!(told.spent.repair_ms.abs_diff(1600) <= 1, "{}", told.spent.repair_ms);
    assert_eq!((told.timeouts, told.repairs), (3, 1));
}

#[test]
fn a_handshakes_timeouts_count_as_one_repair() {
    let mut host = Host::connecting(at_ms(1000), 1000, None, crate::tunables::Tunables::default());
    host.drain(at_ms(1000));
    for _ in 0..2 {
        let at = host.tcb.deadline().unwrap();
        host.expire(at);
        host.drain(at);
    }
    host.arrive(at_ms(4500), &segment(5000, 1001, Flags::SYN | ACK), b"");
    let told = info(&host, 9000);
    assert_eq!((told.timeouts, told.repairs, told.spent.repair_ms, told.delivered), (2, 1, 2500, 1));
}
