"""C programs that print the same on the kernel and under sidestep (ctests/), and the C interface."""

from case import case, expect
from rig.product import LIBRARY, ROOT, TARGET
from rig.servers import REDIS_PORT

from .clients import as_client, start_far_redis


@case("the parity programs print what they print on the kernel", timeout=120, only_sidestep=True)
def parity_programs(rig):
    words = ["env", f"CT_DEV={rig.near.device}", f"CT_ADDR={rig.near.ipv4}", f"CT_PEER_ADDR={rig.far.ipv4}",
             f"CT_PEER_NETNS=/run/netns/{rig.far.namespace}", ROOT / "ctests/run.sh", LIBRARY]
    before = rig.witness()
    code, out, err = rig.near.run(words, timeout=110)  # which checks that the kernel had no part in the second run of each
    expect(code == 0, f"{out.strip()} {err.strip()}")
    redirected = (rig.witness() - before).redirected
    expect(redirected >= 100, f"only {redirected} frames were redirected")


@case("the C interface tells who carries a descriptor", timeout=30, only_sidestep=True)
def c_interface(rig):
    start_far_redis(rig)
    words = [TARGET / "e2e/c_api", rig.far.ipv4, REDIS_PORT]
    with rig.carried_by_user_stack(stack_is_alive=False):
        out = rig.near.check(as_client(rig, words))
    lines = out.strip().splitlines()
    expect(lines[0].startswith("api 1 version "), out)
    expect(lines[1:] == ["fresh 0", "connected 1", "closed -1 errno 9"], out)
    expect(rig.near.check(words).strip() == "no sidestep", "without the library the functions are absent")
