"""What the proxy under test says it measured: the proof that it did.

Used by `__main__` around every stretch of load on it.
"""

import re
import threading
import urllib.request

from .load import STREAMS
from .proxies import Lane

SCRAPE_LIMIT = 10
"""Seconds that a scrape may take."""


class Exposition:
    """Sums over the series of a scrape."""

    def __init__(self, text: str):
        self._lines = text.splitlines()

    def total(self, family: str, **labels: str) -> int:
        """The sum of the samples of a family with these labels."""
        wanted = [f'{name}="{value}"' for name, value in labels.items()]
        sample = re.compile(rf"{re.escape(family)}(\{{.*\}})? (\d+)")
        found = (sample.fullmatch(line) for line in self._lines)
        return sum(int(m[2]) for m in found if m and all(label in (m[1] or "") for label in wanted))


def scrape(port: int) -> Exposition:
    """Reads all families, as a Prometheus does."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=SCRAPE_LIMIT) as answer:
        return Exposition(answer.read().decode())


class Midway:
    """Scrapes once while load runs: being read is a part of what a measuring proxy costs."""

    def __init__(self, port: int | None, after: float):
        self._timer = threading.Timer(after, scrape, [port]) if port else None

    def __enter__(self) -> None:
        if self._timer:
            self._timer.start()

    def __exit__(self, *_error: object) -> None:
        if self._timer:
            self._timer.join()


def fault(lane: Lane, requests: int, connections: int, before: Exposition, after: Exposition) -> str | None:
    """What is wrong with the proxy's own account of a stretch of load, if anything."""
    kind, path = lane.kind, lane.path
    under_way = connections * (STREAMS if kind == "h2" else 1)

    def grown(family: str) -> int:
        return after.total(family, direction=path) - before.total(family, direction=path)

    counted, opened = grown("request_total"), grown("tcp_open_total")
    # A request under way at the end is counted by the proxy, but not by the load.
    if not (lane.is_bulk or kind.endswith("tcp")) and not requests <= counted <= requests + under_way:
        return f"request_total grew by {counted} in {requests} requests"
    if kind.endswith("tcp") and counted:
        return f"{counted} requests were seen in opaque bytes"
    if kind.startswith("bulk"):
        written = after.total("tcp_write_bytes_total", direction=path, peer="src")
        written -= before.total("tcp_write_bytes_total", direction=path, peer="src")
        # Beside the answers' bodies there are only their heads.
        if not requests << 20 <= written <= (requests << 20) * 1.001:
            return f"{written} bytes were counted in {requests} MiB"
    if opened < 2 * connections:
        return f"tcp_open_total grew by {opened} in {connections} connections, each of which has two ends"
    return None
