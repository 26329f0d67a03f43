"""Everything that a proxy meets, for those who watch what its program does: `order` and `profile`."""

import json
import subprocess
import time
import urllib.request
from pathlib import Path

from . import burst, load, proxies
from .process import Process

SCRAPES = (
    {},
    {"Accept-Encoding": "gzip"},
    {"Accept": "application/openmetrics-text;version=1.0.0"},
)
"""The headers of one scrape each."""
CONNECTIONS = 500
"""Of a burst."""
DECAY = 20
"""Seconds in which the allocator gives back what a burst has used: twice jemalloc's `dirty_decay_ms`."""


def serve(proxy: proxies.Proxy, seconds: int, connections: int) -> None:
    """Every kind of load but bulk on every way through the proxy, and what asks the proxy itself."""
    for lane in proxy.lanes:
        if not lane.is_bulk:
            load.run(lane.kind, lane.port, seconds, connections)
    for path in ("live", "ready"):
        get(proxy.metrics_port, path)
    scrape(proxy)


def scrape(proxy: proxies.Proxy) -> None:
    for headers in SCRAPES:
        get(proxy.metrics_port, "metrics", headers)


def burst_and_rest(proxy: proxies.Proxy) -> None:
    """Many connections at once, the end of all, and what comes after it."""
    port = next(lane.port for lane in proxy.lanes if lane.kind == "http")
    for connection in burst.connect(port, CONNECTIONS):
        connection.close()
    time.sleep(DECAY)
    scrape(proxy)


def get(port: int, path: str, headers: dict[str, str] | None = None) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", headers=headers or {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()


def start_in_pod(program: str, work: Path) -> None:
    """A start with what the webhook gives a pod instead of files."""
    admin, metrics, inbound, outbound, operator = (proxies.free_port() for _ in range(5))
    endpoint = {"port": metrics, "path": "/metrics", "tags": {}, "tls": "disabled"}
    pod = {
        "WEIR_SETTINGS": json.dumps({"version": 1, "mesh": "default", "metrics": endpoint}),
        "WEIR_PROBES": json.dumps([{"action": {"tcp": {"port": admin}}, "timeoutSeconds": 1}]),
        "WEIR_POD_IPS": "127.0.0.1",
        # It is away, as at the start of a cluster.
        "KUMA_CONTROL_PLANE_URL": f"http://127.0.0.1:{operator}",
    }
    command = ["env", *(f"{name}={value}" for name, value in pod.items()), program, "run"]
    command += ["--admin-addr", f"127.0.0.1:{admin}"]
    command += ["--inbound-addr", f"127.0.0.1:{inbound}", "--outbound-addr", f"127.0.0.1:{outbound}"]
    process = Process("pod", command, work)
    try:
        process.await_listening([admin, metrics, inbound, outbound])
        subprocess.run([program, "wait", "--admin-addr", f"127.0.0.1:{admin}"], check=True)
        for path in ("live", "probe/0", "metrics"):
            get(admin, path)
    finally:
        process.end()
