"""late_listener.py PORT: listens at both IP versions; accepts at IPv4 at once, at IPv6 when SIGUSR1 comes."""

import signal
import socket
import sys
import threading

PORT = int(sys.argv[1])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
listeners = [socket.create_server(("0.0.0.0", PORT)),
             socket.create_server(("::", PORT), family=socket.AF_INET6)]


def serve(listener):
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"served\n")


threading.Thread(target=serve, args=listeners[:1], daemon=True).start()
signal.sigwait([signal.SIGUSR1])
serve(listeners[1])
