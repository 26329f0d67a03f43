"""Many connections at once, each idle once it has had its answers.

Used by `memory` and `usage`. Knows no proxy from another.
"""

import resource
import socket

from .process import ProcessError
from .proxies import BODY_BYTES

REQUESTS = 5
"""Requests on each connection, of all of them at a time."""
REQUEST = b"GET / HTTP/1.1\r\nHost: server\r\n\r\n"
ANSWER_LIMIT = 30
"""Seconds that an answer may take."""
SPARE = 1000
"""Descriptors that are not of connections."""


def connect(port: int, count: int) -> list[socket.socket]:
    """So many connections, each of which has had its answers."""
    connections = [socket.create_connection(("127.0.0.1", port), timeout=ANSWER_LIMIT) for _ in range(count)]
    for _ in range(REQUESTS):
        for connection in connections:
            connection.sendall(REQUEST)
        for connection in connections:
            answer = bytearray()
            while len(answer) < BODY_BYTES or not answer.endswith(b"x" * BODY_BYTES):
                part = connection.recv(1 << 16)
                if not part:
                    raise ProcessError("the proxy closed a connection")
                answer += part
    return connections


def allow(connections: int) -> None:
    """Lets this process, and what it starts, have the descriptors for so many connections."""
    count = 2 * connections + SPARE
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < count:
        raise ProcessError(f"{count} descriptors are needed, {most} allowed (ulimit -Hn): take fewer --connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, most))
