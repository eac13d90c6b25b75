#!/usr/bin/env python3
"""make goodput: bytes that arrive, over paths with loss and delay, beside the kernel; and fairness at a bottleneck.

    bench/goodput.py [--quick] [--rounds 4] [--seconds 4] [--only loss=1] [--only rtt=20] [--no-fairness] [--kernel-only]

The wire is the project's own (sidestep-rig wire). Kept in bench/results/; a full run writes bench/goodput.md.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import goodput_table as tables  # noqa: E402
from path import KERNEL, STREAM, SYSTEMS, Path as NetworkPath, sites  # noqa: E402
from rig import network, product  # noqa: E402
from rig.process import Failed  # noqa: E402
from rig.setup import end_on_signals  # noqa: E402

HERE = Path(__file__).resolve().parent
LOSSES = (0, 0.1, 1, 3, 10)
RTTS_MS = (1, 20, 100)
# Round trip -> how long two senders share. CUBIC's epochs last some 9 s at 100 ms: six of them.
FAIR_SPANS_MS = {20: 25_000, 100: 60_000}
QUICK_LOSSES, QUICK_RTTS_MS = (0, 1, 10), (20, 100)


def main():
    options = parse_arguments()
    systems = [KERNEL] if options.kernel_only else list(SYSTEMS)
    require(systems)
    paths = choose(options)
    started = time.monotonic()
    say = tables.Lines().say
    run = tables.Run.begin(options, systems)
    say(run.describe() + "\n")
    with sites(dict.fromkeys(system.mode for system in systems), options.spin) as made:
        say(tables.header(systems))
        for path in paths:
            row = tables.Row(path, compare(made, systems, path, options))
            run.rows.append(row)
            say(row.text())
        if options.fairness:
            say("\n" + tables.FAIRNESS_HEADER)
            for path in fairness_paths(options):
                for mode, site in made.items():
                    row = tables.Share(path, mode, share(site, path, options))
                    run.shares.append(row)
                    say(row.text())
        run.congestion = {sender: name for site in made.values() for sender, name in site.congestion.items()}
    run.seconds = time.monotonic() - started
    say("\n" + run.costs())
    keep(run, options)
    return 0


def compare(made, systems, path, options):
    """{system name: [Sample]}, the systems in turns: all have the same seeds, every other round goes the other way."""
    samples = {system.name: [] for system in systems}
    for number in range(path.rounds(options.rounds)):
        for system in systems if number % 2 == 0 else reversed(systems):
            site = made[system.mode]
            sample = site.measure(system, path, options.seed + number, options.warm_ms, path.span_ms(options.span_ms))
            samples[system.name].append(sample)
    return samples


def share(site, path, options):
    """Either of the two starts a moment before the other, in turns: who leaves slow start first depends on it."""
    warm_ms, span_ms = (2000, 10_000) if options.quick else (3000, FAIR_SPANS_MS[path.rtt_ms])
    return [site.share(path, warm_ms, span_ms, first=number % 2) for number in range(options.rounds)]


def choose(options):
    losses, rtts = (QUICK_LOSSES, QUICK_RTTS_MS) if options.quick else (LOSSES, RTTS_MS)
    paths = [NetworkPath(loss, rtt, options.rate) for rtt in rtts for loss in losses]
    for word in options.only:
        name, _, value = word.partition("=")
        if name not in ("loss", "rtt") or not value:
            sys.exit(f"--only {word}: it is either loss=PERCENT or rtt=MILLISECONDS")
        paths = [path for path in paths if (path.loss if name == "loss" else path.rtt_ms) == float(value)]
    return paths


def fairness_paths(options):
    return [NetworkPath(0, rtt, options.rate) for rtt in ((20,) if options.quick else FAIR_SPANS_MS)]


def keep(run, options):
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    file = results / time.strftime("goodput-%Y%m%d-%H%M%S.json")
    file.write_text(json.dumps(run.as_json(), indent=1) + "\n")
    file.with_suffix(".txt").write_text(run.text())
    print(f"\nkept in {file} and .txt")
    is_full = not (options.quick or options.only or options.kernel_only) and options.fairness
    if is_full or options.write:
        (HERE / "goodput.md").write_text(run.markdown())
        print(f"written: {HERE / 'goodput.md'}")


def require(systems):
    if not network.has_root():
        sys.exit("this needs root: it makes network namespaces")
    if any(system.mode == "sidestep" for system in systems) and not product.is_built():
        sys.exit(f"{product.BINARY} is missing: run `make build`")
    if not STREAM.exists() or not product.DROPPER.exists():
        sys.exit(f"{STREAM} or {product.DROPPER} is missing: run `make goodput`")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="six paths, one short round: two minutes, to see whether it works")
    parser.add_argument("--rounds", type=int, help="runs of each path in each column, each with its seed (4; quick: 1)")
    parser.add_argument("--seconds", type=float, help="length of a run after its warm-up (4; quick: 3)")
    parser.add_argument("--rate", type=float, default=100, help="Mbit/s of the bottleneck, so low that no core is ever the limit")
    parser.add_argument("--seed", type=int, default=1, help="of the first round's losses")
    parser.add_argument("--spin", type=int, help="sidestep run --spin")
    parser.add_argument("--only", action="append", default=[], metavar="loss=P|rtt=MS", help="only these paths; may be repeated")
    parser.add_argument("--no-fairness", dest="fairness", action="store_false", help="without the shared bottleneck")
    parser.add_argument("--kernel-only", action="store_true", help="without sidestep")
    parser.add_argument("--write", action="store_true", help="write bench/goodput.md even when the run is not a full one")
    parser.add_argument("--note", default="", help="a word about this run, for the files")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 4)
    options.span_ms = round((options.seconds or (3 if options.quick else 4)) * 1000)
    options.warm_ms = 1000
    return options


if __name__ == "__main__":
    end_on_signals()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; namespaces, servers and the daemon are gone again")
    except Failed as failure:
        sys.exit(f"\nfailed: {failure}")
