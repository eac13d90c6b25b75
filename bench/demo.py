#!/usr/bin/env python3
"""make demo: stock redis and nginx, first on the kernel, then under sidestep; one table and the proof.

    bench/demo.py [--rounds 3] [--seconds 2] [--only WORD] [--kernel-only]
"""

import argparse
import os
import platform
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import loads  # noqa: E402
from compare import System, compare, contestants  # noqa: E402
from rig import network, product  # noqa: E402
from rig.process import Failed  # noqa: E402
from rig.proof import counter  # noqa: E402
from rig.setup import end_on_signals  # noqa: E402
from table import Table  # noqa: E402

KERNEL = System("kernel", "kernel")
SIDESTEP = System("sidestep", "sidestep")


def main():
    options = parse_arguments(__doc__)
    systems = [KERNEL] if options.kernel_only else [KERNEL, SIDESTEP]
    chosen = [load for load in loads.DEMO if options.only in load.name]
    require(systems, chosen)
    print(describe_machine(options), flush=True)
    started = time.monotonic()
    with contestants(systems) as made:
        print(describe_device(made), flush=True)
        before = [contestant.rig.witness() for contestant in made]
        table = Table(systems, out=say)
        table.header()
        for load in chosen:
            table.row(load, compare(made, load, options.rounds, options.seconds))
        moved = [contestant.rig.witness() - earlier for contestant, earlier in zip(made, before)]
        is_proven = print_proof(made, moved)
    if table.below_one:
        say(f"\nBelow 1.0: {', '.join(table.below_one)}. bench/README.md says why, and what would lift it.")
    say(f"\n{time.monotonic() - started:.0f} s; the namespaces, servers and the daemon are gone again.")
    return 0 if is_proven else 1


def parse_arguments(text):
    parser = argparse.ArgumentParser(description=text.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each load on each system; the table shows medians")
    parser.add_argument("--seconds", type=int, default=2, help="length of a run")
    parser.add_argument("--only", default="", metavar="WORD", help="only the rows whose name holds WORD")
    parser.add_argument("--kernel-only", action="store_true", help="without sidestep, to try the rig")
    return parser.parse_args()


def require(systems, chosen):
    if not network.has_root():
        sys.exit("this needs root: it makes network namespaces")
    if any(system.mode == "sidestep" for system in systems) and not product.is_built():
        sys.exit(f"{product.BINARY} is missing: run `make build`")
    if not chosen:
        sys.exit("no load has a name like that")


def describe_machine(options):
    pinned = "client on core 0, server on core 1" if (os.cpu_count() or 1) > 1 else "nothing pinned"
    return (f"Linux {platform.release()}, {os.cpu_count()} cores; veth between two namespaces, 1 queue, MTU 1500, checksum\n"
            f"offload on, RPS off; {pinned}; {options.rounds} rounds of {options.seconds} s a row, interleaved, medians.")


def describe_device(made):
    for contestant in made:
        if contestant.system.mode == "sidestep":
            status = contestant.rig.sidestep.status()
            return f"{product.version()}: XDP {status['mode']}, {status['copy']}.\n"
    return "Without sidestep.\n"


def print_proof(made, moved):
    """Both witnesses, for each system; False if the kernel's TCP had a hand in what sidestep claims."""
    say("\nWho carried it:")
    is_proven = True
    for contestant, change in zip(made, moved):
        name = contestant.system.name
        say(f"  {name:14} near's kernel TCP counted {count(change.kernel_in)} segments in, {count(change.kernel_out)} out")
        if contestant.system.mode == "sidestep":
            say(f"  {'':14} XSKs received {count(change.user_in)} frames and sent {count(change.user_out)}, with "
                f"{count(kicks(contestant))} transmit calls; XDP redirected {count(change.redirected)}")
            is_proven = is_proven and change.user_in > 0 and change.kernel_in == change.kernel_out == 0
    if not is_proven:
        say("  The kernel's TCP counters moved in sidestep's namespace, or no frame came through AF_XDP: NOT proven.")
    return is_proven


def kicks(contestant):
    return sum(counter(stack, "kicks") for stack in contestant.rig.sidestep.status()["stacks"])


def count(number):
    return f"{number:,}".replace(",", " ")


def say(line):
    print(line, flush=True)


if __name__ == "__main__":
    end_on_signals()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; namespaces, servers and the daemon are gone again")
    except Failed as failure:
        sys.exit(f"\nfailed: {failure}")
