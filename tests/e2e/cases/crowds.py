"""A thousand connections, all open at the same time, each asking several times."""

import errno
import selectors
import socket
import time

from case import case, expect
from rig.process import Failed
from rig.servers import NGINX_PORT, REDIS_PORT

COUNT, REQUESTS = 1000, 5


@case("1,000 connections to redis", timeout=90)
def redis_1000_connections(rig):
    rig.start_redis()

    def ask(member, turn):
        token = b"c%d-%d" % (member, turn)
        return b"*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n" % (len(token), token)

    def is_answer(received, member, turn):
        token = b"c%d-%d" % (member, turn)
        wanted = b"$%d\r\n%s\r\n" % (len(token), token)
        expect(wanted.startswith(received), f"connection {member} got {received[:80]!r}, expected {wanted!r}")
        return received == wanted

    with rig.carried_by_user_stack(frames=COUNT * REQUESTS):
        Crowd(rig.far, rig.near.ipv4, REDIS_PORT).talk(ask, is_answer)


@case("1,000 connections to nginx", timeout=90)
def nginx_1000_connections(rig):
    rig.start_nginx()

    def ask(_member, _turn):
        return b"GET /1k HTTP/1.1\r\nHost: near\r\n\r\n"

    def is_answer(received, member, _turn):
        head, _, body = received.partition(b"\r\n\r\n")
        expect(b"HTTP/1.1 200 OK".startswith(head[:15]), f"connection {member} got {head[:80]!r}")
        expect(len(body) <= 1024, f"connection {member} got {len(body)} bytes of a 1024-byte body")
        return body == b"x" * 1024

    with rig.carried_by_user_stack(frames=COUNT * REQUESTS):
        Crowd(rig.far, rig.near.ipv4, NGINX_PORT).talk(ask, is_answer)


class Crowd:
    """One epoll loop over many nonblocking connections."""

    def __init__(self, host, address, port, count=COUNT):
        self.poll = selectors.DefaultSelector()
        with host.entered():
            self.members = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
        for connection in self.members:
            connection.setblocking(False)
            code = connection.connect_ex((address, port))
            expect(code in (0, errno.EINPROGRESS), f"connect: {errno.errorcode.get(code, code)}")

    def talk(self, ask, is_answer, turns=REQUESTS, timeout=60):
        deadline = time.monotonic() + timeout
        try:
            self._establish(deadline)
            for turn in range(turns):
                self._ask_all(ask, is_answer, turn, deadline)
        finally:
            for connection in self.members:
                connection.close()
            self.poll.close()

    def _establish(self, deadline):
        """Nobody speaks before all are connected."""
        for number, connection in enumerate(self.members):
            self.poll.register(connection, selectors.EVENT_WRITE, number)
        waiting = len(self.members)
        while waiting:
            for key, _ in self._ready(deadline, f"{waiting} connections were not made"):
                code = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                expect(code == 0, f"connection {key.data}: {errno.errorcode.get(code, code)}")
                self.poll.modify(key.fileobj, selectors.EVENT_READ, key.data)
                waiting -= 1

    def _ask_all(self, ask, is_answer, turn, deadline):
        received = {}
        for number, connection in enumerate(self.members):
            connection.send(ask(number, turn))
            received[number] = b""
        while received:
            for key, _ in self._ready(deadline, f"{len(received)} connections got no whole answer in turn {turn}"):
                number, data = key.data, key.fileobj.recv(65536)
                expect(data, f"connection {number} was closed in turn {turn}")
                expect(number in received, f"connection {number} got more than its answer")
                received[number] += data
                if is_answer(received[number], number, turn):
                    del received[number]

    def _ready(self, deadline, complaint):
        left = deadline - time.monotonic()
        if left <= 0:
            raise Failed(complaint)
        return self.poll.select(left)
