//! `sidestep doctor`: everything that is counted twice, compared. What a process that died left behind shows here.
//!
//! A count in motion can be wrong for a moment; whoever asks asks again before believing it.

use super::{Daemon, locks};
use crate::checkup::{Checkup, Finding};
use sidestep_stack::arena::{DAEMON, MAX_STACKS, ProcId};
use sidestep_stack::engine::Count;
use sidestep_stack::runtime::now;

impl Daemon {
    /// Takes stock.
    pub(super) fn examine(&mut self) -> Checkup {
        self.scan_processes();
        // The last stack's last frames: nobody else looks for them.
        self.umem.complete();
        let mut checkup = Checkup { device: self.device.name.clone(), findings: Vec::new() };
        self.examine_arena(&mut checkup);
        let own = self.arena.processes().find(DAEMON);
        for (index, live) in &self.stacks {
            let Some(mut guard) = locks::lock(&live.stack) else {
                checkup.add(format!("stack {index}: its lock"), Count { booked: 1, found: 0 });
                continue;
            };
            let at = now();
            guard.poll(at);
            guard.flush(at);
            let audit = guard.audit(|process| own == Some(process) || self.is_living(process));
            drop(guard);
            checkup.add(format!("stack {index}: frames"), audit.frames);
            checkup.add(format!("stack {index}: connections"), audit.connections);
            checkup.add(format!("stack {index}: TIME-WAITs"), audit.time_waits);
            checkup.add(format!("stack {index}: sockets that a living process holds"), audit.sockets);
        }
        let is_live = |stack: u32| self.stacks.contains_key(&stack);
        for (what, count) in self.steering.audit(is_live) {
            checkup.add(what.to_owned(), count);
        }
        checkup
    }

    /// One that is being forked counts; a child that does not say who it is may be dead.
    fn is_living(&self, process: ProcId) -> bool {
        self.processes.contains_key(&process) || self.unborn.get(&process).is_some_and(|child| !child.is_there)
    }

    fn examine_arena(&self, checkup: &mut Checkup) {
        self.arena.pool().settle();
        let census = self.arena.census();
        let of_stacks: u32 = census.stacks.iter().sum();
        let found = census.pool + census.fill + of_stacks;
        checkup.add("frames of the device".to_owned(), Count { booked: census.total, found });
        let in_pool = Count { booked: census.pool, found: self.arena.pool().count() };
        checkup.add("frames in the pool".to_owned(), in_pool);
        self.examine_rings(checkup);
        let of_none: u32 =
            (0..MAX_STACKS).filter(|i| !self.stacks.contains_key(&(*i as u32))).map(|i| census.stacks[i]).sum();
        checkup.add("frames of stacks that are no more".to_owned(), Count { booked: of_none, found: 0 });
        let processes = self.arena.processes().iter().filter(|(_, pid)| !super::processes::NOBODYS.contains(pid));
        let booked = processes.count() as u32;
        let living = self.processes.values().filter(|p| std::path::Path::new(&format!("/proc/{}", p.pid)).exists());
        checkup.add("processes".to_owned(), Count { booked, found: living.count() as u32 });
    }

    /// A driver that works without copies keeps frames of the fill ring to itself, so nobody can say of them.
    fn examine_rings(&self, checkup: &mut Checkup) {
        let before = self.frames_in_rings();
        let booked = self.arena.census().fill;
        match (before, self.frames_in_rings()) {
            (Some(found), Some(after)) if found == after && !self.umem.is_zero_copy() => {
                checkup.add("frames in fill and receive rings".to_owned(), Count { booked, found });
            }
            _ => {} // Nobody has the rings mapped, or they are in motion.
        }
    }

    fn frames_in_rings(&self) -> Option<u32> {
        let rings: Vec<(u32, u32)> = self.stacks.values().map(|live| live.stack.frames_in_rings()).collect();
        // The fill rings are common to all stacks.
        let (_, to_be_filled) = rings.first()?;
        Some(rings.iter().map(|(received, _)| received).sum::<u32>() + to_be_filled)
    }
}

impl Checkup {
    fn add(&mut self, what: String, count: Count) {
        self.findings.push(Finding { what, booked: count.booked, found: count.found });
    }
}
