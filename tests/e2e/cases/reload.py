"""nginx as it is really run: a master in the background, workers of another user, reloaded and upgraded under load."""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time

from case import case, expect, expect_equal
from rig import proof, servers
from rig.process import wait_until
from rig.servers import NGINX_PORT

DOWNLOAD = 24 << 20
# So many times as long as `make e2e`: `make soak`.
LONGER = int(os.environ.get("E2E_LONGER", "1"))


class Nginx:
    """A master of its own session with `workers`, for the length of a `with` block."""

    def __init__(self, rig, workers, accept_mutex=False, reuseport=False, delay="500ms"):
        self.rig, self.workers = rig, workers
        self.home = rig.home(f"nginx-{NGINX_PORT}")
        # By its whole path: that is how it executes its successor.
        self.argv = [shutil.which("nginx"), *servers.nginx_argv(self.home, master="on")[1:]]
        (self.home / "www").chmod(0o755)
        servers.write_random_file(self.home / "www/big", DOWNLOAD)
        self.digest = hashlib.sha256((self.home / "www/big").read_bytes()).hexdigest()
        conf = self.home / "nginx.conf"
        text = conf.read_text().replace("daemon off;", "daemon on; user www-data;")
        text = text.replace("worker_processes 1;", f"worker_processes {workers};")
        text = text.replace("worker_connections 4096;", f"worker_connections 4096; accept_mutex {on(accept_mutex)}; accept_mutex_delay {delay};")
        if reuseport:
            text = re.sub(r"listen (.*);", r"listen \1 reuseport;", text)
        conf.write_text(text)

    def __enter__(self):
        starter = self.rig.start_served(f"nginx-{NGINX_PORT}", self.argv, [NGINX_PORT])
        expect_equal(starter.exit_code(10), 0, f"nginx' start: {starter.output()}")
        wait_until(lambda: self.master(), 5, "nginx wrote no pid")
        self._await_answer()
        return self

    def __exit__(self, *_):
        for pid in self.masters():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        self.await_end()

    def await_end(self):
        wait_until(lambda: not any(map(is_alive, self.masters())), 10, "nginx did not end")

    def await_members(self):
        """Each worker serves the port."""
        def members():
            return [port["members"] for port in self.rig.sidestep.status()["ports"] if port["port"] == NGINX_PORT]

        if self.rig.mode == "sidestep":
            wait_until(lambda: members() == [self.workers], 10, lambda: f"members of the port: {members()}")

    def _await_answer(self):
        def answers():
            with contextlib.suppress(OSError), self.rig.far.connect(self.rig.near.ipv4, NGINX_PORT, timeout=1) as client:
                client.sendall(b"GET /1k HTTP/1.0\r\n\r\n")
                return client.recv(12) == b"HTTP/1.1 200"

        wait_until(answers, 10, "nginx does not answer")

    def master(self, old=False):
        try:
            return int((self.home / f"nginx.pid{'.oldbin' if old else ''}").read_text())
        except (OSError, ValueError):
            return 0

    def masters(self):
        return [pid for pid in (self.master(), self.master(old=True)) if pid]

    def worker_pids(self, master=None):
        children = f"/proc/{master or self.master()}/task/{master or self.master()}/children"
        with contextlib.suppress(OSError), open(children) as file:
            return [int(pid) for pid in file.read().split()]
        return []

    def tell(self, what):
        """nginx -s"""
        self.rig.near.check([*self.argv, "-s", what])

    def reload(self):
        """Returns when the old workers take nothing any more; they may still be serving."""
        before = set(self.worker_pids())
        self.tell("reload")
        wait_until(lambda: len(set(self.worker_pids()) - before) == self.workers, 10, "no new workers")


def on(flag):
    return "on" if flag else "off"


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Load:
    """wrk with a connection per request and wrk with few kept ones, and long downloads whose hash is compared."""

    def __init__(self, rig, nginx, kept=True, closing=True, downloads=2, connections=20):
        self.rig, self.nginx, self.is_over, self.connections = rig, nginx, False, connections
        self.downloads, self.failures = [0] * downloads, []
        self.wrks = []
        base = ["wrk", "-t1", f"-c{connections}", "-d1h", f"http://{rig.near.ipv4}:{NGINX_PORT}/1k"]
        self.argvs = ([base] if kept else []) + ([[*base, "-H", "Connection: close"]] if closing else [])

    def __enter__(self):
        for argv in self.argvs:
            self.wrks.append(subprocess.Popen(self.rig.far.command(argv), stdout=subprocess.PIPE, text=True))
        self.threads = [threading.Thread(target=self._download, args=(n,)) for n in range(len(self.downloads))]
        for thread in self.threads:
            thread.start()
        time.sleep(0.3)
        return self

    def __exit__(self, kind, *_):
        self.is_over = True
        for wrk in self.wrks:
            wrk.send_signal(signal.SIGINT)  # it prints its result then
        self.results = [wrk.communicate()[0] for wrk in self.wrks]
        for thread in self.threads:
            thread.join(30)
        if kind is None:
            expect(not self.failures, f"downloads: {self.failures[:3]} ({len(self.failures)} in all)")
            expect(all(self.downloads), f"downloads finished: {self.downloads}")

    def _download(self, number):
        while not self.is_over:
            try:
                with self.rig.far.connect(self.rig.near.ipv4, NGINX_PORT) as client:
                    self._check(client)
                self.downloads[number] += 1
            except Exception as error:  # noqa: BLE001: whatever it is, it is a failed request
                self.failures.append(repr(error))

    def _check(self, client):
        client.sendall(b"GET /big HTTP/1.0\r\n\r\n")
        received = b""
        while b"\r\n\r\n" not in received:
            data = client.recv(1 << 16)
            if not data:
                raise ConnectionError(f"end after {received!r}")
            received += data
        digest, count = hashlib.sha256(body := received.partition(b"\r\n\r\n")[2]), len(body)
        while data := client.recv(1 << 18):
            digest.update(data)
            count += len(data)
            time.sleep(0.005)
        if digest.hexdigest() != self.nginx.digest:
            raise ConnectionError(f"{count} of {DOWNLOAD} bytes came, or wrong ones")

    def errors(self):
        """Of each wrk: failed requests and good ones."""
        return [(failed_requests(result), requests(result)) for result in self.results]

    def expect_none_failed(self):
        for result in self.results:
            expect(failed_requests(result) == 0, result[-400:])
            expect(requests(result) > 100, f"hardly any load: {result[-400:]}")


