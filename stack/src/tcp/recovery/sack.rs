//! What the peer reports of octets beyond its acknowledgement (RFC 2018), and of octets that came twice (RFC 2883).

use super::super::{Context, Seq, Tcb};
use super::Tally;
use super::scoreboard::{Block, KNOWN_BLOCKS};
use crate::wire::tcp::Segment;

impl Tcb {
    /// Goes through the blocks of a segment. Those that make no sense are counted and say nothing.
    pub(in crate::tcp) fn take_blocks(&mut self, cx: &mut Context<'_, '_>, seg: &Segment, tally: &mut Tally) {
        let mut blocks = seg.options.sack.as_slice();
        cx.counters.sack_blocks += blocks.len() as u64;
        if let Some(&(left, right)) = blocks.first().filter(|_| is_duplicate_report(blocks, seg.ack)) {
            self.take_duplicate_report(cx, left, right, tally);
            blocks = &blocks[1..];
        }
        let mut covered = [Block::NONE; KNOWN_BLOCKS];
        for (n, &(left, right)) in blocks.iter().enumerate() {
            let (una, flight) = (self.snd.una, self.snd.flight());
            let is_sane = left.since(una) < flight && right.since(una) <= flight && left.is_before(right);
            if is_sane {
                let block = self.snd.cover(cx.frames, (left, right), cx.now, &mut self.congestion.rate, tally);
                covered.get_mut(n).into_iter().for_each(|known| *known = block);
            } else if right.is_after(una) || !seg.ack.is_before(una) {
                cx.counters.sack_garbage += 1;
            }
            // Else the acknowledgement is an old one, and so is its block.
        }
        self.snd.remember_blocks(covered);
    }

    /// RFC 2883 §4: octets that came more than once. Without a retransmission of ours the network made them.
    fn take_duplicate_report(&mut self, cx: &mut Context<'_, '_>, left: Seq, right: Seq, tally: &mut Tally) {
        let len = right.since(left);
        let oldest = self.snd.una - self.snd.max_wnd.max(1 << 16);
        if !left.is_before(right) || right.is_after(self.snd.nxt) || left.is_before(oldest) {
            cx.counters.sack_garbage += 1;
            return;
        }
        cx.counters.dsacks += 1;
        self.recovery.dsacks = self.recovery.dsacks.saturating_add(1);
        if self.recovery.dsacks > self.snd.retransmits_total {
            return;
        }
        tally.dsack = true;
        if !self.is_of_probe(right) {
            tally.dsack_of_loss = true;
            self.recovery.undo.note_duplicate(right, len);
        }
    }
}

/// Whether the first block reports a duplicate: it lies below the acknowledgement, or within the second block.
fn is_duplicate_report(blocks: &[(Seq, Seq)], ack: Seq) -> bool {
    match blocks {
        [(_, right), ..] if !right.is_after(ack) => true,
        [(left, right), (outer_left, outer_right), ..] => !left.is_before(*outer_left) && !right.is_after(*outer_right),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_come_first() {
        let block = |l: u32, r: u32| (Seq(l), Seq(r));
        let ack = Seq(u32::MAX - 10);
        assert!(is_duplicate_report(&[block(u32::MAX - 30, u32::MAX - 20)], ack));
        assert!(is_duplicate_report(&[block(u32::MAX - 30, u32::MAX - 10)], ack));
        assert!(!is_duplicate_report(&[block(u32::MAX - 5, 5)], ack));
        assert!(is_duplicate_report(&[block(0, 5), block(u32::MAX, 5)], ack));
        assert!(!is_duplicate_report(&[block(0, 6), block(u32::MAX, 5)], ack));
        assert!(!is_duplicate_report(&[], ack));
    }
}
