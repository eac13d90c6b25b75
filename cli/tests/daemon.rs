//! The daemon on a real device: a veth pair between two network namespaces of the test's own. Needs root.

use sidestep_stack::addr::{Endpoint, Ip};
use sidestep_stack::arena::{Arena, BELLS, ProcId};
use sidestep_stack::runtime::control::{Client, FdSet, Op, Reply, Request};
use sidestep_stack::runtime::{Stack, map_datagram_ports};
use sidestep_stack::tcp::Options;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const SIDESTEP: &str = env!("CARGO_BIN_EXE_sidestep");
const DEV: &str = "sscli0";

/// Two namespaces and a veth pair, removed in the end, whatever happens.
struct Rig {
    name: String,
}

impl Rig {
    /// `None`, with the reason, where the test cannot run.
    fn new() -> Option<Rig> {
        Rig::with_queues(1)
    }

    fn with_queues(n: u32) -> Option<Rig> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        if Command::new("ip").arg("-V").output().is_err() {
            println!("skipped: needs ip (iproute2)");
            return None;
        }
        let rig = Rig { name: format!("ss-cli-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)) };
        let queues = format!("numrxqueues {n} numtxqueues {n}");
        let (a, b) = (format!("{}-a", rig.name), format!("{}-b", rig.name));
        for line in [
            format!("netns add {a}"),
            format!("netns add {b}"),
            format!("link add {DEV} netns {a} {queues} type veth peer name {DEV} netns {b} {queues}"),
            format!("-n {a} link set lo up"),
            format!("-n {a} link set {DEV} up"),
            format!("-n {b} link set {DEV} up"),
            format!("-n {a} addr add 10.78.0.1/24 dev {DEV}"),
            format!("-n {b} addr add 10.78.0.2/24 dev {DEV}"),
        ] {
            let done = Command::new("ip").args(line.split(' ')).output().expect("ip runs");
            assert!(done.status.success(), "ip {line}: {}", String::from_utf8_lossy(&done.stderr));
        }
        Some(rig)
    }

    /// A command in the first namespace.
    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-a", self.name), program]).args(args);
        command
    }

    fn sidestep(&self, args: &[&str]) -> Output {
        self.command(SIDESTEP, args).output().expect("sidestep runs")
    }

    /// Runs it, wants success, returns what it printed.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.sidestep(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs it, wants a failure in one line, returns that.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.sidestep(args);
        let line = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{args:?}: {line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        line
    }

