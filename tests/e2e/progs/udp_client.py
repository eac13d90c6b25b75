"""A UDP client for end-to-end tests: udp_client.py HOST PORT CLOSED_PORT. Prints a line for each thing it tried."""

import socket
import sys
import time


def main(host, port, closed):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    there = (host, int(port))

    connected = socket.socket(family, socket.SOCK_DGRAM)
    connected.settimeout(3)
    connected.connect(there)
    for number in range(100):
        connected.send(b"connected %d" % number)
        assert connected.recv(100) == b"connected %d" % number
    print("connected", connected.getpeername()[:2] == there, connected.getsockname()[1] != 0)

    free = socket.socket(family, socket.SOCK_DGRAM)
    free.settimeout(3)
    for number in range(100):
        free.sendto(b"free %d" % number, there)
        data, peer = free.recvfrom(100)
        assert data == b"free %d" % number and peer[:2] == there, (data, peer)
    print("free", free.getsockname()[1] != 0)

    bound = socket.socket(family, socket.SOCK_DGRAM)
    bound.settimeout(3)
    bound.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
    bound.sendto(b"bound", there)
    print("bound", bound.recv(100))

    # A port that bind() found is served, also by the kernel: who wants the error queue has it there.
    odd = socket.socket(family, socket.SOCK_DGRAM)
    odd.settimeout(3)
    odd.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
    odd.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
    twin = odd.dup()
    odd.close()
    twin.settimeout(3)
    twin.sendto(b"odd", there)
    print("odd", twin.recv(100))

    for size in (0, 1, 1472, 4000, 20000):
        connected.send(bytes(size))
        assert connected.recv(65536) == bytes(size)
    print("sizes ok")

    refused = socket.socket(family, socket.SOCK_DGRAM)
    refused.settimeout(3)
    refused.connect((host, int(closed)))
    refused.send(b"anybody?")
    try:
        refused.recv(100)
    except OSError as error:
        print("closed", type(error).__name__)
    time.sleep(0.1)


main(*sys.argv[1:])
