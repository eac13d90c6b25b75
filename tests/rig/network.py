"""Two namespaces and the veth pair between them.

`near` is the machine that sidestep works on; `far` is an ordinary machine that knows nothing of it. The pair has one
queue unless a case asks for more, RPS is off, and checksum offload stays on at both ends, as it is on a container host: frames arrive with only the
pseudo-header sum in their checksum field.
"""

import contextlib
import ctypes
import itertools
import os
import re
import shutil
import signal
import socket
import tempfile
from pathlib import Path

from . import process
from .process import Failed

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_NUMBERS = itertools.count(1)
# ESTABLISHED, FIN-WAIT-2, TIME-WAIT and LISTEN, as /proc/net/tcp has them.
_STATES_THAT_LAST = {"01", "05", "06", "0A"}
_OUR_NAME = re.compile(r"^ss-(\d+)-\d+-(near|far|line)$")


class Host:
    """One network namespace with one interface."""

    def __init__(self, namespace, device, ipv4, ipv6):
        self.namespace, self.device, self.ipv4, self.ipv6 = namespace, device, ipv4, ipv6

    def address(self, version):
        return self.ipv6 if version == 6 else self.ipv4

    def command(self, argv):
        return ["ip", "netns", "exec", self.namespace, *map(str, argv)]

    def run(self, argv, **options):
        return process.run(self.command(argv), **options)

    def check(self, argv, **options):
        return process.check(self.command(argv), **options)

    @contextlib.contextmanager
    def entered(self):
        """This thread is in the namespace; a socket made here stays in it after we have left."""
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.namespace}") as there:
            _set_namespace(there)
            try:
                yield
            finally:
                _set_namespace(home)

    def socket(self, *kind):
        with self.entered():
            return socket.socket(*kind)

    def connect(self, address, port, timeout=10):
        """A TCP connection from this host, made by this host's kernel."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        connection = self.socket(family, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        connection.connect((address, port))
        return connection

    def listen(self, port, version=4, backlog=128):
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        listener = self.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.address(version), port))
        listener.listen(backlog)
        return listener

    def kernel_segments(self):
        """(InSegs, OutSegs): what this host's kernel TCP has received and sent, IPv4 and IPv6 together."""
        with self.entered():
            names, values = [line.split() for line in open("/proc/thread-self/net/snmp") if line.startswith("Tcp:")]
        tcp = dict(zip(names, values))
        return int(tcp["InSegs"]), int(tcp["OutSegs"])

    def is_opening_or_closing(self):
        """Whether this host's kernel has TCP connections whose next segments come by themselves."""
        with self.entered():
            lines = [line for table in ("tcp", "tcp6") for line in list(open(f"/proc/thread-self/net/{table}"))[1:]]
        return any(line.split()[3] not in _STATES_THAT_LAST for line in lines)

    def kernel_datagrams(self):
        """(InDatagrams, OutDatagrams): the same for UDP."""
        with self.entered():
            names, values = [line.split() for line in open("/proc/thread-self/net/snmp") if line.startswith("Udp:")]
            v6 = dict(line.split() for line in open("/proc/thread-self/net/snmp6"))
        v4 = dict(zip(names, values))
        return tuple(int(v4[name]) + int(v6[f"Udp6{name}"]) for name in ("InDatagrams", "OutDatagrams"))

    def mac(self):
        with self.entered():
            return bytes.fromhex(_ip_output(self, "link", "show", self.device).split("link/ether ")[1][:17].replace(":", ""))

    def frames_by_queue(self):
        """Frames that the XDP program of this host's veth has seen, by receive queue."""
        names = self.check(["ethtool", "-S", self.device])
        found = re.findall(r"rx_queue_(\d+)_xdp_packets: (\d+)", names)
        return [int(count) for _, count in sorted((int(queue), count) for queue, count in found)]

    def pids(self):
        return _pids_in(self.namespace)


