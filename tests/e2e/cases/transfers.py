"""Long transfers, compared by SHA-256."""

import http.server
import socketserver
import subprocess
import threading
from contextlib import contextmanager

from case import case, expect, expect_equal, sha256_of_file, sha256_of_stream
from rig.network import addressed
from rig.process import Failed
from rig.servers import NGINX_PORT, write_random_file

MB = 1 << 20


@case("a 200 MB file from nginx", timeout=120)
def nginx_download_200m(rig):
    download(rig, 200 * MB, 4)


@case("a 20 MB file from nginx over IPv6", timeout=60)
def nginx_download_ipv6(rig):
    download(rig, 20 * MB, 6)


def download(rig, size, version, timeout=110):
    rig.start_nginx()
    file = rig.www() / "big"
    write_random_file(file, size)
    with rig.carried_by_user_stack(frames=100):
        got = fetch(rig.far, f"http://{addressed(rig.near.address(version), NGINX_PORT)}/big", timeout)
    expect_equal(got, (sha256_of_file(file), size), "digest and size")


def fetch(host, url, timeout=60, through=()):
    """curl to a pipe: (digest, size), and curl must be content."""
    argv = host.command([*through, "curl", "-sS", "--fail", "--max-time", timeout, url])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as curl:
        try:
            result = sha256_of_stream(curl.stdout.read)
            code = curl.wait(timeout)
        finally:
            curl.kill()
    if code != 0:
        raise Failed(f"curl {url} exited with {code}")
    return result


@case("a 50 MB upload with PUT", timeout=90)
def nginx_put_50m(rig):
    put(rig, 50 * MB, 4)


@case("a 10 MB upload with PUT over IPv6", timeout=60)
def nginx_put_ipv6(rig):
    put(rig, 10 * MB, 6)


def put(rig, size, version, timeout=80):
    rig.start_nginx()
    file = rig.scratch / "upload"
    write_random_file(file, size, seed=2)
    url = f"http://{addressed(rig.near.address(version), NGINX_PORT)}/put/upload"
    with rig.carried_by_user_stack(frames=100):
        rig.far.check(["curl", "-sS", "--fail", "--max-time", timeout, "-T", file, url], timeout=timeout + 5)
    expect_equal(sha256_of_file(rig.www() / "put/upload"), sha256_of_file(file), "digest")


@case("a 50 MB upload through proxy_pass to an upstream on a kernel socket", timeout=90)
def nginx_proxied_upload_50m(rig):
    rig.start_nginx()
    file = rig.scratch / "upload"
    write_random_file(file, 50 * MB, seed=3)
    with upstream_that_digests(rig.home(f"nginx-{NGINX_PORT}") / "upstream.sock"):
        with rig.carried_by_user_stack(frames=100):
            answer = rig.far.check(["curl", "-sS", "--fail", "-X", "POST", "-H", "Expect:", "--data-binary", f"@{file}",
                                    f"http://{rig.near.ipv4}:{NGINX_PORT}/upstream/"], timeout=80)
    expect_equal(answer, sha256_of_file(file), "digest that the upstream saw")


@contextmanager
def upstream_that_digests(path):
    """An HTTP server on a unix socket that answers every POST with the digest of its body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            left = int(self.headers["Content-Length"])

            def read(chunk):
                nonlocal left
                data = self.rfile.read(min(chunk, left))
                left -= len(data)
                return data

            digest = sha256_of_stream(read)[0].encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(digest)))
            self.end_headers()
            self.wfile.write(digest)

        def log_message(self, *_):
            pass

        def address_string(self):
            return "unix"

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    with Server(str(path), Handler) as server:
        path.chmod(0o666)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@case("20 files at once, small and large, each whole", timeout=60)
def nginx_many_downloads(rig):
    rig.start_nginx()
    sizes = [1, 1447, 1448, 1449, 65535, 65536, 300_000, 1 * MB, 3 * MB, 5 * MB] * 2
    for number, size in enumerate(sizes):
        write_random_file(rig.www() / f"f{number}", size, seed=number)
    with rig.carried_by_user_stack(frames=100):
        results = {}
        threads = [threading.Thread(target=fetch_into, args=(results, rig, number)) for number in range(len(sizes))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(50)
    for number, size in enumerate(sizes):
        expect(number in results, f"file {number} of {size} bytes did not arrive")
        expect_equal(results[number], (sha256_of_file(rig.www() / f"f{number}"), size), f"file {number}")


def fetch_into(results, rig, number):
    results[number] = fetch(rig.far, f"http://{rig.near.ipv4}:{NGINX_PORT}/f{number}", timeout=40)
