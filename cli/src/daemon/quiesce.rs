//! Waits until every run of the XDP program that is under way has ended, and what it redirected lies in a ring.
//!
//! The program runs, and its redirects are delivered, with soft interrupts off: no thread gets the processor before the
//! run is over. So whoever was on each processor once has waited long enough. It takes some microseconds a processor; as a
//! real-time thread it does not queue behind those that compute. Where that is not so (a kernel that preempts soft
//! interrupts, processors that we may not use, very many of them) the kernel's own way of waiting is asked for, which
//! takes some milliseconds.

use super::urgency::Urgency;
use std::sync::LazyLock;
use std::time::Duration;

/// With more processors than this the kernel is faster.
const TOUR_MAX: usize = 64;
/// Longer than any run takes; when nothing else can be had.
const LAST_RESORT: Duration = Duration::from_millis(20);

/// What the kernel was built for does not change.
static PREEMPTS_SOFTIRQS: LazyLock<bool> =
    LazyLock::new(|| std::fs::read("/sys/kernel/realtime").is_ok_and(|text| text.starts_with(b"1")));

/// Does it.
pub(super) fn await_runs() {
    if !tour() && !barrier() {
        std::thread::sleep(LAST_RESORT);
    }
}

/// An RCU grace period.
fn barrier() -> bool {
    // SAFETY: membarrier takes three integers.
    unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) == 0 }
}

/// Runs on every processor in turn. False: not on all of them.
fn tour() -> bool {
    let Some(processors) = online().filter(|list| list.len() <= TOUR_MAX) else { return false };
    if *PREEMPTS_SOFTIRQS {
        return false;
    }
    let Some(usual) = affinity() else { return false };
    let urgency = Urgency::raise();
    let done = processors.iter().all(|cpu| run_on(*cpu));
    set_affinity(&usual);
    drop(urgency);
    done
}

fn online() -> Option<Vec<usize>> {
    parse_list(&std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?)
}

/// `0-3,5`
fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut all = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?);
    }
    (!all.is_empty()).then_some(all)
}

fn affinity() -> Option<libc::cpu_set_t> {
    // SAFETY: all zeroes is an empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: `set` is writable for its size.
    (unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) } == 0).then_some(set)
}

fn set_affinity(set: &libc::cpu_set_t) -> bool {
    // SAFETY: `set` is readable for its size.
    unsafe { libc::sched_setaffinity(0, size_of_val(set), set) == 0 }
}

/// Returns on that processor, or not at all.
fn run_on(cpu: usize) -> bool {
    // SAFETY: all zeroes is an empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    if cpu >= 8 * size_of_val(&set) {
        return false;
    }
    // SAFETY: `cpu` lies in the set, as just checked.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    set_affinity(&set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors() {
        assert_eq!(parse_list("0-3,5\n"), Some(vec![0, 1, 2, 3, 5]));
        assert_eq!(parse_list("7"), Some(vec![7]));
        assert!(parse_list("").is_none() && parse_list("a-b").is_none());
    }

    #[test]
    fn it_ends_and_leaves_the_thread_as_it_was() {
        let before = affinity().unwrap();
        await_runs();
        assert!(barrier());
        let after = affinity().unwrap();
        // SAFETY: two live sets.
        assert!(unsafe { libc::CPU_EQUAL(&before, &after) });
    }
}
