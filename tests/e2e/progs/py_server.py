"""Servers from Python's standard library: py_server.py KIND PORT FOLDER. Each answers a POST, or a line, with a digest."""

import asyncio
import hashlib
import http.server
import os
import selectors
import socket
import socketserver
import sys


class Http(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        digest = hashlib.sha256(self.rfile.read(int(self.headers["Content-Length"]))).hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(digest)))
        self.end_headers()
        self.wfile.write(digest)

    def log_message(self, *_):
        pass


class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)


class ForkingServer(socketserver.ForkingTCPServer):
    allow_reuse_address = True
    request_queue_size = 64
    max_children = 64


class ThreadingServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 64
    daemon_threads = True


async def asyncio_server(port, folder):
    """An echo to the end, or to whoever asks for "file" the file "big" by loop.sendfile."""

    async def serve(reader, writer):
        data = await reader.read(65536)
        if data == b"file":
            with open(os.path.join(folder, "big"), "rb") as file:
                await asyncio.get_running_loop().sendfile(writer.transport, file, fallback=False)
        else:
            while data:
                writer.write(data)
                await writer.drain()
                data = await reader.read(65536)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "0.0.0.0", port, backlog=256)
    async with server:
        await server.serve_forever()


def selector_server(kind, port):
    """An echo with one of the selectors; what does not fit is kept until it does."""
    selector = getattr(selectors, kind)()
    listener = socket.create_server(("0.0.0.0", port), backlog=256)
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    pending = {}
    while True:
        for key, events in selector.select():
            connection = key.fileobj
            if connection is listener:
                taken, _ = listener.accept()
                taken.setblocking(False)
                pending[taken] = bytearray()
                selector.register(taken, selectors.EVENT_READ)
                continue
            out = pending[connection]
            ended = False
            if events & selectors.EVENT_READ and len(out) < 1 << 20:
                data = connection.recv(65536)
                out += data
                ended = not data
            if out:
                try:
                    del out[:connection.send(out)]
                except BlockingIOError:
                    pass
            if ended and not out:
                selector.unregister(connection)
                connection.close()
                del pending[connection]
                continue
            wanted = (selectors.EVENT_READ if len(out) < 1 << 20 and not ended else 0) | (selectors.EVENT_WRITE if out else 0)
            selector.modify(connection, wanted)


def main():
    kind, port, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    os.chdir(folder)
    if kind == "http":
        http.server.ThreadingHTTPServer.request_queue_size = 64
        http.server.ThreadingHTTPServer(("0.0.0.0", port), Http).serve_forever()
    elif kind == "forking":
        ForkingServer(("0.0.0.0", port), Echo).serve_forever()
    elif kind == "threading":
        ThreadingServer(("0.0.0.0", port), Echo).serve_forever()
    elif kind == "asyncio":
        asyncio.run(asyncio_server(port, folder))
    else:
        selector_server(kind, port)


main()
