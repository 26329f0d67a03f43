"""Processes of a run: started here, measured through /proc, ended by their own handle.

Used by `proxies`. Knows no proxy and no load.
"""

import os
import subprocess
import time
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
LISTEN_LIMIT = 15.0
"""Seconds that a process may take until it listens."""
SETTLE_LIMIT = 5.0
"""Seconds after which memory that still moves is read as it is."""
END_LIMIT = 10.0
"""Seconds that a process may take to end when asked."""


class ProcessError(Exception):
    """A process could not be started, or ended by itself."""


class Process:
    """A process and its children, measured as one."""

    def __init__(self, name: str, command: list[str], work: Path):
        self.name = name
        self._log = work / f"{name}.out"
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=work, start_new_session=True
            )

    def cpu_seconds(self) -> float:
        """User and system time so far, of all its processes."""
        return sum(_cpu_ticks(pid) for pid in self._pids()) / TICKS_PER_SECOND

    def resident_kib(self) -> int:
        """Resident memory (VmRSS), of all its processes."""
        return sum(_resident_kib(pid) for pid in self._pids())

    def settled_kib(self) -> int:
        """Resident memory once it has not changed for half a second."""
        deadline = time.monotonic() + SETTLE_LIMIT
        same, last = 0, -1
        while same < 5 and time.monotonic() < deadline:
            time.sleep(0.1)
            now = self.resident_kib()
            same, last = (same + 1, last) if now == last else (0, now)
        return last

    def await_listening(self, ports: list[int]) -> None:
        """Waits until all the ports are listened on, without connecting to any."""
        deadline = time.monotonic() + LISTEN_LIMIT
        while not set(ports) <= listening_ports():
            self.check()
            if time.monotonic() > deadline:
                raise ProcessError(f"{self.name} does not listen on {ports} after {LISTEN_LIMIT:.0f} s:\n{self._tail()}")
            time.sleep(0.05)

    def check(self) -> None:
        """Raises if it has ended."""
        status = self._child.poll()
        if status is not None:
            raise ProcessError(f"{self.name} ended with status {status}:\n{self._tail()}")

    def end(self) -> None:
        """Ends it, and waits until it is gone."""
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(END_LIMIT)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    def _pids(self) -> list[int]:
        self.check()
        found = [self._child.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found += [int(child) for child in children.read_text().split()]
        return found

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])


def _cpu_ticks(pid: int) -> int:
    # Fields 14 and 15 of proc(5), counted behind the name, which may hold spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def _resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessError(f"process {pid} has no resident memory")


def listening_ports() -> set[int]:
    """TCP ports in state LISTEN, of both families."""
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if os.path.exists(table):
            for line in Path(table).read_text().splitlines()[1:]:
                _, local, _, state = line.split()[:4]
                if state == "0A":
                    ports.add(int(local.rsplit(":", 1)[1], 16))
    return ports
