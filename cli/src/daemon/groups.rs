//! Which stacks serve a port, and which of its 256 buckets each has. Pure: no maps, no locks.
//!
//! All members share the buckets, but for those that are passed over because they do not ask for connections: one of them loses
//! its buckets when many in a row were sent on from it, and gets some when it is seen to ask.

use sidestep_xdp::maps::{BUCKETS_PER_GROUP, NO_STACK};

pub(super) const BUCKETS: usize = BUCKETS_PER_GROUP as usize;

/// Owners of a port's buckets, in the map's terms: `stack + 1`, or [`NO_STACK`].
pub(super) type Owners = [u32; BUCKETS];

/// At least so many are sent on one by one from a stack before its buckets go to others.
pub(super) const STRAYS: u32 = 64;

/// The stacks that serve one port.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) id: u16,
    pub(super) members: Vec<u32>,
    pub(super) owners: Owners,
    /// The kernel may still have connections of before.
    pub(super) has_kernel_flows: bool,
    /// Somebody could not give buckets away when it was time.
    pub(super) is_uneven: bool,
    /// Members that have no buckets for the moment, because they do not ask for connections.
    pub(super) passed_over: Vec<u32>,
    strays: Vec<Strays>,
}

/// Connections that came to a stack where nobody asked for them, and were sent on one by one.
#[derive(Clone, Debug)]
struct Strays {
    stack: u32,
    /// Since somebody accepted there.
    count: u32,
    /// How many were accepted there then.
    accepts: u64,
    /// So many make the daemon look.
    due: u32,
}

impl Group {
    pub(super) fn new(id: u16) -> Group {
        Group {
            id,
            members: Vec::new(),
            owners: [NO_STACK; BUCKETS],
            has_kernel_flows: false,
            is_uneven: false,
            passed_over: Vec::new(),
            strays: Vec::new(),
        }
    }

    /// More were sent on from the stack, at which `accepts` were accepted so far. How many that makes in a row, if it is time to
    /// look whether its buckets should go, too.
    pub(super) fn count_strays(&mut self, stack: u32, more: u32, accepts: u64) -> Option<u32> {
        let at = self.strays.iter().position(|strays| strays.stack == stack).unwrap_or(self.strays.len());
        if at == self.strays.len() {
            self.strays.push(Strays { stack, count: 0, accepts, due: STRAYS });
        }
        let strays = &mut self.strays[at];
        if strays.accepts != accepts {
            *strays = Strays { stack, count: 0, accepts, due: STRAYS };
        }
        strays.count = strays.count.saturating_add(more);
        (strays.count >= strays.due).then_some(strays.count)
    }

    /// It was not worth it: it is looked again when so many were sent on in a row.
    pub(super) fn put_off(&mut self, stack: u32, due: u32) {
        self.strays.iter_mut().filter(|strays| strays.stack == stack).for_each(|strays| strays.due = due);
    }

    /// Who is to have the buckets when those of `from` go to who asks: all who ask, and who lost nobody lately. `None`: nobody
    /// asks, or `from` has none.
    pub(super) fn sharers_without(&self, from: u32, asking: &[u32]) -> Option<Vec<u32>> {
        let has_strays = |stack: u32| self.strays.iter().any(|strays| strays.stack == stack && strays.count != 0);
        let is_sharer = |stack: u32| !self.passed_over.contains(&stack);
        let others = || self.members.iter().copied().filter(|stack| *stack != from);
        if !is_sharer(from) || !others().any(|stack| asking.contains(&stack)) {
            return None;
        }
        let stays = |stack: u32| asking.contains(&stack) || is_sharer(stack) && !has_strays(stack);
        Some(others().filter(|stack| stays(*stack)).collect())
    }

    /// Who is to have them when some ask who have none. `None`: none does.
    pub(super) fn sharers_with(&self, asking: &[u32]) -> Option<Vec<u32>> {
        let is_back = |stack: &u32| asking.contains(stack) && self.passed_over.contains(stack);
        let is_sharer = |stack: &u32| asking.contains(stack) || !self.passed_over.contains(stack);
        let is_any_back = self.members.iter().any(is_back);
        is_any_back.then(|| self.members.iter().copied().filter(is_sharer).collect())
    }

    /// The group has these members from now on, and these of them have no buckets.
    pub(super) fn become_of(&mut self, members: &[u32], passed_over: &[u32]) {
        // Who gets buckets, or loses them, begins to count anew.
        let before = std::mem::replace(&mut self.passed_over, passed_over.to_vec());
        self.members = members.to_vec();
        let stays = |stack: u32| members.contains(&stack) && before.contains(&stack) == passed_over.contains(&stack);
        self.strays.retain(|strays| stays(strays.stack));
    }
}

/// Those of `members` who share the buckets, and those who are passed over: somebody has to have them.
pub(super) fn part(members: &[u32], passed_over: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let (passed_over, sharers): (Vec<u32>, Vec<u32>) = members.iter().partition(|stack| passed_over.contains(stack));
    if sharers.is_empty() { (passed_over, sharers) } else { (sharers, passed_over) }
}

