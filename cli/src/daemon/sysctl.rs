//! The kernel's settings: its sysctls as our defaults, and the ephemeral ports that it keeps its hands off.

use crate::failure::{Context, Outcome};
use sidestep_stack::socket::{PORT_BLOCKS_MAX, PORTS_PER_BLOCK};
use sidestep_stack::tcp::Algorithm;
use sidestep_stack::time::SEC;
use sidestep_stack::tunables::Tunables;
use std::fmt::Write as _;
use std::ops::RangeInclusive;

const RESERVED: &str = "net/ipv4/ip_local_reserved_ports";
const LOCAL_RANGE: &str = "net/ipv4/ip_local_port_range";

/// Most a connection buffers, whatever the sysctls say.
const BUFFER_MAX: u32 = 64 << 20;

const _: () = assert!(PORTS_PER_BLOCK == 1 << sidestep_xdp::maps::EPHEMERAL_BLOCK_BITS);

fn read(name: &str) -> std::io::Result<String> {
    std::fs::read_to_string(format!("/proc/sys/{name}"))
}

fn numbers(name: &str) -> Vec<u64> {
    read(name).unwrap_or_default().split_whitespace().map_while(|n| n.parse().ok()).collect()
}

/// The sysctl as a number; `default` when it is not there (some exist only outside namespaces) or no number.
fn number(name: &str, default: u64) -> u64 {
    numbers(name).first().copied().unwrap_or(default)
}

fn number32(name: &str, default: u32) -> u32 {
    u32::try_from(number(name, u64::from(default))).unwrap_or(default)
}

/// Three sizes, as tcp_rmem and tcp_wmem have them.
fn triple(name: &str, default: [u32; 3]) -> [u32; 3] {
    let small = |n: &u64| u32::try_from(*n).unwrap_or(BUFFER_MAX).min(BUFFER_MAX);
    match numbers(name)[..] {
        [a, b, c] => [a, b, c].each_ref().map(small),
        _ => default,
    }
}

/// The tunables of a new stack, from the sysctls of this network namespace.
pub(crate) fn tunables() -> Tunables {
    let mut t = Tunables::default();
    t.somaxconn = number32("net/core/somaxconn", t.somaxconn);
    t.syn_backlog = number32("net/ipv4/tcp_max_syn_backlog", t.syn_backlog);
    t.syn_retries = number32("net/ipv4/tcp_syn_retries", t.syn_retries);
    t.synack_retries = number32("net/ipv4/tcp_synack_retries", t.synack_retries);
    t.retries2 = number32("net/ipv4/tcp_retries2", t.retries2);
    t.fin_timeout_us = number("net/ipv4/tcp_fin_timeout", t.fin_timeout_us / SEC).saturating_mul(SEC);
    t.keepalive_time_us = number("net/ipv4/tcp_keepalive_time", t.keepalive_time_us / SEC).saturating_mul(SEC);
    t.keepalive_intvl_us = number("net/ipv4/tcp_keepalive_intvl", t.keepalive_intvl_us / SEC).saturating_mul(SEC);
    t.keepalive_probes = number32("net/ipv4/tcp_keepalive_probes", t.keepalive_probes);
    t.timestamps = u32::from(number("net/ipv4/tcp_timestamps", 1) != 0);
    t.window_scaling = u32::from(number("net/ipv4/tcp_window_scaling", 1) != 0);
    t.sack = number32("net/ipv4/tcp_sack", t.sack);
    t.dsack = number32("net/ipv4/tcp_dsack", t.dsack);
    t.slow_start_after_idle = number32("net/ipv4/tcp_slow_start_after_idle", t.slow_start_after_idle);
    t.ecn = number32("net/ipv4/tcp_ecn", t.ecn);
    t.syncookies = number32("net/ipv4/tcp_syncookies", t.syncookies);
    t.fastopen = number32("net/ipv4/tcp_fastopen", t.fastopen);
    t.tw_reuse = number32("net/ipv4/tcp_tw_reuse", t.tw_reuse);
    t.rfc1337 = number32("net/ipv4/tcp_rfc1337", t.rfc1337);
    t.mtu_probing = number32("net/ipv4/tcp_mtu_probing", t.mtu_probing);
    t.abort_on_overflow = number32("net/ipv4/tcp_abort_on_overflow", t.abort_on_overflow);
    t.notsent_lowat_bytes = number32("net/ipv4/tcp_notsent_lowat", t.notsent_lowat_bytes);
    t.congestion = read("net/ipv4/tcp_congestion_control")
        .ok()
        .and_then(|name| Algorithm::by_name(name.trim()))
        .unwrap_or_default() as u32;
    t.rmem_bytes = triple("net/ipv4/tcp_rmem", t.rmem_bytes);
    t.wmem_bytes = triple("net/ipv4/tcp_wmem", t.wmem_bytes);
    t.rmem_max_bytes = number32("net/core/rmem_max", t.rmem_max_bytes).min(BUFFER_MAX);
    t.wmem_max_bytes = number32("net/core/wmem_max", t.wmem_max_bytes).min(BUFFER_MAX);
    // The kernel's default is "unlimited" (INT_MAX) since 6.x per connection; ours bounds the whole stack.
    t.challenge_ack_limit =
        number32("net/ipv4/tcp_challenge_ack_limit", t.challenge_ack_limit).min(t.challenge_ack_limit);
    t.ttl = number32("net/ipv4/ip_default_ttl", t.ttl).clamp(1, 255);
    t
}

