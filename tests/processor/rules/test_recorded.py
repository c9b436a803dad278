"""Rules do what the real proxy's do: its own answers (13.8), and those of Java 17's regular expressions.

``proxy_answers.json`` holds rules files that were made up at random, and what the proxy's preprocessor made of spans
and points (a point's tags are sorted there: the proxy keeps them in a hash map).  ``java_regex_answers.json`` holds,
for each expression and text, whether all matches and what replacing all finds by ``<find>`` gives; null where the two
must differ (Java looks inside of surrogate pairs, RE2's multi-line mode knows one line end), nothing where nothing is
found.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tracefwd.processor.rules import Subject, read_rules
from tracefwd.processor.rules.regex import compile_java

HERE = Path(__file__).parent
PROXY = json.loads((HERE / "proxy_answers.json").read_text(encoding="utf-8"))
REGEX = json.loads((HERE / "java_regex_answers.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("recorded", PROXY, ids=range(len(PROXY)))
def test_a_rules_file_does_what_the_proxy_does(recorded: dict[str, Any]) -> None:
    rules = read_rules(recorded["rules"], where="f", exact=True).for_port("1")
    for case in recorded["cases"]:
        subject = Subject(
            case["name"],
            case["source"],
            [(key, value) for key, value in case["tags"]],
            start_ms=case["start"],
            duration_ms=case["duration"],
            value=float(case["duration"]),
        )
        point = recorded["kind"] == "point"
        assert (rules.apply_point if point else rules.apply)(subject) is case["passes"]
        tags = [list(tag) for tag in subject.annotations]
        assert [subject.name, subject.source, sorted(tags) if point else tags] == case["after"]


@pytest.mark.parametrize("pattern", REGEX["answers"])
def test_an_expression_means_what_it_means_in_java(pattern: str) -> None:
    compiled = compile_java(pattern)
    for text in REGEX["texts"]:
        wanted = REGEX["answers"][pattern].get(text, [False, text])
        if wanted is None:
            continue
        replaced = compiled.replace_all(text, [b"<", 0, b">"], 1_000)
        assert [compiled.full[text], text if replaced is None else replaced] == wanted, text
        assert compiled.finding[text] is (replaced is not None)
