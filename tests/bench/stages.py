"""Where the microseconds go: each stage of the hot path alone, per span, in one process, against what libraries set.

Run: ``python tests/bench/stages.py [--json FILE]``.  Input are 200 different posts of five spans, the same for all.
Each figure is the best of several short rounds, in CPU time, the stages in turn: noise only ever adds.  A "floor" does
with a library alone what its stage cannot do without: it parses, or packs, and nothing else.

Under load the same code takes longer than here: between two posts the kernel has been at work in the same caches.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[2]))

import httptools
import msgspec

from tests.bench import harness
from tests.bench.bodies import Traffic
from tests.bench.harness import Result
from tracefwd.doorways import Answer, Post
from tracefwd.exporter.compress import gzip_or_plain
from tracefwd.exporter.lines import LineWriter
from tracefwd.model import Decoded, Encoding, Span
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.processor.red import RedAggregator
from tracefwd.processor.wavefront_proxy import make_wavefront_proxy_mapper
from tracefwd.receiver.decode import make_decode
from tracefwd.receiver.handler import Handlers, zipkin_handlers
from tracefwd.receiver.http_connection import Connection
from tracefwd.receiver.intake import Intake
from tracefwd.settings import MappingSettings, ReceiverSettings, RedSettings

POSTS, POST_SPANS = 200, 5
# What a turn of the loop finds at the limit with 32 connections, about.
_BOUT_POSTS = 16
_NOW_US = 1_795_400_000_000_000

Stage = Callable[[], object]
"""Does its work for all posts once."""


class _Requests:
    """The same posts in one encoding: as they go over the wire, and their bodies."""

    def __init__(self, encoding: str, posts: int) -> None:
        traffic = Traffic(encoding, connections=min(8, posts), spans=posts * POST_SPANS)
        requests = [request for envoy in traffic.envoys(_NOW_US) for request in envoy]
        self.wire = [request.data for request in requests]
        self.bodies = [request.body for request in requests]


class _Wire:
    """A transport that takes everything; nothing else is asked of it on the usual path."""

    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, _name: str, default: object = None) -> object:
        return default


class _Floor:
    """A parser's callbacks that only gather the body."""

    def __init__(self) -> None:
        self.feed = httptools.HttpRequestParser(self).feed_data

    def on_body(self, body: bytes) -> None: ...

    def on_message_complete(self) -> None: ...


def stages(posts: int) -> dict[str, Stage]:
    """To be called, and run, inside a running loop."""
    v2, v1, proto3 = (_Requests(encoding, posts) for encoding in ("v2", "v1", "proto3"))
    decode = make_decode()
    floor = msgspec.json.Decoder(list[Span])
    istio = make_istio_mapper(MappingSettings(), RedSettings())
    exact = make_wavefront_proxy_mapper(MappingSettings(), RedSettings())
    plain = [decode(body, "application/json") for body in v2.bodies]
    # The same spans as a decoder hands them over that proves nothing.
    careful = [Decoded(Encoding.JSON_V2, floor.decode(body)) for body in v2.bodies]
    for decoded in plain:
        istio(decoded, _NOW_US)
    mapped = [istio(decoded, _NOW_US).spans for decoded in plain]
    slow = [istio(decoded, _NOW_US).spans for decoded in careful]
    both = [exact(decoded, _NOW_US).spans for decoded in plain]
    writer, red = LineWriter(), RedAggregator(RedSettings())
    lines = b"".join(payload.data for spans in mapped for payload in writer.write(spans))
    http_floor, http = _Floor(), _connections()

    def each(act: Callable[[Any], object], items: list[Any]) -> Stage:
        def run() -> None:
            for item in items:
                act(item)

        return run

    return {
        "HTTP: floor (httptools alone)": each(http_floor.feed, v2.wire),
        "HTTP": each(http, v2.wire),
        "decode v2: floor (msgspec alone)": each(floor.decode, v2.bodies),
        "decode v2": each(lambda body: decode(body, "application/json"), v2.bodies),
        "decode v1": each(lambda body: decode(body, "application/json"), v1.bodies),
        "decode proto3": each(lambda body: decode(body, "application/x-protobuf"), proto3.bodies),
        "map istio, plain path": each(lambda decoded: istio(decoded, _NOW_US), plain),
        "map istio, complete path": each(lambda decoded: istio(decoded, _NOW_US), careful),
        "map wavefront-proxy": each(lambda decoded: exact(decoded, _NOW_US), plain),
        "RED": each(lambda spans: red.observe(spans, _NOW_US // 1_000_000), mapped),
        "write, plain": each(writer.write, mapped),
        "write, with care": each(writer.write, slow),
        "write wavefront-proxy with span logs": each(writer.write, both),
        "gzip": lambda: gzip_or_plain(lines),
    }


def _connections() -> Callable[[bytes], None]:
    """A receiver's connections, which answer at once and hand their bodies to nobody; sockets are not in it.

    Posts come to each of sixteen in turn, and are answered together, as after a turn of the loop at the limit.
    """
    accepted = Answer(202)

    def take(_body: bytes, _content_type: str) -> Answer:
        return accepted

    def take_all(posts: Sequence[Post]) -> list[Answer]:
        return [accepted] * len(posts)

    intake = Intake(ReceiverSettings(), Handlers(zipkin_handlers([], take, take_all)))
    connections = [Connection(intake, retire_at=float("inf")) for _ in range(_BOUT_POSTS)]
    for connection in connections:
        connection.connection_made(cast("asyncio.BaseTransport", _Wire()))
    turns = cycle(connections)

    def feed(data: bytes) -> None:
        connection = next(turns)
        connection.data_received(data)
        if connection is connections[-1]:
            intake.serve_gathered()

    return feed


async def measure_us(rounds: int, calls: int, posts: int = POSTS) -> dict[str, float]:
    """Microseconds per span of each stage: the best of ``rounds``, each of ``calls`` times all posts."""
    found = stages(posts)
    best = dict.fromkeys(found, float("inf"))
    for _ in range(rounds + 1):
        for name, stage in found.items():
            begin = time.process_time()
            for _ in range(calls):
                stage()
            best[name] = min(best[name], time.process_time() - begin)
            # What the connection has asked the loop for.
            await asyncio.sleep(0)
    return {name: us * 1e6 / calls / (posts * POST_SPANS) for name, us in best.items()}


def measure(args: argparse.Namespace) -> Result:
    found = asyncio.run(measure_us(args.rounds, calls=10))
    result = Result("stages", {name: [{"us/span": us}] for name, us in found.items()})
    usual = ("HTTP", "decode v2", "map istio, plain path", "RED", "write, plain", "gzip")
    total = sum(found[name] for name in usual)
    result.notes = [f"{' + '.join(usual)} = {total:.1f} us/span, without the kernel"]
    return result


def arguments() -> argparse.ArgumentParser:
    return harness.parser(__doc__, seconds=0.0, rounds=15)


if __name__ == "__main__":
    sys.exit(harness.command(arguments(), measure))