class Wire:
    """Makes both hosts; `remove` takes away everything in them, whatever state they are in.

    `queues` are near's receive queues, and far's transmit queues: far's kernel chooses one by the flow, and the frame arrives
    on the receive queue of the same number. `back`: the way back, if it has another number.
    """

    def __init__(self, queues=1, back=None):
        self.queues, self._back = queues, back or queues
        tag = f"ss-{os.getpid()}-{next(_NUMBERS)}"
        self.near = Host(f"{tag}-near", "near0", "10.77.0.1", "fd77::1")
        self.far = Host(f"{tag}-far", "far0", "10.77.0.2", "fd77::2")
        try:
            self._make()
        except BaseException:
            self.remove()
            raise

    def _make(self):
        for host in (self.near, self.far):
            _ip("netns", "add", host.namespace)
        there, back = self.queues, self._back
        _ip("link", "add", self.near.device, "netns", self.near.namespace, "numrxqueues", there, "numtxqueues", back, "type", "veth",
            "peer", "name", self.far.device, "netns", self.far.namespace, "numrxqueues", back, "numtxqueues", there)
        for host in (self.near, self.far):
            self._configure(host)

    def _configure(self, host):
        for line in (
            "link set lo up",
            f"addr add {host.ipv4}/24 dev {host.device}",
            f"addr add {host.ipv6}/64 dev {host.device} nodad",
            f"link set {host.device} up",
        ):
            _ip("-n", host.namespace, *line.split())
        # RPS costs an inter-processor interrupt per frame here. The far end opens tens of thousands of connections a second.
        host.check(["sh", "-c", f"for rps in /sys/class/net/{host.device}/queues/rx-*/rps_cpus; do echo 0 > $rps; done; "
                    "echo 1024 65000 > /proc/sys/net/ipv4/ip_local_port_range; echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse"])

    def remove(self):
        for host in (self.near, self.far):
            _remove(host.namespace)


class LongWire(Wire):
    """The same hosts with a third namespace between them, where `sidestep-rig wire` carries the frames (line.py).

    The two ends in the middle belong to nobody: no addresses, no IPv6. Segments leave the hosts as single frames with finished
    checksums, as they leave a network card: the wire carries bytes, and "the device will finish this" is not among them.
    """

    NEAR_END, FAR_END = "line0", "line1"

    def _make(self):
        self.line = self.near.namespace.replace("-near", "-line")
        hosts = ((self.near, self.NEAR_END), (self.far, self.FAR_END))
        for namespace in (self.near.namespace, self.far.namespace, self.line):
            _ip("netns", "add", namespace)
        process.check(["ip", "netns", "exec", self.line, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; "
                       "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"])
        queues = ["numrxqueues", "1", "numtxqueues", "1"]
        for host, end in hosts:
            _ip("link", "add", host.device, "netns", host.namespace, *queues, "type", "veth",
                "peer", "name", end, "netns", self.line, *queues)
            _ip("-n", self.line, "link", "set", end, "up")
            host.check(["ethtool", "-K", host.device, "tso", "off", "gso", "off", "gro", "off", "tx", "off"])
            self._configure(host)

    def remove(self):
        super().remove()
        _remove(self.near.namespace.replace("-near", "-line"))


def remove_abandoned():
    """Removes what runs left that were killed before they could clean up: its names hold a pid that is gone."""
    for folder in Path(tempfile.gettempdir()).glob("ss-rig-*"):
        if not os.path.exists(f"/proc/{folder.name.split('-')[2]}"):
            shutil.rmtree(folder, ignore_errors=True)
    for namespace in os.listdir("/run/netns") if os.path.isdir("/run/netns") else []:
        name = _OUR_NAME.match(namespace)
        if name and not os.path.exists(f"/proc/{name[1]}"):
            _remove(namespace)


def _remove(namespace):
    # Nobody but our own children is in a namespace that we made; a daemon we lost track of is among them.
    for pid in _pids_in(namespace):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.run(["ip", "netns", "del", namespace])


def _pids_in(namespace):
    code, out, _ = process.run(["ip", "netns", "pids", namespace])
    return [int(pid) for pid in out.split()] if code == 0 else []


def _ip(*words):
    process.check(["ip", *map(str, words)])


def _ip_output(host, *words):
    return process.check(["ip", "-n", host.namespace, *words])


def _set_namespace(handle):
    if _LIBC.setns(handle.fileno(), _CLONE_NEWNET) != 0:
        raise Failed(f"setns: {os.strerror(ctypes.get_errno())}")


def addressed(address, port):
    """host:port as URLs and people write it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def has_root():
    return os.geteuid() == 0 and Path("/proc/self/ns/net").exists()
