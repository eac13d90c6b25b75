"""What a case is, and the small assertions that cases share."""

import hashlib
from dataclasses import dataclass
from typing import Callable

from rig.process import Failed

CASES = {}


class Skip(Exception):
    """This case cannot run here; the message says why."""


@dataclass(frozen=True)
class Case:
    name: str
    sentence: str
    body: Callable
    timeout: int
    needs_rig: bool
    only_sidestep: bool
    daemon: bool
    long_wire: bool
    queues: int
    back: int | None


def case(sentence, timeout=60, needs_rig=True, only_sidestep=False, daemon=True, long_wire=False,
         queues=1, back=None):
    """Registers a function as a case. only_sidestep: it has no meaning on the kernel alone. daemon: sidestep is up before.

    long_wire: nothing passes between the hosts but what `rig.line.line` carries. queues: of near's
    device, see `rig.network.Wire`.
    """

    def register(body):
        name = body.__name__
        assert name not in CASES, f"two cases are called {name}"
        CASES[name] = Case(name, sentence, body, timeout, needs_rig, only_sidestep, daemon, long_wire, queues, back)
        return body

    return register


def expect(condition, complaint):
    if not condition:
        raise Failed(complaint)


def expect_equal(got, wanted, what):
    expect(got == wanted, f"{what}: got {_short(got)}, expected {_short(wanted)}")


def _short(value):
    text = repr(value)
    return text if len(text) < 100 else text[:97] + "..."


def sha256_of_file(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_stream(read, chunk=1 << 16):
    """Reads to the end; returns (hex digest, bytes)."""
    digest, count = hashlib.sha256(), 0
    while data := read(chunk):
        digest.update(data)
        count += len(data)
    return digest.hexdigest(), count
