//! The XDP program: parse, decide, count, redirect.
//!
//! What is decided, and why, is in `steer.rs`; what the maps mean is in `maps.rs`. This file gives that code the kernel's packets and maps,
//! and is the only room with unsafe code.
#![no_std]
#![no_main]
#![deny(unsafe_op_in_unsafe_fn)]

use core::mem::size_of;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::bindings::xdp_action::{XDP_PASS, XDP_REDIRECT};
use aya_ebpf::helpers::{bpf_sk_release, bpf_skc_lookup_tcp};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, XskMap};
use aya_ebpf::programs::XdpContext;
use sidestep_xdp::maps::{
    BUCKETS_PER_GROUP, BlockEntry, CONFIG_VLAN_OK, Config, DATAGRAM_PORTS as PORTS, EPHEMERAL_BLOCKS, FlowKey, MAX_FLOWS, MAX_FRAGMENTED, MAX_GROUPS,
    MAX_LOCAL, MAX_QUEUES, MAX_STACKS, NO_STACK, POLICY_ENTRIES, PortEntry, Verdict, xsk_index,
};
use sidestep_xdp::packet::Packet;
use sidestep_xdp::steer::{Decision, KernelSocket, Tables, steer as decide};

#[map]
static CONFIG: Array<Config> = Array::with_max_entries(1, 0);
#[map]
static XSKS: XskMap = XskMap::with_max_entries(MAX_STACKS * MAX_QUEUES, 0);
#[map]
static EPHEMERAL: Array<BlockEntry> = Array::with_max_entries(EPHEMERAL_BLOCKS, 0);
#[map]
static DATAGRAM_PORTS: Array<u64> = Array::with_max_entries(PORTS, BPF_F_MMAPABLE);
#[map]
static POLICY: Array<PortEntry> = Array::with_max_entries(POLICY_ENTRIES, 0);
#[map]
static BUCKETS: Array<u32> = Array::with_max_entries(MAX_GROUPS * BUCKETS_PER_GROUP, 0);
#[map]
static FLOWS: HashMap<FlowKey, u32> = HashMap::with_max_entries(MAX_FLOWS, BPF_F_NO_PREALLOC);
#[map]
static FRAGMENTS: LruHashMap<u64, u32> = LruHashMap::with_max_entries(MAX_FRAGMENTED, 0);
#[map]
static LOCAL: HashMap<[u8; 16], u32> = HashMap::with_max_entries(MAX_LOCAL, BPF_F_NO_PREALLOC);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Verdict::COUNT, 0);

/// Entry point: one call per received frame.
#[xdp]
pub fn steer(ctx: XdpContext) -> u32 {
    let Some(config) = CONFIG.get(0) else {
        return XDP_PASS;
    };
    if config.queues == 0 {
        return pass(Verdict::PassNotConfigured);
    }
    let packet = Frame {
        start: ctx.data(),
        end: ctx.data_end(),
    };
    let vlan_ok = config.flags & CONFIG_VLAN_OK != 0;
    match decide(&packet, &Maps { ctx: &ctx }, vlan_ok) {
        Decision::Pass(verdict) => pass(verdict),
        Decision::Redirect(verdict, stack) => redirect(&ctx, config.queues, verdict, stack),
    }
}

#[inline(always)]
fn pass(verdict: Verdict) -> u32 {
    count(verdict);
    XDP_PASS
}

#[inline(always)]
fn redirect(ctx: &XdpContext, queues: u32, verdict: Verdict, stack: u32) -> u32 {
    let queue = ctx.rx_queue_index();
    // A queue that the daemon did not count on would land in the next stack's slots.
    if queue >= queues || stack >= MAX_STACKS {
        return pass(Verdict::PassRedirectFailed);
    }
    // The flags are the action for an empty slot. A socket whose rings are full, or bound elsewhere, drops the frame later, where the
    // kernel counts it for that socket (XDP_STATISTICS).
    match XSKS.redirect(xsk_index(stack, queues, queue), u64::from(XDP_PASS)) {
        Ok(_) => {
            count(verdict);
            XDP_REDIRECT
        }
        Err(_) => pass(Verdict::PassRedirectFailed),
    }
}

#[inline(always)]
fn count(verdict: Verdict) {
    if let Some(counter) = COUNTERS.get_ptr_mut(verdict as u32) {
        // SAFETY: the pointer is this CPU's slot, valid for the run of the program, which nothing on this CPU interrupts to count.
        unsafe { *counter += 1 };
    }
}

/// The frame between two addresses that the kernel vouches for.
struct Frame {
    start: usize,
    end: usize,
}

impl Packet for Frame {
    #[inline(always)]
    fn len(&self) -> usize {
        self.end - self.start
    }

    #[inline(always)]
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        // "from + 1 > end" would be compiled to "from >= end", which proves nothing to the verifier when `at` is not a constant.
        const { assert!(N > 1) };
        let from = self.start + at;
        if from + N > self.end {
            return None;
        }
        // SAFETY: from..from + N lies inside the frame, as just checked; the verifier repeats the proof at load time.
        Some(unsafe { (from as *const [u8; N]).read_unaligned() })
    }
}

