//! The locks of stacks, as the daemon takes them.
//!
//! Should the daemon be killed while it changes what a lock guards, the connections of that stack are reset. So it changes
//! little: what frames that came mean to a stack is left to those who use it, as long as they are at it ([`await_users`]);
//! who only looks changes nothing; and no other thread gets the processor in the midst of a change ([`Urgency`]).

use super::log;
use super::stacks::LiveStack;
use super::steering::Port;
use super::urgency::Urgency;
use sidestep_stack::addr::Flow;
use sidestep_stack::runtime::{Arrivals, Guard, Stack, now};
use sidestep_stack::tcp::TimeWait;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The time between two looks at a lock, and at those who are to handle frames.
const LOOK: Duration = Duration::from_micros(50);
/// Looks at a lock before it is left alone: a hundredth of a second.
const LOOKS: u32 = 200;
/// So many times as long as for anything else a lock is waited for when buckets move.
const PATIENCE: u32 = 40;
/// Looks at those who are to handle frames, before the daemon does: two milliseconds.
const USERS_LOOKS: u32 = 40;

/// A stack that the daemon has locked. It is urgent meanwhile.
pub(crate) struct Locked<'s> {
    guard: Guard<'s>,
    // Dropped after it.
    _urgency: Urgency,
}

impl<'s> Locked<'s> {
    fn new(guard: Guard<'s>) -> Locked<'s> {
        Locked { guard, _urgency: Urgency::raise() }
    }
}

impl<'s> Deref for Locked<'s> {
    type Target = Guard<'s>;
    fn deref(&self) -> &Guard<'s> {
        &self.guard
    }
}

impl<'s> DerefMut for Locked<'s> {
    fn deref_mut(&mut self) -> &mut Guard<'s> {
        &mut self.guard
    }
}

/// Takes the lock if nobody has it.
pub(super) fn try_lock(stack: &Stack) -> Option<Locked<'_>> {
    stack.try_lock().map(Locked::new)
}

/// Takes the lock, but not at any price: a process that is stopped inside must not stop the daemon.
pub(crate) fn lock(stack: &Stack) -> Option<Locked<'_>> {
    let guard = wait_a_while(stack);
    if guard.is_none() {
        log(format_args!("stack {} is locked by a process that does not let go", stack.index()));
    }
    guard.map(Locked::new)
}

/// As [`lock`], for those who would break connections if they went on without: an application that runs gives it back as soon
/// as it gets a processor. One that was stopped inside does not.
pub(crate) fn lock_patiently(stack: &Stack) -> Option<Locked<'_>> {
    wait_patiently(stack).map(Locked::new)
}

fn wait_patiently(stack: &Stack) -> Option<Guard<'_>> {
    let user = stack.arena().stack(stack.index()).owner_pid.load(Relaxed);
    for _ in 0..PATIENCE {
        if let Some(guard) = wait_a_while(stack) {
            return Some(guard);
        }
        if super::processes::is_stopped(user) {
            break;
        }
    }
    log(format_args!("stack {} is locked by process {user}, which does not let go", stack.index()));
    None
}

fn wait_a_while(stack: &Stack) -> Option<Guard<'_>> {
    for _ in 0..LOOKS {
        if let Some(guard) = stack.try_lock() {
            return Some(guard);
        }
        std::thread::sleep(LOOK);
    }
    None
}

/// What each of the stacks has received by now. Its users are given time to handle it: see [`Guard::drain_to`] for what they
/// leave.
pub(super) fn await_users<'s>(stacks: impl IntoIterator<Item = &'s LiveStack>) -> Vec<Arrivals> {
    let stacks: Vec<&Stack> = stacks.into_iter().map(|live| &live.stack).collect();
    let arrivals: Vec<Arrivals> = stacks.iter().map(|stack| stack.arrivals()).collect();
    let is_done = || stacks.iter().zip(&arrivals).all(|(stack, arrivals)| stack.has_handled(arrivals));
    for _ in 0..USERS_LOOKS {
        if is_done() {
            break;
        }
        std::thread::sleep(LOOK);
    }
    arrivals
}

/// Several stacks, locked, from the lowest to the highest.
pub(super) struct Held<'s> {
    pub(super) guards: BTreeMap<u32, Guard<'s>>,
    // Dropped after them.
    _urgency: Urgency,
}

impl<'s> Held<'s> {
    /// Those that cannot be had are left out.
    pub(super) fn lock(stacks: &'s BTreeMap<u32, LiveStack>, wanted: &BTreeSet<u32>) -> Held<'s> {
        let urgency = Urgency::raise();
        let guard = |i: &u32| Some((*i, wait_patiently(&stacks.get(i)?.stack)?));
        Held { guards: wanted.iter().filter_map(guard).collect(), _urgency: urgency }
    }

    /// Handles what lies in the rings. What is to be sent waits for [`Held::flush`].
    pub(super) fn drain(&mut self) {
        self.guards.values_mut().for_each(|guard| guard.drain(now()));
        self.rest();
    }

    pub(super) fn have_time_waits(&self) -> bool {
        self.guards.values().any(|guard| guard.population().time_waits != 0)
    }

    /// The daemon may end here: no connection is between two stacks.
    pub(super) fn rest(&mut self) {
        self.guards.values_mut().for_each(Guard::rest);
    }

    /// Sends it.
    pub(super) fn flush(&mut self) {
        self.guards.values_mut().for_each(|guard| guard.flush(now()));
    }

    /// Whether cookies of some stack may come back, which have no connection yet. They are good at all of them then.
    pub(super) fn share_cookies(&mut self, port: Port) -> bool {
        let until = self.guards.values().map(|guard| guard.cookies_until(port.1)).max();
        let until = until.filter(|until| *until > now());
        for guard in self.guards.values_mut() {
            until.into_iter().for_each(|until| guard.expect_cookies(port.1, until));
        }
        self.rest();
        until.is_some()
    }

    /// TIME-WAITs whose flows are steered elsewhere go there: a client may come again by the same flow, and finds the
    /// listener only there.
    pub(super) fn hand_over_time_waits(&mut self, port: Port, owner_of: impl Fn(&Flow) -> Option<u32>) {
        let mut moving: Vec<(u32, TimeWait)> = Vec::new();
        for (index, guard) in &mut self.guards {
            guard.hand_over_time_waits(port.1, |record| {
                let owner = owner_of(&record.flow).filter(|owner| owner != index);
                moving.extend(owner.map(|owner| (owner, *record)));
                owner.is_some()
            });
        }
        for (owner, record) in moving {
            if let Some(guard) = self.guards.get_mut(&owner) {
                guard.take_over_time_wait(&record);
            }
        }
    }
}
