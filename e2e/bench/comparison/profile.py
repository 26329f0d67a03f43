"""How often the proxy takes each branch of its program: proxy/published.profdata, by which the compiler optimises it.

Started by e2e/bench/profile. What no load runs has no entry, and is compiled as without a profile.
"""

import argparse
import os
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

DESCRIPTION = """
Builds weir-proxy with counters, puts every kind of load on every way through it in front of nginx on
loopback, with mutual TLS, too, and writes what was counted to proxy/published.profdata. To be done when
the toolchain or a dependency has changed, or what the proxy does for each request; e2e/bench/order after it.
"""


def main() -> int:
    argparse.ArgumentParser(prog="e2e/bench/profile", description=DESCRIPTION).parse_args()
    merge = profdata()
    with tempfile.TemporaryDirectory(prefix="weir-profile-") as name:
        work = Path(name)
        work.chmod(0o755)
        counts = work / "counts"
        counts.mkdir()
        os.environ["WEIR_PROXY"] = built(["--instrumented"])
        os.environ["LLVM_PROFILE_FILE"] = f"{counts}/%p.profraw"
        programs = proxies.prepare()
        with proxies.Stage(work, programs) as stage:
            stage.start_backend()
            stage.start("weir")
            stage.start_secured("weir")
            train(*stage.proxies)
        usage.start_in_pod(programs["weir"], work)
        files = sorted(counts.glob("*.profraw"))
        if not files:
            raise ProcessError("no proxy has written its counts")
        # Without the functions that nothing has run: the compiler would take them for such that nothing runs.
        subprocess.run([merge, "merge", "--sparse", f"--output={FILE}", *files], check=True)
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


def profdata() -> str:
    """The toolchain's program that merges counts; installed if it is not there."""
    subprocess.run(["rustup", "component", "add", "llvm-tools"], check=True, capture_output=True, cwd=ROOT)
    done = subprocess.run(["rustc", "--print", "target-libdir"], check=True, capture_output=True, text=True, cwd=ROOT)
    return str(Path(done.stdout.strip()).parent / "bin" / "llvm-profdata")


def built(options: list[str]) -> str:
    """The proxy as it is published, with these options of the script that builds it."""
    script = ROOT / "e2e" / "lib" / "published-proxy"
    return subprocess.run([script, *options], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ProcessError, load.LoadError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
