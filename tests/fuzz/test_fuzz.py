"""The short form of the fuzzing, in every test run: the whole corpus, and the same mutants of it each time."""

import pytest

from tests.fuzz.run import fuzz
from tests.fuzz.targets import CORPUS, TARGETS, seeds

# Two seconds or so for each target.
INPUTS = {"http": 1_500}
INPUTS_ELSE = 800


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_breaks_no_promise(name: str) -> None:
    _, target = TARGETS[name]
    found = {target(data) for data in seeds(name)}
    # A corpus that ends up in one corner finds nothing.
    assert len(found) > 3


@pytest.mark.parametrize("name", TARGETS)
def test_mutants_break_no_promise(name: str) -> None:
    tried, data, how = fuzz(name, seed=1, inputs=INPUTS.get(name, INPUTS_ELSE))
    assert data is None, f"{how}\n{data!r}"
    assert tried >= INPUTS_ELSE


def test_the_corpus_is_small() -> None:
    files = [file for file in CORPUS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 400_000
    assert all(file.stat().st_size <= 24_000 for file in files)