/// A set of ports, as the kernel writes it: `8080,9000-9010`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortSet(Vec<RangeInclusive<u16>>);

impl PortSet {
    /// What is not a port or a range of ports is skipped.
    pub(crate) fn parse(text: &str) -> PortSet {
        let mut set = PortSet::default();
        for part in text.trim().split(',') {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(from), Ok(to)) = (from.trim().parse(), to.trim().parse()) {
                set.add(from..=to);
            }
        }
        set
    }

    /// Adds a range and merges what touches it.
    pub(crate) fn add(&mut self, range: RangeInclusive<u16>) {
        if range.is_empty() {
            return;
        }
        self.0.push(range);
        self.0.sort_by_key(|r| *r.start());
        let mut merged: Vec<RangeInclusive<u16>> = Vec::with_capacity(self.0.len());
        for range in self.0.drain(..) {
            match merged.last_mut() {
                Some(last) if u32::from(*range.start()) <= u32::from(*last.end()) + 1 => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => merged.push(range),
            }
        }
        self.0 = merged;
    }

    /// Takes a range out.
    pub(crate) fn remove(&mut self, range: &RangeInclusive<u16>) {
        let mut left = Vec::with_capacity(self.0.len() + 1);
        for r in self.0.drain(..) {
            if r.end() < range.start() || r.start() > range.end() {
                left.push(r);
                continue;
            }
            if r.start() < range.start() {
                left.push(*r.start()..=range.start() - 1);
            }
            if r.end() > range.end() {
                left.push(range.end() + 1..=*r.end());
            }
        }
        self.0 = left;
    }

    pub(crate) fn intersects(&self, range: &RangeInclusive<u16>) -> bool {
        self.0.iter().any(|r| r.start() <= range.end() && range.start() <= r.end())
    }

    pub(crate) fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.0
    }

    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        for r in &self.0 {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = match r.start() == r.end() {
                true => write!(text, "{comma}{}", r.start()),
                false => write!(text, "{comma}{}-{}", r.start(), r.end()),
            };
        }
        text
    }
}

/// The ports of an ephemeral block.
pub(crate) fn block_ports(block: u8) -> RangeInclusive<u16> {
    let first = u16::from(block) << 8;
    first..=first | 0xff
}

