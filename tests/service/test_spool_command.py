"""``tracefwd spool``: a spool is shown, checked, written out and sent; a damaged file costs itself alone."""

import asyncio
import errno
import gzip
import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tracefwd.exporter.compress import gzip_or_plain
from tracefwd.service import cli
from tracefwd.settings import SpoolSettings
from tracefwd.spool.disk import Disk
from tracefwd.spool.journal import Journal
from tracefwd.spool.recovered import Recovered
from tracefwd.spool.store import BatchStore

SPANS = [b'"op" source="a" "n"="%d" 1700000000000 1' % n for n in range(6)]
POINT = '"∆tracing.derived.a.b.op.invocation.count" 37 1700000000 source="s"'.encode()


async def _spool(folder: Path) -> None:
    store = BatchStore(
        folder / "batches",
        SpoolSettings(folder="x"),
        wall_ms=lambda: time.time_ns() // 1_000_000 - 90_000,
        complain=lambda *said: None,
    )
    await store.open()
    for lane, lines in (
        ("primary/spans", SPANS[:2]),
        ("primary/spans", SPANS[2:4]),
        ("primary/points", [POINT]),
    ):
        landed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        data = b"".join(line + b"\n" for line in lines)
        store.shelf(lane).put(
            lambda data=data: gzip_or_plain(data),  # type: ignore[misc]
            landed.set_result,
            items=len(lines),
            age_s=0.0,
            size_max=len(data),
            seqs=[],
            maybe_sent=False,
        )
        assert await landed
    await store.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dead worker's batches and journal, and the batches of another one."""
    root = tmp_path / "spool"
    folder = root / "slot-0.1"
    asyncio.run(_spool(folder))
    journal = Journal(
        folder / "journal",
        Disk(),
        lanes=["primary/spans"],
        state=lambda: b"",
        now=time.monotonic,
        bytes_max=2**30,
        recovered=Recovered(folder / "journal"),
        red=False,
    )
    assert journal.start()
    journal.entry(b"", [(0, 1, SPANS[4] + b"\n")], None, 1_700_000_000)
    over = journal.entry(b"", [(0, 1, b"over\n")], None, 1_700_000_000)
    journal.done(0, over, over)
    journal.entry(b"", [(0, 1, SPANS[5] + b"\n")], None, 1_700_000_000)
    assert journal.flush()
    journal.close()
    (root / "lost+found").mkdir()
    return root


def damage(root: Path) -> Path:
    path = min((root / "slot-0.1" / "batches").iterdir())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return path


