"""Child processes: each in its own session, so that Ctrl-C reaches only us, and each ended by its own pid."""

import ctypes
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_SIGTERM = signal.SIGTERM


class Failed(Exception):
    """A test's or the rig's own complaint: one sentence, no traceback needed."""


def _in_child(core):
    def prepare():
        # If we are killed outright, nothing of ours may go on running.
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if core is not None:
            os.sched_setaffinity(0, {core})

    return prepare


class Process:
    """A running child whose output goes to a file."""

    def __init__(self, argv, log: Path, core=None, env=None):
        self.log = log
        with open(log, "ab") as out:
            self._child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_in_child(core),
                env=environment(env),
            )

    @property
    def pid(self):
        return self._child.pid

    def is_running(self):
        return self._child.poll() is None

    def exit_code(self, timeout):
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.log.stem} did not end within {timeout} s") from None

    def output(self):
        return self.log.read_text(errors="replace")

    def signal(self, number):
        if self.is_running():
            self._child.send_signal(number)

    def end(self, codes=(0,), number=_SIGTERM, patience=5):
        """Asks it to end by a signal; it must do so by itself, with one of these exit codes (a signal's is negative)."""
        if not self.is_running():
            raise Failed(f"{self.log.stem} was gone before its end was asked for, with {self._child.returncode}")
        self.signal(number)
        code = self.exit_code(patience)
        if code not in codes:
            raise Failed(f"{self.log.stem} ended with {code}, expected {' or '.join(map(str, codes))}")

    def stop(self, patience=3):
        """SIGTERM, then SIGKILL. A stopped process is not an error."""
        self.signal(signal.SIGTERM)
        try:
            self._child.wait(patience)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self._child.wait()


def environment(extra):
    return None if extra is None else {**os.environ, **extra}


def run(argv, timeout=30, core=None, env=None, stdin=None):
    """Runs to the end and returns (exit code, stdout, stderr) as text. Ends the child on every way out."""
    child = subprocess.Popen(
        argv,
        stdin=stdin or subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_in_child(core),
        env=environment(env),
    )
    try:
        out, err = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Failed(f"`{readable(argv)}` did not end within {timeout} s") from None
    finally:
        if child.poll() is None:
            _end(child)
    return child.returncode, out.decode(errors="replace"), err.decode(errors="replace")


def _end(child, patience=10):
    """Asks first: it may have something to clean up."""
    child.terminate()
    try:
        child.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def check(argv, **options):
    """Like run, but a nonzero exit is a failure; returns stdout."""
    code, out, err = run(argv, **options)
    if code != 0:
        complaint = (err or out).strip().splitlines()
        raise Failed(f"`{readable(argv)}` exited with {code}: {complaint[-1] if complaint else 'no output'}")
    return out


def readable(argv):
    """A command line as a person would type it, without the way into the namespace."""
    words = [str(word) for word in argv]
    if words[:3] == ["ip", "netns", "exec"]:
        words = words[4:]
    line = shlex.join(words)
    return line if len(line) < 120 else line[:117] + "..."


def cpu_ms(pid):
    """Time that all threads of a process spent on a core. Finer than utime + stime, which are sampled in steps of 10 ms."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e6


def wait_until(question, timeout, complaint):
    """Asks every few milliseconds; returns the first true answer."""
    deadline = time.monotonic() + timeout
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise Failed(complaint() if callable(complaint) else complaint)
        time.sleep(0.02)
