#!/usr/bin/env python3
"""The parity cases: each on the kernel and under sidestep, what they print compared line by line.

    ctests/run.py [--list] [--show] [--times] [--jobs N] [FAMILY.CASE | FAMILY.CASE/SIDE ...]     * and ? allowed; as root
    --show prints what both runs printed, --times which took longest; --jobs says how many pairs of namespaces work at once
"""

import argparse
import contextlib
import ctypes
import difflib
import fnmatch
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE)]

import accepted  # noqa: E402
from rig import network, process, product  # noqa: E402
from rig.process import Failed  # noqa: E402
from rig.setup import Rig, end_on_signals  # noqa: E402

OUT = product.TARGET / "ctests"
LIMIT_S = int(os.environ.get("CT_LIMIT_S", "10"))
FIRST_PORT, PORTS_EACH = 7100, 8
CHOOSE_ABOVE = "echo 32768 60999 > /proc/sys/net/ipv4/ip_local_port_range"
CFLAGS = ["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wtrampolines", "-Wno-unused-parameter",
          "-Wno-stringop-overread", "-Wno-stringop-overflow", "-Wno-nonnull", "-Wno-unused-result", "-pthread"]  # cases pass what is wrong


@dataclass
class Job:
    """One case on one side."""

    family: str
    case: str
    side: str
    kind: str
    port: int
    printed: dict = field(default_factory=dict)
    complaints: list = field(default_factory=list)
    took_s: dict = field(default_factory=dict)

    @property
    def name(self):
        return f"{self.family}.{self.case}/{self.side}"


def build(families):
    """Compiles what is older than its source."""
    OUT.mkdir(parents=True, exist_ok=True)
    frame, newest = OUT / "ct.o", max(path.stat().st_mtime for path in (HERE / "ct.c", HERE / "ct.h"))
    compiler = os.environ.get("CC", "cc")

    def is_old(path, than):
        return not path.exists() or path.stat().st_mtime < than

    if is_old(frame, newest):
        process.check([compiler, *CFLAGS, "-c", "-o", frame, HERE / "ct.c"])
    for family in families:
        source, program = HERE / f"{family}.c", OUT / family
        if is_old(program, max(newest, source.stat().st_mtime)):
            code, _, err = process.run([compiler, *CFLAGS, "-o", program, source, frame], timeout=60)
            if code != 0:
                sys.exit(f"{err.strip()}\n{source.name} does not compile")


def find_jobs(families):
    lines = [(family, *line.split()) for family in families
             for line in process.check([OUT / family, "--list"]).splitlines()]
    return [Job(*line, FIRST_PORT + PORTS_EACH * (i % 2500)) for i, line in enumerate(lines)]


def is_chosen(job, patterns):
    names = (job.name, job.name.split("/")[0], job.family)
    return not patterns or any(fnmatch.fnmatch(name, pattern) for name in names for pattern in patterns)


# ---- one run ----


def prepare(handles):
    """In a child: its numbers 3 and 4 are the joints to the other process; it dies with us."""

    def in_child():
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        for number, handle in enumerate(handles, start=100):
            os.dup2(handle, number)
        for number in range(len(handles)):
            os.dup2(number + 100, number + 3)
            os.close(number + 100)

    return in_child


def run_both(rig, job):
    """The case and its peer. Returns (what they printed, complaint or None)."""
    control, steps = socket.socketpair(), socket.socketpair()
    environment = {
        "PATH": os.environ.get("PATH", ""), "CT_CONTROL": "3", "CT_STEPS": "4", "CT_PORT": str(job.port),
        "CT_HERE": rig.near.ipv4, "CT_HERE6": rig.near.ipv6, "CT_THERE": rig.far.ipv4, "CT_THERE6": rig.far.ipv6,
        "CT_DEV": rig.near.device, "CT_ROUNDS": os.environ.get("CT_ROUNDS", ""),
    }
    under_test = dict(environment)
    if rig.mode == "sidestep":
        under_test |= {"SIDESTEP_DEV": rig.near.device, "LD_PRELOAD": str(product.LIBRARY)}
    program = str(OUT / job.family)
    with open(rig.scratch / "output", "w+b") as out:
        children = []
        for host, words, env, end in ((rig.far, ["--peer", job.side], environment, 1), (rig.near, [job.case, job.side], under_test, 0)):
            handles = [control[end].fileno(), steps[end].fileno()]
            variables = [f"{name}={value}" for name, value in env.items()]
            children.append(subprocess.Popen(
                host.command(["env", "-i", *variables, program, *words]), stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=prepare(handles), close_fds=False))
        for pair in (control, steps):
            pair[0].close()
            pair[1].close()
        complaint = wait_for(*children)
        out.seek(0)
        return out.read().decode(errors="replace").splitlines(), complaint


