"""What is measured: tracefwd, a server that only answers 202, and the peers, each pinned to the target's core.

A ``Server`` is a command, the ports that it takes posts and sends results on, and how long it needs before it is at its
full speed.  What a peer needs beyond that (a configuration file, a shim) is made in a folder of its own.
"""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import Self

from tests.bench.machine import TARGET_CORE, free_port

ROOT = Path(__file__).parents[2]
CONFIGURATIONS = Path(__file__).with_name("peers")
# A JVM's first start on a busy machine.
READY_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class SinkPorts:
    lines: int
    metrics: int
    backend: int
    otlp: int


@dataclass(frozen=True)
class Started:
    """A command with its environment; ``ready_url`` answers 2xx, or 4xx, when it serves."""

    command: list[str]
    ready_url: str
    environ: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None


Start = Callable[[int, SinkPorts, Path], Started]


@dataclass(frozen=True)
class Server:
    """``start(intake_port, sink_ports, folder)``; ``cores`` as ``taskset`` takes them.

    Nothing more is waited for when nothing came for ``quiet_s``, far longer than anything is held back, or for
    ``complete_s`` when all spans are there: span logs may come later.
    """

    name: str
    start: Start
    warm_up_s: float = 1.0
    quiet_s: float = 6.0
    complete_s: float = 0.3
    delivers: bool = True
    cores: str = str(TARGET_CORE)


class Running(AbstractContextManager["Running"]):
    """``server`` while it serves at ``port``."""

    def __init__(self, server: Server, sinks: SinkPorts) -> None:
        self._server = server
        self._sinks = sinks

    def __enter__(self) -> Self:
        self._folder = TemporaryDirectory(prefix="tracefwd-bench-")
        self.port = free_port()
        started = self._server.start(self.port, self._sinks, Path(self._folder.name))
        pinned = ["taskset", "-c", self._server.cores, *started.command]
        self._output = (Path(self._folder.name) / "output").open("wb")
        self._process = subprocess.Popen(
            pinned,
            cwd=started.cwd or self._folder.name,
            env={**os.environ, **started.environ},
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        self.pid = self._process.pid
        try:
            self._until_ready(started.ready_url)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _until_ready(self, url: str) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                urllib.request.urlopen(url, timeout=1).close()
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise RuntimeError(f"{self._server.name} did not become ready:\n{self.output()[-4000:]}")

    def output(self) -> str:
        return (Path(self._folder.name) / "output").read_text(errors="replace")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()
        self._folder.cleanup()


# --- tracefwd ------------------------------------------------------------------------------------

# Every window of two seconds has a tick of RED inside, so that what it costs is in the figure; peers tick as often.
_DEFAULTS = {"TRACEFWD_RED__INTERVAL": "2s"}


def tracefwd(
    name: str = "tracefwd", *, profile: str = "istio", checkout: Path = ROOT, **options: str
) -> Server:
    """``options``: environment names without their prefix, such as ``SERVICE__WORKERS="2"``; ``FOLDER`` in a value
    is the server's own folder.  ``checkout``: another one, with a ``.venv`` of its own."""
    given = {f"TRACEFWD_{key}": value for key, value in options.items()}

    def start(port: int, sinks: SinkPorts, folder: Path) -> Started:
        admin = free_port()
        environ = {
            key: value.replace("FOLDER", str(folder)) for key, value in (_DEFAULTS | given).items()
        }
        command = [
            sys.executable if checkout == ROOT else str(checkout / ".venv/bin/python"),
            "-m", "tracefwd", "run", "--profile", profile,
            "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}",
            "--proxy-traces", f"http://127.0.0.1:{sinks.lines}",
            "--proxy-metrics", f"http://127.0.0.1:{sinks.metrics}",
        ]  # fmt: skip
        return Started(command, f"http://127.0.0.1:{admin}/readyz", environ, cwd=str(checkout))

    return Server(name, start)


# --- the floor -----------------------------------------------------------------------------------

_ANSWERING = """
import asyncio, json, sys, httptools, uvloop
class Empty(asyncio.Protocol):
    def connection_made(self, transport):
        self.write = transport.write
        self.feed = httptools.HttpRequestParser(self).feed_data
    def data_received(self, data):
        self.feed(data)
    def on_message_complete(self):
        self.write(b"HTTP/1.1 202 Accepted\\r\\ncontent-length: 0\\r\\n\\r\\n")
class Busy(Empty):
    def connection_made(self, transport):
        super().connection_made(transport)
        self.parts = []
    def on_body(self, body):
        self.parts.append(body)
    def on_message_complete(self):
        if self.parts:
            json.dumps(json.loads(b"".join(self.parts)))
            self.parts = []
        super().on_message_complete()
async def main():
    port, protocol = int(sys.argv[1]), {"empty": Empty, "busy": Busy}[sys.argv[2]]
    loop = asyncio.get_running_loop()
    await loop.create_server(protocol, "127.0.0.1", port, backlog=1024)
    await asyncio.Event().wait()
uvloop.run(main())
"""


def _answering(name: str) -> Server:
    def start(port: int, _sinks: SinkPorts, _folder: Path) -> Started:
        command = [sys.executable, "-c", _ANSWERING, str(port), name]
        return Started(command, f"http://127.0.0.1:{port}/")

    return Server(name, start, warm_up_s=0.5, delivers=False)


EMPTY = _answering("empty")
# Reads each post by the standard library, writes it again, forgets it: about as much work as tracefwd's, and nothing
# else to do.  What its answers are late by near its own limit is what the machine makes any server's late by.
BUSY = _answering("busy")


# --- peers ---------------------------------------------------------------------------------------


def java(name: str, flush_interval_ms: int, warm_up_s: float) -> Callable[[str], Server]:
    """The Wavefront proxy: JVM and program options of its own image, a check-in backend behind it.

    At its defaults (a flush interval of 1 s) each of six threads sends 1,000 span logs a second at most, which caps
    what it delivers at 6,000 Envoy spans a second; the rest waits in memory.  100 ms lift that, in its favour.
    """

    def start(path: str, port: int, sinks: SinkPorts, folder: Path) -> Started:
        shim = _loopback_shim(folder)
        environ = {"LD_PRELOAD": str(shim)} if shim else {}
        others = [free_port() for _ in range(3)]
        configuration = (CONFIGURATIONS / "wavefront.conf").read_text()
        text = configuration.format(
            zipkin=port, backend=sinks.backend, folder=folder,
            push=others[0], trace=others[1], custom=others[2], flush_interval_ms=flush_interval_ms,
        )  # fmt: skip
        (folder / "wavefront.conf").write_text(text)
        (folder / "buffer").mkdir()
        command = [
            os.environ.get("JAVA", "java"), "-Xmx4g", "-Xms4g", "-Djava.net.preferIPv4Stack=true",
            "-Djava.util.logging.manager=org.apache.logging.log4j.jul.LogManager",
            f"-Dlog4j.configurationFile={CONFIGURATIONS / 'log4j2.xml'}",
            "-jar", path, "-f", str(folder / "wavefront.conf"),
        ]  # fmt: skip
        return Started(command, f"http://127.0.0.1:{port}/", environ)

    return lambda path: Server(name, partial(start, path), warm_up_s=warm_up_s, complete_s=2.2)


def _loopback_shim(folder: Path) -> Path | None:
    """The proxy listens on every interface and cannot be told otherwise; where there is a C compiler it is kept on
    loopback."""
    if not which("gcc"):
        return None
    shim = folder / "loopback.so"
    source = CONFIGURATIONS / "loopback.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", shim, source, "-ldl"], check=True)
    return shim


