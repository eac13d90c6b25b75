"""A UDP server for end-to-end tests: udp_server.py MODE PORT [ADDRESS]. It echoes, and answers two questions about itself.

    echo      a blocking loop
    epoll     the same from asyncio, which waits with epoll
    slow      reads nothing until it gets SIGUSR1
    workers   two forked processes share the port (SO_REUSEPORT); an answer begins with the worker's number
"""

import asyncio
import os
import signal
import socket
import sys


def make(port, address="::", shared=False):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, socket.SOCK_DGRAM)
    if shared:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind((address, port))
    return server


def echo(server, prefix=b""):
    while True:
        data, peer = server.recvfrom(65536)
        server.sendto(prefix + data, peer)


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        self.transport.sendto(data, peer)


async def echo_by_epoll(port, address):
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Echo, local_addr=(address, port))
    await asyncio.Event().wait()


def main(mode, port, address="::"):
    port = int(port)
    print("pid", os.getpid(), flush=True)
    if mode == "epoll":
        asyncio.run(echo_by_epoll(port, address))
    elif mode == "workers":
        children = []
        for number in b"01":
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                echo(make(port, address, shared=True), bytes([number]))
            children.append(number)
        signal.pause()
    elif mode == "slow":
        server = make(port, address)
        server.setblocking(False)
        try:
            server.recv(1)  # the first interest: from now on datagrams come to the user stack
        except BlockingIOError:
            pass
        server.setblocking(True)
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.pause()
        echo(server)
    else:
        echo(make(port, address))


main(*sys.argv[1:])