    fn shell(&self, script: &str) -> String {
        let output = self.command("sh", &["-c", script]).output().expect("sh runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn reserved_ports(&self) -> String {
        self.shell("cat /proc/sys/net/ipv4/ip_local_reserved_ports")
    }

    fn xdp(&self) -> bool {
        self.shell(&format!("ip link show {DEV}")).contains("prog/xdp")
    }

    fn status(&self) -> String {
        self.ok(&["status", "--json"])
    }

    /// A number of the JSON status, by its name's first place.
    fn number(&self, name: &str) -> u64 {
        let json = self.status();
        let at = json.find(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{name} in {json}"));
        let digits = json[at + name.len() + 3..].chars().take_while(char::is_ascii_digit);
        digits.collect::<String>().parse().expect("a number")
    }

    fn wait_for(&self, what: &str, mut is_so: impl FnMut(&str) -> bool) {
        let start = Instant::now();
        loop {
            let json = self.status();
            if is_so(&json) {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(5), "{what}: {json}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A process that attaches, opens a stack and joins port 8080, until its input ends.
    fn attach(&self) -> Attached {
        self.start("attached_process")
    }

    /// One of this file's processes that are not tests; it has said `attached` and a number.
    fn start(&self, process: &str) -> Attached {
        self.start_as(process, &[])
    }

    /// The same by another program, which sets somebody else's credentials: of a copy that anybody can reach.
    fn start_as(&self, process: &str, by: &[&str]) -> Attached {
        let me = std::env::current_exe().expect("a test program");
        let copy = std::env::temp_dir().join(format!("{}-{process}", self.name));
        if !by.is_empty() {
            std::fs::copy(&me, &copy).expect("a copy");
        }
        let me = if by.is_empty() { &me } else { &copy };
        let args = [me.to_str().expect("a path"), "--exact", process, "--ignored", "--nocapture", "--test-threads=1"];
        let words = [by, &args].concat();
        let mut child = self
            .command(words[0], &words[1..])
            .env("SSCLI_DEV", DEV)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test program runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = lines.find_map(|l| l.expect("text").rsplit_once("attached ").map(|(_, i)| i.to_owned()));
        let _ = std::fs::remove_file(copy);
        let index = ready.expect("it attached");
        Attached { child, index, lines: Box::new(lines.map(|l| l.expect("text"))) }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.sidestep(&["down", DEV, "--force"]);
        for side in ["a", "b"] {
            let _ = Command::new("ip").args(["netns", "del", &format!("{}-{side}", self.name)]).output();
        }
    }
}

struct Attached {
    child: Child,
    index: String,
    lines: Box<dyn Iterator<Item = String>>,
}

impl Attached {
    /// `ip netns exec` execs, so the child is the process itself.
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.kill();
    }
}

fn call(client: &Client, op: Op, a: [u64; 4]) -> (Reply, FdSet) {
    let mut fds = FdSet::default();
    let reply = client.call(&Request::new(op, a), &mut fds).expect("an answer");
    (reply, fds)
}

/// Not a test: the process that [`Rig::attach`] starts.
#[test]
#[ignore = "started by the other tests"]
fn attached_process() {
    let Ok(device) = std::env::var("SSCLI_DEV") else { return };
    let client = Client::connect(&device).expect("a daemon");
    let (reply, fds) = call(&client, Op::Hello, [0; 4]);
    assert_eq!(reply.status, 0, "{}", reply.text());
    let [memfd, bell] = fds.as_slice() else { panic!("{} descriptors", fds.as_slice().len()) };
    let process = reply.a[0] as ProcId;
    let arena = Arena::map(*memfd).expect("an arena");
    let (reply, fds) = call(&client, Op::StackOpen, [0; 4]);
    assert_eq!(reply.status, 0, "{}", reply.text());
    let queues = arena.header().queues() as usize;
    let (xsks, rest) = fds.as_slice().split_at(queues);
    let (bells, table) = rest.split_at(BELLS);
    assert_eq!(table.len(), 1);
    let table = map_datagram_ports(table[0]).expect("the table of datagram ports");
    let index = reply.a[0];
    let stack = Stack::attach(arena, index as u32, xsks, bells, *bell).expect("a stack").steering_datagrams_by(table);
    let guard = stack.lock();
    assert_eq!(guard.net().addresses().len(), 1, "the mirror filled the tables");
    assert!(!guard.net().routes().is_empty());
    assert!(guard.config().device_is_virtual);
    drop(guard);
    // Whoever joins listens already.
    let mut guard = stack.lock();
    let plain = Options::new(guard.tunables());
    guard.listen(Endpoint::new(Ip::UNSPECIFIED_V4, 8080), false, 8, &plain, process).expect("a listener");
    drop(guard);
    let (reply, _) = call(&client, Op::Join, [0, 8080, index, 0]);
    assert_eq!(reply.status, 0, "{}", reply.text());
    let (reply, _) = call(&client, Op::Block, [index, 0, 0, 0]);
    assert_eq!((reply.status, reply.a[0]), (0, 256), "{}", reply.text());
    // Datagram sockets come and go: more ports than there are groups, one after the other.
    for port in 20_000..20_300 {
        let (reply, _) = call(&client, Op::Join, [1, port, index, 0]);
        assert_eq!(reply.status, 0, "port {port}/udp: {}", reply.text());
        assert_eq!(call(&client, Op::Leave, [1, port, index, 0]).0.status, 0);
    }
    // What cannot be must be refused, not believed.
    assert_ne!(call(&client, Op::Join, [0, 0, index, 0]).0.status, 0);
    assert_ne!(call(&client, Op::Join, [0, 1 << 20, index, 0]).0.status, 0);
    assert_ne!(call(&client, Op::Join, [9, 80, index, 0]).0.status, 0);
    assert_ne!(call(&client, Op::Join, [0, 80, 63, 0]).0.status, 0);
    assert_ne!(call(&client, Op::Leave, [0, 80, u64::MAX, 0]).0.status, 0);
    assert_ne!(call(&client, Op::Block, [1 << 40, 0, 0, 0]).0.status, 0);
    assert_ne!(
        client.call(&Request { version: 1, ..Request::new(Op::Hello, [0; 4]) }, &mut FdSet::default()).unwrap().status,
        0
    );
    println!("attached {index}");
    stack.sleep_begin();
    let _ = std::io::stdin().read(&mut [0]);
}

/// Not a test: a process of somebody whom the rule does not name.
#[test]
#[ignore = "started by the other tests"]
fn stranger_process() {
    let Ok(device) = std::env::var("SSCLI_DEV") else { return };
    let client = Client::connect(&device).expect("a daemon");
    let to_get_in = [Op::Hello, Op::Map, Op::StackOpen, Op::Join, Op::Leave, Op::Block];
    for op in to_get_in.into_iter().chain([Op::PortSet, Op::Down, Op::Doctor]) {
        for a in [[0; 4], [1; 4], [0, 8080, 0, 0], [u64::MAX; 4]] {
            let (reply, fds) = call(&client, op, a);
            assert_eq!((reply.status, fds.as_slice().len()), (libc::EACCES, 0), "{op:?}");
            let wanted = if to_get_in.contains(&op) { "--allow" } else { "only root" };
            assert!(reply.text().contains(wanted) && !reply.text().contains('\n'), "{op:?}: {}", reply.text());
        }
    }
    for odd in
        [Request { op: 99, ..Request::new(Op::Hello, [0; 4]) }, Request { version: 1, ..Request::new(Op::Map, [0; 4]) }]
    {
        let mut fds = FdSet::default();
        let reply = client.call(&odd, &mut fds).expect("an answer");
        assert!(reply.status != 0 && fds.as_slice().is_empty());
    }
    // What is for everybody is, and it is nothing of the arena: a text.
    let (reply, fds) = call(&client, Op::Refresh, [1, 0, 0, 0]);
    assert_eq!((reply.status, fds.as_slice().len()), (0, 1));
    assert!(Arena::map(fds.as_slice()[0]).is_err());
    // It cannot keep others out by taking up all connections, nor by asking without a pause.
    let many: Vec<_> = (0..300).map(|_| Client::connect(&device)).collect();
    let is_answered = |client: &std::io::Result<Client>| {
        let Ok(client) = client else { return false };
        client.call(&Request::new(Op::Refresh, [0; 4]), &mut FdSet::default()).is_ok()
    };
    let answered = many.iter().filter(|client| is_answered(client)).count();
    assert!((1..100).contains(&answered), "{answered} of 300 connections are served");
    println!("attached {answered}");
    let _ = std::io::stdin().read(&mut [0]);
}

/// Not a test: a process that says hello, and opens its stack only when a line comes, at a daemon that took over.
#[test]
#[ignore = "started by the other tests"]
fn patient_process() {
    let Ok(device) = std::env::var("SSCLI_DEV") else { return };
    let client = Client::connect(&device).expect("a daemon");
    let (reply, fds) = call(&client, Op::Hello, [0; 4]);
    assert_eq!(reply.status, 0, "{}", reply.text());
    let [memfd, bell] = fds.as_slice() else { panic!("{} descriptors", fds.as_slice().len()) };
    let arena = Arena::map(*memfd).expect("an arena");
    println!("attached {}", reply.a[0]);
    std::io::stdin().read_exact(&mut [0]).expect("a line");

    let client = Client::connect(&device).expect("a new daemon");
    let stranger = [1, arena.header().id().wrapping_add(1), 0, 0];
    assert_eq!(call(&client, Op::Hello, stranger).0.status, libc::ESTALE, "another arena's process");
    let (again, _) = call(&client, Op::Hello, [1, arena.header().id(), 0, 0]);
    assert_eq!((again.status, again.a[0]), (0, reply.a[0]), "{}", again.text());
    let (reply, fds) = call(&client, Op::StackOpen, [0; 4]);
    assert_eq!(reply.status, 0, "{}", reply.text());
    let (xsks, rest) = fds.as_slice().split_at(arena.header().queues() as usize);
    let bells = &rest[..BELLS];
    let stack = Stack::attach(arena, reply.a[0] as u32, xsks, bells, *bell).expect("a stack");
    assert_eq!(stack.lock().net().addresses().len(), 1, "the mirror filled the tables");
    println!("opened {}", reply.a[0]);
    stack.sleep_begin();
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn up_status_down() {
    let Some(rig) = Rig::new() else { return };
    assert!(rig.refused(&["status"]).contains("no daemon is up"));
    assert_eq!(rig.status().trim(), r#"{"devices":[]}"#);
    assert!(rig.refused(&["down", DEV]).contains("not up"));
    assert!(rig.refused(&["up", "nosuchdev"]).contains("nosuchdev"));
    let before = rig.reserved_ports();

    let line = rig.ok(&["up", DEV, "--frames", "8192"]);
    assert!(line.starts_with(&format!("{DEV}: up, native XDP, 1 queue, copy (the driver (veth)")), "{line}");
    assert_eq!(line.lines().count(), 1);
    assert!(rig.xdp());
    assert_ne!(rig.reserved_ports(), before);
    assert!(rig.refused(&["up", DEV]).contains("up already"));
    assert!(rig.ok(&["status", DEV]).contains("8192 in all"));
    assert_eq!(rig.number("total"), 8192);

    rig.ok(&["port", "off", "80"]);
    rig.ok(&["port", "on", "443/tcp", "--dev", DEV]);
    rig.ok(&["port", "off", "53/udp"]);
    let list = rig.ok(&["port", "list"]);
    assert!(list.lines().any(|l| l.contains("53/udp") && l.contains("off")), "{list}");
    assert!(!list.contains("53/tcp") && !list.contains("80/udp"), "{list}");
    assert!(list.lines().any(|l| l.contains("80/tcp") && l.contains("off")), "{list}");
    assert!(list.lines().any(|l| l.contains("443/tcp") && l.contains("on")), "{list}");

    assert_eq!(rig.ok(&["down", DEV]).trim(), format!("{DEV}: down"));
    assert!(!rig.xdp());
    assert_eq!(rig.reserved_ports(), before);
    // And up again at once: nothing of the first is left in the way.
    rig.ok(&["up", DEV]);
    rig.ok(&["down", DEV]);
}

#[test]
fn generic_mode() {
    let Some(rig) = Rig::new() else { return };
    let line = rig.ok(&["up", DEV, "--generic"]);
    assert!(line.contains("generic XDP") && line.contains("was asked for"), "{line}");
    rig.ok(&["down", DEV]);
    assert!(!rig.shell(&format!("ip link show {DEV}")).contains("xdpgeneric"));
}

#[test]
fn a_killed_daemon_is_replaced_or_cleared_up() {
    let Some(rig) = Rig::new() else { return };
    let before = rig.reserved_ports();
    for _ in 0..2 {
        rig.ok(&["up", DEV]);
        let pid = i32::try_from(rig.number("daemon_pid")).expect("a pid");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("our daemon");
        std::thread::sleep(Duration::from_millis(200));
        assert!(rig.refused(&["status"]).contains("died"));
        assert!(rig.xdp(), "the program survives its daemon");
    }
    assert!(rig.ok(&["down", DEV]).contains("cleared up"));
    assert!(!rig.xdp());
    assert_eq!(rig.reserved_ports(), before);
}

#[test]
fn a_terminated_daemon_takes_everything_back() {
    let Some(rig) = Rig::new() else { return };
    let before = rig.reserved_ports();
    rig.ok(&["up", DEV]);
    let pid = i32::try_from(rig.number("daemon_pid")).expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).expect("our daemon");
    rig.wait_for("the end", |json| json.trim() == r#"{"devices":[]}"#);
    assert!(!rig.xdp());
    assert_eq!(rig.reserved_ports(), before);
}

#[test]
fn processes_come_and_go() {
    let Some(rig) = Rig::new() else { return };
    rig.ok(&["up", DEV, "--frames", "8192"]);
    let pool = rig.number("pool");
    let mut one = rig.attach();
    let two = rig.attach();
    assert_ne!(one.index, two.index);
    let json = rig.status();
    assert!(json.contains(r#"{"port":8080,"proto":"tcp","policy":"auto","members":2,"#), "{json}");
    assert!(rig.refused(&["down", DEV]).contains(&one.child.id().to_string()));
    assert!(rig.ok(&["status"]).contains(&format!("pid {}", two.child.id())));

    // One is killed: its share of the port goes to the other, its stack is freed, its frames come back.
    one.kill();
    rig.wait_for("one stack less", |json| json.contains(r#""members":1,"#) && json.matches(r#""index":"#).count() == 1);
    drop(two);
    rig.wait_for("no stack", |json| !json.contains(r#""index":"#));
    assert_eq!(rig.number("pool"), pool);
    assert!(!rig.status().contains("8080"));
    rig.ok(&["down", DEV]);
}

#[test]
fn an_idle_daemon_sleeps() {
    let Some(rig) = Rig::new() else { return };
    rig.ok(&["up", DEV]);
    let attached = rig.attach();
    let pid = rig.number("daemon_pid");
    let switches = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon lives");
        let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")).expect("a count");
        line.trim().parse::<u64>().expect("a number")
    };
    std::thread::sleep(Duration::from_millis(500));
    let before = switches();
    std::thread::sleep(Duration::from_secs(2));
    let woken = switches() - before;
    assert!(woken < 20, "{woken} times in two seconds");
    drop(attached);
}

/// bpf(2) with an attribute record, for a descriptor.
fn bpf(command: i32, attributes: &[u8]) -> OwnedFd {
    // SAFETY: the record is readable for its length; the pointers in it are to memory that lives during the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), attributes.len()) };
    assert!(fd >= 0, "bpf: {}", std::io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// Attaches `return XDP_PASS` under the name "stranger" to the device of this thread's namespace.
fn attach_stranger() -> [OwnedFd; 2] {
    let instructions: [u64; 2] = [0x0000_0002_0000_00b7, 0x95]; // r0 = 2; exit
    let license = c"GPL";
    let mut load = [0u8; 64];
    load[0..4].copy_from_slice(&6u32.to_ne_bytes()); // BPF_PROG_TYPE_XDP
    load[4..8].copy_from_slice(&2u32.to_ne_bytes());
    load[8..16].copy_from_slice(&(instructions.as_ptr() as u64).to_ne_bytes());
    load[16..24].copy_from_slice(&(license.as_ptr() as u64).to_ne_bytes());
    load[48..56].copy_from_slice(b"stranger");
    let program = bpf(5, &load); // BPF_PROG_LOAD
    let mut link = [0u8; 16];
    link[0..4].copy_from_slice(&(program.as_raw_fd() as u32).to_ne_bytes());
    link[4..8].copy_from_slice(&nix::net::if_::if_nametoindex(DEV).expect("the device").to_ne_bytes());
    link[8..12].copy_from_slice(&37u32.to_ne_bytes()); // BPF_XDP
    link[12..16].copy_from_slice(&4u32.to_ne_bytes()); // XDP_FLAGS_DRV_MODE
    [bpf(28, &link), program] // BPF_LINK_CREATE
}

#[test]
fn somebody_elses_program_is_respected() {
    let Some(rig) = Rig::new() else { return };
    // Loaded by a thread of this process that moves into the namespace; it holds the program until the end.
    let path = format!("/var/run/netns/{}-a", rig.name);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (attached, is_attached) = std::sync::mpsc::channel::<()>();
    let holder = std::thread::spawn(move || {
        let netns = std::fs::File::open(path).expect("the namespace");
        nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
        let link = attach_stranger();
        attached.send(()).expect("the test waits");
        let _ = wait.recv();
        drop(link);
    });
    is_attached.recv().expect("attached");
    let line = rig.refused(&["up", DEV]);
    assert!(line.contains("\"stranger\"") && line.contains("id ") && line.contains("--replace"), "{line}");
    // One that is held by a bpf_link cannot be replaced from outside: that too is one clear line.
    assert!(rig.refused(&["up", DEV, "--replace"]).contains("cannot remove the XDP program"));
    drop(go);
    holder.join().expect("the holder");
    rig.ok(&["up", DEV]);
}

#[test]
fn strangers_are_refused() {
    let Some(rig) = Rig::new() else { return };
    rig.ok(&["up", DEV]);
    // A copy that "nobody" can reach: the build directory may be closed to him.
    let copy = std::env::temp_dir().join(format!("{}-sidestep", rig.name));
    std::fs::copy(SIDESTEP, &copy).expect("a copy");
    let as_nobody = |args: &str| {
        let script = format!("{} {args} 2>&1", copy.display());
        rig.shell(&format!("setpriv --reuid 65534 --regid 65534 --clear-groups sh -c '{script}'; echo rc $?"))
    };
    assert!(as_nobody("status").ends_with("rc 0"));
    assert!(as_nobody(&format!("down {DEV}")).contains("only root"));
    assert!(as_nobody("port off 80").contains("only root"));
    assert!(as_nobody(&format!("up {DEV}")).contains("sudo"));
    assert!(as_nobody(&format!("doctor {DEV}")).contains("only root"));
    std::fs::remove_file(copy).expect("the copy");

    let mut stranger =
        rig.start_as("stranger_process", &["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    // While it holds all connections that strangers get.
    let mut welcome = rig.attach();
    rig.ok(&["port", "off", "80"]);
    welcome.kill();
    stranger.kill();
}

#[test]
fn whom_the_rule_names_gets_in() {
    let Some(rig) = Rig::new() else { return };
    rig.ok(&["up", DEV, "--allow", "65533", "--allow", "@65532"]);
    for who in [
        ["--reuid", "65533", "--regid", "65534", "--clear-groups"],
        ["--reuid", "65534", "--regid", "65534", "--groups=65532"],
    ] {
        let mut named = rig.start_as("attached_process", &[&["setpriv"], &who[..]].concat());
        named.kill();
    }
    let out = rig.command("unshare", &["--pid", "--fork", SIDESTEP, "status"]).output().expect("unshare runs");
    assert!(out.status.success(), "the status is for everybody: {}", String::from_utf8_lossy(&out.stderr));
    let me = std::env::current_exe().expect("a test program");
    let inside =
        ["--pid", "--fork", me.to_str().expect("a path"), "--exact", "attached_process", "--ignored", "--nocapture"];
    let out =
        rig.command("unshare", &inside).env("SSCLI_DEV", DEV).stdin(Stdio::null()).output().expect("unshare runs");
    let text = [out.stdout, out.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(!out.status.success() && text.contains("PID namespace"), "{text}");
}

/// Kills the daemon, and lets the test's own processes go on. It may still be dying when this returns.
fn kill_daemon(rig: &Rig) {
    let pid = i32::try_from(rig.number("daemon_pid")).expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("our daemon");
}

#[test]
fn a_new_daemon_takes_over() {
    let Some(rig) = Rig::with_queues(2) else { return };
    let before = rig.reserved_ports();
    rig.ok(&["up", DEV, "--frames", "8192"]);
    let (pool, reserved) = (rig.number("pool"), rig.reserved_ports());
    let mut one = rig.attach();
    let mut two = rig.attach();
    rig.ok(&["port", "off", "81"]);
    let program = rig.shell(&format!("ip link show {DEV} | grep -o 'prog/xdp id [0-9]*'"));
    kill_daemon(&rig);

    // One dies while there is no daemon.
    one.kill();
    let line = rig.ok(&["up", DEV]);
    assert!(line.contains("took over a stack"), "{line}");
    assert_eq!(rig.shell(&format!("ip link show {DEV} | grep -o 'prog/xdp id [0-9]*'")), program, "it stays attached");
    assert_eq!(rig.reserved_ports(), reserved);
    let json = rig.status();
    assert!(json.contains(r#"{"port":8080,"proto":"tcp","policy":"auto","members":1,"#), "{json}");
    assert!(json.contains(r#"{"port":81,"proto":"tcp","policy":"off","members":0,"#), "{json}");
    assert_eq!(json.matches(r#""index":"#).count(), 1, "{json}");
    assert_eq!(rig.number("total"), 8192, "the arena is that of before");
    assert!(rig.ok(&["status"]).contains(&format!("pid {}", two.child.id())));

    // The new one serves newcomers, and a third takes over from it.
    let three = rig.attach();
    assert_ne!(three.index, two.index);
    assert!(rig.status().contains(r#""members":2,"#));
    kill_daemon(&rig);
    assert!(rig.ok(&["up", DEV]).contains("took over 2 stacks"));
    assert!(rig.status().contains(r#""members":2,"#));
    two.kill();
    rig.wait_for("one stack less", |json| json.contains(r#""members":1,"#) && json.matches(r#""index":"#).count() == 1);
    drop(three);
    rig.wait_for("no stack", |json| !json.contains(r#""index":"#));
    assert_eq!(rig.number("pool"), pool);
    rig.ok(&["down", DEV]);
    assert!(!rig.xdp());
    assert_eq!(rig.reserved_ports(), before);
}

#[test]
fn an_arena_without_stacks_is_taken_over() {
    let Some(rig) = Rig::new() else { return };
    rig.ok(&["up", DEV, "--frames", "8192"]);
    let pool = rig.number("pool");
    rig.ok(&["port", "off", "81"]);
    let mut patient = rig.start("patient_process");
    let mut one = rig.attach();
    kill_daemon(&rig);
    one.kill();
    let line = rig.ok(&["up", DEV]);
    assert!(!line.contains("took over"), "{line}");
    assert_eq!((rig.number("total"), rig.number("pool")), (8192, pool), "fill rings were emptied and filled");
    assert!(rig.status().contains(r#""port":81,"#), "what the operator decided stays");
    let input = patient.child.stdin.as_mut().expect("piped");
    std::io::Write::write_all(input, b"\n").expect("it reads");
    assert!(patient.lines.any(|line| line.starts_with("opened ")), "it opens a stack of the new daemon's");
    drop(patient);
    rig.wait_for("no stack", |json| !json.contains(r#""index":"#));
    assert_eq!(rig.number("pool"), pool);
}

#[test]
fn what_cannot_be_taken_over_is_refused() {
    let Some(rig) = Rig::new() else { return };
    rig.ok(&["up", DEV]);
    let attached = rig.attach();
    kill_daemon(&rig);
    rig.shell(&format!("ip link set dev {DEV} xdp off"));
    assert!(rig.refused(&["up", DEV]).contains("removed its XDP program"));
    drop(attached);
    rig.ok(&["up", DEV]);
    let attached = rig.attach();
    rig.ok(&["down", DEV, "--force"]);
    let line = rig.refused(&["up", DEV]);
    assert!(line.contains("--force") && line.contains(&attached.child.id().to_string()), "{line}");
    drop(attached);
    rig.ok(&["up", DEV]);
    rig.ok(&["down", DEV]);
}
