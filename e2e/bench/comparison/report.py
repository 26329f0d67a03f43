"""From samples to a table: medians, and ratios to haproxy taken within each round.

Used by `__main__`. Pure: knows no process and no file, and of the proxies a name.
"""

from dataclasses import asdict, dataclass
from statistics import median, quantiles

from .proxies import BALANCING

BASE = "haproxy"


@dataclass(frozen=True)
class Sample:
    """One stretch of load on one lane."""

    round: int
    kind: str
    lane: str
    requests: int
    cpu_us: float
    """CPU time of the proxy per request, in microseconds; of bulk a MiB counts as a request."""
    rate: float
    """Requests per second."""
    p50_us: float
    p99_us: float


@dataclass(frozen=True)
class Target:
    """A figure that the proxy must reach: the CPU of its lanes as a ratio to another's."""

    kind: str
    against: str
    at_most: float
    balancing: bool = False
    """That of requests balanced one by one, or of all other lanes."""


TARGETS = [Target("http", BASE, 0.85), Target("http", "envoy", 0.3), Target("tcp", BASE, 0.95)]
TARGETS += [Target("h2", "nghttpx", 0.6), Target("h2", "envoy", 0.2)]
TARGETS += [Target("h2", "nghttpx", 1.5, balancing=True)]
TARGETS += [Target("tls http", "envoy", 0.4), Target("tls h2", "envoy", 0.4)]
TARGETS += [Target("bulk tcp", BASE, 0.6), Target("bulk http", BASE, 0.6)]
PACED = ("paced http", "paced tcp")
"""The kinds of load under which latencies are judged."""
IDLE_KIB = 5 * 1024
"""Most resident memory of the idle proxy, in KiB."""


class Samples:
    """All samples of a run."""

    def __init__(self, samples: list[Sample]):
        self.all = samples

    def lanes(self, kind: str) -> list[str]:
        return list(dict.fromkeys(s.lane for s in self.all if s.kind == kind))

    def values(self, kind: str, lane: str, figure: str) -> dict[int, float]:
        """The figure by round."""
        return {s.round: getattr(s, figure) for s in self.all if (s.kind, s.lane) == (kind, lane)}

    def middle(self, kind: str, lane: str, figure: str) -> float:
        return median(self.values(kind, lane, figure).values())

    def ratios(self, kind: str, lane: str, base: str, figure: str) -> list[float]:
        """The lane's figure by that of the base in the same round, sorted; empty without the base."""
        ours, theirs = self.values(kind, lane, figure), self.values(kind, base, figure)
        return sorted(ours[r] / theirs[r] for r in ours if r in theirs)


def table(samples: Samples, kind: str) -> str:
    """One kind of load as a Markdown table."""
    rows = [
        f"| {kind} | CPU us/request | ratio of CPU (least-most) | requests/s | ratio | p50 us | ratio | p99 us | ratio |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for lane in samples.lanes(kind):
        cells = [lane, f"{samples.middle(kind, lane, 'cpu_us'):.2f}"]
        cells.append(spread(samples.ratios(kind, lane, BASE, "cpu_us")))
        for figure in ("rate", "p50_us", "p99_us"):
            cells.append(f"{samples.middle(kind, lane, figure):.0f}")
            ratios = samples.ratios(kind, lane, BASE, figure)
            cells.append(f"{median(ratios):.2f}" if ratios else "")
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def bulk_table(samples: Samples, kind: str) -> str:
    """One kind of bulk as a Markdown table."""
    rows = [f"| {kind} | CPU s/GiB | ratio of CPU (least-most) | GiB/s | ratio |", "|---|---:|---:|---:|---:|"]
    for lane in samples.lanes(kind):
        cells = [lane, f"{samples.middle(kind, lane, 'cpu_us') * 1024 / 1e6:.3f}"]
        cells.append(spread(samples.ratios(kind, lane, BASE, "cpu_us")))
        cells.append(f"{samples.middle(kind, lane, 'rate') / 1024:.2f}")
        cells.append(f"{median(samples.ratios(kind, lane, BASE, 'rate')):.2f}")
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def memory(proxies: list[dict]) -> str:
    """Resident memory as a Markdown table."""
    base = next((p for p in proxies if p["name"] == BASE), None)
    rows = ["| memory | version | RSS idle MiB | ratio | RSS after load MiB | ratio |", "|---|---|---:|---:|---:|---:|"]
    for proxy in proxies:
        cells = [proxy["name"], proxy["version"]]
        for figure in ("idle_kib", "loaded_kib"):
            cells.append(f"{proxy[figure] / 1024:.1f}")
            cells.append(f"{proxy[figure] / base[figure]:.2f}" if base else "")
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def spread(ratios: list[float]) -> str:
    return f"{median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})" if ratios else ""


def verdicts(samples: Samples, proxies: list[dict]) -> list[tuple[bool, str]]:
    """Every target that this run can judge, and whether it is met."""
    found = []
    for target in TARGETS:
        for lane in samples.lanes(target.kind):
            ratios = samples.ratios(target.kind, lane, target.against, "cpu_us")
            if lane.startswith("weir") and ratios and target.balancing == lane.endswith(BALANCING):
                unit = "GiB" if target.kind.startswith("bulk") else "request"
                text = f"{target.kind} {lane}: CPU per {unit} {median(ratios):.2f} of {target.against}'s, at most {target.at_most}"
                found.append((median(ratios) <= target.at_most, text))
    for kind in PACED:
        for lane in samples.lanes(kind):
            if lane.startswith("weir"):
                # By a scrape that never ends it is to be no worse than it is by itself.
                beside = lane.replace(" scraped", "")
                found.append(latency(samples, kind, lane, BASE if beside == lane else beside))
    for proxy in proxies:
        if proxy["name"] == "weir":
            text = f"idle: {proxy['idle_kib'] / 1024:.1f} MiB resident, at most {IDLE_KIB // 1024}"
            found.append((proxy["idle_kib"] <= IDLE_KIB, text))
    return found


def latency(samples: Samples, kind: str, lane: str, beside: str) -> tuple[bool, str]:
    """Under the same load, by the spread that another lane has over the rounds."""
    theirs = list(samples.values(kind, beside, "p99_us").values())
    first, _, third = quantiles(theirs, n=4, method="inclusive") if len(theirs) > 1 else theirs * 3
    ours = samples.middle(kind, lane, "p99_us")
    text = f"{kind} {lane}: p99 {ours:.0f} us, at most the third quartile of {beside}'s ({first:.0f}-{third:.0f} us)"
    return ours <= third, text


def record(samples: Samples, proxies: list[dict], run: dict) -> dict:
    """Everything, for --json."""
    judged = [{"met": met, "target": text} for met, text in verdicts(samples, proxies)]
    return {"run": run, "proxies": proxies, "samples": [asdict(s) for s in samples.all], "targets": judged}
