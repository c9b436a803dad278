"""The doctor's list as a whole, and what it says of this machine: files, ports, open files, the spool."""

import asyncio
import errno
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from tests.service.answering import (
    accepting,
    answering,
    crosses,
    found,
    loaded,
    no_proxies,
    of,
    proxy,
)
from tests.service.exporters import Authority, answer, exporter
from tests.spool.faulty_disk import FaultyDisk
from tracefwd.emulator.server import Emulator, EmulatorSettings
from tracefwd.generator import federation
from tracefwd.service import cli, doctor_certificate, doctor_listen, doctor_machine
from tracefwd.service.doctor import DoctorOptions, examine
from tracefwd.service.doctor_findings import MACHINE, Finding, Mark, as_json, as_text
from tracefwd.service.doctor_holder import Holder, holder_of
from tracefwd.spool.disk import Disk

ROOT = Path(__file__).parents[2]
FEDERATED = federation.federated(60.0, time.time_ns() // 1_000_000)
SECRET = "s3cret-t0ken-of-nobody-1"
FREE = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HTTP proxies of this machine; and the process's logs are the tests'."""
    import tracefwd.service.logs as module

    no_proxies(monkeypatch)
    monkeypatch.setattr(module, "setup", lambda *_: None)


async def doctor(*arguments: str) -> int:
    """The command in a thread of its own, so that this one can answer it."""
    return await asyncio.to_thread(cli.main, ["doctor", *FREE, *arguments])


def rows(text: str) -> list[tuple[str, str, str, str, str]]:
    """The list as it was printed, read back: part, mark, check, detail, advice."""
    part, read = "", []
    signs = {"✓": "ok", "!": "warning", "-": "skipped", "✗": "cross"}
    for line in text.splitlines()[:-1]:
        if line.startswith("      → "):
            read[-1] = (*read[-1][:4], line[8:])
        elif line.startswith("  "):
            check, _, detail = line[4:].partition(": ")
            read.append((part, signs[line[2]], check, detail, ""))
        else:
            part = line
    return read


# --- the command -----------------------------------------------------------------------------


async def test_without_a_cross_it_exits_0_and_json_says_what_the_text_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with answering(accepting) as url:
        targets = ["--proxy-traces", url, "--proxy-metrics", url]
        assert await doctor(*targets) == 0
        text = capsys.readouterr().out
        assert await doctor(*targets, "--json") == 0
        tree = json.loads(capsys.readouterr().out)
    told = [
        (row["part"], row["mark"], row["check"], row["detail"], row["advice"])
        for row in tree["checks"]
    ]
    timeless = [re.sub(r"in [\d.]+ms", "in ms", repr(row)) for row in told]
    assert timeless == [re.sub(r"in [\d.]+ms", "in ms", repr(row)) for row in rows(text)]
    assert tree["fine"] is True
    assert tree["counts"]["cross"] == 0
    assert sum(tree["counts"].values()) == len(told)
    assert text.splitlines()[-1].endswith("0 crosses")


async def test_a_cross_exits_1_and_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    assert await doctor("--proxy-traces", url, "--proxy-metrics", url) == 1
    out = capsys.readouterr().out
    assert f"✗ port 127.0.0.1:{port}: connection refused\n      → " in out
    assert out.splitlines()[-1].endswith("1 cross")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_configuration_that_cannot_be_used_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"red: {{intervall: 5s}}\nservice: {{workers: {SECRET}}}\n")
    flags = ["--json"] if as_json else []
    assert cli.main(["doctor", "--config", str(file), *flags]) == 2
    out = capsys.readouterr().out
    assert "did you mean interval?" in out
    assert "nothing else was looked at" in out
    # A misspelt key, a wrong type, no target.
    assert len(json.loads(out)["checks"]) if as_json else out.count("✗") == 3


async def test_a_fault_of_our_own_is_a_cross_and_hides_no_other_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> list[Finding]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(doctor_machine, "spool", broken)
    async with answering(accepting) as url:
        findings = await found(loaded(proxy(url)))
    assert crosses(findings) == ["spool"]
    assert "RuntimeError" in of(findings, "spool").detail
    assert of(findings, "spans").mark is Mark.OK
    assert "a bug" in caplog.text


async def test_no_secret_is_in_its_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = tmp_path / "token"
    token.write_text(SECRET)
    emulator = Emulator(EmulatorSettings(listen="127.0.0.1:0", token="another-" + SECRET))
    await emulator.start()
    try:
        url = emulator.url.replace("http://", f"http://user:{SECRET}@")
        for more in ([], ["--json"]):
            assert await doctor("--direct", url, "--token-file", str(token), *more) in (1, 2)
            told = capsys.readouterr()
            assert SECRET not in told.out + told.err
        assert await doctor("--direct", emulator.url, "--token-file", str(token)) == 1
        told = capsys.readouterr()
        assert SECRET not in told.out + told.err
        assert "HTTP 401" in told.out
    finally:
        await emulator.stop()


def test_a_terminal_without_signs_gets_words() -> None:
    findings = [Finding("p", "c", mark, "d", "do") for mark in Mark]
    delta = [Finding("p", "c", Mark.OK, "∆")]
    assert "\\u2206" in as_text(delta, signs=False, colour=False)
    assert json.loads(as_json(delta, signs=False))["checks"][0]["detail"] == "∆"
    assert as_json(delta, signs=False).isascii()
    text = as_text(findings, signs=False, colour=False)
    assert text.isascii()
    assert "  bad  c: d\n      do: do" in text
    assert "\x1b[31m✗" in as_text(findings, signs=True, colour=True)


def test_strangers_words_cannot_drive_a_terminal() -> None:
    finding = Finding("p", "c", Mark.OK, "a\x1b[2Jb\u202ec\nd")
    for text in (as_json([finding], signs=True), as_text([finding], signs=True, colour=False)):
        assert "\x1b" not in text
        assert "\u202e" not in text


def test_a_low_limit_of_open_files_is_a_cross() -> None:
    command = f"ulimit -n 256; exec {sys.executable} -m tracefwd doctor --json"
    targets = ["--proxy-traces", "http://127.0.0.1:1", "--proxy-metrics", "http://127.0.0.1:1"]
    done = subprocess.run(
        ["sh", "-c", f'{command} "$@"', "sh", *FREE, *targets],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, b"")
    findings = [
        Finding(row["part"], row["check"], Mark(row["mark"]), row["detail"], row["advice"])
        for row in json.loads(done.stdout)["checks"]
    ]
    assert crosses(findings) == ["open files", "port 127.0.0.1:1"]
    assert "256" in of(findings, "open files").detail
    assert "receiver.connections_max to 192" in of(findings, "open files").advice


# --- listening addresses ---------------------------------------------------------------------


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def listens(**options: Any) -> list[Finding]:
    return await doctor_listen.listening(loaded(proxy("http://h"), **options).settings, 2.0)


async def test_a_port_that_a_stranger_holds_is_a_cross_that_names_it(taken: int) -> None:
    intake, admin = await listens(receiver__listen=f"127.0.0.1:{taken}")
    assert admin.mark is Mark.OK
    assert intake.mark is Mark.CROSS
    assert f"process {os.getpid()}" in intake.detail
    assert "--listen HOST:PORT" in intake.advice


@pytest.mark.parametrize("is_tracefwd", [True, False])
async def test_where_nobody_may_see_the_process_the_admin_port_tells(
    taken: int, monkeypatch: pytest.MonkeyPatch, is_tracefwd: bool
) -> None:
    monkeypatch.setattr(doctor_listen, "holder_of", lambda _: None)
    pages = {
        "/metrics": b"tracefwd_build_info 1\n" if is_tracefwd else b"up 1\n",
        "/readyz?verbose": b"ready\nworker 0: listens\n",
    }
    async with exporter(lambda head: answer(pages[head.split(" ")[1]])) as server:
        admin = server.url.removeprefix("http://")
        found = await listens(receiver__listen=f"127.0.0.1:{taken}", admin__listen=admin)
        assert server.targets == list(pages)[: 1 + is_tracefwd]
    assert [each.mark for each in found[:2]] == [Mark.OK if is_tracefwd else Mark.CROSS] * 2
    assert ("a tracefwd answers at the admin port" in found[0].detail) == is_tracefwd
    assert [each.detail for each in found[2:]] == ["ready, without a problem"] * is_tracefwd


@pytest.mark.parametrize(
    ("said", "mark", "words"),
    [
        (
            answer(
                b"ready\nworker 0: listens\nworker 0: primary does not take spans (does not count)\n"
            ),
            Mark.WARNING,
            "ready; worker 0: primary does not take spans",
        ),
        (answer(b"not ready\n", status="503 Service Unavailable"), Mark.CROSS, "not ready"),
    ],
)
async def test_what_the_running_tracefwd_says_of_itself_is_told(
    tmp_path: Path, said: bytes, mark: Mark, words: str
) -> None:
    with named_tracefwd(tmp_path, [_LISTENS]) as (_, port):
        async with exporter(said) as server:
            admin = server.url.removeprefix("http://")
            found = await listens(receiver__listen=f"127.0.0.1:{port}", admin__listen=admin)
    assert (found[-1].check, found[-1].mark) == ("running tracefwd", mark)
    assert words in found[-1].detail


@contextmanager
def named_tracefwd(folder: Path, lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Process and port of a script of that name, which prints its port: all that is looked at is who listens."""
    script = folder / "tracefwd"
    script.write_text("\n".join(lines))
    command = [sys.executable, str(script), "run"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.stdin.close()


_LISTENS = (
    'import socket, sys; server = socket.create_server(("127.0.0.1", 0));'
    "print(server.getsockname()[1], flush=True); sys.stdin.read()"
)


async def test_a_port_that_a_tracefwd_holds_is_fine(tmp_path: Path) -> None:
    with named_tracefwd(tmp_path, [_LISTENS]) as (pid, port):
        intake, *_ = await listens(receiver__listen=f"127.0.0.1:{port}")
    assert intake.mark is Mark.OK
    assert f"held by a tracefwd that runs here (tracefwd run, process {pid})" in intake.detail


def test_a_worker_of_a_tracefwd_is_known_by_its_parent(tmp_path: Path) -> None:
    spawns = ["import subprocess, sys", f"subprocess.run([sys.executable, '-c', '{_LISTENS}'])"]
    with named_tracefwd(tmp_path, spawns) as (pid, port):
        assert holder_of(port) == Holder(pid, "tracefwd run")


def test_every_address_of_run_is_looked_at() -> None:
    more = {
        "receiver__trace_listen": "127.0.0.1:0",
        "receiver__otlp__http__listen": "127.0.0.1:0",
        "receiver__otlp__grpc__listen": "127.0.0.1:0",
    }
    options = [
        name for name, _, _ in doctor_listen.addresses(loaded(proxy("http://h"), **more).settings)
    ]
    assert options == [
        "receiver.listen",
        "receiver.trace_listen",
        "receiver.otlp.http.listen",
        "receiver.otlp.grpc.listen",
        "admin.listen",
    ]


# --- certificates of our own -----------------------------------------------------------------


def test_certificates_of_our_own_are_looked_at(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    pairs = {name: authority.issue(name, days=days) for name, days in (("a", 90), ("b", 1))}
    old = authority.issue("c", days=-1)
    target = proxy("https://h", cert_file=str(old[0]), key_file=str(old[1]))
    (tmp_path / "token").write_text("t")
    more = {
        f"{part}__tls__{kind}_file": str(pairs[name][index])
        for part, name in (("receiver", "a"), ("admin", "b"))
        for index, kind in enumerate(("cert", "key"))
    }
    more["receiver__tls__key_file"] = str(pairs["b"][1])
    findings = list(doctor_certificate.own(MACHINE, loaded(target, **more).settings))
    assert [each.mark for each in findings] == [Mark.CROSS, Mark.WARNING, Mark.CROSS]
    for each, words in zip(findings, ("with its key", "in 1 days", "has ended"), strict=True):
        assert words in each.detail
    more["receiver__tls__key_file"] = str(pairs["a"][1])
    good = next(doctor_certificate.own(MACHINE, loaded(target, **more).settings))
    assert good.mark is Mark.OK
    assert "in 90 days" in good.detail


def test_a_certificates_end_is_what_openssl_reads(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    for days in (2, 90, 365 * 40):  # the last is written with four digits of the year
        cert, _ = authority.issue("x", days=days)
        told = subprocess.run(
            ["openssl", "x509", "-in", cert, "-noout", "-enddate"], capture_output=True, check=True
        )
        ends = told.stdout.decode().partition("=")[2].strip()
        der = ssl.PEM_cert_to_DER_cert(cert.read_text())
        assert doctor_certificate.ends_at(der) == ssl.cert_time_to_seconds(ends)
    for size in range(0, len(der) // 2, 7):
        with pytest.raises(ValueError, match="cut short"):
            doctor_certificate.ends_at(der[:size])


# --- the spool -------------------------------------------------------------------------------


def spooled(folder: Path, disk: Disk | None = None, **spool: Any) -> list[Finding]:
    settings = loaded(proxy("http://h"), spool__folder=str(folder), **spool).settings
    return doctor_machine.spool(settings, disk or Disk())


def test_a_spool_that_can_be_written_is_a_tick_and_is_left_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    findings = spooled(folder, spool__bytes_max="1MiB", exporter__batch_bytes_max="1MiB")
    assert [each.mark for each in findings] == [Mark.OK, Mark.OK]
    assert "a sync takes" in findings[0].detail
    assert list(tmp_path.iterdir()) == []
    folder.mkdir(parents=True)
    (folder / "held").write_text("lines")
    spooled(folder)
    assert [path.name for path in folder.iterdir()] == ["held"]


def test_a_spool_below_a_file_is_a_cross(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (cross,) = spooled(tmp_path / "file" / "spool")
    assert cross.mark is Mark.CROSS
    assert "Not a directory" in cross.detail
    assert "fsGroup" in cross.advice


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_read_only_or_full_disk_is_a_cross(tmp_path: Path, error: int) -> None:
    disk = FaultyDisk()
    disk.fail(error)
    (cross,) = spooled(tmp_path / "spool", disk)
    assert cross.mark is Mark.CROSS
    assert os.strerror(error) in cross.detail
    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_may_grow_beyond_its_disk_is_a_warning(tmp_path: Path) -> None:
    _, room = spooled(tmp_path, spool__bytes_max="512TiB")
    assert room.mark is Mark.WARNING
    assert "lower spool.bytes_max" in room.advice


async def test_a_disk_that_hangs_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    import threading

    released = threading.Event()

    class Hanging(Disk):
        def make_folder(self, folder: Path) -> None:
            released.wait(30)

    async with answering(accepting) as url:
        settings = loaded(proxy(url), spool__folder=str(tmp_path / "spool"))
        options = DoctorOptions(timeout_s=0.05, sends=True, proxy_conf=None, json=False)
        try:
            findings = await asyncio.wait_for(examine(settings, options, Hanging()), 5)
        finally:
            released.set()
    assert "spool" in crosses(findings)
    assert "a disk or a name server hangs" in of(findings, "spool").advice


# --- scraped sources -------------------------------------------------------------------------


async def source_findings(url: str, **more: Any) -> list[Finding]:
    source = {"url": url, **more}
    async with answering(accepting) as target:
        findings = await found(loaded(proxy(target), prometheus_sources=[source]))
    return [each for each in findings if each.part.startswith("source ")]


async def test_a_source_with_istios_metrics_is_a_tick() -> None:
    async with exporter(answer(FEDERATED.encode())) as server:
        findings = await source_findings(f"{server.url}/federate")
    assert crosses(findings) == []
    assert re.search(r"[1-9]\d* names of Istio's", of(findings, "scrape").detail)


@pytest.mark.parametrize(
    ("said", "detail", "advice"),
    [
        (answer(b"# TYPE up untyped\nup 1\n"), "0 names of Istio's", "match[]"),
        (answer(b""), "no sample", "match[]"),
        (answer(status="401 Unauthorized"), "HTTP 401", "credentials"),
        (answer(status="404 Not Found"), "HTTP 404", "/federate"),
        (answer(content_type="text/html"), "text/html", "path of the URL"),
    ],
)
async def test_a_source_that_brings_nothing_of_istio_is_a_cross(
    said: bytes, detail: str, advice: str
) -> None:
    async with exporter(said) as server:
        findings = await source_findings(f"{server.url}/federate")
    assert crosses(findings) == ["scrape"]
    assert detail in of(findings, "scrape").detail
    assert advice in of(findings, "scrape").advice


async def test_a_source_that_is_not_there_is_a_cross() -> None:
    findings = await source_findings("http://127.0.0.1:1/federate")
    assert crosses(findings) == ["port 127.0.0.1:1"]
    assert "Prometheus" in of(findings, "port").advice


async def test_a_filter_that_leaves_nothing_is_a_cross() -> None:
    filters = {"metricAllowList": ["nothing.of.this"]}
    async with exporter(answer(FEDERATED.encode())) as server:
        findings = await source_findings(f"{server.url}/federate", filters=filters)
    assert "tracefwd metrics check" in of(findings, "scrape").advice


async def test_a_sources_clock_is_looked_at_where_the_target_tells_none() -> None:
    body = FEDERATED.encode()
    for ahead_s, mark in ((0, Mark.OK), (3600, Mark.CROSS)):
        date = formatdate(time.time() + ahead_s, usegmt=True)
        async with exporter(answer(body, Date=date)) as server:
            findings = await source_findings(f"{server.url}/federate")
        assert of(findings, "clock").mark is mark
