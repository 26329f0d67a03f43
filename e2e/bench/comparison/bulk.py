"""One stretch of bulk: long answers, read by a few connections as fast as they come, on loopback.

Used by `__main__`. Knows no proxy; the server behind it has the file (see `proxies`).
"""

import socket
import threading
import time

from .load import GRACE, Load, LoadError

PATH = "/bulk"
FILE_MIB = 64
CONNECTIONS = 4
SPACE = 1 << 20
"""Bytes that are read at once, at most."""


def run(kind: str, port: int, seconds: int) -> Load:
    """Loads the port for so long, and until the last answer has ended; counts MiB as requests. Over "tcp" the
    request names a version of HTTP that proxies take for another protocol, and nginx answers."""
    version = "1.2" if kind == "tcp" else "1.1"
    request = f"GET {PATH} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode()
    start = time.monotonic()
    answers, faults = [], []

    def client() -> None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=GRACE) as stream:
                while time.monotonic() < start + seconds:
                    stream.sendall(request)
                    _read_answer(stream)
                    answers.append(FILE_MIB)
        except (OSError, ValueError, LoadError) as error:
            faults.append(error)

    clients = [threading.Thread(target=client) for _ in range(CONNECTIONS)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    if faults or not answers:
        raise LoadError(f"bulk failed on port {port}: {faults[:1]}")
    return Load(sum(answers), time.monotonic() - start, 0, 0)


def _read_answer(stream: socket.socket) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        piece = stream.recv(4096)
        if not piece:
            raise LoadError(f"the connection ended after {head!r}")
        head += piece
    head, begun = head.split(b"\r\n\r\n", 1)
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    left = int(fields[b"content-length"]) - len(begun)
    if not head.split(b" ", 2)[1] == b"200" or left + len(begun) != FILE_MIB << 20:
        raise LoadError(f"not the file: {head!r}")
    space = memoryview(bytearray(SPACE))
    while left > 0:
        n = stream.recv_into(space, min(left, SPACE))
        if not n:
            raise LoadError(f"the connection ended {left} bytes before its answer")
        left -= n
