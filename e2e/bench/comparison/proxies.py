"""The proxies that are compared: how each is configured and started, and where it takes load.

Used by `__main__`. Configurations are the templates in ../config; all ports are free ones on
loopback.
"""

import os
import re
import socket
import string
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import bulk, load, secured
from .process import Process, ProcessError

BENCH = Path(__file__).resolve().parent.parent
CONFIG = BENCH / "config"
PREPARE = BENCH / "prepare"
BODY_BYTES = 1024
KINDS = ("http", "h2", "tcp", *secured.LANES, "paced http", "paced tcp", "bulk http", "bulk tcp")
"""Kinds of load."""
SCRAPED = "weir scraped"
"""A second proxy of ours, with many series, that is scraped all the time."""
HAPROXY = ["-db", "-f"]
ENVOY = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"]
"""The options before the configuration: in the foreground, one worker."""
SECURED = ("haproxy", "weir", "envoy")
"""Those that are compared with mutual TLS, too."""
SCRAPES = 10
AUTHORITIES = 3000
BALANCING = "balancing"
"""The path through the proxy to a service of two endpoints: outbound, each request by itself."""


class Template(string.Template):
    """Configuration with %{name} to fill in."""

    delimiter = "%"


@dataclass(frozen=True)
class Lane:
    """One way through a proxy: a column of figures."""

    proxy: str
    kind: str
    """"http", "h2" or "tcp"; after "bulk ", "paced " or "tls " where it takes that."""
    path: str
    """"inbound", "outbound" or "balancing" where the proxy tells them apart, else empty."""
    port: int

    @property
    def name(self) -> str:
        return f"{self.proxy} {self.path}".strip()

    @property
    def direction(self) -> str:
        """Where the proxy counts it."""
        return "outbound" if self.path == BALANCING else self.path

    @property
    def is_bulk(self) -> bool:
        return self.kind.startswith("bulk ")


@dataclass
class Proxy:
    """A running proxy."""

    name: str
    version: str
    process: Process | secured.Pair
    lanes: list[Lane]
    idle_kib: int = 0
    loaded_kib: int = 0
    metrics_port: int | None = field(default=None)
    scrapes: int = 0
    """Scrapes a second while it is under load, instead of one in each stretch."""


