"""Idle means asleep."""

import time
from pathlib import Path

from case import case, expect
from rig import process
from rig.servers import NGINX_PORT, REDIS_PORT

from .fallback import ping

SECONDS = 10
# One clock tick: 0.1% of the time.
ALLOWED_MS = 10


@case("idle servers with open connections, and the daemon, use no CPU for 10 s", timeout=60)
def idle_uses_no_cpu(rig):
    # redis wakes ten times a second on its own account, unless it is asked not to.
    rig.start_redis(hz=1)
    rig.start_nginx()
    connections = [rig.far.connect(rig.near.ipv4, port) for port in (REDIS_PORT, NGINX_PORT) for _ in range(20)]
    with rig.carried_by_user_stack(frames=20):
        for connection in connections[:20]:
            ping(connection)
    time.sleep(2)
    before = time_on_cpu(rig)
    time.sleep(SECONDS)
    for pid, (name, after) in time_on_cpu(rig).items():
        spent = after - before.get(pid, (name, 0))[1]
        expect(spent <= ALLOWED_MS, f"{name} was {spent:.1f} ms on a core in {SECONDS} idle seconds")
    for connection in connections[:20]:
        ping(connection)
    for connection in connections:
        connection.close()


def time_on_cpu(rig):
    """pid -> (name, ms) of everything that runs on near."""
    return {pid: (Path(f"/proc/{pid}/comm").read_text().strip(), process.cpu_ms(pid)) for pid in rig.near.pids()}
