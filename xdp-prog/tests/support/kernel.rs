//! A loaded program with its maps.

use std::os::fd::OwnedFd;
use std::time::Duration;

use aya::maps::{Array, HashMap, MapData, PerCpuArray, XskMap};
use aya::programs::{TestRun as _, Xdp};
use aya::{Ebpf, TestRunOptions};
use sidestep_xdp::STEER_OBJECT;
use sidestep_xdp::maps::{
    ABI_VERSION, BUCKETS_PER_GROUP, BlockEntry, Config, FlowKey, PortEntry, Proto, Verdict, bucket_index,
    ephemeral_index, names, policy_index, xsk_index,
};

/// The program's answers, as the kernel numbers them.
pub(crate) const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// An AF_XDP socket. Unbound: enough to be named in the map and redirected to in a test run.
pub(crate) fn xsk() -> OwnedFd {
    use rustix::net::{AddressFamily, SocketType, socket};
    socket(AddressFamily::XDP, SocketType::RAW, None).expect("an AF_XDP socket")
}

/// The program, loaded.
pub(crate) struct Steer {
    bpf: Ebpf,
    queues: u32,
}

impl Steer {
    /// Loads the committed object, unconfigured.
    pub(crate) fn load() -> Self {
        let mut bpf = Ebpf::load(STEER_OBJECT).expect("the object parses and its maps are made");
        let program: &mut Xdp = bpf.program_mut(names::PROGRAM).expect("the program").try_into().expect("is XDP");
        program.load().expect("the verifier accepts it");
        Self { bpf, queues: 0 }
    }

    /// The program, to attach it.
    pub(crate) fn program(&mut self) -> &mut Xdp {
        self.bpf.program_mut(names::PROGRAM).expect("the program").try_into().expect("is XDP")
    }

    fn set<const N: usize>(&mut self, map: &str, index: u32, value: [u8; N]) {
        let map = self.bpf.map_mut(map).expect("the map");
        let mut array: Array<&mut MapData, [u8; N]> = map.try_into().expect("is an array of this");
        array.set(index, value, 0).expect("set");
    }

    fn insert<const N: usize>(&mut self, map: &str, key: [u8; N], value: u32) {
        let map = self.bpf.map_mut(map).expect("the map");
        let mut hash: HashMap<&mut MapData, [u8; N], u32> = map.try_into().expect("is a hash of this");
        hash.insert(key, value, 0).expect("insert");
    }

    pub(crate) fn configure(&mut self, queues: u32, flags: u32) {
        self.queues = queues;
        let config = Config { queues, flags, abi: ABI_VERSION, reserved: 0 };
        self.set(names::CONFIG, 0, config.to_bytes());
    }

    pub(crate) fn local(&mut self, address: [u8; 16]) {
        self.insert(names::LOCAL, address, 1);
    }

    pub(crate) fn policy(&mut self, proto: Proto, port: u16, entry: PortEntry) {
        self.set(names::POLICY, policy_index(proto, port), entry.to_bytes());
    }

    pub(crate) fn ephemeral(&mut self, port: u16, entry: BlockEntry) {
        self.set(names::EPHEMERAL, ephemeral_index(port), entry.to_bytes());
    }

    pub(crate) fn datagram_port(&mut self, port: u16, entry: u64) {
        self.set(names::DATAGRAM_PORTS, u32::from(port), entry.to_ne_bytes());
    }

    pub(crate) fn flow(&mut self, key: &FlowKey, stack: u32) {
        self.insert(names::FLOWS, key.to_bytes(), stack);
    }

    /// All buckets of a group to one stack.
    pub(crate) fn buckets(&mut self, group: u16, stack: u32) {
        for bucket in 0..BUCKETS_PER_GROUP {
            self.bucket(group, bucket, stack + 1);
        }
    }

    pub(crate) fn bucket(&mut self, group: u16, bucket: u32, entry: u32) {
        self.set(names::BUCKETS, bucket_index(group, bucket), entry.to_ne_bytes());
    }

    /// Puts a socket where queue 0 of the stack belongs.
    pub(crate) fn xsk(&mut self, stack: u32, socket: &OwnedFd) {
        use std::os::fd::AsRawFd as _;
        let index = xsk_index(stack, self.queues, 0);
        let map = self.bpf.map_mut(names::XSKS).expect("the map");
        let mut sockets: XskMap<&mut MapData> = map.try_into().expect("is an XSK map");
        sockets.set(index, socket.as_raw_fd(), 0).expect("set");
    }

    /// Every counter, summed over the processors.
    pub(crate) fn counters(&self) -> Vec<u64> {
        let map = self.bpf.map(names::COUNTERS).expect("the map");
        let counters: PerCpuArray<&MapData, u64> = map.try_into().expect("is a per-CPU array");
        let sum = |index| counters.get(&index, 0).expect("get").iter().sum();
        (0..Verdict::COUNT).map(sum).collect()
    }

    /// The verdicts that were counted since.
    pub(crate) fn counted_since(&self, before: &[u64]) -> Vec<Verdict> {
        let now = self.counters();
        Verdict::ALL.iter().copied().filter(|verdict| now[*verdict as usize] > before[*verdict as usize]).collect()
    }

    /// One frame through the program, by `BPF_PROG_TEST_RUN`.
    pub(crate) fn run(&mut self, frame: &[u8]) -> u32 {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        self.program().test_run(options).expect("a test run").return_value
    }

    /// How long the program takes for a frame, on average over many.
    pub(crate) fn time(&mut self, frame: &[u8]) -> Duration {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = 1_000_000;
        let result = self.program().test_run(options).expect("a test run");
        result.duration
    }

    /// Runs a frame, and wants this verdict: returned, and counted, alone and once.
    pub(crate) fn expect(&mut self, frame: &[u8], verdict: Verdict) {
        let before = self.counters();
        let action = if verdict.name().starts_with("redirect_") { XDP_REDIRECT } else { XDP_PASS };
        let returned = self.run(frame);
        assert_eq!(self.counted_since(&before), [verdict]);
        assert_eq!(returned, action, "{}", verdict.name());
        assert_eq!(self.counters()[verdict as usize], before[verdict as usize] + 1);
    }
}
