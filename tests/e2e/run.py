#!/usr/bin/env python3
"""The end-to-end runner: one case after the other, one line each, and a closing count.

    tests/e2e/run.py [--list] [CASE...]     CASE may hold * and ?
    E2E_MODE=kernel tests/e2e/run.py        the same tests without sidestep: do the tests themselves work?
"""

import fnmatch
import os
import signal
import sys
import time
import traceback
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from case import CASES, Skip  # noqa: E402
from rig import network, product  # noqa: E402
from rig.process import Failed  # noqa: E402
from rig.setup import Rig, end_on_signals  # noqa: E402

# In the order of a first acquaintance; each module registers its cases.
import cases.basics, cases.transfers, cases.crowds, cases.clients  # noqa: E401, E402, F401
import cases.local_ports, cases.udp, cases.network, cases.fallback, cases.death, cases.loss  # noqa: E401, E402, F401
import cases.wire, cases.idle, cases.signals, cases.reload, cases.switch, cases.kills, cases.queues, cases.sharing, cases.neighbours, cases.access  # noqa: E401, E402, F401
import cases.caches, cases.web, cases.proxies, cases.tools  # noqa: E401, E402, F401
import cases.languages, cases.databases, cases.dns, cases.inherited  # noqa: E401, E402, F401
import cases.parity, cases.bad_input, cases.tooling, cases.libc  # noqa: E401, E402, F401

MODE = os.environ.get("E2E_MODE", "sidestep")


def main(words):
    if MODE not in ("sidestep", "kernel"):
        sys.exit(f"E2E_MODE={MODE}: it is either sidestep or kernel")
    chosen = [case for case in CASES.values() if matches(case.name, [word for word in words if word != "--list"])]
    if not chosen:
        sys.exit(f"no case is called {' '.join(words)}; tests/e2e/run.py --list names them")
    if "--list" in words:
        for case in chosen:
            print(f"{case.name:34} {case.sentence}")
        return 0
    end_on_signals()
    print(f"end-to-end, mode {MODE}, {len(chosen)} cases", flush=True)
    tally = {"ok": 0, "FAIL": 0, "skip": 0}
    for case in chosen:
        tally[report(case)] += 1
    print(f"\n{tally['ok']} passed, {tally['FAIL']} failed, {tally['skip']} skipped")
    return 1 if tally["FAIL"] or not tally["ok"] + tally["skip"] else 0


def matches(name, patterns):
    return not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def report(case):
    """Runs one case and prints its line, and after a failure what the programs in it said and what was counted."""
    started = time.monotonic()
    verdict, reason, details = attempt(case)
    print(f"{verdict:4}  {case.name:34} {time.monotonic() - started:6.1f} s  {reason}".rstrip(), flush=True)
    for line in details:
        print(f"      {line}", flush=True)
    return verdict


def attempt(case):
    """(verdict, reason, lines of detail)"""
    reason = why_not(case)
    if reason:
        return "skip", reason, []
    details = []
    try:
        run_with_timeout(case, details)
    except Skip as skip:
        return "skip", str(skip), []
    except Failed as failure:
        return "FAIL", str(failure), details
    except Exception as error:
        where = traceback.format_exc().strip().splitlines()[-6:]
        return "FAIL", f"{type(error).__name__}: {error}", where + details
    return "ok", "", []


def why_not(case):
    if MODE == "kernel" and case.only_sidestep:
        return "has no meaning without sidestep"
    if case.needs_rig and not network.has_root():
        return "needs root"
    if MODE == "sidestep" and not product.is_built():
        raise SystemExit(f"{product.BINARY} is missing: run `make build`")
    return None


def run_with_timeout(case, details):
    def give_up(*_):
        raise Failed(f"timed out after {case.timeout} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(case.timeout)
    try:
        if not case.needs_rig:
            case.body()
            return
        with Rig(MODE, daemon=case.daemon, long_wire=case.long_wire, queues=case.queues, back=case.back) as rig:
            try:
                case.body(rig)
            except Skip:
                raise
            except Exception:
                signal.alarm(0)
                details += describe(rig)
                raise
            finally:
                signal.alarm(0)
    finally:
        signal.alarm(0)


def describe(rig):
    said = [f"{name} | {line}" for name, tail in rig.logs() for line in tail]
    return said + [f"{part} | {counters}" for part, counters in rig.accounts()]


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("interrupted; cleaned up")