class Sink(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        packed = self.headers.get("Content-Encoding") == "gzip"
        self.server.lines += (gzip.decompress(body) if packed else body).splitlines()  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Silent."""


@pytest.fixture
def sink() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    server.lines, server.status = [], 202  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_ls_says_what_every_folder_holds(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["spool", "ls", "--spool", str(root), "--json"]) == 0
    [folder] = json.loads(capsys.readouterr().out)
    assert (folder["name"], folder["running"], folder["damaged"]) == ("slot-0.1", False, [])
    spans, points = folder["lanes"]["primary/spans"], folder["lanes"]["primary/points"]
    assert (spans["batches"], spans["lines"], spans["journal_lines"]) == (2, 4, 2)
    assert 90 <= spans["oldest_s"] < 120
    assert (points["batches"], points["lines"], points["journal_lines"]) == (1, 1, 0)
    assert cli.main(["spool", "ls", "--spool", str(root)]) == 0
    shown = capsys.readouterr().out
    assert "slot-0.1  (left behind; journal " in shown
    assert "primary/spans" in shown
    assert shown.endswith("1 folder, 7 lines\n")


def test_a_folder_that_a_worker_holds_is_said_to_be_held(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = Disk()
    lock = disk.lock(root / "slot-0.1" / "lock")
    assert cli.main(["spool", "ls", "--spool", str(root)]) == 0
    assert "slot-0.1  (a worker runs on it" in capsys.readouterr().out
    disk.close(lock)


def test_cat_prints_lines_and_nothing_else(
    root: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert cli.main(["spool", "cat", "--spool", str(root), "--lane", "primary/spans"]) == 0
    assert capfdbinary.readouterr().out.splitlines() == SPANS
    assert cli.main(["spool", "cat", "--spool", str(root)]) == 0
    assert sorted(capfdbinary.readouterr().out.splitlines()) == sorted([*SPANS, POINT])


def test_export_writes_each_signal_for_itself(
    root: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert cli.main(["spool", "export", "--spool", str(root), "--signal", "points"]) == 0
    assert capfdbinary.readouterr().out.splitlines() == [POINT]
    output = tmp_path / "out"
    assert cli.main(["spool", "export", "--spool", str(root), "--output", str(output)]) == 0
    assert (output / "spans.txt").read_bytes().splitlines() == SPANS
    assert (output / "points.txt").read_bytes().splitlines() == [POINT]
    assert (output / "distributions.txt").read_bytes() == b""
    assert cli.main(["spool", "export", "--spool", str(root)]) == 2


def test_verify_finds_damage_and_the_rest_is_still_there(
    root: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert cli.main(["spool", "verify", "--spool", str(root)]) == 0
    assert capfdbinary.readouterr().out == b"3 batches and the journals read, 0 damaged\n"
    damage(root)
    assert cli.main(["spool", "verify", "--spool", str(root)]) == 1
    shown = capfdbinary.readouterr().out.decode()
    assert "slot-0.1/batches/000000000001+" in shown
    assert "the checksum of its data does not fit (2 lines)" in shown
    assert "3 batches and the journals read, 1 damaged" in shown
    assert cli.main(["spool", "cat", "--spool", str(root), "--lane", "primary/spans"]) == 1
    assert capfdbinary.readouterr().out.splitlines() == SPANS[2:]


def test_verify_sees_a_damaged_journal(
    root: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    [path] = (root / "slot-0.1" / "journal").glob("data-*")
    content = bytearray(path.read_bytes())
    content[content.index(SPANS[4])] ^= 1
    path.write_bytes(content)
    assert cli.main(["spool", "verify", "--spool", str(root)]) == 1
    assert b"slot-0.1/journal: 1 places with " in capfdbinary.readouterr().out


def test_a_folder_of_another_user_is_said_to_be_closed(
    root: Path,
    sink: ThreadingHTTPServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = root / "slot-0.1"
    is_dir, listdir, opens = Path.is_dir, os.listdir, os.open

    def ask(path: object) -> None:
        if Path(str(path)) != folder and Path(str(path)).is_relative_to(folder):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", lambda path: ask(path) or is_dir(path))
    monkeypatch.setattr(os, "listdir", lambda path=".": ask(path) or listdir(path))
    monkeypatch.setattr(os, "open", lambda path, *rest: ask(path) or opens(path, *rest))
    assert cli.main(["spool", "ls", "--spool", str(root)]) == 0
    assert "damaged: batches: Permission denied" in capsys.readouterr().out
    assert cli.main(["spool", "verify", "--spool", str(root)]) == 1
    assert cli.main(["spool", "cat", "--spool", str(root)]) == 1
    url = f"http://127.0.0.1:{sink.server_port}"
    target = ["--proxy-traces", url, "--proxy-metrics", url, "--seconds", "1"]
    assert cli.main(["spool", "drain", "--spool", str(root), *target]) == 1
    assert "slot-0.1 cannot be read (Permission denied)" in capsys.readouterr().err


def test_drain_sends_everything_and_removes_it(
    root: Path, sink: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{sink.server_port}"
    target = ["--proxy-traces", url, "--proxy-metrics", url]
    assert cli.main(["spool", "drain", "--spool", str(root), *target]) == 0
    assert sorted(sink.lines) == sorted([*SPANS, POINT])  # type: ignore[attr-defined]
    assert "7 lines delivered, 0 lost, 0 left" in capsys.readouterr().out
    assert not (root / "slot-0.1").exists()
    assert [*root.rglob("*.batch")] == []
    assert cli.main(["spool", "drain", "--spool", str(root), *target]) == 0
    assert "0 lines delivered, 0 lost, 0 left" in capsys.readouterr().out


def test_drain_keeps_what_the_target_does_not_take(
    root: Path, sink: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    sink.status = 503  # type: ignore[attr-defined]
    url = f"http://127.0.0.1:{sink.server_port}"
    target = ["--proxy-traces", url, "--proxy-metrics", url]
    arguments = ["spool", "drain", "--spool", str(root), *target]
    assert cli.main([*arguments, "--seconds", "0.5"]) == 1
    captured = capsys.readouterr()
    assert "0 lines delivered, 0 lost, 7 left" in captured.out
    assert "HTTP 503" in captured.err
    sink.lines.clear()  # type: ignore[attr-defined]
    sink.status = 202  # type: ignore[attr-defined]
    assert cli.main(arguments) == 0
    assert sorted(sink.lines) == sorted([*SPANS, POINT])  # type: ignore[attr-defined]


def test_drain_leaves_running_workers_alone(
    root: Path, sink: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = Disk()
    lock = disk.lock(root / "slot-0.1" / "lock")
    url = f"http://127.0.0.1:{sink.server_port}"
    target = ["--proxy-traces", url, "--proxy-metrics", url]
    assert cli.main(["spool", "drain", "--spool", str(root), *target]) == 1
    assert "slot-0.1: a worker runs on it, left alone" in capsys.readouterr().err
    assert sink.lines == []  # type: ignore[attr-defined]
    disk.close(lock)


def test_a_spool_must_be_named_and_be_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["spool", "ls"]) == 2
    assert "--spool DIR" in capsys.readouterr().err
    assert cli.main(["spool", "ls", "--spool", str(tmp_path / "none")]) == 1
    assert "No such file" in capsys.readouterr().err
    assert cli.main(["spool", "drain", "--spool", str(tmp_path)]) == 2
    assert "nowhere to deliver to" in capsys.readouterr().err
