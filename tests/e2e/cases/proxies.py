"""haproxy: a server and a client at once, with threads, in TCP and HTTP mode."""

import re
import signal
import socket

from case import case, expect, expect_equal, sha256_of_file
from rig.process import wait_until
from rig.servers import NGINX_PORT, REDIS_PORT, wait_for_port, write_random_file

from .basics import redis_command, set_and_get
from .clients import start_far_redis
from .transfers import MB, fetch
from .web import TLS_PORT, curl, make_certificate, near_url, site, start_far

_CONF = """
global
    nbthread 4
    maxconn 500
    stats socket {home}/stats.sock mode 600 level admin
defaults
    timeout connect 3s
    timeout client 20s
    timeout server 20s
    {options}
{proxies}
"""

SPLICE = "option splice-auto\n    option splice-request\n    option splice-response"


def start_haproxy(rig, proxies, ports, options="mode http"):
    home = rig.home("haproxy")
    (home / "haproxy.cfg").write_text(_CONF.format(home=home, proxies=proxies, options=options))
    server = rig.start_served("haproxy", ["haproxy", "-db", "-f", home / "haproxy.cfg"], ports)
    for port in ports:
        wait_for_port(rig, server, port)
    return server


def ask_stats(rig, command):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stats:
        stats.settimeout(5)
        stats.connect(str(rig.home("haproxy") / "stats.sock"))
        stats.sendall(command.encode() + b"\n")
        return b"".join(iter(lambda: stats.recv(65536), b"")).decode()


def end(server):
    """SIGUSR1 asks it to serve what it has and to end."""
    server.end(number=signal.SIGUSR1)


@case("haproxy in HTTP mode with four threads: keep-alive, connections that close, uploads, TLS", timeout=60)
def haproxy_http(rig):
    upstream = start_far(rig, site)
    write_random_file(upstream / "big", 20 * MB)
    home = rig.home("haproxy")
    make_certificate(rig, home)
    (home / "both.pem").write_bytes((home / "cert.pem").read_bytes() + (home / "key.pem").read_bytes())
    server = start_haproxy(rig, f"""
frontend web
    bind :{NGINX_PORT}
    bind :{TLS_PORT} ssl crt {home}/both.pem alpn h2,http/1.1
    default_backend far
backend far
    balance roundrobin
    server one {rig.far.ipv4}:{NGINX_PORT}
    server two {rig.far.ipv4}:{NGINX_PORT}
""", [NGINX_PORT, TLS_PORT])
    with rig.carried_by_user_stack(frames=1000):
        for extra in ([], ["-H", "Connection: close"]):
            out = rig.far.check(["wrk", "-t1", "-c30", "-d1s", *extra, near_url("1k")])
            expect("Requests/sec" in out and "Socket errors" not in out and "Non-2xx" not in out, f"wrk: {out[-300:]}")
        out = rig.far.check(["h2load", "-n", 2000, "-c", 8, "-m", 10, near_url("1k", TLS_PORT, "https")])
        expect("2000 succeeded, 0 failed, 0 errored" in out, f"h2load: {out[-500:]}")
        expect_equal(fetch(rig.far, near_url("big")), (sha256_of_file(upstream / "big"), 20 * MB), "download")
        curl(rig, rig.far, "-T", upstream / "big", near_url("put/up", TLS_PORT, "https"))
    expect_equal(sha256_of_file(upstream / "put/up"), sha256_of_file(upstream / "big"), "digest of the upload")
    end(server)


