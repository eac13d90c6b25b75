"""Clients from Python's standard library: py_client.py KIND HOST PORT SIZE COUNT. Prints "ok" when all is as it should be."""

import asyncio
import hashlib
import http.client
import random
import socket
import sys
import threading
import urllib.request

KIND, HOST, PORT, SIZE, COUNT = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])


def payload(number):
    return random.Random(number).randbytes(SIZE + number)


def by_urllib(number):
    data = payload(number)
    with urllib.request.urlopen(f"http://{HOST}:{PORT}/", data=data, timeout=20) as answer:
        assert answer.read().decode() == hashlib.sha256(data).hexdigest()


def by_http_client(number):
    """Several requests over one connection."""
    connection = http.client.HTTPConnection(HOST, PORT, timeout=20)
    for turn in range(5):
        data = payload(number + turn)
        connection.request("POST", "/", body=data)
        assert connection.getresponse().read().decode() == hashlib.sha256(data).hexdigest()
    connection.close()


def by_socket(number):
    """Writes in one thread and reads in another, until the echo ends."""
    data, received = payload(number), bytearray()
    with socket.create_connection((HOST, PORT), timeout=20) as connection:
        writer = threading.Thread(target=lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR)))
        writer.start()
        while piece := connection.recv(65536):
            received += piece
        writer.join()
    assert received == data, f"{len(received)} of {len(data)} bytes"


async def by_asyncio():
    async def one(number):
        data = payload(number)
        reader, writer = await asyncio.open_connection(HOST, PORT)

        async def send():
            for at in range(0, len(data), 50_000):
                writer.write(data[at:at + 50_000])
                await writer.drain()
            writer.write_eof()

        _, received = await asyncio.gather(send(), reader.read())
        assert received == data, f"{len(received)} of {len(data)} bytes"
        writer.close()
        await writer.wait_closed()

    await asyncio.wait_for(asyncio.gather(*map(one, range(COUNT))), 30)


def in_threads(act):
    failures = []

    def guarded(number):
        try:
            act(number)
        except Exception as error:
            failures.append(f"{number}: {type(error).__name__} {error}")

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(COUNT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        sys.exit(failures[0])


if KIND == "asyncio":
    asyncio.run(by_asyncio())
else:
    in_threads({"urllib": by_urllib, "http.client": by_http_client, "socket": by_socket}[KIND])
print("ok")
