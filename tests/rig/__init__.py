"""The rig: two network namespaces joined by a veth pair, and what runs in them.

In the order a test meets them:

- network:  Host (one namespace) and Wire (the pair, their addresses, their removal); LongWire has a line between them.
- line:     `sidestep-rig wire` on that line: delay, bottleneck, loss; and its tally.
- process:  children that die with us and are ended by their pid.
- servers:  redis-server and nginx with private configurations and directories.
- product:  the sidestep binary: up, down, run, port, status.
- proof:    who carried the traffic, the user stack or the kernel.
- setup:    Rig, all of these together, as a context manager.
"""
