"""Measures the same loads on several systems, interleaved, because the machine drifts ±15% within minutes.

Each system has a rig of its own, all alike but for what its name says; so the kernel's numbers are those of a device
without an XDP program, and nothing is restarted between rounds.
"""

import signal
import statistics
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import Optional

from loads import Result
from rig.process import readable
from rig.servers import write_random_file
from rig.setup import Rig


@dataclass(frozen=True)
class System:
    """What a column is: the mode of its rig, sidestep's --spin, a library to preload."""

    name: str
    mode: str
    spin: Optional[int] = None
    preload: Optional[str] = None

    @property
    def burns(self):
        """Its idle servers would take the core from the others: they are stopped while it is not their turn."""
        return self.preload is not None


class Contestant:
    """A system on its rig, with both servers running."""

    def __init__(self, system, rig):
        self.system, self.rig, self.rates = system, rig, {}
        env = {"SPIN_LIBRARY": system.preload} if system.preload else None
        self.servers = {"redis": rig.start_redis(spin=system.spin, env=env), "nginx": rig.start_nginx(spin=system.spin, env=env)}
        write_random_file(rig.www() / "64k", 64 << 10)
        write_random_file(rig.www() / "1m", 1 << 20)
        for server in self.servers.values():
            self._pause(server)

    def measure(self, load, seconds):
        server = self.servers[load.server]
        if self.system.burns:
            server.signal(signal.SIGCONT)
        try:
            return self._measure(load, seconds)
        finally:
            self._pause(server)

    def _measure(self, load, seconds):
        rate = self.rates.get(load.name) or self._warm_up(load, seconds)
        before = busy_ticks(self.rig.server_core)
        result = self._run(load, seconds, rate)
        busy_us = (busy_ticks(self.rig.server_core) - before) * 10_000
        self.rates[load.name] = result.rps
        return Result(result.rps, result.p50_us, result.p99_us, busy_us / max(result.rps * seconds, 1))

    def _warm_up(self, load, seconds):
        """A short run that also says how many requests the next one may ask for."""
        return self._run(load, seconds * 0.2, load.guess / 4).rps

    def _run(self, load, seconds, rate):
        argv = load.argv(self.rig.near.ipv4, seconds, rate)
        return load.parse(self.rig.far.check(argv, core=self.rig.client_core, timeout=60 + 20 * seconds))

    def _pause(self, server):
        if self.system.burns:
            server.signal(signal.SIGSTOP)


@contextmanager
def contestants(systems):
    with ExitStack() as stack:
        made = []
        for system in systems:
            rig = BenchRig(system.mode, pinned=True)
            made.append(Contestant(system, stack.enter_context(rig)))
        yield made


class BenchRig(Rig):
    """A rig whose servers may be preloaded with something of the benchmark's own."""

    def start_served(self, name, argv, ports, env=None, **options):
        if env and "SPIN_LIBRARY" in env:
            argv = ["env", f"LD_PRELOAD={env['SPIN_LIBRARY']}", *argv]
        return super().start_served(name, argv, ports, **options)


def compare(made, load, rounds, seconds):
    """{system name: [Result per round]}; every other round goes the other way, so that drift favours nobody."""
    results = {contestant.system.name: [] for contestant in made}
    for number in range(rounds):
        for contestant in made if number % 2 == 0 else reversed(made):
            results[contestant.system.name].append(contestant.measure(load, seconds))
    return results


def median(results):
    return Result(*(statistics.median(getattr(result, each.name) for result in results) for each in fields(Result)))


def ratio(results, base):
    """The median of the ratios of neighbouring runs, not the ratio of medians."""
    return statistics.median(one.rps / other.rps for one, other in zip(results, base))


def busy_ticks(core):
    """User, nice, system, irq and softirq time of the server's core, or of the machine when nothing is pinned."""
    name = "cpu" if core is None else f"cpu{core}"
    with open("/proc/stat") as lines:
        values = next(line.split()[1:] for line in lines if line.split()[0] == name)
    user, nice, system, _idle, _iowait, irq, softirq = map(int, values[:7])
    return user + nice + system + irq + softirq


def describe_commands(loads):
    """How each row is measured, for the reader who wants to repeat it by hand."""
    for load in loads:
        yield load.name, readable(load.argv("ADDRESS", 2, load.guess))
