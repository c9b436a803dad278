"""A Wavefront for the chaos run, proxy and direct ingestion in one, and whatever takes OTLP over HTTP.

It knows every span, and misbehaves when told to.

It shares no code with tracefwd.  What it takes it remembers by request: which spans, how much RED, and whether and when
the sender was told, because only what the sender may not have heard of, or may not have put down, may come again.
"""

import asyncio
import gzip
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from glob import iglob
from pathlib import Path
from random import Random
from typing import Self

from tests.chaos import otlp_records, truth

# How a request ends.  TAKEN_*: its lines count, whatever the sender learns.
OK, RESET, TAKEN_RESET, BUSY, SLOW_DOWN, TOO_LARGE, DENIED, HOLE, TAKEN_HOLE, DRIP = MODES = (
    "ok",
    "reset",
    "taken, then reset",
    "503",
    "429",
    "413",
    "401",
    "black hole",
    "taken by a black hole",
    "drip",
)
_STATUS = {BUSY: 503, SLOW_DOWN: 429, TOO_LARGE: 413, DENIED: 401}
# A single line that is too large is rejected for good, and rightly: fewer lines than these pass.
TOO_LARGE_LINES = 8
_DRIP_S = 0.02

_SPAN = re.compile(rb' spanId="?([0-9a-f-]{36})"? ')
_DELTA = re.compile(
    rb'"(?:\xe2\x88\x86|\xce\x94)[^"]*\.op-(\d+)\.(invocation|error)\.count" ([0-9.]+) '
)
_DISTRIBUTION = re.compile(rb'!M \d+ ((?:#\d+ [0-9.eE+-]+ )+)"[^"]*\.op-(\d+)\.[^"]*"')
_COUNTS = re.compile(rb"#(\d+) ")
# Of a batch that may be under way, as ``ls`` shows it: NUMBER+BORN+LINES+TARGET+SIGNAL+sent.batch.
_UNDER_WAY = ("slot-*/batches/*+sent.batch", "*/slot-*/batches/*+sent.batch")


@dataclass
class Taken:
    """One request's lines.  ``answered_at`` (monotonic seconds): all of a 2xx was written; None: never.

    ``is_spooled``: they were a batch's of the spool, whose file may outlive the answer: it goes in a thread, after
    whatever else that one has to do.  Of all others the sender has put down what they came to before it sends more.
    ``hung_up_at``: the sender closed the connection and had sent nothing behind it, so it may not have read the answer;
    of a spooled batch: the connection ended, whoever ended it and whatever was sent behind it.
    ``is_piece``: some of its lines were in a request that was too large.  The others may be yet to come.
    """

    is_spooled: bool = False
    hung_up_at: float | None = None
    answered_at: float | None = None
    is_piece: bool = False
    spans: list[int] = field(default_factory=list)
    # By series.
    invocations: Counter[int] = field(default_factory=Counter)
    errors: Counter[int] = field(default_factory=Counter)
    durations: Counter[int] = field(default_factory=Counter)


