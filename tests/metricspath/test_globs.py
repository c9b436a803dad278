"""The collector's globs: what matches, what is refused, and that no list is slow."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metricspath.parts import SEED_FILTERS
from tracefwd.metricspath.globs import GlobError, Globs, problems


@pytest.mark.parametrize(
    ("patterns", "text", "matches"),
    [
        (["istio.request.*"], "istio.request.bytes.sum.value", True),
        (["istio.request.*"], "istio.requests.total.value", False),
        (["a*c"], "ac", True),
        (["a**c"], "a.b.c", True),
        (["a*c"], "a\nc", True),
        (["a?c"], "abc", True),
        (["a?c"], "ac", False),
        (["a?c"], "aéc", True),
        (["a?c"], "a😀c", True),
        (["x[1a]"], "xa", True),
        (["x[!1]"], "xa", True),
        (["x[!1]"], "x1", False),
        (["x[^1]"], "x^", True),
        (["x[^1]"], "x2", False),
        (["x[0-9]"], "x7", True),
        (["x[!0-9]"], "x7", False),
        (["x[-1]"], "x-", True),
        ([r"x[\]]"], "x]", True),
        (["{a,b}.c"], "b.c", True),
        (["{a,{b,c{1,2}}}.d"], "c2.d", True),
        (["a{,.b}"], "a", True),
        ([r"\*"], "*", True),
        ([r"\*"], "x", False),
        (["a.b"], "axb", False),
        (["A"], "a", False),
        (["b"], "abc", False),
        ([""], "", True),
        ([""], "a", False),
        (["a,b"], "a", False),
        (["a,b"], "a,b", True),
        (["a,b", "c"], "b", True),
        ([r"a\,b", "c"], "a,b", True),
        (["*a", "a"], "a", True),
        (["alpha.*.one"], "alpha.one", False),
        ([], "", False),
    ],
)
def test_a_list_matches_what_it_says(patterns: list[str], text: str, matches: bool) -> None:
    assert Globs(patterns).matches(text) is matches


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("[", "not closed"),
        ("[abc", "not closed"),
        ("[]", "is empty"),
        ("[0-9b]", "stands alone"),
        ("[9-0]", "backwards"),
        ("{a,b", "not closed"),
        ("a}", "has no {"),
        ("a\\", "ends in a backslash"),
        ("{" * 30 + "}" * 30, "inside each other"),
        ("a" * 3_000, "longer than"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_reason(pattern: str, reason: str) -> None:
    [problem] = problems([pattern])
    assert reason in problem
    with pytest.raises(GlobError):
        Globs([pattern])


def test_every_bad_pattern_of_a_list_is_told() -> None:
    assert len(problems(["[", "good.*", "a}"])) == 2


def test_the_seeds_lists_are_good() -> None:
    assert problems(SEED_FILTERS.metricAllowList) == []


LITERALS = st.text("ab.*?[]{},\\-!^é ", min_size=1, max_size=8)


@settings(deadline=None, max_examples=200)
@given(LITERALS)
def test_an_escaped_text_matches_itself_and_nothing_else(text: str) -> None:
    globs = Globs(["".join(f"\\{char}" for char in text)])
    assert globs.matches(text)
    assert not globs.matches(text + "a")
    assert not globs.matches(text[1:])


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.sampled_from(["*", "?", "a", "b", ".", "[ab]", "[!a]"]), max_size=6),
    st.text("ab.", max_size=6),
)
def test_simple_patterns_match_as_their_expression_does(pieces: list[str], text: str) -> None:
    expression = "".join(
        {"*": ".*", "?": ".", ".": r"\.", "[!a]": "[^a]"}.get(p, p) for p in pieces
    )
    expected = re.fullmatch(expression, text, re.DOTALL) is not None
    assert Globs(["".join(pieces)]).matches(text) is expected


@settings(deadline=None, max_examples=200)
@given(st.text("ab*?[]{},\\-!^", max_size=12))
def test_any_text_is_a_glob_or_is_refused(text: str) -> None:
    if problems([text, "x"]):
        with pytest.raises(GlobError):
            Globs([text, "x"])
    else:
        assert Globs([text, "x"]).matches("x")


def test_matching_is_linear() -> None:
    globs = Globs(["*a" * 30 + "b", "{*a,*b}" * 5])
    began = time.perf_counter()
    assert not globs.matches("a" * 50_000 + "c")
    assert time.perf_counter() - began < 2.0
