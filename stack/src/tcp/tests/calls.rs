//! What the application asks.

use super::harness::*;
use crate::tcp::{Events, Options, State};
use crate::tunables::Tunables;
use crate::wire::tcp::Flags;

const ACK: Flags = Flags::ACK;

#[test]
fn write_before_and_after_the_connection_stands() {
    let mut host = Host::connecting(at_ms(1), 1, None, Tunables::default());
    assert_eq!(host.write(at_ms(1), b"x"), 0);
    let mut host = established();
    host.shutdown(at_ms(1001));
    assert_eq!(host.write(at_ms(1001), b"x"), 0);
    assert!(!host.tcb.may_send());
}

#[test]
fn the_send_buffer_fills_and_says_when_it_has_room() {
    let mut host =
        established_with(Tunables { timestamps: 0, wmem_bytes: [4096, 30_000, 30_000], ..Tunables::default() });
    assert_eq!(host.with(at_ms(1001), |tcb, cx| tcb.send_room(cx.frames)), 30_000);
    assert_eq!(host.write(at_ms(1001), &[1; 50_000]), 30_000);
    let room = host.with(at_ms(1001), |tcb, cx| (tcb.send_room(cx.frames), tcb.is_writable(cx.frames)));
    assert_eq!(room, (0, false));
    assert_eq!(host.drain(at_ms(1001)).len(), 10);
    assert_eq!((host.tcb.unacked_bytes(), host.tcb.unsent_bytes()), (30_000, 15_400));
    host.arrive(at_ms(1002), &segment(5001, 1001 + 1460, ACK), b"");
    assert!(!host.take_events().has(Events::WRITABLE), "a third has to be free");
    host.arrive(at_ms(1002), &segment(5001, 1001 + 8 * 1460, ACK), b"");
    assert!(host.take_events().has(Events::WRITABLE));
    host.arrive(at_ms(1002), &segment(5001, 1001 + 9 * 1460, ACK), b"");
    assert!(!host.take_events().has(Events::WRITABLE), "only once");
}

#[test]
fn small_writes_do_not_take_all_frames() {
    let mut host =
        established_with(Tunables { timestamps: 0, wmem_bytes: [4096, 65_536, 65_536], ..Tunables::default() });
    host.tcb.set_nodelay(true);
    let mut written = 0;
    for _ in 0..1000 {
        written += host.write(at_ms(1001), b"x");
        host.drain(at_ms(1001));
    }
    assert_eq!(written, 64);
    assert_eq!(host.frames_held(), 64);
}

#[test]
fn out_of_frames_is_out_of_room() {
    let tunables = Tunables { timestamps: 0, ..Tunables::default() };
    let syn = segment(PEER_ISS, 0, Flags::SYN);
    let options = Options::new(&tunables);
    let make = |cx: &mut crate::tcp::Context<'_, '_>| {
        crate::tcp::Tcb::accept_syn(cx, flow(2, 1), &syn, OUR_ISS, 0, MSS, &options)
    };
    let mut host = Host::make_with(6, tunables, make, at_ms(1000));
    host.drain(at_ms(1000));
    host.arrive(at_ms(1000), &segment(5001, 1001, ACK), b"");
    assert_eq!(host.write(at_ms(1001), &[1; 100_000]), 6 * 536);
    assert_eq!(host.drain(at_ms(1001)).len(), 6);
    // Something to acknowledge and no frame for it: tried again later, not forgotten.
    host.with(at_ms(1001), |tcb, _| tcb.owed.add(crate::tcp::tcb::Owed::ACK));
    assert!(host.tcb.wants_transmit());
    assert_eq!(host.drain(at_ms(1001)).len(), 0);
    assert!(host.tcb.deadline().unwrap() <= at_ms(1002));
}

