//! Which stacks serve a port, and which of its 256 buckets each has. Pure: no maps, no locks.

use sidestep_xdp::maps::{BUCKETS_PER_GROUP, NO_STACK};

pub(super) const BUCKETS: usize = BUCKETS_PER_GROUP as usize;

/// Owners of a port's buckets, in the map's terms: `stack + 1`, or [`NO_STACK`].
pub(super) type Owners = [u32; BUCKETS];

/// The stacks that serve one port.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) id: u16,
    pub(super) members: Vec<u32>,
    pub(super) owners: Owners,
    /// The kernel may still have connections of before.
    pub(super) has_kernel_flows: bool,
}

impl Group {
    pub(super) fn new(id: u16) -> Group {
        Group { id, members: Vec::new(), owners: [NO_STACK; BUCKETS], has_kernel_flows: false }
    }
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

    #[test]
    fn more_members_than_would_be_sensible() {
        let members: Vec<u32> = (0..64).collect();
        let owners = rebalance(&[NO_STACK; BUCKETS], &members);
        assert_eq!(counts(&owners, &members), [4; 64]);
    }
}
