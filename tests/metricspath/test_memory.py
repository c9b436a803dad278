"""A large body passes through little memory: what is held does not grow with the body, only with its largest family."""

import subprocess
import sys
import tracemalloc
from collections.abc import Iterable

import pytest

from tests.metricspath.parts import NOW_S, scrape, translation
from tracefwd.limits import FAMILY_POINTS_MAX, MEMO_ENTRIES_MAX
from tracefwd.settings import FilterSettings

_PROGRAM = """
import resource, sys
sys.path.insert(0, {root!r})
from tests.metricspath.parts import translation, SEED_FILTERS, NOW_S

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def chunks(bytes_total, families):
    made = 0
    wide = ",".join(f'label_{{n:02d}}="{{"v" * 30}}"' for n in range(18))
    per_family = max(1, bytes_total // (families * 800))
    for family in range(families):
        yield f"# TYPE istio_requests_{{family}} untyped\\n".encode()
        for first in range(0, per_family, 64):
            text = "".join(
                f'istio_requests_{{family}}{{{{app="a{{n}}",{{wide}}}}}} {{n}} 1795352600000\\n'
                for n in range(first, min(first + 64, per_family))
            )
            yield text.encode()

def run(bytes_total, families):
    scrape = translation().begin(NOW_S)
    items = 0
    for chunk in chunks(bytes_total, families):
        for payload in scrape.feed(chunk):
            items += payload.items
    for payload in scrape.finish(True):
        items += payload.items
    assert items == scrape.counts.points == scrape.counts.samples > 0, scrape.counts
    return scrape.counts.bytes

run(2_000_000, 4)
before = peak()
read = run({bytes_total}, {families})
print(read, peak() - before)
"""


def growth(bytes_total: int, families: int) -> tuple[int, int]:
    """(bytes read, growth of the process's peak) in a process of its own."""
    from tests.docs import ROOT

    program = _PROGRAM.format(root=str(ROOT), bytes_total=bytes_total, families=families)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    read, grown = map(int, done.stdout.split())
    return read, grown


def test_memory_does_not_grow_with_the_body() -> None:
    """Forty megabytes in 400 families: beside the bounded tables nothing is kept of them."""
    read, grown = growth(40_000_000, 400)
    assert read > 39_000_000
    assert grown < 24 * 2**20


def test_one_huge_family_is_sent_in_parts() -> None:
    """Forty megabytes in a single family; at most 10,000 points of it are held (29 MB, and for twice the body too)."""
    read, grown = growth(40_000_000, 1)
    assert read > 39_000_000
    assert grown < 40 * 2**20


@pytest.mark.parametrize("line", ['x {{a="{0}"}} 1\n', "x 1\n"])
def test_a_family_in_an_unusual_layout_is_sent_in_parts_too(line: str) -> None:
    body = "".join(line.format(number) for number in range(2 * FAMILY_POINTS_MAX + 1)).encode()
    begun = translation(mode="collector").begin(NOW_S)
    sent = sum(payload.items for payload in begun.feed(body))
    assert begun.counts.points == 2 * FAMILY_POINTS_MAX
    sent += sum(payload.items for payload in begun.finish(complete=True))
    assert sent == begun.counts.points == 2 * FAMILY_POINTS_MAX + 1


def test_long_texts_are_not_remembered() -> None:
    """Eight megabytes in names, labels, values and times.  Blocks of labels are: up to so many characters in all."""
    filters = FilterSettings(metricTagAllowList={"app": ["a*"]})
    lines = [
        line.format(f"{number:08}" + "9" * 20_000)
        for number in range(100)
        for line in (
            'x {{app="a{0}"}} 1\n',
            'x {{a{0}="1"}} 1\n',
            "x{0} 1\n",
            "x 0{0}\n",
            "x 1 0{0}\n",
        )
    ]
    source = translation(filters=filters)
    tracemalloc.start()
    try:
        begun = source.begin(NOW_S)
        for line in lines:
            for _ in begun.feed(line.encode()):
                pass
        for _ in begun.finish(complete=True):
            pass
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert begun.counts.samples + sum(begun.counts.bad_lines.values()) == len(lines)
    blocks = sum(len(line) for line in lines if "{" in line)
    assert kept < blocks + 2**20


def test_types_that_nothing_follows_are_not_all_remembered() -> None:
    body = "".join(f"# TYPE x{number} gauge\n" for number in range(MEMO_ENTRIES_MAX + 5))
    result = scrape(body + "x0 1\n# TYPE y gauge\ny 1\n")
    assert [point.name for point in result.points()] == ["x0.gauge", "y.gauge"]
    assert result.counts.bad_lines == {"type": 5}


@pytest.mark.parametrize(
    "lines",
    [
        (f'h{n % 5}_bucket{{app="{n}",le="1"}} 1\n' for n in range(3 * FAMILY_POINTS_MAX)),
        (f'h0_bucket{{le="{n}"}} 1\n' for n in range(3 * FAMILY_POINTS_MAX)),
    ],
    ids=["families side by side", "one histogram"],
)
def test_typed_families_that_are_put_together_are_sent_in_parts_too(lines: Iterable[str]) -> None:
    types = "".join(f"# TYPE h{number} histogram\n" for number in range(5))
    begun = translation(mode="collector").begin(NOW_S)
    for payload in begun.feed((types + "".join(lines)).encode()):
        assert payload.items
    assert begun.counts.points > 2 * FAMILY_POINTS_MAX
