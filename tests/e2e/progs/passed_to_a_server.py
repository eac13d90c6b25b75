"""Accepts on PORT and passes connections to a child that has accepted on PORT + 1 before: that has a stack of its own."""

import os
import socket
import sys

port = int(sys.argv[1])
over, child_over = socket.socketpair()
if os.fork() == 0:
    over.close()
    own = socket.create_server(("", port + 1))
    own.accept()[0].sendall(b"own\n")
    child_over.sendall(b"ready")
    while True:
        message, fds, _, _ = socket.recv_fds(child_over, 1, 1)
        if not message:
            sys.exit(0)
        try:
            os.write(fds[0], b"passed\n")
            print("the child could write", flush=True)
        except OSError as error:
            print(f"the child: {os.strerror(error.errno)}", flush=True)
        os.close(fds[0])
child_over.close()
over.recv(5)
listener = socket.create_server(("", port))
while True:
    connection, _ = listener.accept()
    socket.send_fds(over, [b"x"], [connection.fileno()])
    connection.close()
