"""The lanes with mutual TLS: each proxy twice, as the client's sidecar and as the server's, and TLS between the two.

Used by `proxies`. Knows the configurations in ../config/tls and how to make certificates, and no load.
"""

import subprocess
from pathlib import Path

from .process import Process, ProcessError

LANES = {"tls http": "http", "tls h2": "h2"}
"""Kinds of load, and the port of the client's sidecar that takes it."""
NAMES = ("client", "server")


class Pair:
    """Two processes, measured as one."""

    def __init__(self, near: Process, far: Process):
        self._both = (near, far)

    def cpu_seconds(self) -> float:
        return sum(process.cpu_seconds() for process in self._both)

    def settled_kib(self) -> int:
        return sum(process.settled_kib() for process in self._both)


def listening(ports: dict[str, int], side: str) -> list[int]:
    """Those of a pair's ports that this side listens on."""
    return [port for which, port in ports.items() if which.startswith("far_") == (side == "server")]


def certify(work: Path) -> None:
    """Makes an authority, and a certificate of both sides for P-256, in the directory."""
    extensions = work / "extensions"
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", work / "ca.key")
    _openssl("req", "-x509", "-new", "-key", work / "ca.key", "-subj", "/CN=bench", "-days", "1", "-out", work / "ca.pem")
    for name in NAMES:
        key, request, leaf = (work / f"{name}.{ending}" for ending in ("key", "csr", "pem"))
        # A server with HTTP/2 as a service of its own has one certificate for both.
        extensions.write_text(
            f"subjectAltName=DNS:{name}.mesh,URI:spiffe://default/{name}\n"
            "extendedKeyUsage=serverAuth,clientAuth\nkeyUsage=digitalSignature\n"
        )
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        _openssl("req", "-new", "-key", key, "-subj", f"/CN={name}", "-out", request)
        issue = ["x509", "-req", "-in", request, "-CA", work / "ca.pem", "-CAkey", work / "ca.key", "-CAcreateserial"]
        _openssl(*issue, "-days", "1", "-extfile", extensions, "-out", leaf)
        # haproxy takes both from one file, the others do not mind.
        leaf.write_bytes(leaf.read_bytes() + key.read_bytes())
        for file in (key, leaf, work / "ca.pem"):
            file.chmod(0o644)


def _openssl(*arguments: object) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise ProcessError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
