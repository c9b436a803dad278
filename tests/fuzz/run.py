"""Throws mutated bytes at the intake for as long as you like.

``python tests/fuzz/run.py --seconds 600`` tries every target in turn; ``--target NAME`` one of them, ``--seed N``
repeats a run.  An input that breaks a promise is written to ``tests/fuzz/corpus/TARGET/found-...``, where every test
run replays it from then on, and ends the run with exit code 1.
"""

import argparse
import hashlib
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from random import Random
from types import FrameType

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fuzz.mutate import TOKENS, mutants
from tests.fuzz.targets import CORPUS, TARGETS, seeds

# An input of 24 KB takes milliseconds; on a busy machine some tens of them.
HANG_S = 5.0
# What a run may grow by: memo tables fill, inputs are small.
GROWTH_BYTES_MAX = 300 * 2**20
# Seeds that a run may add to its own.
_SEEDS_MAX = 2_000


class Hang(Exception):  # noqa: N818 - it is what happened
    """An input took longer than any may."""


def _ring(number: int, frame: FrameType | None) -> None:
    raise Hang(f"longer than {HANG_S} s")


def fuzz(
    name: str, *, seed: int, seconds: float = 0.0, inputs: int = 0
) -> tuple[int, bytes | None, str]:
    """(inputs tried, the one that broke a promise or None, how); ends after ``inputs`` or ``seconds``."""
    tokens, target = TARGETS[name]
    random = Random(f"{name} {seed}")
    pool = seeds(name)
    seen = {target(data) for data in pool}
    before = _memory_bytes()
    ends_at = time.monotonic() + seconds
    tried = 0
    signal.signal(signal.SIGALRM, _ring)
    try:
        while tried < inputs or time.monotonic() < ends_at:
            data = mutants(pool, TOKENS[tokens], random)
            tried += 1
            signal.setitimer(signal.ITIMER_REAL, HANG_S)
            try:
                signature = target(data)
            except Exception:  # noqa: BLE001 - any of them is a finding
                return tried, data, traceback.format_exc()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if signature not in seen and len(pool) < _SEEDS_MAX:
                seen.add(signature)
                pool.append(data)
            if tried % 1_000 == 0 and _memory_bytes() - before > GROWTH_BYTES_MAX:
                return tried, data, "memory grows"
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return tried, None, ""


def _memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target (60)")
    parser.add_argument("--target", choices=sorted(TARGETS), help="only this one")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="to repeat a run")
    given = parser.parse_args()
    found = False
    for name in [given.target] if given.target else TARGETS:
        tried, data, how = fuzz(name, seed=given.seed, seconds=given.seconds)
        print(
            f"{name}: {tried} inputs, seed {given.seed}: {'BROKEN' if how else 'fine'}", flush=True
        )
        if data is not None:
            found = True
            folder = CORPUS / ("json_v2" if name == "exact" else name)
            file = folder / f"found-{hashlib.sha256(data).hexdigest()[:16]}"
            file.write_bytes(data)
            print(f"{how}\nkept as {file}")
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
