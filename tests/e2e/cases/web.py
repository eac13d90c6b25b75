"""nginx in its many ways, and what speaks HTTP to one: curl, wrk, ab, h2load."""

import socket
import threading
import time

from case import case, expect, expect_equal, sha256_of_file
from rig.servers import NGINX_PORT, REDIS_PORT, wait_for_far_port, wait_for_port, write_random_file

from .caches import run_all
from .clients import as_client, start_far_redis
from .transfers import MB, fetch
from .udp import PORT as ECHO_PORT
from .udp import ask, datagrams_by_user_stack, echo_until, far_socket

TLS_PORT = 8443

_CONF = """
{load}
daemon off;
worker_processes {workers};
pid {home}/nginx.pid;
error_log {home}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    default_type application/octet-stream;
    client_max_body_size 1g;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    {http}
}}
{more}
"""

_SITE = """
    server {{
        listen {port} {options};
        root {home}/www;
        location / {{ sendfile on; tcp_nopush on; }}
        location /read/ {{ alias {home}/www/; sendfile off; output_buffers 2 64k; }}
        location /threads/ {{ alias {home}/www/; sendfile on; aio threads; sendfile_max_chunk 512k; }}
        location /direct/ {{ alias {home}/www/; aio threads; directio 4k; output_buffers 2 128k; }}
        location /slowly/ {{ alias {home}/www/; sendfile on; limit_rate 4m; }}
        location /put/ {{ dav_methods PUT; }}
        {more}
    }}
"""

_TLS = "ssl_certificate {home}/cert.pem; ssl_certificate_key {home}/key.pem; ssl_session_cache shared:s:1m;"


def site(home, port=NGINX_PORT, options="", more=""):
    return _SITE.format(home=home, port=port, options=options, more=more)


def tls_site(home, port=TLS_PORT):
    return site(home, port, "ssl http2", _TLS.format(home=home))


def configure(home, http, more="", load="", workers=1):
    for folder in ("www", "www/put"):
        (home / folder).mkdir(exist_ok=True)
        (home / folder).chmod(0o777)
    (home / "www/1k").write_bytes(b"x" * 1024)
    conf = home / "nginx.conf"
    conf.write_text(_CONF.format(home=home, http=http, more=more, load=load, workers=workers))
    return ["nginx", "-e", home / "error.log", "-c", conf]


def start_near(rig, http, ports=(NGINX_PORT,), **options):
    """nginx on near; `http` makes the inside of its http block out of its home."""
    home = rig.home("near-nginx")
    server = rig.start_served("near-nginx", configure(home, http(home), **options), ports)
    for port in ports:
        if isinstance(port, int):
            wait_for_port(rig, server, port)
    return server, home / "www"


def start_far(rig, http, port=NGINX_PORT):
    home = rig.home("far-nginx")
    server = rig.start(rig.far, "far-nginx", configure(home, http(home)))
    wait_for_far_port(rig, server, port)
    return home / "www"


def make_certificate(rig, home):
    rig.far.check(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", "/CN=sidestep.test",
                   "-keyout", home / "key.pem", "-out", home / "cert.pem"])


def tls_http(rig):
    def http(home):
        make_certificate(rig, home)
        return tls_site(home) + site(home)

    return http


def curl(rig, host, *words, through=(), timeout=40):
    return host.check([*through, "curl", "-sS", "--fail", "-k", "--max-time", timeout, *words], timeout=timeout + 5)


def near_url(path, port=NGINX_PORT, scheme="http"):
    return f"{scheme}://10.77.0.1:{port}/{path}"


def far_url(path, port=NGINX_PORT, scheme="http"):
    return f"{scheme}://10.77.0.2:{port}/{path}"


@case("nginx sends 20 MB by sendfile, by read and write, by its threads, from the disk alone, and parts of it", timeout=60)
def nginx_ways_of_sending(rig):
    server, www = start_near(rig, site)
    write_random_file(www / "big", 20 * MB)
    wanted = sha256_of_file(www / "big")
    with rig.carried_by_user_stack(frames=400):
        for way in ("", "read/", "threads/", "direct/"):
            expect_equal(fetch(rig.far, near_url(f"{way}big")), (wanted, 20 * MB), f"/{way}big")
        for first, last in ((0, 0), (1448, 5_000_000), (20 * MB - 7, 20 * MB - 1)):
            out = rig.scratch / "part"
            curl(rig, rig.far, "-r", f"{first}-{last}", "-o", out, near_url("threads/big"))
            with open(www / "big", "rb") as whole:
                whole.seek(first)
                expect(out.read_bytes() == whole.read(last - first + 1), f"bytes {first} to {last} differ")
    server.end()