def wait_for(peer, tested):
    try:
        code = tested.wait(LIMIT_S)
        complaint = None if code == 0 else f"ended with {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
    except subprocess.TimeoutExpired:
        complaint = f"did not end within {LIMIT_S} s"
    end_session(tested)
    try:
        code = peer.wait(2)
        if code and not complaint:
            complaint = f"its peer ended with {code}"
    except subprocess.TimeoutExpired:
        complaint = complaint or "its peer did not end"
    end_session(peer)
    return complaint


def end_session(child):
    """The child and what it has forked: the session that we made for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


# ---- who carried it ----


def run_on_kernel(rig, job):
    job.printed["kernel"], complaint = run_both(rig, job)
    if complaint:
        job.complaints.append(f"on the kernel: {complaint}")
    if not job.printed["kernel"]:
        job.complaints.append("it prints nothing")


def run_under_sidestep(rig, job):
    before, datagrams = rig.witness(), sum(rig.near.kernel_datagrams())
    job.printed["sidestep"], complaint = run_both(rig, job)
    moved, datagrams = rig.witness() - before, sum(rig.near.kernel_datagrams()) - datagrams
    if complaint:
        job.complaints.append(f"under sidestep: {complaint}")
    by_kernel = moved.kernel_in + moved.kernel_out + datagrams
    if job.kind == "kernel_only":
        if moved.redirected:
            job.complaints.append(f"declared KERNEL_ONLY, but {moved.redirected} frames were the user stack's")
    elif not moved.redirected:
        job.complaints.append("no frame was the user stack's")
    elif by_kernel and job.kind != "mixed":
        job.complaints.append(f"the kernel carried {moved.kernel_in + moved.kernel_out} segments, {datagrams} datagrams")


def work(rig, jobs, run):
    while True:
        try:
            job = jobs.get_nowait()
        except queue.Empty:
            return
        started = time.monotonic()
        try:
            run(rig, job)
        except Exception as error:  # a thread of ours must not end in silence
            job.complaints.append(f"{type(error).__name__}: {error}")
        job.took_s[rig.mode] = time.monotonic() - started


def run_all(jobs, pairs):
    todo = {"kernel": queue.SimpleQueue(), "sidestep": queue.SimpleQueue()}
    for job in jobs:
        for mode in todo.values():
            mode.put(job)
    runs = {"kernel": run_on_kernel, "sidestep": run_under_sidestep}
    with contextlib.ExitStack() as stack:
        threads = []
        for mode in todo:
            for _ in range(min(pairs, len(jobs))):
                rig = stack.enter_context(Rig(mode))
                make_acquainted(rig)
                threads.append(threading.Thread(target=work, args=(rig, todo[mode], runs[mode]), daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def make_acquainted(rig):
    """The kernel sends to a neighbour whose MAC is not known. The cases' own ports are not for the kernel's choice."""
    rig.far.check(["sh", "-c", f"{CHOOSE_ABOVE}; echo 0 > /proc/sys/net/ipv4/tcp_tw_reuse"])
    if rig.mode == "kernel":  # under sidestep the daemon has laid hands on the range already
        rig.near.check(["sh", "-c", CHOOSE_ABOVE])
    for here, there in ((rig.near, rig.far), (rig.far, rig.near)):
        # What one case's connection found out about the path (its reordering, say) is nothing to the next one's.
        here.check(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/tcp_no_metrics_save"])
        for version in (4, 6):
            here.check(["ip", "neigh", "replace", there.address(version), "lladdr",
                        ":".join(f"{octet:02x}" for octet in there.mac()), "dev", here.device, "nud", "permanent"])
    # ct_beyond(): what the far host does with datagrams that are not for it.
    rig.far.check(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; "
                   "echo 0 > /proc/sys/net/ipv4/icmp_ratelimit; echo 0 > /proc/sys/net/ipv6/icmp/ratelimit; "
                   "for limit in /proc/sys/net/ipv4/icmp_msgs_*; do test ! -e $limit || echo 1000000 > $limit; done"])
    for prefix in ("10.78.0.", "fd78::"):
        for end, kind in (("1", "unreachable"), ("2", "prohibit"), ("3", "blackhole")):
            rig.far.check(["ip", "route", "add", kind, prefix + end])
        net, via = (f"{prefix}0/24", rig.far.ipv4) if "." in prefix else (f"{prefix}/64", rig.far.ipv6)
        rig.near.check(["ip", "route", "add", net, "via", via])


# ---- the verdict ----


def compare(job, exemptions):
    """Lines of complaint."""
    lines = list(job.complaints)
    different = [line for line in difflib.ndiff(job.printed.get("kernel", []), job.printed.get("sidestep", []))
                 if line[0] in "+-"]
    shown = [line[0] + line[2:] for line in different]
    wanted = [line for exemption in exemptions if exemption.covers(job.name) for line in exemption.lines]
    if shown == wanted:
        return lines
    if wanted:
        lines.append(f"accepted is `{' '.join(wanted)}`: what differs (- kernel, + sidestep) is another thing" if shown
                     else f"`{' '.join(wanted)}` is an accepted difference that occurs no more")
    return lines + shown


def report(jobs, exemptions, show, times):
    failed = compared = excused = 0
    for job in jobs:
        complaints = compare(job, exemptions)
        compared += len(job.printed.get("kernel", []))
        excused += any(exemption.covers(job.name) for exemption in exemptions)
        if show:
            for mode in ("kernel", "sidestep"):
                print(f"---- {job.name} ({mode})", *job.printed.get(mode, []), sep="\n")
        if complaints:
            failed += 1
            print(f"FAILED {job.name}", *(f"    {line}" for line in complaints), sep="\n")
    if times:
        for job in sorted(jobs, key=lambda job: -max(job.took_s.values()))[:20]:
            print(f"{job.name:44}", *(f"{mode} {took:.2f} s" for mode, took in job.took_s.items()))
    kernel_only = sum(job.kind == "kernel_only" for job in jobs)
    mixed = sum(job.kind == "mixed" for job in jobs)
    print(f"parity: {len({(job.family, job.case) for job in jobs})} cases, {len(jobs)} runs on each, {compared} lines compared, "
          f"{failed} differences ({excused} runs with an accepted one; by declaration {kernel_only} about kernel descriptors only, "
          f"{mixed} in part)")
    return 1 if failed else 0


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--list", action="store_true")
    words.add_argument("--show", action="store_true")
    words.add_argument("--times", action="store_true")
    words.add_argument("--jobs", type=int, default=int(os.environ.get("CT_JOBS", "2")))
    words.add_argument("names", nargs="*")
    words = words.parse_args()
    families = sorted(path.stem for path in HERE.glob("*.c") if path.stem != "ct")
    build(families)
    jobs = [job for job in find_jobs(families) if is_chosen(job, words.names)]
    if not jobs:
        sys.exit(f"no case is called {' '.join(words.names)}; ctests/run.py --list names them")
    if words.list:
        print(*(f"{job.name:44} {job.kind}" for job in jobs), sep="\n")
        return 0
    if not network.has_root():
        sys.exit("the parity cases need root")
    exemptions = accepted.read(HERE, HERE.parent / "docs/sockets.md", {job.name for job in find_jobs(families)})
    end_on_signals()
    run_all(jobs, words.jobs)
    return report(jobs, exemptions, words.show, words.times)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        sys.exit(str(failure))
    except KeyboardInterrupt:
        sys.exit("interrupted; cleaned up")
