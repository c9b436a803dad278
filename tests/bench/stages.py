"""Where the microseconds go: each stage of the hot path alone, per span, in one process.

Run: ``python tests/bench/stages.py [--json]``.  Input is ``fixtures/envoy/json-batch-5.json`` (five spans) as
Envoy sent it.  Each figure is the best of several short rounds: noise only ever adds.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import msgspec

from tracefwd.exporter.compress import gzip_or_plain
from tracefwd.exporter.lines import LineWriter
from tracefwd.model import Decoded, Encoding, Span
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.processor.red import RedAggregator
from tracefwd.processor.wavefront_proxy import make_wavefront_proxy_mapper
from tracefwd.receiver.decode import make_decode
from tracefwd.settings import MappingSettings, RedSettings

ENVOY = Path(__file__).parents[1] / "fixtures" / "envoy"
SPANS = 5


def best(run: Callable[[], object], rounds: int = 9, calls: int = 2_000) -> float:
    """Microseconds per span."""
    run()
    times: list[float] = []
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(calls):
            run()
        times.append((time.perf_counter() - begin) / calls)
    return min(times) * 1e6 / SPANS


def stages() -> dict[str, float]:
    body = (ENVOY / "json-batch-5.json").read_bytes()
    proto = (ENVOY / "proto-batch-5.bin").read_bytes()
    now_us = 1_795_400_000_000_000
    decode = make_decode()
    floor = msgspec.json.Decoder(list[Span])
    decoded = decode(body, "application/json")
    # The same spans as a decoder hands them over that proves nothing.
    bare = msgspec.convert(msgspec.to_builtins(decoded.spans), list[Span])
    careful = Decoded(Encoding.JSON_V2, bare)
    istio = make_istio_mapper(MappingSettings(), RedSettings())
    exact = make_wavefront_proxy_mapper(MappingSettings(), RedSettings())
    istio(decoded, now_us)
    spans = istio(decoded, now_us).spans
    slow = istio(careful, now_us).spans
    both = exact(decoded, now_us).spans
    writer = LineWriter()
    red = RedAggregator(RedSettings())
    lines = writer.write(spans)[0].data * 200
    return {
        "decode v2: floor (msgspec alone)": best(lambda: floor.decode(body)),
        "decode v2": best(lambda: decode(body, "application/json")),
        "decode proto3": best(lambda: decode(proto, "application/x-protobuf")),
        "map istio, plain path": best(lambda: istio(decoded, now_us)),
        "map istio, complete path": best(lambda: istio(careful, now_us), calls=500),
        "map wavefront-proxy": best(lambda: exact(decoded, now_us), calls=500),
        "RED": best(lambda: red.observe(spans, now_us // 1_000_000)),
        "write, plain": best(lambda: writer.write(spans)),
        "write, with care": best(lambda: writer.write(slow)),
        "write wavefront-proxy with span logs": best(lambda: writer.write(both)),
        "gzip": best(lambda: gzip_or_plain(lines), calls=5) / 200,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    found = stages()
    if parser.parse_args().json:
        print(json.dumps(found, indent=2))
    else:
        for name, us in found.items():
            print(f"{name:<40} {us:7.2f} us/span")
