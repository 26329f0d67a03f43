"""What the proxy's memory is at rest, under many connections that do nothing, and after they are gone.

Started by e2e/bench/memory. Starts the proxy alone in front of nginx, as `__main__` does.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from . import burst, exposition, proxies
from .process import Process, ProcessError

IDLE_LIMIT_KIB = 5 << 10
PAIR_LIMIT_KIB = 10
GROWTH_LIMIT = 0.20
"""Above rest, where no request has run any code yet."""
STEP = 10
"""Seconds between two looks at memory that goes down; each look is a scrape, as a collector's would be."""

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
    burst.allow(options.connections)
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
    burst.connect(port, 1)[0].close()
    used = tell("after one request", proxy.process)
    connections = burst.connect(port, options.connections)
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
            after <= rest * (1 + GROWTH_LIMIT),
            f"after the burst: {after / rest - 1:.0%} above rest, at most {GROWTH_LIMIT:.0%}"
            f" ({after / used - 1:.0%} above what it was after one request)",
        ),
    ]
    for is_met, text in targets:
        print(f"- {'met' if is_met else 'MISSED'}: {text}")
    return all(is_met for is_met, _ in targets)


def tell(when: str, process: Process) -> int:
    kib = process.settled_kib()
    print(f"{when:32} {kib:7} KiB", flush=True)
    return kib


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ProcessError as error:
        sys.exit(f"error: {error}")
