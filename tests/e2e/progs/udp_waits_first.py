"""One thread waits on a datagram socket that has no port yet, another one sends for the first time: udp_waits_first.py HOST PORT."""

import select
import socket
import sys
import threading
import time

THERE = (sys.argv[1], int(sys.argv[2]))


def by_recv(client):
    return client.recv(100)


def by_recvmsg_with_timeout(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bytes([3] + [0] * 15))
    return client.recvmsg(100)[0]


def by_poll(client):
    poll = select.poll()
    poll.register(client, select.POLLIN)
    return client.recv(100) if poll.poll(3000) else b"nothing"


def by_select(client):
    return client.recv(100) if select.select([client], [], [], 3)[0] else b"nothing"


def by_epoll(client):
    epoll = select.epoll()
    epoll.register(client, select.EPOLLIN)
    return client.recv(100) if epoll.poll(3) else b"nothing"


for wait in (by_recv, by_recvmsg_with_timeout, by_poll, by_select, by_epoll):
    for first in ("sendto", "connect"):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        got = []
        waiter = threading.Thread(target=lambda: got.append(wait(client)), daemon=True)
        waiter.start()
        time.sleep(0.2)
        if first == "connect":
            client.connect(THERE)
            client.send(b"hello")
        else:
            client.sendto(b"hello", THERE)
        waiter.join(4)
        print(wait.__name__, first, got, flush=True)

# Nobody sends: the time runs out, and the socket is still to be bound.
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bytes(8) + (200_000).to_bytes(8, "little"))
started = time.monotonic()
try:
    client.recv(100)
except BlockingIOError:
    print("timeout", 0.15 < time.monotonic() - started < 1)
client.bind(("0.0.0.0", 5399))
print("bound", client.getsockname()[1])
