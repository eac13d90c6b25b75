"""Who carried the traffic? Two witnesses: sidestep's own counters and the kernel's TCP segment counters."""

from dataclasses import dataclass

from .process import Failed


@dataclass(frozen=True)
class Witness:
    """A snapshot of both counters on one host."""

    kernel_in: int
    kernel_out: int
    user_in: int
    user_out: int
    redirected: int

    def __sub__(self, earlier):
        return Witness(*(getattr(self, name) - getattr(earlier, name) for name in Witness.__dataclass_fields__))


def witness(host, sidestep):
    """Frames are summed over the stacks; `redirected` also remembers stacks that are gone by now."""
    status = sidestep.status_or_none() if sidestep and sidestep.is_up else None
    stacks = status["stacks"] if status else []
    verdicts = status["verdicts"] if status else {}
    return Witness(
        *host.kernel_segments(),
        user_in=sum(counter(stack, "rx_frames") for stack in stacks),
        user_out=sum(counter(stack, "tx_frames") for stack in stacks),
        redirected=sum(count for name, count in verdicts.items() if name.startswith("redirect")),
    )


def counter(stack, name):
    """A stack's counter, whether status prints it beside the index or under `counters`."""
    return stack[name] if name in stack else stack["counters"][name]


def total(sidestep, name):
    """A counter, summed over the stacks that there are."""
    return sum(counter(stack, name) for stack in sidestep.status()["stacks"])


def drops(status):
    """All drops of a device: by the stacks, and what the XDP program called malformed."""
    by_stacks = sum(sum(stack["drops"].values()) for stack in status["stacks"])
    return by_stacks + status["verdicts"].get("pass_malformed", 0)


def resets_for_nobody(status):
    """Segments that no connection had and that were answered with a RST: on a served port, packets at the wrong stack."""
    return sum(stack["drops"].get("NoSocket", 0) for stack in status["stacks"]) + status["gone"].get("NoSocket", 0)


def expect_user_stack(moved: Witness, frames=1, stack_is_alive=True):
    if moved.redirected < frames:
        raise Failed(f"XDP redirected {moved.redirected} frames, expected {frames} or more: {moved}")
    if stack_is_alive and (moved.user_in < frames or moved.user_out < 1):
        raise Failed(f"the user stack received {moved.user_in} frames and sent {moved.user_out}: {moved}")
    if moved.kernel_in or moved.kernel_out:
        raise Failed(f"the kernel's TCP saw {moved.kernel_in} segments and sent {moved.kernel_out}: {moved}")


def expect_kernel(moved: Witness, frames=1):
    if moved.kernel_in < frames:
        raise Failed(f"the kernel's TCP saw {moved.kernel_in} segments, expected {frames} or more: {moved}")
    if max(moved.user_in, moved.user_out, moved.redirected) > 0:
        raise Failed(f"the user stack saw traffic that was the kernel's: {moved}")
