"""One stretch of load, on loopback: by wrk, for HTTP/2 by h2load.

Used by `__main__`. Knows those programs and the scripts for wrk, and no proxy.
"""

import http.client
import json
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent / "load"
GRACE = 30
"""Seconds that a load may take beyond the duration it was asked for."""
STREAMS = 10
"""Requests under way on each HTTP/2 connection."""


class LoadError(Exception):
    """The load did not run as it should; no figure of it means anything."""


@dataclass(frozen=True)
class Load:
    """What was seen in one stretch."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float


def run(kind: str, port: int, seconds: int, connections: int) -> Load:
    """Loads the port with `kind` requests: "http", "h2" or "tcp", each sent when one before is answered; after
    "paced " with a pause; "tls " is between proxies, and nothing to the load."""
    kind = kind.removeprefix("tls ")
    if kind == "h2":
        return run_h2load(port, seconds, connections)
    command = ["wrk", "--threads=1", f"--connections={connections}", f"--duration={seconds}s", "--timeout=10s"]
    command += [f"--script={SCRIPTS / kind}.lua", f"http://127.0.0.1:{port}/"]
    output = output_of(command, seconds)
    result = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
    if result["errors"] or not result["requests"]:
        raise LoadError(f"{result['errors']} of {result['requests']} requests failed on port {port}")
    return Load(result["requests"], result["duration_us"] / 1e6, result["p50_us"], result["p99_us"])


def reconnect(port: int, seconds: int, connections: int) -> None:
    """HTTP/1 with a connection for each request."""
    command = ["wrk", "--threads=1", f"--connections={connections}", f"--duration={seconds}s", "--timeout=10s"]
    output = output_of([*command, "--header=Connection: close", f"http://127.0.0.1:{port}/"], seconds)
    if "Socket errors" in output or "Non-2xx" in output:
        raise LoadError(f"requests failed on port {port}: {output.strip()}")


def fill(port: int, authorities: int) -> None:
    """Requests the port by so many names, one after the other: each has series of its own from then on."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GRACE)
    for number in range(authorities):
        connection.request("GET", "/", headers={"Host": f"name-{number}.example"})
        connection.getresponse().read()
    connection.close()


def run_h2load(port: int, seconds: int, connections: int) -> Load:
    """HTTP/2 with prior knowledge, several requests under way on each connection."""
    with tempfile.NamedTemporaryFile("r", prefix="weir-bench-h2load-") as log:
        command = ["h2load", "--threads=1", f"--clients={connections}", f"--max-concurrent-streams={STREAMS}"]
        command += [f"--duration={seconds}", f"--log-file={log.name}", f"http://127.0.0.1:{port}/"]
        output = output_of(command, seconds)
        # Start, status and microseconds of each request.
        answers = [line.split("\t") for line in log]
    ended = re.search(r"finished in ([\d.]+)(m?s)", output)
    # What is under way at the end has the status -1.
    done = [answer for answer in answers if answer[1] != "-1"]
    if not ended or not done:
        raise LoadError(f"h2load measured nothing on port {port}: {output.strip()}")
    failed = sum(status != "200" for _start, status, _took in done)
    cut = len(answers) - len(done)
    if failed or cut > connections * STREAMS:
        statuses = Counter(status for _start, status, _took in answers)
        raise LoadError(f"{failed + cut} of {len(answers)} requests failed on port {port}, by status: {dict(statuses)}")
    took = sorted(int(took) for _start, _status, took in done)
    duration = float(ended[1]) / (1000 if ended[2] == "ms" else 1)
    return Load(len(done), duration, took[len(took) // 2], took[len(took) * 99 // 100])


def output_of(command: list[str], seconds: int) -> str:
    """What the program prints that makes the load, once it has ended well and in time."""
    program = command[0]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + GRACE, check=True)
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"{program} did not end {GRACE} s after its {seconds} s") from error
    except subprocess.CalledProcessError as error:
        raise LoadError(f"{program} failed: {error.stderr.strip() or error.stdout.strip()}") from error
    return done.stdout