class Stage:
    """Starts the server and the proxies of a run in one directory, and ends them all."""

    def __init__(self, work: Path, programs: dict[str, str]):
        self.work = work
        self.programs = programs
        self.backend = free_port()
        self.backend_h2 = free_port()
        self.backend_pair = free_port()
        self.proxies: list[Proxy] = []
        self._processes: list[Process] = []

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_error: object) -> None:
        for process in reversed(self._processes):
            process.end()

    def start_backend(self) -> None:
        """Starts the server that answers."""
        file = self.work / bulk.PATH.removeprefix("/")
        file.write_bytes(os.urandom(1 << 20) * bulk.FILE_MIB)
        file.chmod(0o644)
        config = self._write("backend.conf", body="x" * BODY_BYTES, bulk=bulk.PATH)
        self._spawn("backend", [self.programs["nginx"], "-c", config], [self.backend, self.backend_h2, self.backend_pair])

    def start(self, name: str) -> None:
        """Starts a proxy by its name."""
        starters = {
            "haproxy": self._haproxy,
            "weir": self._weir,
            SCRAPED: self._scraped,
            "nginx": self._nginx,
            "nghttpx": self._nghttpx,
            "envoy": self._envoy,
        }
        proxy = starters[name]()
        proxy.idle_kib = proxy.process.settled_kib()
        self.proxies.append(proxy)

    def _haproxy(self) -> Proxy:
        return self._plain("haproxy", ("http", "h2", "tcp"), "haproxy.cfg", HAPROXY, "-v")

    def _nginx(self) -> Proxy:
        return self._plain("nginx", ("http", "tcp"), "nginx.conf", ["-c"], "-v")

    def _nghttpx(self) -> Proxy:
        return self._plain("nghttpx", ("h2",), "nghttpx.conf", ["--conf"], "--version")

    def _envoy(self) -> Proxy:
        return self._plain("envoy", ("http", "h2", "tcp"), "envoy.yaml", ENVOY, "--version")

    def _plain(self, name: str, kinds: tuple[str, ...], template: str, options: list[str], version: str) -> Proxy:
        """A proxy with one listener for each kind of load."""
        program = self.programs[name]
        ports = {kind: free_port() for kind in kinds}
        splice = free_port()
        config = self._write(template, splice=splice, **ports)
        process = self._spawn(name, [program, *options, config], list(ports.values()))
        lanes = [Lane(name, kind, "", port) for kind, port in ports.items()]
        lanes += [
            Lane(name, f"{how} {kind}", "", port) for how in ("bulk", "paced") for kind, port in ports.items() if kind != "h2"
        ]
        if name == "haproxy":
            lanes.append(Lane(name, "bulk tcp", "splice", splice))
        return Proxy(name, version_of([program, version]), process, lanes)

    def _weir(self) -> Proxy:
        return self._ours("weir")

    def _scraped(self) -> Proxy:
        """With series of as many authorities as its budgets let a stranger make up in a second, on one lane alone."""
        ours = self._ours(SCRAPED)
        [lane] = [lane for lane in ours.lanes if (lane.kind, lane.path) == ("paced http", "inbound")]
        load.fill(lane.port, AUTHORITIES)
        return replace(ours, lanes=[lane], scrapes=SCRAPES)

    def _ours(self, name: str) -> Proxy:
        proxy = self.programs["weir"]
        admin, metrics = free_port(), free_port()
        ports = {name: free_port() for name in ("inbound", "outbound", "inbound_h2", "outbound_h2", "balancing_h2")}
        dataplane = self._write("weir.yaml", **ports)
        mesh = self._write("mesh.yaml", metrics=metrics)
        command = [proxy, "run", "--concurrency", "1", "--admin-addr", f"127.0.0.1:{admin}"]
        command += ["--dataplane-file", dataplane, "--mesh-file", mesh]
        process = self._spawn(name, command, [*ports.values(), admin, metrics])
        lanes = [
            Lane(name, kind, path, ports[path + suffix])
            for kind, suffix in {**dict.fromkeys(KINDS, ""), "h2": "_h2"}.items()
            if kind not in secured.LANES
            for path in ("inbound", "outbound")
        ]
        lanes.append(Lane(name, "h2", BALANCING, ports["balancing_h2"]))
        return Proxy(name, version_of([proxy, "--version"]), process, lanes, metrics_port=admin)

    def start_secured(self, name: str) -> None:
        """Starts a proxy as two sidecars with mutual TLS between them."""
        if not (self.work / "ca.pem").exists():
            secured.certify(self.work)
        starters = {"haproxy": self._haproxies, "weir": self._weirs, "envoy": self._envoys}
        ports = {port: free_port() for port in ("http", "h2", "far_http", "far_h2")}
        proxy = starters[name](ports)
        proxy.idle_kib = proxy.process.settled_kib()
        self.proxies.append(proxy)

    def _haproxies(self, ports: dict[str, int]) -> Proxy:
        return self._both("haproxy", "cfg", HAPROXY, "-v", ports)

    def _envoys(self, ports: dict[str, int]) -> Proxy:
        return self._both("envoy", "yaml", ENVOY, "--version", ports)

    def _both(self, name: str, ending: str, options: list[str], version: str, ports: dict[str, int]) -> Proxy:
        program = self.programs[name]
        # The server's first: the client's may look whether it is there.
        sides = [
            self._spawn(
                f"{name}-{side}",
                [program, *options, self._write(f"tls/{name}-{side}.{ending}", **ports)],
                secured.listening(ports, side),
            )
            for side in reversed(secured.NAMES)
        ]
        return self._secured(name, version_of([program, version]), sides, ports)

    def _weirs(self, ports: dict[str, int]) -> Proxy:
        program = self.programs["weir"]
        metrics = {f"metrics_{side}": free_port() for side in ("near", "far")}
        documents = self._write("tls/weir.yaml", unused=free_port(), **ports, **metrics)
        admins = {side: free_port() for side in secured.NAMES}
        sides = []
        for side in reversed(secured.NAMES):
            command = [program, "run", "--concurrency", "1", "--admin-addr", f"127.0.0.1:{admins[side]}"]
            command += ["--dataplane-file", documents, "--name", side]
            for flag, file in (("cert", f"{side}.pem"), ("key", f"{side}.key"), ("ca", "ca.pem")):
                command += [f"--identity-{flag}-file", str(self.work / file)]
            sides.append(self._spawn(f"weir-{side}", command, [*secured.listening(ports, side), admins[side]]))
        proxy = self._secured("weir", version_of([program, "--version"]), sides, ports)
        return replace(proxy, metrics_port=admins["client"])

    def _secured(self, name: str, version: str, sides: list[Process], ports: dict[str, int]) -> Proxy:
        path = "outbound" if name == "weir" else ""
        lanes = [Lane(name, kind, path, ports[port]) for kind, port in secured.LANES.items()]
        return Proxy(f"{name} tls", version, secured.Pair(*sides), lanes)

    def _spawn(self, name: str, command: list[str], ports: list[int]) -> Process:
        process = Process(name, command, self.work)
        self._processes.append(process)
        process.await_listening(ports)
        return process

    def _write(self, template: str, **values: object) -> str:
        text = Template((CONFIG / template).read_text()).substitute(
            work=self.work, backend=self.backend, backend_h2=self.backend_h2, backend_pair=self.backend_pair, **values
        )
        path = self.work / template
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return str(path)


def free_port() -> int:
    """A TCP port of loopback that nothing listens on, another one each time."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


_given: set[int] = set()


def prepare() -> dict[str, str]:
    """Installs what is missing and builds the proxy: the programs that can be compared here, by name,
    haproxy first because the others are measured against it."""
    done = subprocess.run([PREPARE], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise ProcessError("cannot compare without what is missing")
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    return {name: found[name] for name in ("haproxy", "weir", "nginx", "nghttpx", "envoy") if found[name]}


def version_of(command: list[str]) -> str:
    """The first version number that the command prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return found.group() if found else "unknown"
