"""The parity cases (ctests/), and the C interface."""

from case import Skip, case, expect
from rig.network import has_root
from rig.process import run
from rig.product import ROOT, TARGET
from rig.servers import REDIS_PORT

from .clients import as_client, start_far_redis


@case("the parity cases print what they print on the kernel", timeout=400, needs_rig=False, only_sidestep=True)
def parity_programs():
    if not has_root():
        raise Skip("needs root")
    code, out, err = run(["python3", ROOT / "ctests/run.py"], timeout=390)  # which has rigs of its own, and proves who carried what
    expect(code == 0, f"{out.strip()} {err.strip()}")
    print(f"      {out.strip().splitlines()[-1]}")


@case("the C interface tells who carries a descriptor", timeout=30, only_sidestep=True)
def c_interface(rig):
    start_far_redis(rig)
    words = [TARGET / "e2e/c_api", rig.far.ipv4, REDIS_PORT]
    with rig.carried_by_user_stack(stack_is_alive=False):
        out = rig.near.check(as_client(rig, words))
    lines = out.strip().splitlines()
    expect(lines[0].startswith("api 2 version "), out)
    expect(lines[1:] == ["fresh 0", "connected 1", "closed -1 errno 9"], out)
    expect(rig.near.check(words).strip() == "no sidestep", "without the library the functions are absent")
