"""Restarts, reloads and deaths under load: the real service, the real generator, and the stand-in's counts.

What is read meanwhile balances and never goes backwards; what was acknowledged arrives.
"""

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import ENVOY
from tests.e2e.parts import Forwarder, StandIn, forwarder, stand_in
from tests.e2e.processes import Process, eventually, get_json, request, tracefwd
from tracefwd.service.tally import balance

BODY = (ENVOY / "json-batch-5.json").read_bytes()
SPANS = BODY.count(b'"traceId"')
CONNECTIONS = 16
KILLS = 3
# What a reader may see fall: gauges are no sums over time.
COUNTER = re.compile(r"^(tracefwd_\w+(?:_total|_count|_bucket)(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)


class Reader(threading.Thread):
    """Reads the ledger and the metrics without a pause, and remembers what was wrong."""

    def __init__(self, service: Forwarder) -> None:
        super().__init__()
        self._service = service
        self._stop_wanted = threading.Event()
        self._counters: dict[str, float] = {}
        self.reads = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        received = 0
        while not self._stop_wanted.is_set():
            whole = self._service.ledger()
            balanced, line = balance(whole)
            if not balanced:
                self.wrong.append(line)
            if whole["received"] < received:
                self.wrong.append(f"received fell from {received} to {whole['received']}")
            received = whole["received"]
            self._read_metrics()
            self.reads += 1

    def _read_metrics(self) -> None:
        status, page = request("GET", f"{self._service.admin}/metrics")
        assert status == 200
        now = {name: float(value) for name, value in COUNTER.findall(page.decode())}
        for name, before in self._counters.items():
            if now.get(name, 0.0) < before:
                self.wrong.append(f"{name} fell from {before} to {now.get(name)}")
        self._counters = now

    def end(self) -> None:
        self._stop_wanted.set()
        self.join()


@contextmanager
def read_all_the_time(service: Forwarder) -> Iterator[Reader]:
    reader = Reader(service)
    reader.start()
    try:
        yield reader
    finally:
        reader.end()
    assert reader.reads > 5
    assert reader.wrong == []


class Load:
    """``tracefwd gen`` as a process, until it is told to end."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def end(self) -> dict[str, Any]:
        """Its report, after the last answer."""
        self._process.stop()
        last: dict[str, Any] = json.loads(self._process.output.splitlines()[0])
        return last


@contextmanager
def load(service: Forwarder, folder: Path, *, rate: int = 1_000) -> Iterator[Load]:
    arguments = ["gen", "--to", service.intake, "--rate", str(rate), "--seconds", "600"]
    arguments += ["--connections", str(CONNECTIONS), "--json"]
    with Process(tracefwd(*arguments), folder, "gen") as process:
        before = service.ledger()["received"]
        eventually(lambda: service.ledger()["received"] > before + 200, "the load is on")
        yield Load(process)


def workers(service: Forwarder) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = get_json(f"{service.admin}/ledger?verbose")["workers"]
    return found


def pids(service: Forwarder) -> set[int]:
    return {worker["pid"] for worker in workers(service)}


def says(service: Forwarder, words: str) -> str:
    """The first record of the log with these words."""
    service.process.find(re.escape(words))
    found: str = next(x["message"] for x in service.logs() if words in x["message"])
    return found


def delivered(wavefront: StandIn) -> tuple[int, int]:
    """Spans that arrived, and spans that RED counted."""
    totals = wavefront.totals()
    return totals["spans"]["accepted"], totals["deltas"]["red"]["invocation.count"]


def test_a_rolling_restart_under_load_refuses_and_loses_nothing(tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "service": {"workers": 2, "drain_timeout": "4s"},
        "red": {"interval": "1s"},
    }
    with (
        stand_in(tmp_path) as wavefront,
        forwarder(tmp_path, wavefront.proxy, **config) as service,
    ):
        with load(service, tmp_path) as traffic, read_all_the_time(service):
            before = pids(service)
            service.process.signal(signal.SIGHUP)
            said = says(service, "workers exchanged")
            after = pids(service)
            mark = service.ledger()["received"]
            eventually(lambda: service.ledger()["received"] > mark + 200, "the load is still on")
            report = traffic.end()
        last_words = service.stop()
        spans, invocations = delivered(wavefront)
    assert said == "configuration read again, 2 workers exchanged; changed: nothing"
    assert len(before) == len(after) == 2
    assert not before & after
    acked = report["acked"]
    assert acked == report["scheduled"]
    troubles = ("connect_errors", "non_202", "unanswered", "timeouts", "overflowed")
    assert [report[name] for name in troubles] == [0] * 5
    # All connections were closed and opened again: the exchange was felt, and harmed nobody.
    assert report["connections_opened"] >= 2 * CONNECTIONS
    assert last_words == f"ledger balanced: received {acked} = delivered {acked}"
    assert (spans, invocations) == (acked, acked)


def _kill_and_wait(service: Forwarder, kill: int) -> None:
    os.kill(workers(service)[kill % 2]["pid"], signal.SIGKILL)

    def replaced() -> bool:
        found = workers(service)
        is_counted = sum(worker["restarts"] for worker in found) == kill + 1
        return is_counted and all(worker["ready"] for worker in found)

    eventually(replaced, "the dead worker's successor listens")


def test_a_killed_worker_under_load_costs_what_it_held_and_nobody_is_refused(
    tmp_path: Path,
) -> None:
    config: dict[str, Any] = {
        "service": {"workers": 2, "drain_timeout": "4s"},
        "red": {"interval": "1s"},
    }
    with (
        stand_in(tmp_path) as wavefront,
        forwarder(tmp_path, wavefront.proxy, **config) as service,
    ):
        with load(service, tmp_path) as traffic, read_all_the_time(service):
            for kill in range(KILLS):
                _kill_and_wait(service, kill)
            report = traffic.end()
        whole = service.ledger()
        service.process.terminate()
        assert service.process.wait() == 0, service.process.output
        spans, _ = delivered(wavefront)
    last_words = service.logs()[-1]["message"]
    assert last_words.startswith("ledger balanced: received ")
    # Nobody is refused, and nobody waits in vain: connections of the dead are reset, a post each.
    assert report["connect_errors"] == report["non_202"] == report["timeouts"] == 0
    assert report["unanswered"] <= KILLS * CONNECTIONS
    assert set(whole["dropped"]) <= {"crash"}
    acked = report["acked"]
    # A worker is asked all the time here, so what it did unseen before its death is little.
    unseen = 500 * KILLS
    assert acked - unseen <= whole["received"] <= report["sent"]
    assert acked - unseen - whole["dropped"].get("crash", 0) <= spans <= report["sent"]


NOBODY = ["--proxy-traces", "http://127.0.0.1:1", "--proxy-metrics", "http://127.0.0.1:1"]


def dial(service: Forwarder) -> socket.socket:
    return socket.create_connection((service.host, service.port), timeout=20)


def head(length: int = len(BODY)) -> bytes:
    return f"POST /api/v2/spans HTTP/1.1\r\nhost: t\r\ncontent-length: {length}\r\n\r\n".encode()


def answer(sock: socket.socket) -> str:
    """The head of the next answer, in small letters."""
    got = b""
    while not got.endswith(b"\r\n\r\n"):
        piece = sock.recv(4096)
        assert piece, f"the connection ended after {got!r}"
        got += piece
    return got.decode().lower()


def test_connections_that_wait_in_the_backlog_outlive_their_worker(tmp_path: Path) -> None:
    with stand_in(tmp_path) as wavefront, forwarder(tmp_path, wavefront.proxy) as service:
        (pid,) = pids(service)
        # It accepts no more, so everybody who comes now waits with the kernel.
        os.kill(pid, signal.SIGSTOP)
        waiting = [dial(service) for _ in range(50)]
        for sock in waiting:
            sock.sendall(head() + BODY)
        os.kill(pid, signal.SIGKILL)
        for sock in waiting:
            assert answer(sock).startswith("http/1.1 202 ")
            sock.close()
        assert workers(service)[0]["restarts"] == 1
        service.delivered(50 * SPANS)
        service.process.terminate()
        assert service.process.wait() == 0
        assert delivered(wavefront) == (50 * SPANS, 50 * SPANS)


class TestSigterm:
    def test_serves_on_unready_for_the_pre_stop_delay_then_says_goodbye(
        self, tmp_path: Path
    ) -> None:
        config: dict[str, Any] = {"service": {"pre_stop_delay": "1500ms", "drain_timeout": "3s"}}
        with (
            stand_in(tmp_path) as wavefront,
            forwarder(tmp_path, wavefront.proxy, **config) as service,
            dial(service) as kept,
            dial(service) as in_flight,
        ):
            began = time.monotonic()
            service.process.terminate()
            eventually(
                lambda: request("GET", f"{service.admin}/readyz")[0] == 503, "it is not ready"
            )
            assert time.monotonic() - began < 1.0
            # Whoever comes although it is not ready, is served as ever.
            kept.sendall(head() + BODY)
            assert "connection: close" not in answer(kept)
            assert service.post(BODY) == 202
            service.process.find("draining for at most 3 s")
            assert time.monotonic() - began >= 1.5
            in_flight.sendall(head() + BODY[:1000])
            kept.sendall(head() + BODY)
            assert "connection: close" in answer(kept)
            in_flight.sendall(BODY[1000:])
            assert "connection: close" in answer(in_flight)
            last_words = service.farewell()
            assert time.monotonic() - began < 1.5 + 3 + 3
            count = 4 * SPANS
            assert last_words == f"ledger balanced: received {count} = delivered {count}"
            assert delivered(wavefront) == (count, count)

    def test_a_second_one_cuts_the_delay_and_the_drain_short(self, tmp_path: Path) -> None:
        config: dict[str, Any] = {"service": {"pre_stop_delay": "10m", "drain_timeout": "10m"}}
        with forwarder(tmp_path, NOBODY, **config) as service:
            assert service.post(BODY) == 202
            began = time.monotonic()
            service.process.terminate()
            service.process.find("serving on for 600 s")
            service.process.terminate()
            assert service.process.wait() == 0
            assert time.monotonic() - began < 10
            last_words = service.logs()[-1]["message"]
        assert last_words == (
            f"ledger balanced: received {SPANS} = delivered 0 + dropped {SPANS} (drain_budget {SPANS})"
        )

    def test_during_an_exchange_lets_both_workers_of_the_slot_deliver(self, tmp_path: Path) -> None:
        config: dict[str, Any] = {
            "service": {"workers": 2, "drain_timeout": "4s"},
            "red": {"interval": "1s"},
        }
        with (
            stand_in(tmp_path) as wavefront,
            forwarder(tmp_path, wavefront.proxy, **config) as service,
        ):
            before = pids(service)
            with load(service, tmp_path) as traffic:
                service.process.signal(signal.SIGHUP)
                eventually(lambda: pids(service) != before, "the first successor serves")
                service.process.terminate()
                assert service.process.wait() == 0, service.process.output
                report = traffic.end()
            words = service.logs()[-1]["message"]
            found = re.fullmatch(r"ledger balanced: received (\d+) = delivered (\d+)", words)
            assert found, words
            count = int(found[1])
            # After the end there is nobody to connect to.
            assert report["acked"] == count
            assert delivered(wavefront) == (count, count)


@contextmanager
def _answering(listening: socket.socket) -> Iterator[None]:
    """202 to every request on every connection, and its end."""
    stop = threading.Event()

    def serve() -> None:
        listening.settimeout(0.05)
        while not stop.is_set():
            try:
                client, _ = listening.accept()
            except TimeoutError:
                continue
            with client:
                client.settimeout(5)
                while b"\r\n\r\n" not in client.recv(65_536):
                    pass
                answer = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                client.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class TestSighup:
    def test_takes_over_what_can_change_and_names_what_cannot(self, tmp_path: Path) -> None:
        with (
            stand_in(tmp_path) as wavefront,
            forwarder(
                tmp_path, wavefront.proxy, service={"drain_timeout": "1s", "workers": 1}
            ) as service,
        ):
            assert service.post(BODY) == 202
            config: dict[str, Any] = {
                "service": {"drain_timeout": "2s", "workers": 3, "log_level": "debug"},
                "sampling": {"rate": 0},
            }
            (tmp_path / "run.yaml").write_text(json.dumps(config))
            service.process.signal(signal.SIGHUP)
            said = says(service, "configuration read again")
            assert said.endswith("changed: sampling.rate, service.drain_timeout, service.log_level")
            assert says(service, "needs a restart").startswith("service.workers has changed")
            assert len(pids(service)) == 1
            assert service.post(BODY) == 202
            whole = service.ledger()
            assert (whole["received"], whole["sampled_out"]) == (2 * SPANS, SPANS)
            shown = json.dumps(get_json(f"{service.admin}/config"))
            assert "run.yaml" in shown
            assert service.metric("tracefwd_config_reloads_total", result="applied") == 1
            service.process.terminate()
            assert service.process.wait() == 0

    def test_waits_for_a_slow_target_whatever_the_budget_of_a_stop_is(self, tmp_path: Path) -> None:
        config: dict[str, Any] = {
            "service": {"drain_timeout": "0s"},
            "exporter": {"retry": {"backoff_base": "100ms", "backoff_max": "200ms"}},
        }
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            where = f"http://127.0.0.1:{deaf.getsockname()[1]}"
            flags = ["--proxy-traces", where, "--proxy-metrics", where]
            with forwarder(tmp_path, flags, **config) as service:
                assert service.post(BODY) == 202
                before = pids(service)
                service.process.signal(signal.SIGHUP)
                eventually(lambda: not pids(service) & before, "the successor serves")
                # The old one holds the spans still, and its successor's account stands beside it.
                assert service.ledger()["held"] == SPANS
                with _answering(deaf):
                    service.delivered(SPANS)
                    says(service, "workers exchanged")
                service.process.terminate()
                service.process.wait()
                assert service.logs()[-1]["message"].startswith(
                    f"ledger balanced: received {SPANS} = delivered {SPANS}"
                )

    def test_a_bad_file_touches_nothing_and_is_told(self, tmp_path: Path) -> None:
        with (
            stand_in(tmp_path) as wavefront,
            forwarder(tmp_path, wavefront.proxy, service={"drain_timeout": "1s"}) as service,
        ):
            before = pids(service)
            good = (tmp_path / "run.yaml").read_text()
            (tmp_path / "run.yaml").write_text('{"sampling": {"rat": 0.5}, "red": {"interval": 7}}')
            service.process.signal(signal.SIGHUP)
            said = says(service, "cannot be used")
            assert said.startswith("the configuration cannot be used, the one before it goes on: ")
            assert "sampling.rat" in said
            assert "red.interval" in said
            assert pids(service) == before
            assert service.post(BODY) == 202
            assert service.ledger()["sampled_out"] == 0
            assert service.metric("tracefwd_config_reloads_total", result="refused") == 1
            # And once it is mended, the next one is heard.
            (tmp_path / "run.yaml").write_text(good)
            service.process.signal(signal.SIGHUP)
            says(service, "workers exchanged")
            assert not pids(service) & before

    def test_workers_that_could_not_start_leave_the_old_ones_in_place(self, tmp_path: Path) -> None:
        """What only a worker finds out: the file is there, and holds no certificates."""
        (tmp_path / "token").write_text("t0ken")
        target = {
            "kind": "direct",
            "url": "https://127.0.0.1:1",
            "token_file": str(tmp_path / "token"),
        }
        config: dict[str, Any] = {
            "service": {"drain_timeout": "0s", "workers": 2},
            "red": {"interval": "1h"},
        }
        with forwarder(tmp_path, [], exporter={"targets": [target]}, **config) as service:
            before = pids(service)
            (tmp_path / "ca.pem").write_text("no certificate")
            changed = {"exporter": {"targets": [{**target, "ca_file": str(tmp_path / "ca.pem")}]}}
            (tmp_path / "run.yaml").write_text(json.dumps({**config, **changed}))
            service.process.signal(signal.SIGHUP)
            assert "ca.pem" in says(service, "the configuration cannot be used")
            assert pids(service) == before
            assert service.post(BODY) == 202
            assert service.ledger()["received"] == SPANS
            assert request("GET", f"{service.admin}/readyz")[0] == 200
            assert {worker["restarts"] for worker in workers(service)} == {0}

    def test_exchanged_workers_read_their_rules_anew(self, tmp_path: Path) -> None:
        rules = tmp_path / "rules.yaml"
        block = "'{port}':\n  - {rule: one, action: spanBlock, scope: component, match: MATCH}\n"
        rules.write_text(block.replace("{port}", "9411").replace("MATCH", "no-such"))
        config: dict[str, Any] = {
            "service": {"drain_timeout": "1s"},
            "rules": {"file": str(rules), "port": "9411"},
        }
        with (
            stand_in(tmp_path) as wavefront,
            forwarder(tmp_path, wavefront.proxy, **config) as service,
        ):
            assert service.post(BODY) == 202
            assert service.ledger()["blocked"] == 0
            rules.write_text(block.replace("{port}", "9411").replace("MATCH", "proxy"))
            service.process.signal(signal.SIGHUP)
            says(service, "workers exchanged")
            assert service.post(BODY) == 202
            assert service.ledger()["blocked"] == SPANS
            # A file that cannot be used stops the whole reload, and the rules before it hold.
            rules.write_text("'9411':\n  - {rule: one, action: spanNope}\n")
            service.process.signal(signal.SIGHUP)
            says(service, "the configuration cannot be used")
            assert service.post(BODY) == 202
            assert service.ledger()["blocked"] == 2 * SPANS


def test_the_soft_limit_of_open_files_is_raised_and_told(tmp_path: Path) -> None:
    before = ["prlimit", "--nofile=200:3000"]
    with forwarder(tmp_path, NOBODY, before=before, service={"drain_timeout": "0s"}) as service:
        assert "at most 3000 per process (200 at the start)" in says(service, "open files")
        assert service.metric("tracefwd_open_files_max") == 3000
        for pid in (service.process.pid, *pids(service)):
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert re.search(r"^Max open files +3000 +3000 ", limits, re.MULTILINE), pid
