"""What libc does by itself, and what programs find among their descriptors."""

import re

from case import case, expect, expect_equal
from rig.product import LIBRARY, ROOT, TARGET
from rig.proof import total
from rig.servers import NGINX_PORT, wait_until

from .clients import as_client, start_far_nginx

NAME = "server.sidestep.test"


def start_far_dns(rig):
    """A DNS server behind the device, and a command's prefix that has it asked."""
    argv = ["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--port=53", "--user=root",
            f"--address=/sidestep.test/{rig.far.ipv4}", "--bind-interfaces", f"--listen-address={rig.far.ipv4}", "--pid-file="]
    rig.start(rig.far, "far-dnsmasq", argv)
    resolv = rig.scratch / "resolv.conf"
    resolv.write_text(f"nameserver {rig.far.ipv4}\noptions timeout:1 attempts:5\n")
    mount = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", mount, resolv]


@case("names are looked up inside libc, at a DNS server behind the device", timeout=60)
def resolver(rig):
    www = start_far_nginx(rig)
    (www / "page").write_text("found\n")
    by_name = start_far_dns(rig)

    def answers():
        return rig.near.run([*by_name, "getent", "ahostsv4", NAME])[0] == 0

    wait_until(answers, 10, "dnsmasq did not answer")
    url = f"http://{NAME}:{NGINX_PORT}/page"
    with rig.carried_by_user_stack(stack_is_alive=False):
        out = rig.near.check([*by_name, *as_client(rig, ["curl", "-sS", "--fail", "--max-time", 20, url])])
        expect_equal(out, "found\n", "what curl fetched by name")
        script = ("import socket, urllib.request\n"
                  "for _ in range(20):\n"
                  f"    assert urllib.request.urlopen('{url}').read() == b'found\\n'\n"
                  f"print(sorted({{a[4][0] for a in socket.getaddrinfo('{NAME}', 80, socket.AF_INET)}}))\n"
                  "try: socket.getaddrinfo('nowhere.invalid', 80)\n"
                  "except socket.gaierror: print('no such name')\n")
        out = rig.near.check([*by_name, *as_client(rig, ["python3", "-c", script])], timeout=40)
    expect_equal(out, f"['{rig.far.ipv4}']\nno such name\n", "what python found")


# Opens a connection, looks at all its descriptors as programs do, then goes on talking.
WALKER = """
import os, socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
soft = os.sysconf('SC_OPEN_MAX')
seen = [int(n) for n in os.listdir('/proc/self/fd')]
print(sorted(n for n in seen if 2 < n < soft and n != s.fileno())[1:])  # the first is the listing's own
for n in seen:
    if n > 2 and n != s.fileno():
        try: os.close(n)
        except OSError: pass
s.sendall(b'GET /page HTTP/1.0\\r\\n\\r\\n')
print(s.makefile().read().splitlines()[-1])
"""


@case("whoever walks /proc/self/fd and closes what is there goes on", timeout=30)
def descriptor_walker(rig):
    www = start_far_nginx(rig)
    (www / "page").write_text("found\n")
    with rig.carried_by_user_stack(stack_is_alive=False):
        words = ["prlimit", "--nofile=1024:4096", "python3", "-c", WALKER, rig.far.ipv4, NGINX_PORT]
        out = rig.near.check(as_client(rig, words))
    expect_equal(out, "[]\nfound\n", "descriptors below the limit, and the page")


# bash's builtins print by stdio, onto whatever its redirections put on descriptor 1.
TALK = r'''
exec 3<>/dev/tcp/$0/$1 || exit 1
printf 'GET /%s HTTP/1.0\r\n\r\n' page >&3
echo before
while IFS= read -r -u 3 line; do last=$line; done
exec 3>&-
echo "last: $last"
for i in 1 2 3; do
    exec {fd}<>/dev/tcp/$0/$1
    { echo "GET /page HTTP/1.0"; printf '\r\n'; } >&$fd
    mapfile -t -u $fd lines
    echo "$i: ${lines[-1]}"
    exec {fd}>&-
done
'''


@case("bash's builtins print to a connection and read from it", timeout=30)
def bash_talks_tcp(rig):
    www = start_far_nginx(rig)
    (www / "page").write_text("found\n")
    with rig.carried_by_user_stack(stack_is_alive=False):
        out = rig.near.check(as_client(rig, ["bash", "-c", TALK, rig.far.ipv4, NGINX_PORT]))
    expect_equal(out, "before\nlast: found\n1: found\n2: found\n3: found\n", "what bash printed")


RING = """
import ctypes, errno, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
parameters = ctypes.create_string_buffer(120)
print(libc.syscall(425, 4, parameters), errno.errorcode[ctypes.get_errno()])
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
print(libc.syscall(425, 4, parameters))
input()
"""


@case("a ring of io_uring that a program asks for by syscall(2) is refused and counted", timeout=30, only_sidestep=True)
def io_uring_refused(rig):
    start_far_nginx(rig)
    argv = as_client(rig, ["python3", "-u", "-c", RING, rig.far.ipv4, NGINX_PORT])
    client = rig.start(rig.near, "ring", ["sh", "-c", 'sleep 20 | exec "$@"', "sh", *argv])
    wait_until(lambda: client.output().count("\n") >= 2, 10, "it said nothing")
    expect_equal(client.output(), "-1 EPERM\n-1\n", "what both calls gave")
    refused = total(rig.sidestep, "io_uring_refused")
    expect_equal(refused, 2, "rings that were refused and counted")


@case("`sidestep calls` lists the calls, and make install what programs need", timeout=60, only_sidestep=True)
def calls_and_installation(rig):
    calls = rig.near.check([TARGET / "sidestep", "calls"]).split()
    for name in ("accept4", "splice", "preadv64v2", "__recvfrom_chk", "dprintf", "syscall", "daemon", "closefrom"):
        expect(name in calls, f"{name} is not among {len(calls)} calls")
    expect_equal(len(calls), len(set(calls)), "calls, each once")
    root = rig.scratch / "root"
    rig.near.check(["make", "-s", "-C", ROOT, "install", "PREFIX=/opt/x", f"DESTDIR={root}", "BUILT=yes"])
    pc = (root / "opt/x/lib/pkgconfig/sidestep.pc").read_text()
    expect(re.search(r"^prefix=/opt/x$", pc, re.M), pc)
    expect_equal((root / "opt/x/lib/sidestep/libsidestep.so").read_bytes(), LIBRARY.read_bytes(), "the library")
    expect("libsidestep.so" not in rig.near.check([root / "opt/x/bin/sidestep", "calls"]), "the library beside it is found")
    source = rig.scratch / "api.c"
    source.write_text('#include <sidestep.h>\nint main(void) { return sidestep_api_version() != SIDESTEP_API_VERSION; }\n')
    command = (f"export PKG_CONFIG_SYSROOT_DIR={root} PKG_CONFIG_PATH={root}/opt/x/lib/pkgconfig; "
               f"flags=$(pkg-config --cflags --libs sidestep 2>/dev/null || "
               f"echo -I{root}/opt/x/include -L{root}/opt/x/lib/sidestep -lsidestep); "
               f"cc {source} $flags -o {rig.scratch}/api && LD_LIBRARY_PATH={root}/opt/x/lib/sidestep {rig.scratch}/api")
    rig.near.check(["sh", "-c", command])
