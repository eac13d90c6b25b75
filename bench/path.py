"""The paths of the goodput benchmark: two hosts joined by the project's own wire, and programs that stream over it."""

import contextlib
import math
import os
import re
import resource
import time
from dataclasses import dataclass, field

from rig import process, product
from rig.line import line
from rig.process import Failed, Process, wait_until
from rig.setup import Rig

STREAM = product.TARGET / "bench/stream"
PORT, OTHER_PORT = 5000, 5001
MSS_BITS = 1448 * 8

# Asked for by socket: a namespace may choose by sysctl only what the machine allows to everybody.
CONGESTION = "cubic"
# One run must not teach the next.
SYSCTLS = {"tcp_no_metrics_save": "1"}


@dataclass(frozen=True)
class System:
    """A column. The far host is always the kernel; `verb` says who sends: fetch, the near host; push, the far one."""

    name: str
    mode: str
    verb: str


KERNEL = System("kernel→kernel", "kernel", "fetch")
SENDER = System("sidestep→kernel", "sidestep", "fetch")
RECEIVER = System("kernel→sidestep", "sidestep", "push")
SYSTEMS = (KERNEL, SENDER, RECEIVER)


@dataclass(frozen=True)
class Path:
    """loss: percent in each direction, so of data and of acknowledgements."""

    loss: float
    rtt_ms: float
    rate_mbit: float

    @property
    def queue_ms(self):
        """One bandwidth-delay product, and no less than a home router has."""
        return max(self.rtt_ms, 10)

    @property
    def flows(self):
        """Several where one would leave the path nearly empty: their sum varies less, and still does not fill it.

        What one can have is Mathis's estimate, MSS / RTT * 1.22 / sqrt(p). With rare losses it holds only after many seconds;
        until then a few flows that come out of slow start fill the path: so one alone.
        """
        if self.loss < 1:
            return 1
        one = MSS_BITS / (self.rtt_ms / 1000) * 1.22 / math.sqrt(self.loss / 100)
        return max(1, min(8, int(self.rate_mbit * 1e6 / 2 / one)))

    def rounds(self, rounds):
        """More where a run has few losses, so that when the first one falls decides what it carries: their median would be chance."""
        return 3 * rounds if self.loss == 1 and self.rtt_ms >= 100 else rounds

    def span_ms(self, span_ms):
        """Longer where losses are so rare that 40 round trips show little but the slow start that the first one ended."""
        return 5 * span_ms if 0 < self.loss < 1 and self.rtt_ms >= 100 else span_ms

    def line(self, rig, seed, is_turned=False):
        return line(rig, self.rtt_ms, is_turned, loss=self.loss, rate_mbit=self.rate_mbit, queue_ms=self.queue_ms, seed=seed)


@dataclass
class Sample:
    """One run. Shares are of one core."""

    mbit: float
    seed: int = 0
    cpu: dict = field(default_factory=dict)
    idle: float = 0.0
    lost: int = 0
    taildropped: int = 0


