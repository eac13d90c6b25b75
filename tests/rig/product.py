"""The sidestep binary, through its public face only."""

import json
import os
import tempfile
from pathlib import Path

from .process import Failed, check, run, wait_until

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
BINARY = TARGET / "sidestep"
LIBRARY = TARGET / "libsidestep.so"
DROPPER = TARGET / "sidestep-rig"


def is_built():
    return BINARY.exists() and LIBRARY.exists()


class Sidestep:
    """sidestep on one host's device."""

    def __init__(self, host):
        self.host = host
        self.is_up = False

    def command(self, *words):
        return [str(BINARY), *map(str, words)]

    def up(self, *options):
        # The daemon stays in the background and may keep our descriptors: so files, no pipes.
        self.is_up = True
        with tempfile.TemporaryFile() as out:
            words = self.host.command(self.command("up", self.host.device, *options))
            code = os.waitstatus_to_exitcode(_spawn_and_wait(words, out, timeout=20))
            out.seek(0)
            if code != 0:
                raise Failed(f"sidestep up exited with {code}: {out.read().decode(errors='replace').strip()}")

    def wait_until_up(self):
        self.is_up = True
        wait_until(lambda: self.status_or_none(), 10, "the daemon did not come up within 10 s")

    def down(self, *options):
        self.is_up = False
        self.host.check(self.command("down", self.host.device, *options), timeout=10)

    def run_argv(self, argv, ports=(), strict=True, spin=None):
        words = ["run", "--dev", self.host.device]
        for port in ports:
            words += ["--port", port]
        words += ["--strict"] if strict else []
        words += ["--spin", spin] if spin is not None else []
        return self.command(*words, "--", *argv)

    def port(self, verb, port):
        self.host.check(self.command("port", verb, port))

    def status(self):
        """The device's part of `sidestep status --json`."""
        text = self.host.check(self.command("status", "--json"))
        try:
            devices = json.loads(text)["devices"]
        except (ValueError, KeyError) as error:
            raise Failed(f"sidestep status --json printed no usable JSON ({error}): {text[:200]}") from None
        for device in devices:
            if device["name"] == self.host.device:
                return device
        raise Failed(f"sidestep status knows no device {self.host.device}")

    def status_or_none(self):
        try:
            return self.status()
        except Failed:
            return None


def _spawn_and_wait(words, out, timeout):
    """A wait status. Not subprocess.communicate: that would wait for the daemon to close its output, too."""
    pid = os.posix_spawnp(words[0], words, os.environ, setsid=True, file_actions=[
        (os.POSIX_SPAWN_DUP2, out.fileno(), 1), (os.POSIX_SPAWN_DUP2, out.fileno(), 2)])
    status = []

    def has_ended():
        ended, code = os.waitpid(pid, os.WNOHANG)
        status.append(code)
        return ended == pid

    try:
        wait_until(has_ended, timeout, f"sidestep up did not return within {timeout} s")
    except BaseException:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        raise
    return status[-1]


def build():
    check(["cargo", "build", "--release", "--workspace"], timeout=1800)


def version():
    code, out, _ = run([str(BINARY), "--version"]) if BINARY.exists() else (1, "", "")
    return out.strip() if code == 0 else "sidestep (not built)"