@case("nginx with TLS and HTTP/2: h2load, curl with both versions, an upload", timeout=60)
def nginx_tls_and_http2(rig):
    server, www = start_near(rig, tls_http(rig), [TLS_PORT])
    write_random_file(www / "big", 10 * MB)
    wanted = sha256_of_file(www / "big")
    with rig.carried_by_user_stack(frames=400):
        out = rig.far.check(["h2load", "-n", 5000, "-c", 10, "-m", 20, near_url("1k", TLS_PORT, "https")])
        expect("5000 succeeded, 0 failed, 0 errored" in out, f"h2load: {out[-500:]}")
        for version in ("--http1.1", "--http2"):
            curl(rig, rig.far, version, "-o", rig.scratch / "got", near_url("big", TLS_PORT, "https"))
            expect_equal(sha256_of_file(rig.scratch / "got"), wanted, f"digest with {version}")
            curl(rig, rig.far, version, "-T", www / "big", near_url(f"put/{version}", TLS_PORT, "https"))
            expect_equal(sha256_of_file(www / f"put/{version}"), wanted, f"digest of what came with {version}")
    server.end()


@case("nginx hands requests to an upstream behind the device: a server and a client at once", timeout=60)
def nginx_proxies_to_far(rig):
    upstream = start_far(rig, site)
    write_random_file(upstream / "big", 20 * MB)
    server, _ = start_near(rig, lambda home: proxy_site(rig, home))
    with rig.carried_by_user_stack(frames=1000):
        out = rig.far.check(["wrk", "-t1", "-c30", "-d1s", near_url("1k")])
        expect("Requests/sec" in out and "Socket errors" not in out and "Non-2xx" not in out, f"wrk: {out[-300:]}")
        out = rig.far.check(["ab", "-q", "-n", 1000, "-c", 10, near_url("each/1k")])
        expect("Failed requests:        0" in out and "Non-2xx" not in out, f"ab: {out[-300:]}")
        expect_equal(fetch(rig.far, near_url("big")), (sha256_of_file(upstream / "big"), 20 * MB), "download")
        curl(rig, rig.far, "-T", upstream / "big", near_url("put/up"))
    expect_equal(sha256_of_file(upstream / "put/up"), sha256_of_file(upstream / "big"), "digest of the upload")
    server.end()


def proxy_site(rig, home):
    """/ keeps its connections to the upstream, /each/ makes one per request."""
    more = f"location /each/ {{ proxy_pass http://{rig.far.ipv4}:{NGINX_PORT}/; }}"
    pool = f"upstream pool {{ server {rig.far.ipv4}:{NGINX_PORT}; keepalive 8; }}"
    keep = "proxy_pass http://pool; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_request_buffering off;"
    return f"{pool} server {{ listen {NGINX_PORT}; location / {{ {keep} }} {more} }}"


@case("nginx's stream module carries redis (TCP) and an echo (UDP) to the far end", timeout=60)
def nginx_streams(rig):
    start_far_redis(rig)
    module = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;"
    streams = (f"stream {{ server {{ listen {REDIS_PORT}; proxy_pass {rig.far.ipv4}:{REDIS_PORT}; }} "
               f"server {{ listen {ECHO_PORT} udp; proxy_pass {rig.far.ipv4}:{ECHO_PORT}; proxy_timeout 2s; }} }}")
    server, _ = start_near(rig, lambda home: "", [REDIS_PORT, f"{ECHO_PORT}/udp"], load=module, more=streams)
    with rig.carried_by_user_stack(frames=1000):
        rig.far.check(["redis-benchmark", "-h", rig.near.ipv4, "-n", 5000, "-c", 20, "-P", 4, "-t", "set,get", "-d", 3000])
    with far_socket(rig) as echo, far_socket(rig) as client:
        echo.bind((rig.far.ipv4, ECHO_PORT))
        stop = threading.Event()
        thread = threading.Thread(target=echo_until, args=(echo, stop))
        thread.start()
        try:
            for number in range(5):
                ask(client, b"first", (rig.near.ipv4, ECHO_PORT))
            with datagrams_by_user_stack(rig, 200):
                for number in range(200):
                    message = b"%d " % number + bytes(number * 7)
                    expect_equal(ask(client, message, (rig.near.ipv4, ECHO_PORT)), message, "echo through nginx")
        finally:
            stop.set()
            thread.join()
    server.end()


@case("a reader that is slow, and one that nginx slows, while others are served at once", timeout=60)
def nginx_slow_readers(rig):
    server, www = start_near(rig, site)
    write_random_file(www / "big", 6 * MB)
    wanted = (www / "big").read_bytes()
    got = {}
    with rig.carried_by_user_stack(frames=400):
        readers = [threading.Thread(target=read_slowly, args=(rig, got, number)) for number in range(4)]
        readers.append(threading.Thread(target=lambda: got.setdefault("limited", fetch(rig.far, near_url("slowly/big")))))
        for reader in readers:
            reader.start()
        out = rig.far.check(["ab", "-q", "-n", 1000, "-c", 10, near_url("1k")])
        expect("Failed requests:        0" in out, f"ab: {out[-300:]}")
        expect(any(reader.is_alive() for reader in readers), "nobody was slow")
        for reader in readers:
            reader.join(30)
    for number in range(4):
        expect(got.get(number) == wanted, f"reader {number} got other bytes, or not all")
    expect_equal(got.get("limited"), (sha256_of_file(www / "big"), 6 * MB), "the one that nginx slows")
    server.end()