def _collector(
    name: str, configuration: str, sink: Callable[[SinkPorts], int]
) -> Callable[[str], Server]:
    def with_path(path: str) -> Server:
        def start(port: int, sinks: SinkPorts, _folder: Path) -> Started:
            environ = {
                "PORT": str(port),
                "SINK": str(sink(sinks)),
                "TELEMETRY": str(free_port()),
            }
            command = [path, "--config", str(CONFIGURATIONS / configuration)]
            return Started(command, f"http://127.0.0.1:{port}/", environ)

        return Server(name, start, warm_up_s=4.0)

    return with_path


PEERS: dict[str, Callable[[str], Server]] = {
    # What a JVM compiles in 10 s is most of it; in 25 s it gains another tenth.
    "java": java("java", 1000, warm_up_s=10.0),
    "java-100ms": java("java-100ms", 100, warm_up_s=15.0),
    "otel": _collector("otel", "otelcol.yaml", lambda ports: ports.otlp),
    "otel-wavefront": _collector(
        "otel-wavefront", "otelcol-0.91-wavefront.yaml", lambda ports: ports.lines
    ),
}


def peer(text: str) -> Server:
    """``NAME=PATH``; raises ValueError that says what would be right."""
    name, mark, path = text.partition("=")
    if name not in PEERS or not mark:
        raise ValueError(f"{text!r} is not NAME=PATH with a name among {', '.join(PEERS)}")
    if not Path(path).is_file():
        raise ValueError(f"{path!r} is not there; tests/bench/README.md says how to build it")
    return PEERS[name](str(Path(path).resolve()))
