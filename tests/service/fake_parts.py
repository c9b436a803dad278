"""Parts of a worker that are simple enough to predict: one post is one span, its path says what becomes of it.

``/hold`` keeps it until the drain delivers it, ``/lose`` keeps it and the drain drops it, ``/die`` ends the process
without a word, ``/hang`` blocks the loop for good; on any other path it is delivered.
"""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from tracefwd.errors import StartError
from tracefwd.metrics import Samples
from tracefwd.service.tally import empty_ledger
from tracefwd.service.worker_parts import Parts
from tracefwd.settings import Settings


class FakePipeline:
    def __init__(self) -> None:
        self.shown = empty_ledger()
        self.shown["targets"]["primary"] = {
            signal: empty_ledger() for signal in ("spans", "span_logs", "points", "distributions")
        }
        for part in self.shown["targets"]["primary"].values():
            for name in ("span_logs", "points", "distributions", "targets"):
                del part[name]
        self.lost = 0
        self.ticks = 0

    def count(self, state: str, number: int = 1) -> None:
        for part in (self.shown, self.shown["targets"]["primary"]["spans"]):
            part["received"] += number
            part[state] += number

    def tick(self) -> Iterator[list[Any]]:
        self.ticks += 1
        yield []

    def ledger(self) -> dict[str, Any]:
        return self.shown

    def samples(self) -> Samples:
        return {
            "tracefwd_receiver_accepted_spans_total": {("json_v2",): self.shown["received"]},
            "tracefwd_red_active_series": {(): 3},
        }

    def rejected_samples(self) -> list[dict[str, str]]:
        return [{"at": f"{time.time():.3f}", "reason": "syntax", "pid": str(os.getpid())}]


class FakeReceiver:
    def __init__(self, pipeline: FakePipeline) -> None:
        self.pipeline = pipeline
        self.requests = 0
        self.server: asyncio.Server | None = None

    async def start(self, sock: socket.socket) -> None:
        self.server = await asyncio.start_server(self._serve, sock=sock)

    def drain(self) -> None:
        assert self.server is not None
        self.server.close()

    def leave_port(self) -> None:
        self.drain()

    async def stop(self, linger_s: float) -> None:
        pass

    def samples(self) -> Samples:
        return {"tracefwd_receiver_requests_total": {("202",): self.requests}}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                await reader.readuntil(b"\r\n\r\n")
                self._take(line.split()[1])
                self.requests += 1
                writer.write(
                    f"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nx-pid: {os.getpid()}\r\n\r\n".encode()
                )
        finally:
            writer.close()

    def _take(self, path: bytes) -> None:
        match path:
            case b"/hold":
                self.pipeline.count("held")
            case b"/lose":
                self.pipeline.lost += 1
                self.pipeline.count("held")
            case b"/die":
                os._exit(9)
            case b"/hang":
                time.sleep(3600)
            case _:
                self.pipeline.count("delivered")


class FakeTarget:
    def __init__(self, pipeline: FakePipeline) -> None:
        self.pipeline = pipeline

    async def start(self) -> None:
        pass

    async def drain(self, budget_s: float) -> None:
        for part in (self.pipeline.shown, self.pipeline.shown["targets"]["primary"]["spans"]):
            lost = self.pipeline.lost
            part["delivered"] += part["held"] - lost
            if lost:
                part["dropped"]["drain_budget"] = lost
            part["held"] = 0

    def problems(self) -> list[str]:
        return ["primary: nobody answers"]


def compose(settings: Settings, slot: int = 0) -> Parts:
    pipeline = FakePipeline()
    return Parts(pipeline, FakeReceiver(pipeline), [FakeTarget(pipeline)])


def compose_unreadable_token(settings: Settings, slot: int = 0) -> Parts:
    raise StartError("exporter.targets[0].token_file /run/secrets/wavefront: cannot be read")


def compose_bug(settings: Settings, slot: int = 0) -> Parts:
    raise RuntimeError("a bug")


def compose_dies_at_first(settings: Settings, slot: int = 0) -> Parts:
    """The first worker ever dies before it is ready; ``application_name`` lends us a path to remember that."""
    marker = settings.mapping.application_name
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return compose(settings, slot)
    os._exit(1)


def compose_dies(settings: Settings, slot: int = 0) -> Parts:
    os._exit(1)


class TakesTime(FakeTarget):
    async def drain(self, budget_s: float) -> None:
        if budget_s < 0.1:
            self.pipeline.lost = self.pipeline.shown["held"]
        await super().drain(budget_s)


class NeverStarts(FakeTarget):
    async def start(self) -> None:
        await asyncio.Event().wait()


def compose_first_alone_starts(settings: Settings, slot: int = 0) -> Parts:
    """The others are at it for ever, as where a large spool is taken over."""
    pipeline = FakePipeline()
    target = NeverStarts(pipeline) if slot else TakesTime(pipeline)
    return Parts(pipeline, FakeReceiver(pipeline), [target])
