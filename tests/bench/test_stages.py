import asyncio
from importlib.util import find_spec

from tests.bench.stages import measure_us

# Of the time that msgspec alone needs for the same bodies.  Measured on an idle machine; what matters is their order.
SHARES = {
    "HTTP": 0.3,
    "decode v2": 1.4,
    "decode v1": 4.5,
    "decode proto3": 3.8,
    "map istio, plain path": 1.0,
    "map istio, complete path": 4.2,
    "map wavefront-proxy": 2.5,
    "RED": 0.2,
    "write, plain": 0.7,
    "write, with care": 1.8,
    "write wavefront-proxy with span logs": 2.4,
    # Where isal has no wheel, zlib takes several times as long.
    "gzip": 0.3 if find_spec("isal") else 1.6,
}
# Far above what a busy machine adds to the best of several rounds, and far below a tenfold slip.
SLACK = 4.0


def test_no_stage_slips_far_behind_the_others() -> None:
    """Ratios within one run, in CPU time: how fast and how busy the machine is does not matter."""
    found = asyncio.run(measure_us(rounds=20, calls=1, posts=24))
    floor = found["decode v2: floor (msgspec alone)"]
    slipped = {
        name: f"{found[name] / floor:.1f} floors; {share} are usual"
        for name, share in SHARES.items()
        if found[name] > SLACK * share * floor
    }
    assert not slipped
