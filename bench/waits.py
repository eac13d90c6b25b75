#!/usr/bin/env python3
"""What a wait costs in which only descriptors of the kernel's are concerned: a plain program, and the same under sidestep, in turn.

    bench/waits.py [ROUNDS]     as root, after `make build progs`; nanoseconds a call, the best of all rounds
"""

import sys
from collections import defaultdict
from pathlib import Path

sys.dont_write_bytecode = True
sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "tests")]

from rig import product  # noqa: E402
from rig.setup import Rig, end_on_signals  # noqa: E402

PROGRAM = product.TARGET / "bench/waits"


def main(rounds):
    end_on_signals()
    with Rig("sidestep") as rig:
        for others in ([], ["threads"]):
            plain = [PROGRAM, *others]
            best = {name: defaultdict(lambda: float("inf")) for name in ("plain", "sidestep")}
            for _ in range(rounds):
                for name, argv in (("plain", plain), ("sidestep", rig.sidestep.run_argv(plain))):
                    for line in rig.near.check(argv, timeout=60).splitlines():
                        call, ns = line.split()
                        best[name][call] = min(best[name][call], float(ns))
            print("several threads" if others else "one thread")
            for call, ns in best["plain"].items():
                print(f"  {call:18} {ns:7.0f} {best['sidestep'][call]:7.0f} {best['sidestep'][call] / ns:6.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
