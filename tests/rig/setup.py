"""Rig: the wire, the servers on it and sidestep, for the length of a `with` block."""

import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path

from . import network, proof, servers
from .process import Failed, Process, wait_until
from .product import Sidestep


class Rig:
    """mode "sidestep" or "kernel": whether near's programs are started under sidestep."""

    def __init__(self, mode="sidestep", daemon=True, pinned=False, long_wire=False, queues=1, back=None):
        self._long_wire, self._queues = long_wire, {"queues": queues, "back": back}
        self.mode, self._wants_daemon = mode, daemon and mode == "sidestep"
        # MEASURED.md's placement: the client on core 0, the server on core 1.
        two_cores = pinned and (os.cpu_count() or 1) > 1
        self.client_core, self.server_core = (0, 1) if two_cores else (None, None)
        self._children = []

    def __enter__(self):
        network.remove_abandoned()
        self.scratch = Path(tempfile.mkdtemp(prefix=f"ss-rig-{os.getpid()}-"))
        self.scratch.chmod(0o755)
        try:
            self.wire = network.LongWire() if self._long_wire else network.Wire(**self._queues)
            self.near, self.far = self.wire.near, self.wire.far
            self.sidestep = Sidestep(self.near)
            if self._wants_daemon:
                self.sidestep.up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Whatever happened before, nothing of ours stays: not the second Ctrl-C, not a failing step, stops this."""
        with _undisturbed():
            for child in reversed(self._children):
                child.stop()
            if hasattr(self, "sidestep") and self.sidestep.is_up:
                with contextlib.suppress(Failed):
                    self.sidestep.down("--force")
            if hasattr(self, "wire"):
                self.wire.remove()
            shutil.rmtree(self.scratch, ignore_errors=True)

    def home(self, name):
        """A private directory for one server."""
        folder = self.scratch / name
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
        return folder

    def start(self, host, name, argv, core=None, env=None):
        log = self.scratch / f"{name}.log"
        child = Process(host.command(argv), log, core=core, env=env)
        self._children.append(child)
        return child

    def start_served(self, name, argv, ports, strict=True, spin=None, env=None):
        """Starts a program on near the way this rig's mode says."""
        if self.mode == "sidestep":
            argv = self.sidestep.run_argv(argv, ports, strict, spin)
        return self.start(self.near, name, argv, core=self.server_core, env=env)

    def start_redis(self, port=servers.REDIS_PORT, hz=10, **options):
        name = f"redis-{port}"
        server = self.start_served(name, servers.redis_argv(self.home(name), port, hz), [port], **options)
        servers.wait_for_redis(self.far, server, self.near.ipv4, port)
        return server

    def start_nginx(self, port=servers.NGINX_PORT, master="off", **options):
        name = f"nginx-{port}"
        server = self.start_served(name, servers.nginx_argv(self.home(name), port, master), [port], **options)
        servers.wait_for_nginx(self.far, server, self.near.ipv4, port)
        return server

    def www(self, port=servers.NGINX_PORT):
        return self.home(f"nginx-{port}") / "www"

    def witness(self):
        return proof.witness(self.near, self.sidestep)

    @contextlib.contextmanager
    def carried_by_user_stack(self, frames=1, stack_is_alive=True):
        """What happens inside must be the user stack's work alone; in kernel mode, the kernel's."""
        self._let_the_kernel_finish()
        before = self.witness()
        yield
        moved = self.witness() - before
        if self.mode == "kernel":
            proof.expect_kernel(moved, frames)
        else:
            proof.expect_user_stack(moved, frames, stack_is_alive)

    def _let_the_kernel_finish(self):
        """The first connection to a server that starts may be the kernel's, and peers of the dead send again: what comes of that does
        not count for what follows."""
        hosts = (self.near, self.far)
        with contextlib.suppress(Failed):
            wait_until(lambda: not any(host.is_opening_or_closing() for host in hosts), 1, "connections do not end")

    @contextlib.contextmanager
    def carried_by_kernel(self, frames=1):
        before = self.witness()
        yield
        proof.expect_kernel(self.witness() - before, frames)

    def logs(self, lines=8, width=160):
        """The end of what every child printed and of the logs that servers keep themselves, for a failure's report."""
        said = [(child.log.stem, child.output()) for child in self._children]
        written = sorted(self.scratch.glob("*/*.log"))
        for name, text in said + [(str(log.relative_to(self.scratch)), log.read_text(errors="replace")) for log in written]:
            tail = text.strip().splitlines()[-lines:]
            if tail:
                yield name, [line[:width] for line in tail]

    def accounts(self):
        """What the device and its stacks have counted, without the zeros, for a failure's report."""
        status = self.sidestep.status_or_none() if self.sidestep.is_up else None
        for part in ("verdicts", "gone", "ports", "stacks") if status else ():
            for counters in status[part] if isinstance(status[part], list) else [status[part]]:
                yield part, " ".join(f"{name}={value}" for name, value in counters.items() if value)


@contextlib.contextmanager
def _undisturbed():
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_on_signals():
    """SIGTERM and SIGHUP end us as Ctrl-C does: through the `with` blocks."""

    def interrupt(*_):
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
