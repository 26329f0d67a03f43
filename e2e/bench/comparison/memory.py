"""What the proxy's memory is at rest, under many connections that do nothing, and after they are gone.

Started by e2e/bench/memory. Starts the proxy alone in front of nginx, as `__main__` does.
"""

import argparse
import os
import resource
import socket
import sys
import tempfile
import time
from pathlib import Path

from . import exposition, proxies
from .process import Process, ProcessError

IDLE_LIMIT_KIB = 5 << 10
PAIR_LIMIT_KIB = 10
GROWTH_LIMIT = 0.20
"""Above a proxy that has served: code that no request has run yet is not resident, and is nothing that a burst leaves."""
REQUESTS = 5
"""Requests on each connection, of all of them at a time."""
REQUEST = b"GET / HTTP/1.1\r\nHost: server\r\n\r\n"
ANSWER_LIMIT = 30
"""Seconds that an answer may take."""
STEP = 10
"""Seconds between two looks at memory that goes down; each look is a scrape, as a collector's would be."""
SPARE = 1000
"""Descriptors that are not of connections."""

DESCRIPTION = """
Starts weir-proxy (one worker) in front of nginx on loopback and prints its resident memory: at rest after a first scrape;
after one request; with all connections open, each of which has had requests and is idle; and while it goes down after they
are closed.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="e2e/bench/memory", description=DESCRIPTION)
    parser.add_argument("--connections", type=int, default=5000, help="connections of the burst (default: 5000)")
    parser.add_argument("--seconds", type=int, default=60, help="seconds that are waited after the burst (default: 60)")
    parser.add_argument("--check", action="store_true", help="exit 1 if a target is missed")
    options = parser.parse_args()
    allow_files(2 * options.connections + SPARE)
    programs = proxies.prepare()
    with tempfile.TemporaryDirectory(prefix="weir-memory-") as name, proxies.Stage(Path(name), programs) as stage:
        os.chmod(name, 0o755)
        stage.start_backend()
        stage.start("weir")
        met = measure(stage.proxies[0], options)
    return 1 if options.check and not met else 0


def measure(proxy: proxies.Proxy, options: argparse.Namespace) -> bool:
    [port] = [lane.port for lane in proxy.lanes if (lane.kind, lane.path) == ("http", "inbound")]
    exposition.scrape(proxy.metrics_port)
    rest = tell("at rest", proxy.process)
    burst(port, 1)[0].close()
    used = tell("after one request", proxy.process)
    connections = burst(port, options.connections)
    pair = (tell(f"{len(connections)} idle connections", proxy.process) - rest) / len(connections)
    for connection in connections:
        connection.close()
    after = tell("right after the burst", proxy.process)
    for second in range(STEP, options.seconds + 1, STEP):
        time.sleep(STEP)
        exposition.scrape(proxy.metrics_port)
        after = tell(f"{second} s after the burst", proxy.process)
    targets = [
        (rest <= IDLE_LIMIT_KIB, f"at rest: {rest} KiB, at most {IDLE_LIMIT_KIB}"),
        (pair <= PAIR_LIMIT_KIB, f"a connection pair: {pair:.1f} KiB, at most {PAIR_LIMIT_KIB}"),
        (
            after <= used * (1 + GROWTH_LIMIT),
            f"after the burst: {after / used - 1:.0%} above what it was after one request ({after / rest - 1:.0%} above rest),"
            f" at most {GROWTH_LIMIT:.0%}",
        ),
    ]
    for is_met, text in targets:
        print(f"- {'met' if is_met else 'MISSED'}: {text}")
    return all(is_met for is_met, _ in targets)


def tell(when: str, process: Process) -> int:
    kib = process.settled_kib()
    print(f"{when:32} {kib:7} KiB", flush=True)
    return kib


def burst(port: int, count: int) -> list[socket.socket]:
    """So many connections, each of which has had its answers."""
    connections = [socket.create_connection(("127.0.0.1", port), timeout=ANSWER_LIMIT) for _ in range(count)]
    for _ in range(REQUESTS):
        for connection in connections:
            connection.sendall(REQUEST)
        for connection in connections:
            answer = bytearray()
            while len(answer) < proxies.BODY_BYTES or not answer.endswith(b"x" * proxies.BODY_BYTES):
                part = connection.recv(1 << 16)
                if not part:
                    raise ProcessError("the proxy closed a connection")
                answer += part
    return connections


def allow_files(count: int) -> None:
    """Lets this process, and what it starts, have so many descriptors."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < count:
        raise ProcessError(f"{count} descriptors are needed, {most} allowed (ulimit -Hn): take fewer --connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, most))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ProcessError as error:
        sys.exit(f"error: {error}")
