"""Which functions of its program the proxy runs: proxy/text.order, those of every start first, then the most used.

Started by e2e/bench/order. The kernel makes code resident in blocks, so functions that run belong
side by side; proxy/build.rs hands the file to the linker.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from . import load, proxies, usage
from .process import ProcessError

FILE = Path(__file__).resolve().parents[3] / "proxy" / "text.order"
SECONDS = 1
CONNECTIONS = 10
"""Of each load: valgrind takes its time."""

VARIANT = re.compile(r"(__\w+?)_avx2?((?:_\w*)?)")
"""A function of the C library for the CPU that valgrind shows; newer CPUs run these beside it."""
NEWER = ("_evex", "_avx512")

DESCRIPTION = """
Runs weir-proxy under valgrind in front of nginx on loopback, puts a second of every kind of load on
every way through it, then many connections at once, scrapes it and ends it; starts it as in a pod, too; and
writes the functions that have run to proxy/text.order. To be done when the toolchain, or what the proxy
runs, has changed so far that the stage "images" of e2e/test finds it too large at rest, and after e2e/bench/profile.
"""


def main() -> int:
    argparse.ArgumentParser(prog="e2e/bench/order", description=DESCRIPTION).parse_args()
    programs = proxies.prepare()
    program = programs["weir"]
    with tempfile.TemporaryDirectory(prefix="weir-order-") as name:
        work = Path(name)
        work.chmod(0o755)
        programs["weir"] = observed(program, work)
        with proxies.Stage(work, programs) as stage:
            stage.start_backend()
            stage.start("weir")
            usage.serve(stage.proxies[0], SECONDS, CONNECTIONS)
            usage.burst_and_rest(stage.proxies[0])
        used = run_so_far(work)
        usage.start_in_pod(programs["weir"], work)
        started = run_so_far(work) - used
    costs = used + started
    # What every proxy runs comes first, for that is all that one at rest has touched.
    order = sorted(costs, key=lambda function: (function not in started, -costs[function], function))
    order += newer(order, symbols(program))
    FILE.write_text("".join(f"{function}\n" for function in order))
    print(f"{len(order)} functions in {FILE.relative_to(FILE.parents[1])}")
    return 0


def observed(program: str, work: Path) -> str:
    """A program that runs this one and has valgrind count the instructions of its functions."""
    options = f"--tool=callgrind --callgrind-out-file={work}/costs.%p --demangle=no --compress-strings=no --compress-pos=no"
    script = work / "weir-observed"
    # To tell its version is nothing that a proxy at work does.
    script.write_text(f'#!/bin/sh\n[ "$1" = run ] || exec {program} "$@"\nexec valgrind {options} {program} "$@"\n')
    script.chmod(0o755)
    return str(script)


def run_so_far(work: Path) -> Counter[str]:
    """What all proxies that have ended have cost."""
    return sum((read(file) for file in work.glob("costs.*")), Counter())


def read(file: Path) -> Counter[str]:
    """The instructions of each function. In a callgrind file `fn=` opens a function, `calls=` and the line after it are
    the cost of others, and any other line that begins with a number is a position and its cost."""
    costs: Counter[str] = Counter()
    function, is_call = "", False
    for line in file.read_text().splitlines():
        if line.startswith("fn="):
            function = re.sub(r"'\d+$", "", line[3:])
        elif line.startswith("calls="):
            is_call = True
        elif line[:1].isdigit() and function:
            costs[function] += 0 if is_call else int(line.split()[1])
            is_call = False
    # What has no name is an address, or stands in parentheses.
    return Counter({f: cost for f, cost in costs.items() if re.fullmatch(r"[A-Za-z_.$][\w.$]*", f)})


def newer(functions: list[str], known: set[str]) -> list[str]:
    """What other CPUs run in place of these."""
    found = (VARIANT.fullmatch(function) for function in functions)
    names = (f"{match[1]}{feature}{match[2]}" for match in found if match for feature in NEWER)
    return [name for name in names if name in known]


def symbols(program: str) -> set[str]:
    """The functions of a program."""
    done = subprocess.run(["nm", program], capture_output=True, text=True, check=True)
    return {line.split()[-1] for line in done.stdout.splitlines()}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ProcessError, load.LoadError) as error:
        sys.exit(f"error: {error}")
