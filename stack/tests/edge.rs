//! The edge on a real device: a veth in a network namespace of the test's own thread. Needs root; says so otherwise.

use sidestep_stack::addr::{Endpoint, Ip, Mac};
use sidestep_stack::arena::{Arena, ArenaConfig, BELLS, Policy, Proto};
use sidestep_stack::engine::Config;
use sidestep_stack::ip::tables::Address;
use sidestep_stack::link::Tags;
use sidestep_stack::runtime::{Guard, Stack, now};
use sidestep_stack::tcp::{Options, Seq};
use sidestep_stack::time::Instant;
use sidestep_stack::tunables::Tunables;
use sidestep_stack::wire::checksum::Sum;
use sidestep_stack::wire::tcp::{Control, Flags};
use sidestep_stack::wire::{ethernet, ipv4};
use sidestep_stack::xsk::UmemOwner;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;

const FRAMES: u32 = 8192;
const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const PEER: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// Moves this thread into a namespace with a veth pair of two queues; false, with a line, when it may not.
fn enter_rig() -> bool {
    // SAFETY: no memory is involved; only this test's thread changes its namespace.
    if unsafe { libc::geteuid() } != 0 || unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        println!("skipped: needs root");
        return false;
    }
    for line in [
        "link add e0 numrxqueues 2 numtxqueues 2 type veth peer name e1 numrxqueues 2 numtxqueues 2",
        "link set e0 up",
        "link set e1 up",
    ] {
        let done = Command::new("ip").args(line.split(' ')).status().expect("ip(8) from iproute2");
        assert!(done.success(), "ip {line}");
    }
    true
}

fn arena() -> (&'static Arena, OwnedFd) {
    let ifindex = std::fs::read_to_string("/proc/thread-self/net/dev").map(|_| ()).ok();
    assert!(ifindex.is_some());
    // SAFETY: a NUL-terminated name.
    let ifindex = unsafe { libc::if_nametoindex(c"e0".as_ptr()) };
    assert_ne!(ifindex, 0);
    let mut device = [0; 16];
    device[..2].copy_from_slice(b"e0");
    Arena::create(&ArenaConfig {
        device,
        ifindex,
        netns: 0,
        queues: 2,
        transmit_queues: 2,
        frames: FRAMES,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        device_is_virtual: true,
        isn_secret: [1, 2],
        tunables: Tunables::default(),
    })
    .expect("an arena")
}

fn bells() -> Vec<OwnedFd> {
    // SAFETY: eventfd takes no memory; each descriptor is new and ours.
    (0..=BELLS).map(|_| unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_NONBLOCK)) }).collect()
}

/// A stack, and what it lives on.
struct OneStack {
    stack: Stack,
    index: u32,
    arena: &'static Arena,
    _descriptors: [Vec<OwnedFd>; 2],
    _umem: UmemOwner,
    _memory: OwnedFd,
}

fn one_stack(config: &Config) -> OneStack {
    let (arena, memory) = arena();
    let umem = UmemOwner::open(arena, arena.header().ifindex(), 2, false).expect("UMEM");
    let index = arena.alloc_stack(config, &Tunables::default()).unwrap().unwrap();
    let xsks: Vec<OwnedFd> = (0..2).map(|q| umem.open_stack_socket(q).expect("a stack's socket")).collect();
    let bells = bells();
    let raw = |fds: &[OwnedFd]| fds.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>();
    let stack = Stack::attach(arena, index, &raw(&xsks), &raw(&bells[..BELLS]), bells[BELLS].as_raw_fd()).unwrap();
    OneStack { stack, index, arena, _descriptors: [xsks, bells], _umem: umem, _memory: memory }
}

