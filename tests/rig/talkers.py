"""Clients that talk without a pause, each in a thread, while something happens to the server."""

import threading

from .process import Failed, wait_until

# Longer than a loaded machine keeps a process waiting, shorter than a hang.
PATIENCE_S = 20


class Talkers:
    """`talk(number)` is what one does until `is_over`; it counts its answers in `counts`, and what must not be in `errors`."""

    def __init__(self, rig, count):
        self.rig, self.is_over, self.errors, self.counts = rig, False, [], [0] * count
        self.threads = [threading.Thread(target=self.talk, args=(number,)) for number in range(count)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self.is_over = True
        for thread in self.threads:
            thread.join(2 * PATIENCE_S)
        if kind is None and self.errors:
            raise Failed(f"{self.errors[:3]} ({len(self.errors)} in all)")

    def await_progress(self, what):
        """Each had an answer since."""
        before = list(self.counts)
        wait_until(lambda: all(now > then for now, then in zip(self.counts, before)), PATIENCE_S,
                   lambda: f"{what}: some stand still: {before} then, {self.counts} now; {self.errors[:3]}")