/// Spreads the buckets evenly over `members`, moving as few as possible. Without members all go to nobody.
pub(super) fn rebalance(owners: &Owners, members: &[u32]) -> Owners {
    let mut new = [NO_STACK; BUCKETS];
    if members.is_empty() {
        return new;
    }
    let mut held: Vec<usize> = vec![0; members.len()];
    // The first few members get one bucket more when they do not divide evenly.
    let quota = |m: usize| BUCKETS / members.len() + usize::from(m < BUCKETS % members.len());
    for (bucket, owner) in owners.iter().enumerate() {
        let Some(m) = members.iter().position(|s| s + 1 == *owner) else { continue };
        if held[m] < quota(m) {
            held[m] += 1;
            new[bucket] = *owner;
        }
    }
    let mut m = 0;
    for owner in new.iter_mut().filter(|o| **o == NO_STACK) {
        while m + 1 < members.len() && held[m] >= quota(m) {
            m += 1;
        }
        held[m] += 1;
        *owner = members[m] + 1;
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(owners: &Owners, members: &[u32]) -> Vec<usize> {
        members.iter().map(|m| owners.iter().filter(|o| **o == m + 1).count()).collect()
    }

    #[test]
    fn buckets_are_even_and_few_move() {
        let mut owners = [NO_STACK; BUCKETS];
        let mut members = Vec::new();
        for stack in [5, 0, 9, 3, 63] {
            members.push(stack);
            let new = rebalance(&owners, &members);
            let moved = owners.iter().zip(&new).filter(|(a, b)| a != b && **a != NO_STACK).count();
            assert!(moved <= BUCKETS / members.len() + members.len(), "{moved} moved for {members:?}");
            let counts = counts(&new, &members);
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
            assert_eq!(counts.iter().sum::<usize>(), BUCKETS);
            owners = new;
        }
        // One leaves: only its buckets move.
        let left: Vec<u32> = members.iter().copied().filter(|m| *m != 9).collect();
        let new = rebalance(&owners, &left);
        let moved = owners.iter().zip(&new).filter(|(a, b)| a != b && **a != 9 + 1).count();
        assert!(moved <= left.len(), "{moved}");
        assert!(!new.contains(&10));
        assert_eq!(rebalance(&new, &[]), [NO_STACK; BUCKETS]);
    }

    fn group_of(members: &[u32]) -> Group {
        let mut group = Group::new(0);
        group.become_of(members, &[]);
        group
    }

    #[test]
    fn strays_are_counted_until_somebody_accepts() {
        let mut group = group_of(&[1, 2]);
        assert_eq!(group.count_strays(1, STRAYS - 1, 10), None);
        assert_eq!(group.count_strays(2, 1, 10), None);
        assert_eq!(group.count_strays(1, 2, 10), Some(STRAYS + 1));
        group.put_off(1, STRAYS + 3);
        assert_eq!(group.count_strays(1, 1, 10), None);
        assert_eq!(group.count_strays(1, 1, 10), Some(STRAYS + 3));
        assert_eq!(group.count_strays(1, 1, 11), None, "one was accepted in between");
        assert_eq!(group.count_strays(1, STRAYS - 1, 11), Some(STRAYS));
        group.become_of(&[1, 2], &[1]);
        assert_eq!(group.count_strays(1, 1, 11), None, "it has no buckets any more, and begins anew");
        assert_eq!(group.count_strays(2, STRAYS, 10), Some(STRAYS + 1), "of another");
    }

    #[test]
    fn buckets_go_to_who_asks_and_come_back_to_who_asks_again() {
        let mut group = group_of(&[1, 2, 3, 4]);
        group.count_strays(1, 64, 0);
        group.count_strays(2, 60, 0);
        assert_eq!(group.sharers_without(1, &[]), None, "nobody asks");
        assert_eq!(group.sharers_without(1, &[1]), None, "nobody else asks");
        // Nobody was sent on from 4: it only does not ask at this moment.
        assert_eq!(group.sharers_without(1, &[3]), Some(vec![3, 4]));
        group.become_of(&[1, 2, 3, 4], &[1, 2]);
        assert_eq!(group.sharers_with(&[3]), None);
        assert_eq!(group.sharers_with(&[2, 3]), Some(vec![2, 3, 4]));
        assert_eq!(group.sharers_with(&[1, 2]), Some(vec![1, 2, 3, 4]));
        assert_eq!(group.sharers_without(1, &[2]), None, "it has nothing to give away");
        group.count_strays(3, 64, 0);
        group.count_strays(4, 64, 0);
        assert_eq!(group.sharers_without(3, &[2]), Some(vec![2]));
    }

    #[test]
    fn somebody_has_the_buckets_while_there_are_members() {
        assert_eq!(part(&[1, 2, 3], &[2]), (vec![1, 3], vec![2]));
        assert_eq!(part(&[1, 2], &[1, 2]), (vec![1, 2], vec![]));
        assert_eq!(part(&[1, 2], &[7]), (vec![1, 2], vec![]));
        assert_eq!(part(&[], &[7]), (vec![], vec![]));
    }

    #[test]
    fn more_members_than_would_be_sensible() {
        let members: Vec<u32> = (0..64).collect();
        let owners = rebalance(&[NO_STACK; BUCKETS], &members);
        assert_eq!(counts(&owners, &members), [4; 64]);
    }
}
