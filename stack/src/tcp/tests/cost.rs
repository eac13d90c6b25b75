//! What a segment costs, in instructions: run under callgrind, and divide by [`ROUNDS`].
//!
//! `cargo test --release -p sidestep-stack --no-run`, then
//! `valgrind --tool=callgrind BINARY cost --ignored` and `callgrind_annotate --inclusive=yes`; look for `cost::`.

use super::harness::*;
use crate::tcp::{Context, Outgoing, Seq, Tcb};
use crate::time::Instant;
use crate::tunables::Tunables;
use crate::wire::tcp::{Flags, Segment};

const ROUNDS: u32 = 10_000;

#[inline(never)]
fn arrive(tcb: &mut Tcb, cx: &mut Context<'_, '_>, seg: &Segment, frame: u32) {
    tcb.arrive(cx, seg, frame);
}

#[inline(never)]
fn read(tcb: &mut Tcb, cx: &mut Context<'_, '_>, out: &mut [u8]) -> usize {
    tcb.read(cx, out, false)
}

#[inline(never)]
fn write(tcb: &mut Tcb, cx: &mut Context<'_, '_>, data: &[u8]) -> usize {
    tcb.write(cx, data)
}

#[inline(never)]
fn wants_and_poll(tcb: &mut Tcb, cx: &mut Context<'_, '_>) -> Option<Outgoing> {
    if tcb.wants_transmit() { tcb.poll_transmit(cx) } else { None }
}

#[inline(never)]
fn deadline(tcb: &Tcb) -> Option<Instant> {
    tcb.deadline()
}

#[test]
#[ignore = "for callgrind"]
fn request_and_response() {
    let mut pair = Pair::connected(1, Tunables::default());
    pair.settle(10);
    let start = pair.now;
    let (mut seq, mut out) = (pair.hosts[1].tcb.rcv.nxt, [0; 4096]);
    for round in 0..ROUNDS {
        let now = start.after_us(u64::from(round) * 50);
        pair.hosts[1].with(now, |tcb, cx| {
            let frame = cx.frames.alloc().unwrap();
            let mut seg =
                Segment { payload_off: 66, payload_len: 64, ..segment(seq.0, tcb.snd.nxt.0, Flags::ACK | Flags::PSH) };
            seg.options.timestamp = tcb.ts.option(now).map(|(now, recent)| (recent, now));
            arrive(tcb, cx, &seg, frame);
            assert_eq!(read(tcb, cx, &mut out), 64);
            write(tcb, cx, &out[..256]);
            assert!(wants_and_poll(tcb, cx).is_some_and(|sent| sent.len == 32 + 256));
            assert!(wants_and_poll(tcb, cx).is_none());
            deadline(tcb).unwrap();
        });
        seq += 64;
    }
    assert_eq!(pair.hosts[1].counters.fast_path, u64::from(ROUNDS));
}

#[test]
#[ignore = "for callgrind"]
fn bulk_receive() {
    let mut pair = Pair::connected(1, Tunables::default());
    pair.settle(10);
    let now = pair.now;
    let (mut seq, mut out): (Seq, _) = (pair.hosts[1].tcb.rcv.nxt, [0; 4096]);
    for _ in 0..ROUNDS {
        pair.hosts[1].with(now, |tcb, cx| {
            let frame = cx.frames.alloc().unwrap();
            let mut seg = Segment { payload_off: 66, payload_len: 1448, ..segment(seq.0, tcb.snd.nxt.0, Flags::ACK) };
            seg.options.timestamp = tcb.ts.option(now).map(|(now, recent)| (recent, now));
            arrive(tcb, cx, &seg, frame);
            read(tcb, cx, &mut out);
            if let Some(ack) = wants_and_poll(tcb, cx) {
                cx.frames.release(ack.frame);
            }
        });
        seq += 1448;
    }
}
