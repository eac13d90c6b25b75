"""The project's own tools keep their promises."""

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

from case import case, expect
from rig import product
from rig.process import check, wait_until


@case("status names the device, its mode, its queues, copy or zero-copy", timeout=30, only_sidestep=True)
def status_is_complete(rig):
    server = rig.start_redis()
    status = rig.sidestep.status()
    for field in ("name", "mode", "queues", "copy", "frames", "verdicts", "stacks"):
        expect(field in status, f"status has no {field}: {status}")
    expect(status["mode"] in ("native", "generic"), f"mode {status['mode']}")
    expect(len(status["stacks"]) == 1, f"one server, {len(status['stacks'])} stacks")
    expect(status["stacks"][0]["pid"] == server.pid, f"the stack is not redis-server's: {status['stacks'][0]}")
    text = rig.near.check(rig.sidestep.command("status"))
    expect(rig.near.device in text and status["mode"] in text, f"status for people: {text[:200]}")


@case("the demo cleans up after Ctrl-C", timeout=60, daemon=False)
def demo_cleans_up(rig):
    log = rig.scratch / "demo.log"
    words = [sys.executable, product.ROOT / "bench/demo.py", "--rounds", "1", "--seconds", "1"]
    words += ["--kernel-only"] if rig.mode == "kernel" else []
    with open(log, "wb") as out:
        # Somebody's background job ignores Ctrl-C, and what it starts inherits that.
        heeds_ctrl_c = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        demo = subprocess.Popen(words, stdout=out, stderr=out, start_new_session=True, preexec_fn=heeds_ctrl_c)
    try:
        wait_until(lambda: "redis" in log.read_text() and ours(demo.pid), 30, "the demo did not start")
        os.killpg(demo.pid, signal.SIGINT)
        wait_until(lambda: demo.poll() is not None, 20, lambda: f"the demo goes on: {log.read_text()[-300:]} {inhabitants(demo.pid)}")
    finally:
        demo.kill()
        demo.wait()
    expect(not ours(demo.pid), f"namespaces left: {ours(demo.pid)}")
    expect(not list(Path("/tmp").glob(f"ss-rig-{demo.pid}-*")), "scratch directory left")
    expect(demo.returncode != 0, "an interrupted demo exited with 0")


def inhabitants(pid):
    """Who is in the demo's namespaces, and where each of them waits."""
    pids = [number for name in ours(pid) for number in check(["ip", "netns", "pids", name]).split()]
    return check(["ps", "-o", "pid,ppid,stat,wchan:24,args", "-p", ",".join([str(pid), *pids])])


def ours(pid):
    return [name for name in os.listdir("/run/netns") if name.startswith(f"ss-{pid}-")]