class Sink:
    """``async with Sink(random, spool) as sink``; ``faults`` are modes to choose from, none: all is well.

    ``spool`` is the senders' folder, in which it looks where a request's lines are from.
    """

    def __init__(self, random: Random, spool: Path | None = None) -> None:
        self._spool = spool
        self.port = 0
        self.faults: tuple[str, ...] = ()
        # How many of the requests fare badly while there are faults.
        self.share = 1.0
        self.used: Counter[str] = Counter()
        self.requests: list[Taken] = []
        # A span's first request, and for those that came again all others.
        self.first: dict[int, int] = {}
        self.again: list[tuple[int, int]] = []
        self.unread: list[bytes] = []
        # Lines that were in requests that were too large, as hashes.
        self._cut: set[int] = set()
        self._random = random
        self._server: asyncio.Server | None = None
        self._calm = asyncio.Event()
        self._calm.set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self.calm()
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    def trouble(self, faults: tuple[str, ...], share: float = 1.0) -> None:
        self.faults, self.share = faults, share
        self._calm.clear()

    def calm(self) -> None:
        """All is well again; what a black hole has swallowed is never answered."""
        self.faults = ()
        self._calm.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        last: list[Taken] = []
        spooled: list[Taken] = []
        try:
            while await self._request(reader, writer, last):
                spooled += [taken for taken in last if taken.is_spooled]
        except (OSError, asyncio.IncompleteReadError):
            # The sender went away, or was killed.
            for taken in last:
                taken.hung_up_at = time.monotonic()
        finally:
            for taken in spooled:
                taken.hung_up_at = time.monotonic()
            self._writers.discard(writer)
            writer.transport.abort()

    async def _request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, last: list[Taken]
    ) -> bool:
        """Whether the connection goes on; ``last`` is what came in its last request, if that was taken."""
        first = await reader.readexactly(1)
        last.clear()
        head = first + await reader.readuntil(b"\r\n\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:-2])
        }
        mode = OK
        if self.faults and self._random.random() < self.share:
            mode = self._random.choice(self.faults)
        if mode == RESET:
            self.used[mode] += 1
            return False
        body = await _body(reader, headers)
        if headers.get(b"content-encoding") == b"gzip":
            body = gzip.decompress(body)
        records = None
        if headers.get(b"content-type") == b"application/x-protobuf":
            records = otlp_records.records(head.split(b" ", 2)[1], body)
        lines = body.split(b"\n") if records is None else [each.whole for each in records]
        if mode == TOO_LARGE and len(lines) <= TOO_LARGE_LINES:
            mode = OK
        self.used[mode] += 1
        if mode == TOO_LARGE:
            self._cut.update(map(hash, lines))
            self._cut.discard(hash(b""))
        if mode in _STATUS:
            return await _say(writer, _STATUS[mode])
        if mode == HOLE:
            await self._calm.wait()
            return False
        taken = self._take(body) if records is None else self._take_records(records)
        taken.is_spooled = self._is_spooled(sum(map(bool, lines)))
        last.append(taken)
        if mode == TAKEN_HOLE:
            await self._calm.wait()
        if mode in (TAKEN_HOLE, TAKEN_RESET):
            return False
        await _say(writer, 202, drips=mode == DRIP)
        taken.answered_at = time.monotonic()
        return True

    def _is_spooled(self, lines: int) -> bool:
        """Whether a batch of so many lines is under way; another one may have as many, which is seldom."""
        return self._spool is not None and any(
            Path(path).name.split("+")[2] == str(lines)
            for pattern in _UNDER_WAY
            for path in iglob(str(self._spool / pattern))  # noqa: PTH207 - which raises for a folder that goes
        )

    def _take(self, body: bytes) -> Taken:
        lines = body.split(b"\n")
        taken = self._begin(lines)
        for line in lines:
            if not line or line.startswith(b"{") or b"component.heartbeat" in line:
                continue
            if match := _SPAN.search(line):
                self._note_span(taken, int(match[1].replace(b"-", b""), 16))
            elif match := _DELTA.match(line):
                counts = taken.invocations if match[2] == b"invocation" else taken.errors
                counts[int(match[1])] += int(float(match[3]))
            elif match := _DISTRIBUTION.match(line):
                taken.durations[int(match[2])] += sum(map(int, _COUNTS.findall(match[1])))
            elif b".total_time.millis.count" not in line:
                self.unread.append(line[:200])
        return taken

    def _take_records(self, records: list[otlp_records.Record]) -> Taken:
        taken = self._begin([each.whole for each in records])
        for each in records:
            if each.kind == "spans":
                self._note_span(taken, each.number)
            elif each.kind == "calls":
                # An operation's calls are in two sums, of its errors and of the others.
                taken.invocations[each.number] += each.count
                if each.is_error:
                    taken.errors[each.number] += each.count
            elif each.kind == "durations":
                taken.durations[each.number] += each.count
            else:
                self.unread.append(each.kind.encode())
        return taken

    def _begin(self, lines: list[bytes]) -> Taken:
        taken = Taken()
        self.requests.append(taken)
        taken.is_piece = not self._cut.isdisjoint(map(hash, lines))
        return taken

    def _note_span(self, taken: Taken, span_id: int) -> None:
        span, number = truth.number_of(span_id), len(self.requests) - 1
        taken.spans.append(span)
        if self.first.setdefault(span, number) != number or taken.spans.count(span) > 1:
            self.again.append((span, number))


async def _body(reader: asyncio.StreamReader, headers: dict[bytes, bytes]) -> bytes:
    if headers.get(b"transfer-encoding") != b"chunked":
        return await reader.readexactly(int(headers.get(b"content-length", b"0")))
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return body


async def _say(writer: asyncio.StreamWriter, status: int, *, drips: bool = False) -> bool:
    answer = b"HTTP/1.1 %d chaos\r\nContent-Length: 0\r\n\r\n" % status
    for start in range(0, len(answer), 4) if drips else (0,):
        writer.write(answer[start : start + 4] if drips else answer)
        await writer.drain()
        if drips:
            await asyncio.sleep(_DRIP_S)
    return True