#[test]
fn frames_always_add_up() {
    if !enter_rig() {
        return;
    }
    let (arena, fd) = arena();
    assert!(arena.census().adds_up());
    assert_eq!(arena.census().pool, FRAMES);
    let umem = UmemOwner::open(arena, arena.header().ifindex(), 2, false).expect("UMEM and base sockets");
    let filled = arena.census();
    assert_eq!(filled.fill, 2 * 2048, "each queue's fill ring has its frames");
    assert!(filled.adds_up());

    // The same memory, as another process would map it.
    let other = Arena::map(fd.as_raw_fd()).expect("a second mapping");
    arena.set_policy(Proto::Tcp, 80, Policy::Off);
    assert_eq!(other.policy(Proto::Tcp, 80), Policy::Off);
    assert_eq!(other.policy(Proto::Udp, 80), Policy::Auto);

    let first = arena.alloc_stack(&Config::default(), &Tunables::default()).unwrap().unwrap();
    let second = arena.alloc_stack(&Config::default(), &Tunables::default()).unwrap().unwrap();
    assert_ne!(first, second);
    for index in [first, second] {
        let xsks: Vec<OwnedFd> = (0..2).map(|q| umem.open_stack_socket(q).expect("a stack's socket")).collect();
        let bells = bells();
        let raw = |fds: &[OwnedFd]| fds.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>();
        let stack =
            Stack::attach(other, index, &raw(&xsks), &raw(&bells[..BELLS]), bells[BELLS].as_raw_fd()).expect("attach");
        let mut guard = stack.lock();
        assert_eq!(guard.poll(now()), 0);
        guard.flush(now());
        assert!(guard.frames_mut().free_count() >= 128, "a working stock of frames");
        assert!(stack.try_lock().is_none());
        drop(guard);
        assert!(arena.census().adds_up());
        assert!(arena.census().stacks[index as usize] >= 128);
    }
    arena.free_stack(first, true);
    arena.free_stack(second, true);
    let end = arena.census();
    assert_eq!((end.pool, end.fill), (filled.pool, filled.fill), "all came back");
    let again = arena.alloc_stack(&Config::default(), &Tunables::default()).unwrap();
    assert_eq!(again, Some(first), "a freed slot is used again");
}

#[test]
fn an_arena_of_another_kind_is_refused() {
    // SAFETY: a NUL-terminated name; the descriptor is new and ours.
    let fd = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"not-an-arena".as_ptr(), 0)) };
    std::fs::File::from(fd.try_clone().unwrap()).set_len(1 << 20).unwrap();
    let error = Arena::map(fd.as_raw_fd()).unwrap_err().to_string();
    assert!(error.contains("not an arena"), "{error}");
}

#[test]
fn a_bell_is_held_by_one_and_freed_with_its_process() {
    if !enter_rig() {
        return;
    }
    let here = one_stack(&Config::default());
    let (arena, index, stack) = (here.arena, here.index, &here.stack);
    let held: Vec<_> = (0..16).map(|_| stack.claim_bell(7).expect("a bell")).collect();
    assert!(stack.claim_bell(8).is_none(), "sixteen and no more");
    assert_eq!((stack.shared_bell(0).0, stack.shared_bell(17).0), (16, 17), "the others are for everybody");
    assert_eq!(arena.stack(index).bells_of(7), 0xffff, "a dead process's bells are found");
    arena.stack(index).release_process(7);
    assert!(stack.claim_bell(8).is_some());
    drop(held);
}

/// A TCP segment for the stack, from 10.0.0.2:4000 to 10.0.0.1:80, checksum unfinished as a veth peer leaves it.
fn inbound(guard: &mut Guard<'_>, seq: u32, ack: u32, flags: Flags) {
    const OFF: usize = 256;
    let (us, peer) = (Ip::v4([10, 0, 0, 1]), Ip::v4([10, 0, 0, 2]));
    let frame = guard.frames_mut().alloc().expect("a frame");
    let bytes = &mut guard.frames_mut().bytes_mut(frame)[OFF..];
    let ether = ethernet::Header { dst: OURS, src: PEER, tags: Tags::NONE, ethertype: ethernet::IPV4 };
    ethernet::emit(&ether, bytes);
    ipv4::emit(&peer, &us, 6, ipv4::Service { tos: 0, ttl: 64 }, 20, &mut bytes[14..]);
    let segment = Control { seq: Seq(seq), ack: Seq(ack), flags, window: 60_000, timestamp: None };
    segment.emit(4000, 80, &mut bytes[34..]);
    let partial = Sum::pseudo_header(&peer, &us, 6, 20).fold();
    bytes[50..52].copy_from_slice(&partial.to_be_bytes());
    guard.handle_frame(now(), frame, OFF as u16, 54, 0);
}

/// A packet socket that sees what arrives on e1.
fn tap() -> OwnedFd {
    // SAFETY: a new descriptor of ours; the address outlives the call; a NUL-terminated name.
    unsafe {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, i32::from(protocol));
        assert!(fd >= 0, "a packet socket");
        let mut address: libc::sockaddr_ll = core::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = libc::if_nametoindex(c"e1".as_ptr()) as i32;
        let len = size_of::<libc::sockaddr_ll>() as u32;
        assert_eq!(libc::bind(fd, (&raw const address).cast(), len), 0);
        OwnedFd::from_raw_fd(fd)
    }
}

