"""The pipeline in one process, without sockets: decode, map, RED, write and pack, in bouts of sixteen posts.

Run: ``python tests/bench/pipeline.py SECONDS``; pinned to the target's core, prints spans and CPU-seconds as JSON.
Several at once on that core share nothing, so what each then loses is what any processes cost each other there.
"""

import gc
import json
import os
import sys
import time
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.bodies import Traffic
from tests.bench.machine import TARGET_CORE
from tracefwd.exporter.compress import Packer
from tracefwd.exporter.lines import LineWriter
from tracefwd.processor.istio import make_istio_mapper
from tracefwd.processor.red import RedAggregator
from tracefwd.receiver.decode import make_decode
from tracefwd.settings import MappingSettings, RedSettings

_NOW_US = 1_795_400_000_000_000
_BOUT_POSTS = 16
_BATCH_BYTES = 4 * 2**20


def run(seconds: float) -> dict[str, float]:
    envoys = Traffic().envoys(_NOW_US)
    # The Envoys in turn, as at the service.
    bodies = [request.body for turn in zip(*envoys, strict=True) for request in turn]
    bouts = [bodies[at : at + _BOUT_POSTS] for at in range(0, len(bodies), _BOUT_POSTS)]
    decode, map_spans = make_decode(), make_istio_mapper(MappingSettings(), RedSettings())
    red, writer = RedAggregator(RedSettings()), LineWriter()

    def work(bout: list[bytes]) -> tuple[int, list[bytes]]:
        decoded = [decode(body, "application/json") for body in bout]
        mapped = [map_spans(each, _NOW_US).spans for each in decoded]
        spans = [*chain.from_iterable(mapped)]
        red.observe(spans, _NOW_US // 1_000_000)
        return len(spans), [payload.data for payload in writer.write(spans)]

    for bout in bouts:
        work(bout)
    gc.collect()
    gc.freeze()
    spans, size, packer = 0, 0, Packer(packs=True)
    began, end = time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < end:
        for bout in bouts:
            more, written = work(bout)
            spans += more
            for lines in written:
                size += len(lines)
                packer.add(lines)
            if size >= _BATCH_BYTES:
                packer.finish()
                size, packer = 0, Packer(packs=True)
    return {"spans": spans, "cpu_s": time.process_time() - began}


if __name__ == "__main__":
    os.sched_setaffinity(0, {TARGET_CORE})
    print(json.dumps(run(float(sys.argv[1]))))