def failed_requests(result):
    socket_errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", result)
    others = re.search(r"Non-2xx or 3xx responses: (\d+)", result)
    return sum(int(n) for found in (socket_errors, others) if found for n in found.groups())


def requests(result):
    found = re.search(r"(\d+) requests in", result)
    return int(found.group(1)) if found else 0


def wrong_stacks(rig):
    """Segments of no connection that were answered with a reset, by living stacks and those that are gone."""
    return proof.resets_for_nobody(rig.sidestep.status()) if rig.mode == "sidestep" else 0


# Of connections that went to the kernel while workers came and went: five each.
FEW_SEGMENTS = 100


def reload_under_load(rig, workers, accept_mutex=False, **how):
    with Nginx(rig, workers, accept_mutex=accept_mutex, **how) as nginx:
        if accept_mutex:
            reload_thrice(rig, nginx)
        else:
            nginx.await_members()
            # The new ones serve the port before the old ones leave it, and no connection goes to the kernel: if they get the
            # processor in the tenth of a second that nginx gives them. Some may not; a daemon that paused the port sent 200 and more.
            for _ in range(3):
                moved = reload_thrice(rig, nginx)
                if rig.mode == "kernel" or moved.kernel_in <= FEW_SEGMENTS:
                    break
            if rig.mode == "kernel":
                proof.expect_kernel(moved, 1000)
            else:
                expect(moved.redirected >= 1000 and moved.kernel_in <= FEW_SEGMENTS, f"carried by the user stack: {moved}")
        expect_equal(wrong_stacks(rig), 0, "segments that met the wrong stack")


def reload_thrice(rig, nginx):
    """Under load, of which nothing may fail; what was moved meanwhile, and by whom."""
    before = rig.witness()
    with Load(rig, nginx, kept=False) as load:
        for _ in range(3 * LONGER):
            nginx.reload()
            time.sleep(0.5)
    load.expect_none_failed()
    return rig.witness() - before


@case("nginx reloads under load, a connection per request: not one fails", timeout=60 * LONGER)
def reload_closing(rig):
    reload_under_load(rig, 2)


@case("the same with four workers", timeout=60 * LONGER)
def reload_four(rig):
    reload_under_load(rig, 4)


@case("the same with an accept mutex", timeout=60 * LONGER)
def reload_mutex(rig):
    reload_under_load(rig, 2, accept_mutex=True)


@case("the same with a listener for each worker", timeout=60 * LONGER)
def reload_reuseport(rig):
    reload_under_load(rig, 2, reuseport=True)


@case("the same with kept connections: each is closed once, as nginx does", timeout=60 * LONGER)
def reload_kept(rig):
    with Nginx(rig, 2) as nginx:
        with Load(rig, nginx) as load:
            for _ in range(3 * LONGER):
                nginx.reload()
                time.sleep(0.5)
        # wrk calls it a failed request that an old worker closes a connection on which nothing is asked: so it is on the kernel.
        (kept, good), (closing, _) = load.errors()
        expect(kept <= 3 * LONGER * load.connections and good > 100, load.results[0])
        expect_equal(closing, 0, "failed requests of connections that are not kept")
        expect_equal(wrong_stacks(rig), 0, "segments that met the wrong stack")


@case("nginx -s reopen and -s quit under load", timeout=60 * LONGER)
def reopen_and_quit(rig):
    with Nginx(rig, 2) as nginx:
        with Load(rig, nginx, kept=False) as load:
            nginx.tell("reopen")
            time.sleep(0.5)
        load.expect_none_failed()
        with Load(rig, nginx, kept=False, closing=False) as load:
            load.is_over = True  # downloads that run are finished, no other is begun
            nginx.tell("quit")
        expect_equal(wrong_stacks(rig), 0, "segments that met the wrong stack")


@case("nginx is upgraded by USR2 under load, and the old one quits", timeout=60 * LONGER)
def upgrade(rig):
    with Nginx(rig, 2) as nginx:
        with Load(rig, nginx, kept=False) as load:
            old = nginx.master()
            os.kill(old, signal.SIGUSR2)
            wait_until(lambda: nginx.master() not in (0, old) and len(nginx.worker_pids()) == 2, 10, "no new master")
            time.sleep(0.5)
            os.kill(old, signal.SIGQUIT)
            wait_until(lambda: not is_alive(old), 20, "the old master did not end")
            time.sleep(0.3)
        load.expect_none_failed()
        # nginx gives its successor an environment in which nothing names us.
        nginx.await_members()
        if rig.mode == "sidestep":
            stacks = {stack["pid"] for stack in rig.sidestep.status()["stacks"]}
            expect(stacks >= set(nginx.worker_pids()), f"of the successor's workers {nginx.worker_pids()} only {stacks} have a stack")
        expect_equal(wrong_stacks(rig), 0, "segments that met the wrong stack")