/// The maps, and the kernel's socket tables.
struct Maps<'a> {
    ctx: &'a XdpContext,
}

impl Tables for Maps<'_> {
    #[inline(always)]
    fn is_local(&self, address: &[u8; 16]) -> bool {
        LOCAL.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn ephemeral(&self, index: u32) -> BlockEntry {
        EPHEMERAL.get(index).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn share_block(&self, index: u32) {
        if let Some(entry) = EPHEMERAL.get_ptr_mut(index) {
            // SAFETY: an element of an array, of which one aligned word is written; whoever reads it meanwhile sees it before or after.
            unsafe { (&raw mut (*entry).shared).write_volatile(1) };
        }
    }

    #[inline(always)]
    fn datagram_port(&self, port: u16) -> u64 {
        // SAFETY: an element of an array, one aligned word, which a process may write meanwhile: seen whole, before or after.
        DATAGRAM_PORTS
            .get_ptr(u32::from(port))
            .map_or(0, |entry| unsafe { entry.read_volatile() })
    }

    #[inline(always)]
    fn policy(&self, index: u32) -> PortEntry {
        POLICY.get(index).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<u32> {
        let stack = FLOWS.get_ptr(key)?;
        // SAFETY: a hash element stays readable until the program returns, even if it is deleted meanwhile (RCU); the value is one
        // aligned word, so a concurrent update is seen whole, before or after.
        Some(unsafe { stack.read_volatile() })
    }

    #[inline(always)]
    fn bucket(&self, index: u32) -> u32 {
        BUCKETS.get(index).copied().unwrap_or(NO_STACK)
    }

    #[inline(always)]
    fn fragments(&self, packet: u64) -> Option<u32> {
        let stack = FRAGMENTS.get_ptr(packet)?;
        // SAFETY: as above; an element that was given to another packet meanwhile names a stack, too, which drops what is not its own.
        Some(unsafe { stack.read_volatile() })
    }

    #[inline(always)]
    fn note_fragments(&self, packet: u64, stack: Option<u32>) {
        // A note that cannot be made or is not there: the later fragments pass.
        let _ = match stack {
            Some(stack) => FRAGMENTS.insert(packet, stack, 0),
            None => FRAGMENTS.remove(packet),
        };
    }

    #[inline(always)]
    fn kernel_socket(&self, key: &FlowKey) -> KernelSocket {
        kernel_socket(self.ctx, key)
    }
}

/// `TCP_LISTEN` of the kernel's `tcp_states.h`.
const TCP_LISTEN: u32 = 10;
/// `BPF_F_CURRENT_NETNS`: look in the namespace of the device.
const CURRENT_NETNS: u64 = u64::MAX;

/// `bpf_sock_tuple` for one address family, everything in network order. The helper tells the families apart by its size.
#[repr(C)]
struct SockTuple<const ADDRESS: usize> {
    remote: [u8; ADDRESS],
    local: [u8; ADDRESS],
    remote_port: [u8; 2],
    local_port: [u8; 2],
}

impl<const ADDRESS: usize> SockTuple<ADDRESS> {
    #[inline(always)]
    fn new(key: &FlowKey, remote: [u8; ADDRESS], local: [u8; ADDRESS]) -> Self {
        const { assert!(size_of::<Self>() == 2 * ADDRESS + 4) };
        Self {
            remote,
            local,
            remote_port: key.remote_port.to_be_bytes(),
            local_port: key.local_port.to_be_bytes(),
        }
    }

    #[inline(always)]
    fn look_up(mut self, ctx: &XdpContext) -> KernelSocket {
        let tuple = (&raw mut self).cast();
        // SAFETY: the context is the one the kernel gave; the tuple is live, without padding, and as large as said.
        let sock = unsafe {
            bpf_skc_lookup_tcp(
                ctx.as_ptr(),
                tuple,
                size_of::<Self>() as u32,
                CURRENT_NETNS,
                0,
            )
        };
        if sock.is_null() {
            return KernelSocket::None;
        }
        // SAFETY: a referenced socket, of which only `state` is read, a field that every kind of socket has.
        let state = unsafe { (*sock).state };
        // SAFETY: gives back the reference of the look-up, once.
        unsafe { bpf_sk_release(sock.cast()) };
        if state == TCP_LISTEN {
            KernelSocket::Listener
        } else {
            KernelSocket::Connection
        }
    }
}

#[inline(always)]
fn kernel_socket(ctx: &XdpContext, key: &FlowKey) -> KernelSocket {
    if key.is_ipv4() {
        SockTuple::new(key, ipv4_part(&key.remote), ipv4_part(&key.local)).look_up(ctx)
    } else {
        SockTuple::new(key, key.remote, key.local).look_up(ctx)
    }
}

/// The IPv4 address inside a mapped one.
#[inline(always)]
fn ipv4_part(address: &[u8; 16]) -> [u8; 4] {
    [address[12], address[13], address[14], address[15]]
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// None of the helpers used is reserved for GPL programs, so the object carries the project's own licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 18] = *b"MIT OR Apache-2.0\0";
