//! The lossy wire of the test rig: TC classifiers, one for each direction, that drop a share of TCP and UDP frames.
//!
//! Only the rig loads this; it is built here because here is where BPF is built.
#![no_std]
#![no_main]
#![deny(unsafe_op_in_unsafe_fn)]
// The target claims no atomic read-modify-write, although every BPF of the last years has it: only the intrinsic gets there.
#![feature(core_intrinsics)]
#![allow(internal_features)]

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::TcContext;
use sidestep_xdp::rig::{Loss, Wire, is_victim, seeded};

/// What to drop: one [`Loss`].
#[map]
static LOSS: Array<Loss> = Array::with_max_entries(1, 0);
/// What was done: a [`Wire`] for ingress, and one for egress.
#[map]
static WIRES: Array<Wire> = Array::with_max_entries(2, 0);

const INGRESS: u32 = 0;
const EGRESS: u32 = 1;

/// Frames that the device received.
#[classifier]
pub fn drop_ingress(ctx: TcContext) -> i32 {
    judge(&ctx, INGRESS)
}

/// Frames that the device is about to send.
#[classifier]
pub fn drop_egress(ctx: TcContext) -> i32 {
    judge(&ctx, EGRESS)
}

/// Drops the frame, or leaves it to whoever is attached next.
#[inline(always)]
fn judge(ctx: &TcContext, direction: u32) -> i32 {
    let (Some(loss), Some(wire)) = (LOSS.get(0), WIRES.get_ptr_mut(direction)) else {
        return TC_ACT_UNSPEC;
    };
    let Ok(ethertype) = ctx.load::<[u8; 2]>(12) else {
        return TC_ACT_UNSPEC;
    };
    // Protocol of IPv4, next header of IPv6.
    let at = if ethertype == [0x08, 0x00] { 23 } else { 20 };
    let Ok(proto) = ctx.load::<u8>(at) else {
        return TC_ACT_UNSPEC;
    };
    if !is_victim(ethertype, proto) {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: a field of a live array element.
    let number = count(unsafe { &raw mut (*wire).seen });
    let dice = if loss.seeded == 0 {
        // SAFETY: takes nothing, gives a number.
        unsafe { bpf_get_prandom_u32() }
    } else {
        seeded(loss.seed, direction, number)
    };
    if u64::from(dice) >= loss.threshold {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: a field of a live array element.
    count(unsafe { &raw mut (*wire).dropped });
    TC_ACT_SHOT
}

/// Counts, on whichever CPU, and says how many came before.
///
/// Relaxed would do, but LLVM 22 compiles a relaxed addition to the instruction that does not give the old value, used or not.
#[inline(always)]
fn count(counter: *mut u64) -> u64 {
    // SAFETY: an aligned word in a map, which both sides touch only as a whole.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(counter, 1) }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 18] = *b"MIT OR Apache-2.0\0";
