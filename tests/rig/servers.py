"""Stock servers with private directories. How they are started (kernel or sidestep) is the rig's business."""

import os
import random
import socket
from pathlib import Path

from .process import Failed, wait_until

REDIS_PORT = 6379
NGINX_PORT = 8080

_NGINX_CONF = """
daemon off;
master_process {master};
worker_processes 1;
worker_rlimit_nofile 8192;
pid {home}/nginx.pid;
error_log {home}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    default_type application/octet-stream;
    client_max_body_size 1g;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    server {{
        listen {port};
        listen [::]:{port};
        root {home}/www;
        location /put/ {{ dav_methods PUT; }}
        location /upstream/ {{
            proxy_pass http://unix:{home}/upstream.sock;
            proxy_http_version 1.1;
            proxy_request_buffering off;
        }}
    }}
}}
"""


def redis_argv(home: Path, port=REDIS_PORT, hz=10):
    return ["redis-server", "--port", port, "--protected-mode", "no", "--save", "", "--appendonly", "no",
            "--dir", home, "--daemonize", "no", "--hz", hz]


def nginx_argv(home: Path, port=NGINX_PORT, master="off"):
    for folder in ("www", "www/put"):
        (home / folder).mkdir(exist_ok=True)
    (home / "www/1k").write_bytes(b"x" * 1024)
    conf = home / "nginx.conf"
    conf.write_text(_NGINX_CONF.format(home=home, port=port, master=master))
    return ["nginx", "-e", home / "error.log", "-c", conf]


def wait_for_redis(client, server, address, port=REDIS_PORT):
    _wait_for_answer(client, server, address, port, b"PING\r\n", b"+PONG")


def wait_for_nginx(client, server, address, port=NGINX_PORT):
    _wait_for_answer(client, server, address, port, b"GET /1k HTTP/1.0\r\n\r\n", b"HTTP/1.1 200")


def _wait_for_answer(client, server, address, port, question, answer):
    """The server is ready when it answers, not when it is started."""
    what = server.log.stem

    def answers():
        if not server.is_running():
            raise Failed(f"{what} ended at start: {last_line(server.output())}")
        try:
            with client.connect(address, port, timeout=1) as connection:
                connection.sendall(question)
                return connection.recv(len(answer), socket.MSG_WAITALL) == answer
        except OSError:
            return False

    wait_until(answers, 10, f"{what} did not answer on port {port} within 10 s")


def wait_for_port(rig, server, port, version=4):
    """Until a connection from far is taken, and by whom it should be: the first ones may still be the kernel's."""

    def takes_connections():
        if not server.is_running():
            raise Failed(f"{server.log.stem} ended at start: {last_line(server.output())}")
        before = rig.witness()
        try:
            with rig.far.connect(rig.near.address(version), port, timeout=1):
                moved = rig.witness() - before
        except OSError:
            return False
        return rig.mode == "kernel" or (moved.redirected > 0 and moved.kernel_in == 0)

    wait_until(takes_connections, 10, f"{server.log.stem} did not take connections on port {port} within 10 s")


def wait_for_far_port(rig, server, port):
    """The same for an ordinary server on far; nobody is counted yet."""

    def takes_connections():
        if not server.is_running():
            raise Failed(f"{server.log.stem} ended at start: {last_line(server.output())}")
        try:
            rig.far.connect(rig.far.ipv4, port, timeout=1).close()
        except OSError:
            return False
        return True

    wait_until(takes_connections, 10, f"{server.log.stem} did not listen on port {port} within 10 s")


def last_line(text):
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no output"


def write_random_file(path: Path, size, seed=1):
    """Bytes in which no block repeats, so that a misplaced one shows."""
    bits = random.Random(seed)
    with open(path, "wb") as out:
        for at in range(0, size, 1 << 22):
            out.write(bits.randbytes(min(1 << 22, size - at)))
    os.chmod(path, 0o644)