def read_slowly(rig, got, number):
    """A small buffer, and a pause after each piece of it; about two seconds in all."""
    with rig.far.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        connection.settimeout(10)
        connection.connect((rig.near.ipv4, NGINX_PORT))
        connection.sendall(b"GET /%sbig HTTP/1.0\r\n\r\n" % (b"", b"read/", b"threads/", b"direct/")[number])
        chunks = []
        while data := connection.recv(1 << 16):
            chunks.append(data)
            time.sleep(0.002)
    got[number] = b"".join(chunks).partition(b"\r\n\r\n")[2]


@case("two workers with a socket each (reuseport)", timeout=60)
def nginx_workers(rig):
    server, www = start_near(rig, lambda home: site(home, options="reuseport"), workers=2)
    write_random_file(www / "big", 5 * MB)
    with rig.carried_by_user_stack(frames=1000):
        for extra in ([], ["-H", "Connection: close"]):
            out = rig.far.check(["wrk", "-t1", "-c30", "-d1s", *extra, near_url("1k")])
            expect("Requests/sec" in out and "Socket errors" not in out and "Non-2xx" not in out, f"wrk: {out[-300:]}")
        for way in ("", "threads/"):
            expect_equal(fetch(rig.far, near_url(f"{way}big")), (sha256_of_file(www / "big"), 5 * MB), f"/{way}big")
    if rig.mode == "sidestep":
        stacks = [stack for stack in rig.sidestep.status()["stacks"] if stack["rx_frames"] > 100]
        expect_equal(len(stacks), 2, "workers that were served by their own stack")
    server.end()


@case("curl under sidestep: TLS, HTTP/2, ranges, an upload, and 20 transfers in parallel", timeout=60)
def curl_in_many_ways(rig):
    www = start_far(rig, tls_http(rig), TLS_PORT)
    write_random_file(www / "big", 10 * MB)
    wanted = sha256_of_file(www / "big")
    secure = far_url("big", TLS_PORT, "https")
    through, out = as_client(rig, []), rig.scratch / "got"
    with rig.carried_by_user_stack(frames=400, stack_is_alive=False):
        for version in ("--http1.1", "--http2"):
            curl(rig, rig.near, version, "-o", out, secure, through=through)
            expect_equal(sha256_of_file(out), wanted, f"digest with {version}")
        curl(rig, rig.near, "--http2", "-T", www / "big", far_url("put/up", TLS_PORT, "https"), through=through)
        expect_equal(sha256_of_file(www / "put/up"), wanted, "digest of the upload")
        curl(rig, rig.near, "-r", "1000000-1999999", "-o", out, far_url("big"), through=through)
        expect(out.read_bytes() == (www / "big").read_bytes()[1_000_000:2_000_000], "a million bytes from the middle differ")
        write_random_file(www / "some", 2 * MB, seed=2)
        for url in (far_url("some"), far_url("some", TLS_PORT, "https")):
            curl_parallel(rig, url, sha256_of_file(www / "some"), through)


def curl_parallel(rig, url, wanted, through):
    folder = rig.home("parallel")
    words = [word for number in range(20) for word in ("-o", folder / str(number), url)]
    curl(rig, rig.near, "-Z", "--parallel-immediate", "--parallel-max", 10, *words, through=through)
    for number in range(20):
        expect_equal(sha256_of_file(folder / str(number)), wanted, f"digest of transfer {number}")
        (folder / str(number)).unlink()


@case("wrk, ab and h2load under sidestep", timeout=60)
def load_generators_as_clients(rig):
    start_far(rig, tls_http(rig), TLS_PORT)
    with rig.carried_by_user_stack(frames=1000, stack_is_alive=False):
        for extra in ([], ["-H", "Connection: close"]):
            out = rig.near.check(as_client(rig, ["wrk", "-t2", "-c20", "-d1s", *extra, far_url("1k")]))
            expect("Requests/sec" in out and "Socket errors" not in out and "Non-2xx" not in out, f"wrk: {out[-300:]}")
        for extra in ([], ["-k"]):
            out = rig.near.check(as_client(rig, ["ab", "-q", "-n", 2000, "-c", 20, *extra, far_url("1k")]))
            expect("Failed requests:        0" in out and "Complete requests:      2000" in out, f"ab: {out[-300:]}")
        out = rig.near.check(as_client(rig, ["h2load", "-n", 3000, "-c", 10, "-m", 10, far_url("1k", TLS_PORT, "https")]))
        expect("3000 succeeded, 0 failed, 0 errored" in out, f"h2load: {out[-500:]}")
