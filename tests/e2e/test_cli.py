"""The commands as a user types them: real processes, real ports, and what they say when something is wrong."""

import json
import re
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ENVOY, envoy_bodies
from tests.e2e.parts import forwarder, stand_in
from tests.e2e.processes import (
    PATIENCE_S,
    ROOT,
    get_json,
    plain_environment,
    request,
    tracefwd,
)

SECRET = "e2e-51c0ffee-token"
GEN_KEYS = {
    "sent",
    "acked",
    "non_202",
    "connect_errors",
    "p50_ms",
    "p99_ms",
    "max_ms",
    "cpu_s",
}
ID = "00000000-0000-0000-0000-000000000001"
# Nothing listens there: the port is reserved, and below those that are given away.
UNREACHABLE = "http://127.0.0.1:1"
NO_PROXY = ["--proxy-traces", UNREACHABLE, "--proxy-metrics", UNREACHABLE]


def cli(*arguments: str, stdin: bytes = b"", **environment: str) -> tuple[int, str, str]:
    """A command that ends by itself: (exit code, standard output, standard error)."""
    done = subprocess.run(
        tracefwd(*arguments),
        input=stdin,
        capture_output=True,
        timeout=PATIENCE_S,
        cwd=ROOT,
        env=plain_environment() | environment,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def spans_in(body: bytes) -> list[dict[str, Any]]:
    spans: list[dict[str, Any]] = json.loads(body)
    return spans


def recent(body: bytes) -> bytes:
    """A recorded JSON body as if it had been recorded a minute ago, whatever this machine's clock says."""
    now_us = time.time_ns() // 1_000
    newest = max(span["timestamp"] for span in spans_in(body))
    shift = now_us - 60_000_000 - newest

    def moved(match: re.Match[bytes]) -> bytes:
        return match[1] + str(int(match[2]) + shift).encode()

    return re.sub(rb'("timestamp":\s*)(\d{16})', moved, body)


@pytest.fixture
def taken() -> Iterator[str]:
    """HOST:PORT of somebody else."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield "127.0.0.1:{1}".format(*other.getsockname())


# Everything together -----------------------------------------------------------------------------


def test_the_demo_ends_with_a_balanced_ledger() -> None:
    code, out, err = cli("demo", "--seconds", "3", "--rate", "200")
    last = out.splitlines()[-1]
    found = re.fullmatch(r"ledger balanced: received (\d+) = delivered (\d+)", last)
    assert found, out + err
    assert found[1] == found[2]
    assert int(found[1]) == pytest.approx(600, rel=0.2)
    assert (code, err) == (0, "")


def test_gen_reports_in_json_what_run_took(tmp_path: Path) -> None:
    with stand_in(tmp_path) as wavefront, forwarder(tmp_path, wavefront.proxy) as part:
        arguments = ["--rate", "500", "--seconds", "1", "--connections", "4", "--seed", "7"]
        code, out, err = cli("gen", "--to", part.intake, *arguments, "--json")
        report = json.loads(out)
        assert code == 0, err
        assert report.keys() >= GEN_KEYS
        assert report["sent"] == report["acked"] == pytest.approx(500, rel=0.2)
        assert (report["non_202"], report["connect_errors"]) == (0, 0)
        assert 0 < report["p50_ms"] <= report["p99_ms"]
        assert part.delivered(report["sent"])["delivered"] == report["sent"]
        part.stop()
        assert wavefront.totals()["spans"]["accepted"] == report["sent"]
        assert wavefront.refused() == {}


def test_gen_says_so_when_nobody_takes_its_spans() -> None:
    code, out, _ = cli("gen", "--to", UNREACHABLE, "--rate", "50", "--seconds", "0.5", "--json")
    report = json.loads(out)
    assert code == 1
    assert report["acked"] == 0
    assert report["connect_errors"] > 0


def test_emulate_records_every_line_it_takes(tmp_path: Path) -> None:
    record = tmp_path / "record"
    with stand_in(tmp_path, record=record) as wavefront:
        line = f"orders source=s spanId={ID} traceId={ID} application=a service=b 1 2"
        for text in (line, "nonsense"):
            status, _ = request("POST", wavefront.trace_url, body=text.encode() + b"\n")
            assert status == 202
        assert get_json(f"{wavefront.url}/rejects")["samples"][0]["line"] == "nonsense"
    rows = [json.loads(row) for row in record.read_text().splitlines()]
    assert [(row["line"], row["verdict"]) for row in rows] == [
        (line, "accepted"),
        ("nonsense", "rejected"),
    ]


# Looking without sending -------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["istio", "wavefront-proxy"])
def test_convert_prints_exactly_what_run_delivers(profile: str, tmp_path: Path) -> None:
    """Every recorded JSON body and its lines, span logs included."""
    bodies = [recent(path.read_bytes()) for path in envoy_bodies("json")]
    files: list[str] = []
    for number, body in enumerate(bodies):
        file = tmp_path / f"{number}.json"
        file.write_bytes(body)
        files.append(str(file))
    count = sum(len(spans_in(body)) for body in bodies)
    with (
        stand_in(tmp_path) as wavefront,
        forwarder(tmp_path, [*wavefront.proxy, "--profile", profile]) as part,
    ):
        for body in bodies:
            assert part.post(body) == 202
        assert part.delivered(count)["delivered"] == count
        part.stop()
        code, out, err = cli("convert", "--profile", profile, *files)
        assert (code, err) == (0, "")
        delivered = wavefront.lines("spans") + wavefront.lines("span_logs")
        assert len(wavefront.lines("spans")) == count
        assert Counter(out.splitlines()) == Counter(delivered)
        assert wavefront.refused() == {}


def test_convert_reads_standard_input_and_prints_nothing_but_lines() -> None:
    body = (ENVOY / "json-batch-5.json").read_bytes()
    code, out, err = cli("convert", "-", stdin=body)
    assert (code, err, len(out.splitlines())) == (0, "", 5)
    code, out, err = cli("convert", "-", stdin=b"no spans")
    assert (code, out) == (1, "")
    assert "rejected (syntax)" in err


def test_explain_tells_every_field_and_tag_exactly_once() -> None:
    """All recorded JSON bodies as one, against the fields as the standard library reads them."""
    bodies = [spans_in(path.read_bytes()) for path in envoy_bodies("json")]
    spans = [span for body in bodies for span in body]
    code, out, err = cli("explain", "--json", "-", stdin=json.dumps(spans).encode())
    assert (code, err) == (0, "")
    reports = json.loads(out)
    assert len(reports) == len(spans)
    for span, report in zip(spans, reports, strict=True):
        told = Counter((field["path"], field["value"]) for field in report["fields"])
        assert told == Counter(_fields(span))
        assert all(field["fate"] and field["reason"] for field in report["fields"])
        assert report["trace"] == span["traceId"].rjust(len(report["trace"]), "0")


def _fields(span: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in span.items():
        if key in ("tags", "localEndpoint"):
            yield from ((f"{key}.{name}", _text(part)) for name, part in value.items())
        elif key == "annotations":
            yield from ((f"{key}[{index}]", _text(part)) for index, part in enumerate(value))
        else:
            yield key, _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# Configuration -----------------------------------------------------------------------------------


def test_what_print_config_prints_is_valid_and_the_same_again(tmp_path: Path) -> None:
    flags = ["--proxy-traces", "http://p:30000", "--proxy-metrics", "http://p:2878"]
    code, shown, err = cli("print-config", *flags, TRACEFWD_RED__INTERVAL="7s")
    assert (code, err) == (0, "")
    assert "interval: 7s" in shown
    file = tmp_path / "config.yaml"
    file.write_text(shown)
    assert cli("validate", "--config", str(file))[0] == 0
    assert cli("print-config", "--config", str(file)) == (0, shown, "")


@pytest.mark.parametrize("command", ["run", "validate"])
def test_all_mistakes_are_told_at_once_and_nothing_starts(command: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        "reciever: {listen: 127.0.0.1:0}\n"
        "mapping: {profile: istoi}\n"
        "red: {interval: soon}\n"
        "exporter: {targets: [{name: a, kind: proxy, traces: 'ftp://h:1', metrics: ''}]}\n"
        "service: {workers: 0}\n"
    )
    code, out, err = cli(command, "--config", str(file), TRACEFWD_RECEIVER__LISTEN="nowhere")
    assert code == 2
    said = out + err
    for mistake in (
        r"reciever .*line 1.*did you mean receiver\?",
        r"mapping\.profile = 'istoi' .*line 2.*did you mean istio\?",
        r"red\.interval = 'soon' .*line 3.*500ms",
        r"exporter\.targets\[0\]\.traces = 'ftp://h:1' .*http://HOST:30000",
        r"exporter\.targets\[0\]\.metrics .*needs it",
        r"service\.workers = '0' .*from 1 to",
        r"receiver\.listen = 'nowhere' .*TRACEFWD_RECEIVER__LISTEN.*HOST:PORT",
    ):
        assert re.search(mistake, said), f"{mistake} in\n{said}"
    assert "ready" not in said


# What goes wrong outside -------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--listen", "--admin"])
def test_a_taken_port_is_named_with_what_to_do(flag: str, taken: str) -> None:
    ports = {"--listen": "127.0.0.1:0", "--admin": "127.0.0.1:0"} | {flag: taken}
    arguments = [word for pair in ports.items() for word in pair]
    code, out, err = cli("run", *arguments, *NO_PROXY)
    assert (code, out) == (1, "")
    assert f"{taken}: the port is taken" in err
    assert f"another port with {flag} HOST:PORT" in err


def test_a_taken_port_stops_the_stand_in_with_what_to_do(taken: str) -> None:
    code, out, err = cli("emulate", "--listen", taken)
    assert (code, out) == (1, "")
    assert taken in err
    assert "--listen" in err


@pytest.mark.parametrize(("make", "why"), [("none", "No such file"), ("folder", "Is a directory")])
def test_an_unreadable_token_file_is_named_with_what_to_do(
    make: str, why: str, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    if make == "folder":
        token.mkdir()
    code, out, err = cli("run", "--direct", "https://x.example.com", "--token-file", str(token))
    assert (code, out) == (1, "")
    assert f"{str(token)!r}: cannot be read ({why}" in err
    assert "check the path" in err


def test_an_unreachable_proxy_does_not_stop_intake(tmp_path: Path) -> None:
    body = (ENVOY / "json-batch-5.json").read_bytes()
    posts = 3
    count = 2 * posts * len(spans_in(body))
    config: dict[str, Any] = {
        "exporter": {"batch_age_max": "10ms", "retry": {"backoff_base": "50ms"}},
        "service": {"drain_timeout": "1s"},
    }
    with forwarder(tmp_path, NO_PROXY, **config) as part:
        for _ in range(posts):
            assert part.post(body) == 202
        part.process.find(rf"{UNREACHABLE}.*is it up, is the address right\?")
        for _ in range(posts):
            assert part.post(body) == 202
        ledger = part.ledger()
        assert ledger["received"] == ledger["held"] == count
        for path in ("/livez", "/readyz"):
            assert request("GET", part.admin + path)[0] == 200
        part.process.terminate()
        assert part.process.wait() == 0
        # What could not be delivered in time is our doing, and said.
        words = part.logs()[-1]["message"]
    assert words == (
        f"ledger balanced: received {count} = delivered 0 + dropped {count} (drain_budget {count})"
    )


def test_no_secret_is_in_any_output(tmp_path: Path) -> None:
    """A token that is refused, and a password in an HTTP proxy's address."""
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("another-token")
    wrong.write_text(SECRET + "\n")
    said: list[str] = []
    with stand_in(tmp_path, token_file=right) as wavefront:
        target = {
            "name": "primary",
            "kind": "direct",
            "url": wavefront.url,
            "token_file": str(wrong),
        }
        hidden = {**target, "name": "hidden", "role": "tee", "http_proxy": _with_password()}
        config: dict[str, Any] = {
            "exporter": {"targets": [target, hidden], "batch_age_max": "10ms"},
            "service": {"drain_timeout": "1s", "log_level": "debug"},
        }
        with forwarder(tmp_path, [], **config) as part:
            query = b'[{"traceId":"1","id":"2","name":"n","tags":{"http.url":"http://h/?k=%s"}}]'
            assert part.post(query % SECRET.encode()) == 202
            assert part.post(b'[{"traceId":"%s"}]' % SECRET.encode()) == 400
            part.process.find("401")
            for path in ("/config", "/metrics", "/ledger?verbose", "/readyz?verbose", "/rejected"):
                status, page = request("GET", part.admin + path)
                assert status == 200, path
                said.append(page.decode())
            part.process.terminate()
            part.process.wait()
            said.append(part.process.output)
        file = str(tmp_path / "run.yaml")
        for command in (["print-config"], ["print-config", "--origins"], ["validate"]):
            said += cli(*command, "--config", file)[1:]
        said += cli("run", "--config", file, "--token", SECRET)[1:]
    said.append(wavefront.process.output)
    for text in said:
        assert SECRET not in text


def _with_password() -> str:
    return f"http://user:{SECRET}@127.0.0.1:1"