/// The blocks to take from the kernel's ephemeral range: whole ones, from its top, at most half of it, none that
/// somebody (another daemon, the operator) reserved before.
pub(crate) fn choose_blocks(range: RangeInclusive<u16>, reserved: &PortSet) -> Vec<u8> {
    let first = u32::from(*range.start()).div_ceil(PORTS_PER_BLOCK);
    let end = (u32::from(*range.end()) + 1) / PORTS_PER_BLOCK;
    let most = (end.saturating_sub(first) as usize / 2).min(PORT_BLOCKS_MAX);
    let whole = (first..end).rev().filter_map(|block| u8::try_from(block).ok());
    whole.filter(|block| !reserved.intersects(&block_ports(*block))).take(most).collect()
}

/// Reserves blocks in the kernel, keeping what is reserved already. Highest block first.
pub(crate) fn reserve_blocks() -> Outcome<Vec<u8>> {
    let reserved = PortSet::parse(&read(RESERVED).context(format!("/proc/sys/{RESERVED}"))?);
    let range = numbers(LOCAL_RANGE);
    let port = |i: usize, default: u16| range.get(i).and_then(|p| u16::try_from(*p).ok()).unwrap_or(default);
    let blocks = choose_blocks(port(0, 32768)..=port(1, 60999), &reserved);
    let mut wanted = reserved;
    for block in &blocks {
        wanted.add(block_ports(*block));
    }
    write_reserved(&wanted)?;
    Ok(blocks)
}

/// Gives blocks back to the kernel, keeping whatever else is reserved by now.
pub(crate) fn unreserve_blocks(blocks: &[u8]) -> Outcome<()> {
    let mut reserved = PortSet::parse(&read(RESERVED).context(format!("/proc/sys/{RESERVED}"))?);
    for block in blocks {
        reserved.remove(&block_ports(*block));
    }
    write_reserved(&reserved)
}

fn write_reserved(set: &PortSet) -> Outcome<()> {
    // An empty write would change nothing; a newline clears the set.
    std::fs::write(format!("/proc/sys/{RESERVED}"), format!("{}\n", set.to_text()))
        .context(format!("cannot write /proc/sys/{RESERVED}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_sets_merge_and_split() {
        let mut set = PortSet::parse("8080,9000-9010,junk,9011,5-3\n");
        assert_eq!(set.to_text(), "8080,9000-9011");
        set.add(61000..=65535);
        set.add(60999..=60999);
        assert_eq!(set.to_text(), "8080,9000-9011,60999-65535");
        set.remove(&(61184..=61439));
        assert_eq!(set.to_text(), "8080,9000-9011,60999-61183,61440-65535");
        set.remove(&(0..=65535));
        assert_eq!(set.to_text(), "");
        assert_eq!(PortSet::parse("\n"), PortSet::default());
    }

    #[test]
    fn adding_and_removing_restores() {
        let before = "1024,40000-40100";
        let mut set = PortSet::parse(before);
        set.add(block_ports(237));
        set.add(block_ports(236));
        assert_eq!(set.to_text(), "1024,40000-40100,60416-60927");
        set.remove(&block_ports(236));
        set.remove(&block_ports(237));
        assert_eq!(set.to_text(), before);
    }

    #[test]
    fn blocks_come_from_the_top_and_leave_half() {
        let blocks = choose_blocks(32768..=60999, &PortSet::default());
        assert_eq!((blocks.len(), blocks[0], block_ports(blocks[0])), (55, 237, 60672..=60927));
        let taken = PortSet::parse("60700");
        assert_eq!(choose_blocks(32768..=60999, &taken)[0], 236);
        assert_eq!(choose_blocks(1024..=65535, &PortSet::default()).len(), 126);
        assert_eq!(choose_blocks(1024..=65535, &PortSet::default())[0], 255);
        assert!(choose_blocks(50000..=50100, &PortSet::default()).is_empty());
    }

    #[test]
    fn tunables_are_sane_here() {
        let t = tunables();
        for [least, first, most] in [t.rmem_bytes, t.wmem_bytes] {
            assert!(least <= first && first <= most && most <= BUFFER_MAX);
        }
        assert!(t.ttl > 0 && t.timestamps <= 1);
    }
}