#[test]
fn peek_discard_read() {
    let mut host = established();
    host.arrive(at_ms(1001), &segment(5001, 1001, ACK), &[1; 1000]);
    host.arrive(at_ms(1001), &segment(6001, 1001, ACK), &[2; 1000]);
    assert_eq!(host.tcb.available(), 2000);
    let mut out = [0; 1500];
    assert_eq!(host.with(at_ms(1001), |tcb, cx| tcb.read(cx, &mut out, true)), 1500);
    assert_eq!((out[999], out[1000], host.tcb.available()), (1, 2, 2000));
    for (ahead, n, first) in [(0, 1500, 1), (999, 1001, 1), (1000, 1000, 2), (1999, 1, 2), (2000, 0, 2), (9000, 0, 2)] {
        let found = host.with(at_ms(1001), |tcb, cx| tcb.peek(cx, ahead, &mut out));
        assert_eq!((found, n == 0 || out[0] == first), (n, true), "{ahead}");
    }
    assert_eq!(host.with(at_ms(1001), |tcb, cx| tcb.discard(cx, 500)), 500);
    let rest = host.read(at_ms(1001), 9999);
    assert_eq!((rest.len(), rest[499], rest[500]), (1500, 1, 2));
    assert_eq!(host.frames_held(), 0);
}

#[test]
fn outq_counts_the_fin() {
    let mut host = established();
    host.shutdown(at_ms(1001));
    assert_eq!(host.tcb.unacked_bytes(), 1);
    host.drain(at_ms(1001));
    host.arrive(at_ms(1002), &segment(5001, 1002, ACK), b"");
    assert_eq!((host.tcb.unacked_bytes(), host.state()), (0, State::FinWait2));
}

#[test]
fn release_all_gives_every_frame_back() {
    let mut host = established();
    host.write(at_ms(1001), &[1; 30_000]);
    host.drain(at_ms(1001));
    host.arrive(at_ms(1001), &segment(5001, 1001, ACK), &[1; 1000]);
    host.arrive(at_ms(1001), &segment(9001, 1001, ACK), &[1; 1000]);
    assert!(host.frames_held() > 20);
    host.with(at_ms(1002), |tcb, cx| tcb.release_all(cx));
    assert_eq!(host.frames_held(), 0);
}

#[test]
fn info_tells() {
    let mut host = established();
    host.write(at_ms(1001), &[1; 3000]);
    host.drain(at_ms(1001));
    host.arrive(at_ms(1011), &segment(5001, 1001 + 1460, ACK), b"hello");
    let info = host.tcb.info(at_ms(1021));
    assert_eq!((info.unacked, info.notsent, info.bytes_acked, info.bytes_received), (1540, 0, 1460, 5));
    assert_eq!((info.last_data_sent_ms, info.last_data_recv_ms, info.state.linux()), (20, 10, 1));
}

#[test]
fn what_tools_see_of_a_connection() {
    let mut pair = Pair::connected(4, Tunables::default());
    let now = pair.now;
    pair.hosts[0].write(now, &[1; 5000]);
    pair.settle(50);
    let now = pair.now;
    let [a, b] = [0, 1].map(|i| pair.hosts[i].tcb.info(now));
    // As on Linux the SYN of who connected is an octet that was acknowledged, and no octet that was sent.
    assert_eq!((a.bytes_sent, a.bytes_acked, b.bytes_received, a.bytes_retrans), (5000, 5001, 5000, 0));
    assert_eq!((b.bytes_sent, b.bytes_acked, a.bytes_received), (0, 0, 0));
    assert_eq!((a.data_segs_out, b.data_segs_in, b.data_segs_out, a.data_segs_in), (4, 4, 0, 0));
    // SYN, ACK, data; and on the other side one less than was sent, for SYN-ACK and acknowledgements count.
    assert_eq!((a.segs_out, b.segs_in), (6, 6));
    assert_eq!(a.segs_in, b.segs_out);
    assert_eq!((a.sack, a.timestamps, a.ca_state, a.advmss, a.pmtu), (true, true, 0, 1448, 1500));
    assert_eq!((a.ato_us, b.ato_us, b.last_data_recv_ms), (0, 40_000, 50));
    assert!(a.pacing_rate > 14_480_000 && a.pacing_rate < u64::MAX, "{}", a.pacing_rate);
    assert_eq!((a.segments(a.snd_cwnd), a.segments(1), a.segments(0)), (a.snd_cwnd.div_ceil(1448), 1, 0));
}