class Site:
    """One rig with a streaming server on near, under sidestep or not, and a plain one beside it."""

    def __init__(self, rig, spin):
        self.rig = rig
        self.congestion = {}
        for host in (rig.near, rig.far):
            for name, value in SYSCTLS.items():
                host.check(["sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{name}"])
        if rig.mode == "sidestep":
            rig.sidestep.up()
        self.server = rig.start_served("stream", self._argv("serve", PORT), [PORT], spin=spin)
        self.plain = rig.start(rig.near, "plain", self._argv("serve", OTHER_PORT))
        for server, port in ((self.server, PORT), (self.plain, OTHER_PORT)):
            wait_until(lambda port=port: self._listens(port) or not server.is_running(), 10, "the server did not start")
            if not server.is_running():
                raise Failed(f"the server ended at start: {server.output()}")

    def _argv(self, *words):
        return ["env", f"STREAM_CONGESTION={CONGESTION}", str(STREAM), *map(str, words)]

    def _note_congestion(self, sender, text):
        """What the sender got. The kernel must have given what was asked for."""
        found = re.search(r"^congestion (\S+)$", text, re.MULTILINE)
        self.congestion[sender] = found[1] if found else "unknown"
        if sender == "kernel" and self.congestion[sender] != CONGESTION:
            raise Failed(f"the kernel sends with {self.congestion[sender]}, not with {CONGESTION}")

    def _listens(self, port):
        """A listener under sidestep listens in the kernel as well."""
        return f":{port:04X} 00000000:0000 0A" in self.rig.near.check(["cat", "/proc/net/tcp"])

    def measure(self, system, path, seed, warm_ms, span_ms):
        # The octets meet the same dice, whichever host sends them: with rare losses the first one decides nearly all.
        with path.line(self.rig, seed, is_turned=system.verb == "push") as wire:
            before, started, idle = self._cpu(wire), time.monotonic(), idle_ticks()
            with self.rig.carried_by_user_stack(frames=10):
                bits = self._stream(system.verb, path.flows, warm_ms, span_ms)
            seconds = time.monotonic() - started
            cpu = {name: (spent - before[name]) / 1000 / seconds for name, spent in self._cpu(wire).items()}
            idle = (idle_ticks() - idle) / os.sysconf("SC_CLK_TCK") / seconds
        check_wire(wire)
        return Sample(bits / span_ms / 1000, seed, cpu, idle, wire.outward.lost + wire.inward.lost,
                      wire.outward.taildropped + wire.inward.taildropped)

    def _cpu(self, wire):
        """What the wire, near's server and far's client have spent. The client's is known when it has ended."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {"wire": wire.spent_ms(), "near": process.cpu_ms(self.server.pid),
                "far": (children.ru_utime + children.ru_stime) * 1000}

    def _stream(self, verb, flows, warm_ms, span_ms):
        """The bits of all flows."""
        counted = len(flow_bits(self.server.output()))
        argv = self._argv(verb, self.rig.near.ipv4, PORT, flows, warm_ms, span_ms)
        out = self.rig.far.check(argv, timeout=(warm_ms + span_ms) / 1000 + 60)
        self._note_congestion(self.rig.mode if verb == "fetch" else "kernel", self.server.output() if verb == "fetch" else out)
        if verb == "fetch":
            return sum(flow_bits(out, flows))
        # A flow of ours whose first bytes were lost began later at the server, and so ends later.
        wait_until(lambda: len(flow_bits(self.server.output())) >= counted + flows, 10,
                   lambda: f"the server did not count all flows to their end: {self.server.output()[-200:]}")
        return sum(flow_bits(self.server.output())[counted:])

    def share(self, path, warm_ms, span_ms, first):
        """Mbit/s of the server on PORT and of the plain one, side by side. first: which of them starts a moment before."""
        with path.line(self.rig, seed=1) as wire:
            before = self.rig.witness()
            clients = {}
            for port in (PORT, OTHER_PORT) if first == 0 else (OTHER_PORT, PORT):
                log = self.rig.scratch / f"fetch-{port}.log"
                log.write_text("")
                argv = self.rig.far.command(self._argv("fetch", self.rig.near.ipv4, port, 1, warm_ms, span_ms))
                clients[port] = Process(argv, log)
            try:
                for client in clients.values():
                    client.exit_code((warm_ms + span_ms) / 1000 + 30)
            finally:
                for client in clients.values():
                    client.stop()
            if self.rig.mode == "sidestep":
                expect_user_frames(self.rig.witness() - before)
        check_wire(wire)
        return [sum(flow_bits(clients[port].output(), 1)) / span_ms / 1000 for port in (PORT, OTHER_PORT)]


def expect_user_frames(moved):
    """The kernel's counters move as well here, by the other server's doing."""
    if min(moved.user_in, moved.user_out, moved.redirected) < 10:
        raise Failed(f"the user stack carried nothing: {moved}")


def check_wire(wire):
    for tally in (wire.outward, wire.inward):
        if tally.trouble():
            raise Failed(f"the wire is not what it should be: {tally.trouble()}")


def flow_bits(text, expected=None):
    """Bits of each "flow BYTES NANOSECONDS" line."""
    lines = [line.split() for line in text.splitlines()]
    bits = [int(words[1]) * 8 for words in lines if len(words) == 3 and words[0] == "flow"]
    if expected is not None and len(bits) != expected:
        raise Failed(f"{len(bits)} of {expected} flows reached their end: {text.strip()[-200:]}")
    return bits


def idle_ticks():
    with open("/proc/stat") as lines:
        return int(next(lines).split()[4])


@contextlib.contextmanager
def sites(modes, spin=None):
    """{mode: Site}. The daemon comes up only when the sysctls are set: its stacks take them as their defaults."""
    with contextlib.ExitStack() as stack:
        yield {mode: Site(stack.enter_context(Rig(mode, daemon=False, long_wire=True)), spin) for mode in modes}
