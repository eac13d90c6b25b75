use super::*;

struct Links4(Vec<Links>);

impl Nodes for Links4 {
    fn links(&mut self, index: u32) -> &mut Links {
        &mut self.0[index as usize]
    }
}

fn wheel(n: usize) -> (TimerWheel, Links4) {
    (TimerWheel::default(), Links4(vec![Links::default(); n]))
}

/// Serves the wheel as the engine does: what is not due is put back. Returns what was due.
fn serve(w: &mut TimerWheel, nodes: &mut Links4, deadlines: &[u64], now: u64) -> Vec<u32> {
    let mut due = vec![];
    while let Some(i) = w.pop_due(nodes, Instant::from_micros(now)) {
        if deadlines[i as usize] <= now {
            due.push(i);
        } else {
            w.arm(nodes, i, Instant::from_micros(deadlines[i as usize]));
        }
    }
    due
}

#[test]
fn everything_comes_due_in_time_and_not_before() {
    let mut x = 7u64;
    let mut random = move |n: u64| {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (x >> 33) % n
    };
    let (mut w, mut nodes) = wheel(500);
    let deadlines: Vec<u64> = (0..500u64).map(|i| 1 + random(1 << (i % 40))).collect();
    for (i, d) in deadlines.iter().enumerate() {
        w.arm(&mut nodes, i as u32, Instant::from_micros(*d));
    }
    let (mut fired, mut serves) = (0, 0);
    while let Some(next) = w.next_deadline() {
        let now = next.micros();
        serves += 1;
        for i in serve(&mut w, &mut nodes, &deadlines, now) {
            fired += 1;
            assert!(now < deadlines[i as usize] + 2 * 1024 + 1, "late: {now} for {}", deadlines[i as usize]);
        }
        assert!(w.next_deadline().is_none_or(|n| n.micros() > now), "the wheel stands still");
    }
    assert_eq!(fired, 500);
    assert!(serves < 1500, "{serves} wake-ups for 500 deadlines");
}

#[test]
fn a_later_deadline_costs_nothing_and_an_earlier_one_moves() {
    let (mut w, mut nodes) = wheel(2);
    w.arm(&mut nodes, 0, Instant::from_micros(10_000));
    let place = nodes.0[0].wheel_slot;
    w.arm(&mut nodes, 0, Instant::from_micros(50_000));
    assert_eq!((nodes.0[0].wheel_slot, w.len()), (place, 1));
    w.arm(&mut nodes, 0, Instant::from_micros(2_000));
    assert_ne!(nodes.0[0].wheel_slot, place);
    assert_eq!(serve(&mut w, &mut nodes, &[2_000, 0], 2_047), []);
    assert_eq!(serve(&mut w, &mut nodes, &[2_000, 0], 2_048), [0]);
    assert!(w.is_empty());
}

#[test]
fn entries_leave_from_anywhere_in_a_slot() {
    for gone in 0..3u32 {
        let (mut w, mut nodes) = wheel(3);
        for i in 0..3 {
            w.arm(&mut nodes, i, Instant::from_micros(900_000));
        }
        w.disarm(&mut nodes, gone);
        w.disarm(&mut nodes, gone);
        let mut left = vec![];
        while let Some(at) = w.next_deadline() {
            left.extend(serve(&mut w, &mut nodes, &[900_000; 3], at.micros()));
        }
        left.sort_unstable();
        assert_eq!(left, (0..3).filter(|i| *i != gone).collect::<Vec<_>>());
    }
}

#[test]
fn many_entries_of_one_coarse_slot_and_a_long_sleep() {
    let (mut w, mut nodes) = wheel(300);
    let deadlines: Vec<u64> = (0..300).map(|i| 70_000_000 + i * 10).collect();
    for i in 0..300 {
        w.arm(&mut nodes, i, Instant::from_micros(deadlines[i as usize]));
    }
    assert_eq!(serve(&mut w, &mut nodes, &deadlines, 1 << 40).len(), 300, "nobody served the wheel for 12 days");
    assert!(w.is_empty() && w.next_deadline().is_none());
}
