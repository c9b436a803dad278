"""The real proxy as a running part: its options, its ports on loopback, and what it refused.

The options are the vendor's defaults but for these: it flushes sooner, so that a run is short, and it writes every
refused line into a file per kind.
"""

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.processes import Process, eventually

HERE = Path(__file__).parent
_HEAP = "1g"
_FLUSH_MS = 200
# Five seconds on two idle cores.
START_S = 60.0

_LOGGING = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders>
    <Console name="console" target="SYSTEM_OUT"><PatternLayout pattern="%level %c{{1}} %m%n"/></Console>
    <File name="spans" fileName="{folder}/refused-spans"><PatternLayout pattern="%m%n"/></File>
    <File name="points" fileName="{folder}/refused-points"><PatternLayout pattern="%m%n"/></File>
    <File name="histograms" fileName="{folder}/refused-histograms"><PatternLayout pattern="%m%n"/></File>
  </Appenders>
  <Loggers>
    <Logger name="RefusedSpans" level="WARN" additivity="false"><AppenderRef ref="spans"/></Logger>
    <Logger name="RefusedPoints" level="WARN" additivity="false"><AppenderRef ref="points"/></Logger>
    <Logger name="RefusedHistograms" level="WARN" additivity="false"><AppenderRef ref="histograms"/></Logger>
    <Root level="INFO"><AppenderRef ref="console"/></Root>
  </Loggers>
</Configuration>
"""


@dataclass(frozen=True)
class RealProxy:
    """``traces`` and ``metrics`` are URLs; ``quiet_until`` is how much it had said when it was up."""

    traces: str
    metrics: str
    folder: Path
    process: Process
    quiet_until: int

    def refused(self) -> dict[str, list[str]]:
        """Signal -> refused lines since the start; points are all but distributions."""
        lines = {
            kind: list(filter(None, (self.folder / f"refused-{kind}").read_text().split("\n")))
            for kind in ("spans", "points", "histograms")
        }
        logs = [line for line in lines["spans"] if line.startswith("{")]
        return {
            "spans": [line for line in lines["spans"] if not line.startswith("{")],
            "span_logs": logs,
            "points": lines["points"],
            "distributions": lines["histograms"],
        }

    def complaints(self) -> list[str]:
        """Why lines were refused, and everything else that it has logged as a warning or worse since it was up."""
        return [
            line
            for line in self.process.output[self.quiet_until :].split("\n")
            if "blocked input" in line or line.startswith(("WARN ", "ERROR ", "FATAL "))
        ]


@contextmanager
def real_proxy(
    folder: Path,
    jar: Path,
    java: str,
    backend_port: int,
    *,
    options: Callable[[int, Path], Mapping[str, object]] = lambda *_: {},
) -> Iterator[RealProxy]:
    """Both ports are open inside the block; afterwards it has ended.

    ``options`` gives more lines of the proxy's file, for its metrics port and folder.
    """
    traces, metrics = _free_ports(2)
    more = options(metrics, folder)
    (folder / "log4j2.xml").write_text(_LOGGING.format(folder=folder))
    (folder / "buffer").mkdir()
    lines = {
        "server": f"http://127.0.0.1:{backend_port}/api/",
        "token": "00000000-0000-0000-0000-000000000000",
        "proxyname": "real-proxy",
        "ephemeral": "true",
        "buffer": f"{folder}/buffer/b",
        "traceListenerPorts": traces,
        "pushListenerPorts": metrics,
        "flushThreads": 6,
        "pushFlushInterval": _FLUSH_MS,
        "pushBlockedSamples": 1_000_000,
        "blockedSpansLoggerName": "RefusedSpans",
        "blockedPointsLoggerName": "RefusedPoints",
        "blockedHistogramsLoggerName": "RefusedHistograms",
        **more,
    }
    conf = folder / "wavefront.conf"
    conf.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
    command = [
        java, f"-Xms{_HEAP}", f"-Xmx{_HEAP}", "-Djava.net.preferIPv4Stack=true",
        "-Djava.util.logging.manager=org.apache.logging.log4j.jul.LogManager",
        f"-Dlog4j.configurationFile={folder}/log4j2.xml",
        "-jar", str(jar), "-f", str(conf),
    ]  # fmt: skip
    preload = {"LD_PRELOAD": str(_loopback(folder))}
    with Process(command, folder, "proxy", preload) as process:

        def is_open() -> bool:
            assert process.is_running, f"the real proxy ended:\n{process.output}"
            return _answers(traces) and _answers(metrics)

        eventually(is_open, lambda: f"the real proxy's ports:\n{process.output}", START_S)
        assert not _answers(traces, "127.0.0.2"), "the real proxy listens beyond 127.0.0.1"
        said = len(process.output)
        yield RealProxy(
            f"http://127.0.0.1:{traces}", f"http://127.0.0.1:{metrics}", folder, process, said
        )
        # Its exit code after SIGTERM is the JVM's 143.
        process.stop()


def _loopback(folder: Path) -> Path:
    library = folder / "loopback.so"
    compiler = c_compiler()
    assert compiler is not None
    source = str(HERE / "loopback.c")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), source, "-ldl"], check=True
    )
    return library


def c_compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def _free_ports(number: int) -> list[int]:
    """The proxy cannot be asked for any free port."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _answers(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as one:
        one.settimeout(1.0)
        return one.connect_ex((host, port)) == 0
