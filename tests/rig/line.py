"""The line of a LongWire: `sidestep-rig wire` for the length of a `with` block, and what it says it did."""

import contextlib
import re
from dataclasses import dataclass

from . import process
from .process import Failed, Process, wait_until
from .product import DROPPER as TOOL

_COUNTS = ("seen", "taildropped", "lost", "reordered", "duplicated", "toolong", "unfinished", "unsent", "overruns")
_TALLY = re.compile(r"^\w+ to \w+ " + " ".join(rf"{name} (?P<{name}>\d+)" for name in _COUNTS) + "$", re.MULTILINE)


@dataclass
class Tally:
    """One direction."""

    seen: int
    taildropped: int
    lost: int
    reordered: int
    duplicated: int
    toolong: int
    unfinished: int
    unsent: int
    overruns: int

    def trouble(self):
        """What only a rig that is set up wrongly, or a machine that is too busy, shows; nothing when all is well."""
        names = ("toolong", "unfinished", "unsent", "overruns")
        return ", ".join(f"{getattr(self, name)} {name}" for name in names if getattr(self, name))


class Line:
    """Running. After the block, `outward` (near to far) and `inward` are the tallies and `cpu_ms` is what it cost."""

    def __init__(self, child, is_turned):
        self._child, self._is_turned = child, is_turned
        self.outward = self.inward = None
        self.cpu_ms = 0.0

    def spent_ms(self):
        return process.cpu_ms(self._child.pid)

    def is_running(self):
        return self._child.is_running()

    def finish(self):
        self.cpu_ms = self.spent_ms()
        self._child.stop()
        tallies = [Tally(**{name: int(count) for name, count in found.groupdict().items()})
                   for found in _TALLY.finditer(self._child.output())]
        if len(tallies) != 2:
            raise Failed(f"the wire printed no tally: {self._child.output().strip()[-200:]}")
        self.outward, self.inward = reversed(tallies) if self._is_turned else tallies


@contextlib.contextmanager
def line(rig, rtt_ms, is_turned=False, **options):
    """The hosts are joined inside. rtt_ms: there and back. Options are those of the tool: loss=1, rate_mbit=100, queue_ms=20.

    is_turned: frames from the far host meet the dice that those from the near one would.
    """
    wire = rig.wire
    words = ["--delay-ms", rtt_ms / 2]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", value]
    ends = (wire.FAR_END, wire.NEAR_END) if is_turned else (wire.NEAR_END, wire.FAR_END)
    log = rig.scratch / "line.log"
    log.write_text("")
    argv = ["ip", "netns", "exec", wire.line, TOOL, "wire", *ends, *words]
    child = Process([str(word) for word in argv], log)
    try:
        wait_until(lambda: child.output().startswith("bridging") or not child.is_running(), 10, "the wire did not start within 10 s")
        if not child.is_running():
            raise Failed(f"the wire ended at start: {child.output().strip()[-200:]}")
        running = Line(child, is_turned)
        yield running
        running.finish()
    finally:
        child.stop()