/// Sequence number and flags of the next segment from our port 80 that the tap sees within a second.
#[expect(clippy::disallowed_methods, reason = "a test waits for the kernel")]
fn seen(tap: &OwnedFd) -> Option<(u32, u8)> {
    let mut bytes = [0u8; 2048];
    for _ in 0..1000 {
        // SAFETY: the buffer is as long as said.
        let n = unsafe { libc::recv(tap.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        if n >= 54 && bytes[12..14] == [8, 0] && bytes[23] == 6 && bytes[34..36] == [0, 80] {
            return Some((u32::from_be_bytes([bytes[38], bytes[39], bytes[40], bytes[41]]), bytes[47]));
        }
        if n < 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    None
}

/// A child takes the lock, does so much, and ends.
fn die_holding<'s>(stack: &'s Stack, act: impl FnOnce(&mut Guard<'s>)) {
    // SAFETY: the child takes a lock and ends; it allocates nothing.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut guard = core::mem::ManuallyDrop::new(stack.lock());
        act(&mut guard);
        // SAFETY: ends the child at once, lock held.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: our own child.
    assert_eq!(unsafe { libc::waitpid(child, core::ptr::null_mut(), 0) }, child);
}

#[test]
fn threads_stay_out_of_a_stack_that_is_shut() {
    if !enter_rig() {
        return;
    }
    let here = one_stack(&Config::default());
    let stack = &here.stack;
    let try_elsewhere = || std::thread::scope(|s| s.spawn(|| stack.try_lock().is_some()).join().unwrap());

    stack.shut(Instant::FAR);
    assert!(stack.try_lock().is_some(), "whoever shuts it goes in and out");
    assert!(!try_elsewhere(), "others do not");
    stack.open();
    assert!(try_elsewhere());
    stack.shut(now().after_us(20_000));
    std::thread::scope(|s| s.spawn(|| drop(stack.lock())).join().unwrap()); // It ends.
    assert!(try_elsewhere(), "it was shut for so long");
}

#[test]
fn what_the_device_does_not_take_is_not_lost_with_the_stack() {
    if !enter_rig() {
        return;
    }
    let here = one_stack(&Config { mac: OURS, mtu: 1500, device_is_virtual: true, ..Config::default() });
    let (arena, index, stack) = (here.arena, here.index, &here.stack);
    let before = arena.census();
    let done = Command::new("ip").args(["link", "set", "e0", "down"]).status().expect("ip(8) from iproute2");
    assert!(done.success());

    let mut guard = stack.lock();
    guard.poll(now());
    guard.net_mut().set_address(Address::new(Ip::v4([10, 0, 0, 1]), 120, Tags::NONE));
    for seq in 0..5 {
        inbound(&mut guard, seq, 0, Flags::ACK); // A RST answers it.
    }
    guard.flush(now());
    assert_eq!(guard.counters().tx_frames, 5);
    guard.recall();
    drop(guard);
    arena.free_stack(index, false);
    let after = arena.census();
    assert_eq!((after.pool, arena.pool().count()), (before.pool, before.pool));
    assert!(after.adds_up());
}

#[test]
fn who_dies_holding_the_lock_leaves_peers_that_are_told() {
    if !enter_rig() {
        return;
    }
    let tap = tap();
    let here = one_stack(&Config { mac: OURS, mtu: 1500, device_is_virtual: true, ..Config::default() });
    let (arena, index, stack) = (here.arena, here.index, &here.stack);

    let mut guard = stack.lock();
    guard.poll(now());
    guard.net_mut().set_address(Address::new(Ip::v4([10, 0, 0, 1]), 120, Tags::NONE));
    let options = Options::new(guard.tunables());
    guard.listen(Endpoint::new(Ip::UNSPECIFIED_V4, 80), false, 4, &options, 1).expect("a listener");
    inbound(&mut guard, 1000, 0, Flags::SYN);
    guard.flush(now());
    let (iss, flags) = seen(&tap).expect("a SYN-ACK");
    assert_eq!(flags, 0x12);
    inbound(&mut guard, 1001, iss.wrapping_add(1), Flags::ACK);
    guard.poll(now());
    assert_eq!(guard.population().connections, 1);
    drop(guard);

    die_holding(stack, |_| ());
    die_holding(stack, |guard| {
        guard.poll(now());
        guard.rest();
    });
    let guard = stack.lock();
    assert_eq!(guard.population().connections, 1, "who had changed nothing, or was done, takes nothing along");
    assert_eq!(seen(&tap), None);
    drop(guard);

    die_holding(stack, |guard| {
        guard.poll(now());
        guard.rest();
        guard.poll(now());
    });
    let guard = stack.lock();
    assert_eq!(guard.population().connections, 0, "it starts over");
    assert_eq!(seen(&tap), Some((iss.wrapping_add(1), 0x14)), "RST, ACK, where the peer expects it");
    drop(guard);
    assert!(arena.census().adds_up());
    arena.free_stack(index, true);
}
