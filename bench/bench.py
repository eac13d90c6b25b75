#!/usr/bin/env python3
"""make bench: the demo's table with more rows, longer runs and the columns that keep it honest.

kernel-spin is the kernel with servers that never sleep; sidestep-block is sidestep without spinning (--spin 0).
The table is printed and kept in bench/results/.

    bench/bench.py [--rounds 5] [--seconds 4] [--only WORD] [--kernel-only] [--note TEXT]
"""

import argparse
import platform
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import demo  # noqa: E402
import loads  # noqa: E402
from compare import System, compare, contestants, describe_commands  # noqa: E402
from rig import product  # noqa: E402
from rig.process import Failed  # noqa: E402
from rig.setup import end_on_signals  # noqa: E402
from table import Table  # noqa: E402

SPIN_LIBRARY = product.TARGET / "bench/kernel_spin.so"
KERNELS = [demo.KERNEL, System("kernel-spin", "kernel", preload=str(SPIN_LIBRARY))]
SIDESTEPS = [System("sidestep-block", "sidestep", spin=0), demo.SIDESTEP]
RESULTS = Path(__file__).resolve().parent / "results"


def main():
    options = parse_arguments()
    systems = KERNELS if options.kernel_only else KERNELS + SIDESTEPS
    chosen = [load for load in loads.BENCH if options.only in load.name]
    demo.require(systems, chosen)
    if not SPIN_LIBRARY.exists():
        sys.exit(f"{SPIN_LIBRARY} is missing: run `make bench`")
    lines = Lines()
    lines.say(f"{product.version()} on Linux {platform.release()}, {time.strftime('%Y-%m-%d %H:%M')} {options.note}".rstrip())
    lines.say(demo.describe_machine(options))
    with contestants(systems) as made:
        lines.say(demo.describe_device(made))
        table = Table(systems, with_cpu=True, out=lines.say)
        table.header()
        for load in chosen:
            table.row(load, compare(made, load, options.rounds, options.seconds))
    lines.say("\nThe commands, from the far end:")
    for name, command in describe_commands(chosen):
        lines.say(f"  {name:34} {command}")
    print(f"\nkept in {lines.keep()}")


class Lines:
    """Prints, and remembers for the file."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        print(line, flush=True)
        self.lines.append(line)

    def keep(self):
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / time.strftime("%Y%m%d-%H%M%S.txt")
        file.write_text("\n".join(self.lines) + "\n")
        return file


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="runs of each load on each system; the table shows medians")
    parser.add_argument("--seconds", type=int, default=4, help="length of a run")
    parser.add_argument("--only", default="", metavar="WORD", help="only the rows whose name holds WORD")
    parser.add_argument("--kernel-only", action="store_true", help="without sidestep")
    parser.add_argument("--note", default="", help="a word about this run, for the file")
    return parser.parse_args()


if __name__ == "__main__":
    end_on_signals()
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; namespaces, servers and the daemon are gone again")
    except Failed as failure:
        sys.exit(f"\nfailed: {failure}")
