"""How often the proxy takes each branch of its program: proxy/published.profdata, by which the compiler optimises it.

Started by e2e/bench/profile. What no load runs has no entry, and is compiled as without a profile.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from . import bulk, load, proxies, usage
from .process import ProcessError

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "proxy" / "published.profdata"
SECONDS = 2
CONNECTIONS = 50
SCRAPES = 10
"""Of each kind, of a proxy with many series."""
PROXIES = 4
"""Alone, on both sides of mutual TLS, and as in a pod."""

DESCRIPTION = """
Builds weir-proxy with counters, puts every kind of load on every way through it in front of nginx on
loopback, with mutual TLS, too, and writes what was counted to proxy/published.profdata. To be done when
the toolchain or a dependency has changed, or what the proxy does for each request; e2e/bench/order after it.
"""


def main() -> int:
    argparse.ArgumentParser(prog="e2e/bench/profile", description=DESCRIPTION).parse_args()
    if platform.machine() != "x86_64":
        raise ProcessError("the profile is of x86_64: functions have other names elsewhere")
    merge = profdata()
    program = built(["--instrumented"])
    with tempfile.TemporaryDirectory(prefix="weir-profile-") as name:
        work = Path(name)
        work.chmod(0o755)
        counts = work / "counts"
        counts.mkdir()
        os.environ["WEIR_PROXY"] = counting(program, work, counts)
        programs = proxies.prepare()
        with proxies.Stage(work, programs) as stage:
            stage.start_backend()
            stage.start("weir")
            stage.start_secured("weir")
            train(*stage.proxies)
        usage.start_in_pod(programs["weir"], work)
        files = sorted(counts.glob("*.profraw"))
        if len(files) != PROXIES:
            raise ProcessError(f"{len(files)} of {PROXIES} proxies have written their counts")
        # Without the functions that nothing has run: the compiler would take them for such that nothing runs.
        merged = work / FILE.name
        subprocess.run([merge, "merge", "--sparse", f"--output={merged}", *files], check=True)
        FILE.write_bytes(merged.read_bytes())
    print(f"{FILE.stat().st_size >> 10} KiB in {FILE.relative_to(ROOT)}")
    return 0


def train(plain: proxies.Proxy, secured: proxies.Proxy) -> None:
    """What proxies do most is to count most."""
    for proxy in (plain, secured):
        usage.serve(proxy, SECONDS, CONNECTIONS)
        for lane in proxy.lanes:
            if lane.is_bulk:
                bulk.run(lane.kind.removeprefix("bulk "), lane.port, SECONDS)
            elif lane.kind in ("http", "tls http"):
                load.reconnect(lane.port, SECONDS, CONNECTIONS)
    load.fill(next(lane.port for lane in plain.lanes if lane.kind == "http"), proxies.AUTHORITIES)
    for _ in range(SCRAPES):
        usage.scrape(plain)


def counting(program: str, work: Path, counts: Path) -> str:
    """A program that runs this one and has it write its counts."""
    script = work / "weir-counting"
    # To tell its version, or to wait for another, is nothing that a proxy at work does.
    script.write_text(
        f'#!/bin/sh\nLLVM_PROFILE_FILE=/dev/null\n[ "$1" != run ] || LLVM_PROFILE_FILE="{counts}/%p.profraw"\n'
        f'export LLVM_PROFILE_FILE\nexec {program} "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


def profdata() -> str:
    """The toolchain's program that merges counts; installed if it is not there."""
    done = subprocess.run(["rustc", "--print", "target-libdir"], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    program = Path(done.stdout.strip()).parent / "bin" / "llvm-profdata"
    if not program.exists():
        subprocess.run(["rustup", "component", "add", "llvm-tools"], check=True, cwd=ROOT)
    return str(program)


def built(options: list[str]) -> str:
    """The proxy as it is published, with these options of the script that builds it."""
    script = ROOT / "e2e" / "lib" / "published-proxy"
    return subprocess.run([script, *options], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ProcessError, load.LoadError, subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"error: {error}")
