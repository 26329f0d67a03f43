"""What the proxy under test says it measured: the proof that it did.

Used by `__main__` around every stretch of load on it.
"""

import os
import re
import socket
import threading
import urllib.request

from .load import STREAMS, LoadError
from .proxies import BALANCING, Lane

SCRAPE_LIMIT = 10
"""Seconds that a scrape may take."""
PIECE = 1 << 16
"""Bytes that are read at once of a scrape that nobody looks into."""


class Exposition:
    """Sums over the series of a scrape."""

    def __init__(self, text: str):
        self._lines = text.splitlines()

    def samples(self, family: str, **labels: str) -> dict[str, int]:
        """The samples of a family with these labels, by all their labels."""
        wanted = [f'{name}="{value}"' for name, value in labels.items()]
        sample = re.compile(rf"{re.escape(family)}(\{{.*\}})? (\d+)")
        found = (sample.fullmatch(line) for line in self._lines)
        return {m[1] or "": int(m[2]) for m in found if m and all(label in (m[1] or "") for label in wanted)}

    def growth(self, since: "Exposition", family: str, **labels: str) -> int:
        """What the samples have grown by since another scrape; those that are evicted meanwhile by nothing."""
        before = since.samples(family, **labels)
        return sum(value - before.get(key, 0) for key, value in self.samples(family, **labels).items())

    def value(self, family: str) -> float:
        """The one sample of a family without labels."""
        [text] = [line.split(" ")[1] for line in self._lines if line.startswith(f"{family} ")]
        return float(text)

    def __len__(self) -> int:
        return len(self._lines)


def scrape(port: int) -> Exposition:
    """Reads all families, as a Prometheus does."""
    return Exposition(fetch(port).decode())


def fetch(port: int) -> bytes:
    """What a scrape is, before anything is made of it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=SCRAPE_LIMIT) as answer:
        return answer.read()


def drain(port: int) -> None:
    """Reads what a scrape is and forgets it. What a reader does with tens of megabytes costs those who share its machine
    more than the writing did (`fetch` beside the load: five times the load's p99), and is not the proxy's doing."""
    piece = bytearray(PIECE)
    with socket.create_connection(("127.0.0.1", port), timeout=SCRAPE_LIMIT) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        read = connection.recv_into(piece)
        if not piece.startswith(b"HTTP/1.1 200 "):
            raise LoadError(f"a scrape is answered {bytes(piece[:read]).decode(errors='replace').splitlines()[:1]}")
        while connection.recv_into(piece):
            pass


class Scraping:
    """Scrapes while load runs, for being read is a part of what a measuring proxy costs: so often a second, or once
    after some seconds where that is 0."""

    def __init__(self, port: int | None, often: int, after: float):
        self._port, self._pause = port, 1 / often if often else after
        self._is_once = not often
        self._end = threading.Event()
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        if self._port:
            self._thread.start()

    def __exit__(self, *_error: object) -> None:
        if self._port:
            if not self._is_once:
                self._end.set()
            self._thread.join()
            if self._fault:
                raise LoadError(f"a scrape beside the load failed: {self._fault}") from self._fault

    def _run(self) -> None:
        # A Prometheus has another machine's CPU: here it takes what nobody else wants.
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
        try:
            while not self._end.wait(self._pause):
                drain(self._port)
                if self._is_once:
                    return
        except (OSError, LoadError) as error:
            self._fault = error


def fault(lane: Lane, requests: int, connections: int, before: Exposition, after: Exposition) -> str | None:
    """What is wrong with the proxy's own account of a stretch of load, if anything."""
    kind, direction = lane.kind, lane.direction
    under_way = connections * (STREAMS if kind.endswith("h2") else 1)

    def grown(family: str) -> int:
        return after.growth(before, family, direction=direction)

    if kind.startswith("tls "):
        secured = after.growth(before, "request_total", direction=direction, tls="true")
        if not requests <= secured:
            return f"request_total grew by {secured} with TLS in {requests} requests"
    counted, opened = grown("request_total"), grown("tcp_open_total")
    # A request under way at the end is counted by the proxy, but not by the load.
    if not (lane.is_bulk or kind.endswith("tcp")) and not requests <= counted <= requests + under_way:
        return f"request_total grew by {counted} in {requests} requests"
    if kind.endswith("tcp") and counted:
        return f"{counted} requests were seen in opaque bytes"
    if kind.startswith("bulk"):
        written = after.growth(before, "tcp_write_bytes_total", direction=direction, peer="src")
        # Beside the answers' bodies there are only their heads.
        if not requests << 20 <= written <= (requests << 20) * 1.001:
            return f"{written} bytes were counted in {requests} MiB"
    # Where requests are balanced, clients share the connections to the servers.
    ends = 1 if lane.path == BALANCING else 2
    if opened < ends * connections:
        return f"tcp_open_total grew by {opened} in {connections} connections, of {ends} ends each"
    return None
