"""Signals in real programs."""

import os
import subprocess
from pathlib import Path

from case import case, expect
from rig.servers import REDIS_PORT

WRITER = Path(__file__).parent.parent / "lib" / "alarm_writer.c"


@case("redis-server interrupted a thousand times a second by a handler that uses a user socket itself", timeout=90)
def redis_under_a_timer(rig):
    library = rig.home("alarm") / "alarm_writer.so"
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, WRITER], check=True)
    other = rig.start(rig.far, "far-redis", ["redis-server", "--port", REDIS_PORT + 1, "--save", "", "--protected-mode", "no",
                                             "--bind", rig.far.ipv4])
    rig.far.check(["sh", "-c", f"until redis-cli -h {rig.far.ipv4} -p {REDIS_PORT + 1} ping; do sleep 0.1; done"])
    env = {"LD_PRELOAD": str(library), "ALARM_TO": rig.far.ipv4, "ALARM_PORT": str(REDIS_PORT + 1),
           "ALARM_IN": "redis-server"}
    server = rig.start_redis(env={**os.environ, **env})
    with rig.carried_by_user_stack(frames=10000):
        out = rig.far.check(["redis-benchmark", "-h", rig.near.ipv4, "-p", REDIS_PORT, "-n", 60000, "-c", 50, "-t",
                             "set,get,lpush,lrange_100", "-d", 200, "--csv"], timeout=80)
        expect('"LRANGE_100' in out, f"redis-benchmark did not come to its end: {out[-300:]}")
    expect(server.is_running(), "redis-server is gone")
    expect(other.is_running(), "the handler's redis-server is gone")
    pings = rig.far.check(["redis-cli", "-h", rig.far.ipv4, "-p", REDIS_PORT + 1, "info", "commandstats"])
    calls = next((line for line in pings.splitlines() if line.startswith("cmdstat_ping:")), "")
    expect(calls and int(calls.split("calls=")[1].split(",")[0]) > 1000, f"the handler said little: {calls!r}")
