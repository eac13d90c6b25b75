"""The loads, one row of the table each, and how each tool's report is read."""

import csv
import io
import re
from dataclasses import dataclass, field

from rig.process import Failed
from rig.servers import NGINX_PORT, REDIS_PORT


@dataclass(frozen=True)
class Result:
    """One run. cpu_us: busy time of the server's core per request."""

    rps: float
    p50_us: float
    p99_us: float
    cpu_us: float = 0.0


@dataclass(frozen=True)
class Redis:
    """redis-benchmark counts requests, not seconds: so it needs a guess of the rate, which each run corrects."""

    name: str
    test: str
    connections: int
    guess: float
    extra: list = field(default_factory=list)
    server = "redis"

    def argv(self, address, seconds, rate):
        return ["redis-benchmark", "-h", address, "-p", REDIS_PORT, "-t", self.test, "-c", self.connections,
                "-n", max(int(rate * seconds), self.connections * 10), *self.extra, "--csv"]

    def parse(self, out):
        rows = list(csv.DictReader(io.StringIO(out)))
        if len(rows) != 1:
            raise Failed(f"{self.name}: redis-benchmark printed {len(rows)} rows: {out[:200]}")
        row = rows[0]
        return Result(float(row["rps"]), float(row["p50_latency_ms"]) * 1000, float(row["p99_latency_ms"]) * 1000)


@dataclass(frozen=True)
class Nginx:
    """wrk, one thread, for whole seconds."""

    name: str
    connections: int
    extra: list = field(default_factory=list)
    path: str = "1k"
    guess: float = 20_000
    server = "nginx"

    def argv(self, address, seconds, _rate):
        return ["wrk", "-t1", f"-c{self.connections}", f"-d{max(round(seconds), 1)}s", "--latency", *self.extra,
                f"http://{address}:{NGINX_PORT}/{self.path}"]

    def parse(self, out):
        if "Non-2xx" in out:
            raise Failed(f"{self.name}: wrk got errors: {out[-300:]}")
        rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
        if not rate or float(rate[1]) == 0:
            raise Failed(f"{self.name}: wrk made no request: {out[-300:]}")
        return Result(float(rate[1]), _percentile(out, "50%"), _percentile(out, "99%"))


def _percentile(out, name):
    number, unit = re.search(rf"^\s*{name}\s+([\d.]+)(us|ms|s)", out, re.MULTILINE).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


CLOSE = ["-H", "Connection: close"]

DEMO = [
    Redis("redis GET  c=1", "get", 1, 17e3),
    Redis("redis SET  c=1", "set", 1, 17e3),
    Redis("redis GET  c=50", "get", 50, 90e3),
    Redis("redis SET  c=50", "set", 50, 90e3),
    Redis("redis GET  c=50 -P 16", "get", 50, 1e6, ["-P", "16"]),
    Redis("redis SET  c=50 -P 16", "set", 50, 1e6, ["-P", "16"]),
    Nginx("nginx 1 KiB keep-alive c=1", 1),
    Nginx("nginx 1 KiB keep-alive c=50", 50),
    Nginx("nginx connection per request c=50", 50, CLOSE),
]

BENCH = DEMO + [
    Redis("redis GET  c=200", "get", 200, 90e3),
    Redis("redis SET  c=50, 4 KiB values", "set", 50, 60e3, ["-d", "4096"]),
    Redis("redis GET  c=50, 4 KiB values", "get", 50, 60e3, ["-d", "4096"]),
    Nginx("nginx connection per request c=1", 1, CLOSE),
    Nginx("nginx 64 KiB keep-alive c=50", 50, path="64k"),
    Nginx("nginx 1 MiB keep-alive c=4", 4, path="1m"),
]
