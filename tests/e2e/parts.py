"""The two commands under test as running parts, each a process: ``tracefwd emulate`` and ``tracefwd run``."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.e2e.processes import Process, eventually, get_json, request, tracefwd

_ANYWHERE = "127.0.0.1:0"


@dataclass(frozen=True)
class StandIn:
    """``url``: metrics port, direct ingestion and queries."""

    url: str
    trace_url: str
    process: Process

    @property
    def proxy(self) -> list[str]:
        return ["--proxy-traces", self.trace_url, "--proxy-metrics", self.url]

    def totals(self) -> dict[str, Any]:
        totals: dict[str, Any] = get_json(f"{self.url}/totals")
        return totals

    def spans(self) -> list[dict[str, Any]]:
        spans: list[dict[str, Any]] = get_json(f"{self.url}/spans?limit=100000")["spans"]
        return spans

    def lines(self, signal: str) -> list[str]:
        query = urlencode({"signal": signal, "limit": 100_000})
        lines: list[str] = get_json(f"{self.url}/lines?{query}")["lines"]
        return lines

    def series(self, prefix: str = "") -> dict[str, list[dict[str, Any]]]:
        rows: dict[str, list[dict[str, Any]]] = get_json(
            f"{self.url}/series?{urlencode({'prefix': prefix})}"
        )
        return rows

    def refused(self) -> dict[str, int]:
        """Refused lines by signal; only those that there are."""
        totals = self.totals()
        signals = ("spans", "span_logs", "points", "distributions")
        return {name: totals[name]["rejected"] for name in signals if totals[name]["rejected"]}


@dataclass(frozen=True)
class Forwarder:
    intake: str
    admin: str
    process: Process

    @property
    def host(self) -> str:
        host = urlsplit(self.intake).hostname
        assert host is not None
        return host

    @property
    def port(self) -> int:
        port = urlsplit(self.intake).port
        assert port is not None
        return port

    @property
    def admin_port(self) -> int:
        port = urlsplit(self.admin).port
        assert port is not None
        return port

    def ledger(self) -> dict[str, Any]:
        ledger: dict[str, Any] = get_json(f"{self.admin}/ledger")
        return ledger

    def delivered(self, spans: int) -> dict[str, Any]:
        """The ledger as soon as nothing of so many received spans is held."""

        def look() -> dict[str, Any] | None:
            ledger = self.ledger()
            return ledger if ledger["received"] >= spans and not ledger["held"] else None

        return eventually(look, lambda: f"{spans} spans received, none held: {self.ledger()}")

    def metric(self, name: str, **labels: str) -> float:
        """One sample of /metrics, 0 if it is not there."""
        wanted = name
        if labels:
            wanted += "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"
        status, page = request("GET", f"{self.admin}/metrics")
        assert status == 200
        found = re.search(rf"^{re.escape(wanted)} (\S+)$", page.decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def post(self, body: bytes, content_type: str = "application/json") -> int:
        headers = {"content-type": content_type}
        return request("POST", f"{self.intake}/api/v2/spans", body=body, headers=headers)[0]

    def logs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.process.output.splitlines()]

    def stop(self) -> str:
        """SIGTERM; its last words, after a look that it left in good order."""
        self.process.terminate()
        return self.farewell()

    def farewell(self) -> str:
        assert self.process.wait() == 0, self.process.output
        logs = self.logs()
        assert not [entry for entry in logs if entry["level"] == "error"], logs
        last: str = logs[-1]["message"]
        return last


@contextmanager
def stand_in(
    folder: Path,
    *,
    version: str = "current",
    token_file: Path | None = None,
    record: Path | None = None,
) -> Iterator[StandIn]:
    arguments = ["--listen", _ANYWHERE, "--trace-listen", _ANYWHERE, "--version", version]
    if token_file is not None:
        arguments += ["--token-file", str(token_file)]
    if record is not None:
        arguments += ["--record", str(record)]
    with Process(tracefwd("emulate", *arguments), folder, "emulate") as process:
        url = process.find(r"listening on (\S+) for metrics")[1]
        trace_url = process.find(r"listening on (\S+) for spans")[1]
        yield StandIn(url, trace_url, process)
        assert process.stop() == 0, process.output


@contextmanager
def forwarder(
    folder: Path,
    flags: Sequence[str],
    *,
    name: str = "run",
    before: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    **config: Any,
) -> Iterator[Forwarder]:
    """Ready inside the block.  ``config``: sections of the configuration file ``name``.yaml.

    ``before``: a command that runs ours, such as ``prlimit``.
    """
    file = folder / f"{name}.yaml"
    # JSON is YAML.
    file.write_text(json.dumps(config))
    arguments = ["run", "--config", str(file), "--listen", _ANYWHERE, "--admin", _ANYWHERE]
    command = [*before, *tracefwd(*arguments, *flags)]
    with Process(command, folder, name, environment) as process:
        ready = process.find(r"ready: intake (https?://\S+) .* admin (http://[^\s\"]+)")
        yield Forwarder(ready[1], ready[2], process)
