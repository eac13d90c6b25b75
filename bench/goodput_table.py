"""The goodput benchmark's tables: on the screen, in bench/goodput.md, and everything behind them as JSON."""

import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass, field

from path import KERNEL
from rig import product

FAIRNESS_HEADER = f"{'two senders, one bottleneck':30}{'first':>10}{'second':>10}   Jain's index, its least"


class Lines:
    def say(self, line):
        print(line, flush=True)


@dataclass
class Row:
    """A path, and the samples of each system on it."""

    path: object
    samples: dict

    def median(self, name):
        return statistics.median(sample.mbit for sample in self.samples[name])

    def ratio(self, name):
        """Of the medians: what varies here is the losses' luck, not the machine's speed."""
        return self.median(name) / max(self.median(KERNEL.name), 1e-9)

    def figures(self):
        """The kernel's goodput, then goodput and ratio of each of the others."""
        yield f"{self.median(KERNEL.name):.2f}"
        for name in self.samples:
            if name != KERNEL.name:
                yield f"{self.median(name):.2f}"
                yield f"{self.ratio(name):.2f}"

    def head(self):
        return f"{self.path.loss:g} %", f"{self.path.rtt_ms:g} ms", str(self.path.flows)

    def text(self):
        loss, rtt, flows = self.head()
        return f"{loss:>8}{rtt:>9}{flows:>7}" + "".join(f"{figure:>18}" for figure in self.figures())


@dataclass
class Share:
    """Rounds of (Mbit/s of one, Mbit/s of the other) at a shared bottleneck."""

    path: object
    mode: str
    rounds: list

    def medians(self):
        return [statistics.median(column) for column in zip(*self.rounds)]

    def indices(self):
        """Jain's: the median run's, and the least fair one's."""
        each = [jain(rates) for rates in self.rounds]
        return [statistics.median(each), min(each)]

    def name(self):
        return f"{self.mode} + kernel"

    def text(self):
        first, second = self.medians()
        median, least = self.indices()
        return f"{self.name():22}{self.path.rtt_ms:>5g} ms{first:>10.2f}{second:>10.2f}{median:>15.3f}{least:>11.3f}"


def jain(rates):
    """Jain's index: 1 when all have the same, 1/n when one has everything."""
    squares = len(rates) * sum(rate * rate for rate in rates)
    return sum(rates) ** 2 / squares if squares else 0.0


def header(systems):
    columns = [systems[0].name] + [word for system in systems[1:] for word in (system.name, "ratio")]
    return f"{'loss':>8}{'RTT':>9}{'flows':>7}" + "".join(f"{column:>18}" for column in columns) + "   Mbit/s"


@dataclass
class Run:
    """Everything that was measured, and under what circumstances."""

    options: object
    names: list
    product: str
    kernel: str
    date: str
    rows: list = field(default_factory=list)
    shares: list = field(default_factory=list)
    congestion: dict = field(default_factory=dict)
    seconds: float = 0.0

    @staticmethod
    def begin(options, systems):
        return Run(options, [system.name for system in systems], product.version(), platform.release(),
                   time.strftime("%Y-%m-%d %H:%M"))

    def describe(self):
        options = self.options
        return (f"{self.product} on Linux {self.kernel}, {os.cpu_count()} cores, {self.date} {options.note}".rstrip() + "\n"
                f"The project's wire: {options.rate:g} Mbit/s each way, a queue of one RTT (10 ms at least), loss in both directions\n"
                f"alike. {options.rounds} runs of {options.span_ms / 1000:g} s after {options.warm_ms / 1000:g} s, "
                f"seeds {options.seed} to {options.seed + options.rounds - 1} in every column, in turns; medians.\n"
                "Over 100 ms: three times as many runs at 1 %, and five times as long ones at 0.1 %.")

    def costs(self):
        """Whether a core was the limit anywhere: then the figures would say nothing about TCP."""
        samples = [sample for row in self.rows for each in row.samples.values() for sample in each]
        told = ", ".join(f"{sender} {name}" for sender, name in self.congestion.items())
        line = f"The run took {self.seconds:.0f} s. Congestion control by getsockopt: {told}."
        if not samples:
            return line
        most = {name: max(sample.cpu[name] for sample in samples) for name in samples[0].cpu}
        shares = ", ".join(f"{name} {share:.0%}" for name, share in most.items())
        least = min(sample.idle for sample in samples)
        return f"{line} Most of a core that a run took: {shares}. Least that was idle of {os.cpu_count()} cores: {least:.0%}."

    def text(self):
        lines = [self.describe(), ""] + [row.text() for row in self.rows]
        lines += ["", FAIRNESS_HEADER] + [row.text() for row in self.shares] + ["", self.costs()]
        return "\n".join(lines) + "\n"

    def markdown(self):
        columns = ["loss", "RTT", "flows", self.names[0]] + [word for name in self.names[1:] for word in (name, "ratio")]
        lines = ["# Goodput over a bad path", "", "Written by `make goodput`; bench/README.md has the method. Mbit/s.", "",
                 "```", self.describe(), "```", "", row_of(columns), row_of(["--:"] * len(columns))]
        lines += [row_of([*row.head(), *row.figures()]) for row in self.rows]
        if self.shares:
            columns = ["two senders, one bottleneck", "RTT", "first", "second", "Jain's index", "its least"]
            lines += ["", row_of(columns), row_of(["---"] + ["--:"] * 5)]
            lines += [row_of([share.name(), f"{share.path.rtt_ms:g} ms", *(f"{rate:.2f}" for rate in share.medians()),
                              *(f"{index:.3f}" for index in share.indices())]) for share in self.shares]
        return "\n".join(lines + ["", self.costs()]) + "\n"

    def as_json(self):
        return {
            "date": self.date, "product": self.product, "kernel": self.kernel, "seconds": self.seconds,
            "congestion": self.congestion,
            "options": vars(self.options),
            "rows": [{**asdict(row.path), "flows": row.path.flows,
                      "systems": {name: {"median_mbit": row.median(name), "ratio": row.ratio(name),
                                         "samples": [asdict(sample) for sample in samples]}
                                  for name, samples in row.samples.items()}} for row in self.rows],
            "fairness": [{**asdict(share.path), "senders": share.name(), "rounds_mbit": share.rounds, "jain": share.indices()}
                         for share in self.shares],
        }


def row_of(cells):
    return "| " + " | ".join(cells) + " |"
