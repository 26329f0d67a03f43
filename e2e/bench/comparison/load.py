"""One stretch of load by wrk, on loopback.

Used by `__main__`. Knows wrk and its scripts, and no proxy.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent / "load"
GRACE = 30
"""Seconds that wrk may take beyond the duration it was asked for."""


class LoadError(Exception):
    """The load did not run as it should; no figure of it means anything."""


@dataclass(frozen=True)
class Load:
    """What wrk saw in one stretch."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float


def run(kind: str, port: int, seconds: int, connections: int) -> Load:
    """Loads the port with `kind` ("http" or "tcp") requests, each sent when the one before is answered."""
    command = ["wrk", "--threads=1", f"--connections={connections}", f"--duration={seconds}s", "--timeout=10s"]
    command += [f"--script={SCRIPTS / kind}.lua", f"http://127.0.0.1:{port}/"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + GRACE, check=True)
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"wrk did not end {GRACE} s after its {seconds} s") from error
    except subprocess.CalledProcessError as error:
        raise LoadError(f"wrk failed: {error.stderr.strip() or error.stdout.strip()}") from error
    result = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    if result["errors"] or not result["requests"]:
        raise LoadError(f"{result['errors']} of {result['requests']} requests failed on port {port}")
    return Load(result["requests"], result["duration_us"] / 1e6, result["p50_us"], result["p99_us"])