@case("haproxy in TCP mode, with and without splice: redis and 20 MB both ways through it", timeout=60)
def haproxy_tcp(rig):
    upstream = start_far(rig, site)
    start_far_redis(rig)
    write_random_file(upstream / "big", 20 * MB)
    server = start_haproxy(rig, f"""
listen redis
    bind :{REDIS_PORT}
    server far {rig.far.ipv4}:{REDIS_PORT}
listen plain
    bind :{NGINX_PORT}
    server far {rig.far.ipv4}:{NGINX_PORT}
listen spliced
    bind :{NGINX_PORT + 1}
    {SPLICE}
    server far {rig.far.ipv4}:{NGINX_PORT}
""", [REDIS_PORT, NGINX_PORT, NGINX_PORT + 1], "mode tcp")
    with rig.carried_by_user_stack(frames=1000):
        rig.far.check(["redis-benchmark", "-h", rig.near.ipv4, "-n", 5000, "-c", 20, "-P", 4, "-t", "set,get", "-d", 2000])
        with rig.far.connect(rig.near.ipv4, REDIS_PORT) as connection:
            set_and_get(connection.makefile("rwb"), b"large", b"0123456789" * 300_000)
        for port in (NGINX_PORT, NGINX_PORT + 1):
            move_both_ways(rig, port, upstream)
    end(server)


def move_both_ways(rig, port, upstream):
    wanted = sha256_of_file(upstream / "big")
    expect_equal(fetch(rig.far, near_url("big", port)), (wanted, 20 * MB), f"download by port {port}")
    curl(rig, rig.far, "-T", upstream / "big", near_url(f"put/{port}", port))
    expect_equal(sha256_of_file(upstream / f"put/{port}"), wanted, f"digest of the upload by port {port}")


@case("haproxy in HTTP mode with splice: a large answer and a large request", timeout=60)
def haproxy_http_splice(rig):
    upstream = start_far(rig, site)
    write_random_file(upstream / "big", 20 * MB)
    server = start_haproxy(rig, f"""
listen web
    bind :{NGINX_PORT}
    server far {rig.far.ipv4}:{NGINX_PORT}
""", [NGINX_PORT], f"mode http\n    {SPLICE}")
    with rig.carried_by_user_stack(frames=1000):
        move_both_ways(rig, NGINX_PORT, upstream)
    end(server)


@case("haproxy's health checks see a backend go and come back, and its statistics say so", timeout=60)
def haproxy_health_checks(rig):
    start_far(rig, site)
    start_far_redis(rig)
    server = start_haproxy(rig, f"""
listen web
    bind :{NGINX_PORT}
    option httpchk GET /1k
    server up {rig.far.ipv4}:{NGINX_PORT} check inter 100ms fall 2 rise 2
    server gone {rig.far.ipv4}:9 check inter 100ms fall 2 rise 2
listen redis
    bind :{REDIS_PORT}
    mode tcp
    option tcp-check
    tcp-check send PING\\r\\n
    tcp-check expect string +PONG
    server far {rig.far.ipv4}:{REDIS_PORT} check inter 100ms fall 2 rise 2
""", [NGINX_PORT, REDIS_PORT])
    with rig.carried_by_user_stack(frames=100):
        wait_until(lambda: states(rig) == {"up": "UP", "gone": "DOWN", "far": "UP"}, 10, lambda: f"states {states(rig)}")
        # While redis sleeps its checks time out.
        with rig.far.connect(rig.far.ipv4, REDIS_PORT) as connection:
            connection.sendall(redis_command(b"CLIENT", b"PAUSE", b"1500"))
            wait_until(lambda: states(rig)["far"] == "DOWN", 10, lambda: f"states {states(rig)}")
        wait_until(lambda: states(rig)["far"] == "UP", 10, lambda: f"states {states(rig)}")
        out = rig.far.check(["ab", "-q", "-n", 500, "-c", 10, near_url("1k")])
        expect("Failed requests:        0" in out and "Non-2xx" not in out, f"ab: {out[-300:]}")
    requests = int(re.search(r"^CumReq: (\d+)", ask_stats(rig, "show info"), re.MULTILINE)[1])
    expect(requests >= 500, f"show info counts {requests} requests")
    end(server)


def states(rig):
    """Each server's state, as `show stat` says it: "UP 1/2" on its way counts as UP."""
    rows = [line.split(",") for line in ask_stats(rig, "show stat").splitlines()]
    name, status = rows[0].index("svname"), rows[0].index("status")
    return {row[name]: row[status].split()[0] for row in rows[1:]
            if len(row) > status and row[name] not in ("FRONTEND", "BACKEND")}
