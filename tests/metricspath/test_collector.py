"""173 odd inputs, and what the real collector made of them: equal, or a listed deviation that is spelled out here."""

import base64
import json
from typing import Any

import pytest
import yaml

from tests.metricspath.parts import (
    COLLECTOR,
    FEDERATE,
    SEED_FILTERS,
    Result,
    scrape,
    timeless,
    translation,
)
from tracefwd.errors import ConfigError
from tracefwd.metricspath.collector import DEVIATIONS
from tracefwd.metricspath.translate import Translation
from tracefwd.settings import FilterSettings

CASES: dict[str, dict[str, Any]] = {
    case["name"]: case for case in json.loads((COLLECTOR / "cases.json").read_text())
}
# Nothing arrives, or nothing starts: what the scraper and the configuration do with it is theirs to prove.
ELSEWHERE = {name for name in CASES if name.startswith("config-")} | {"http-never-answers"}
OLD_NAMES = {
    "metricWhitelist": "metricAllowList",
    "metricBlacklist": "metricDenyList",
    "metricTagWhitelist": "metricTagAllowList",
    "metricTagBlacklist": "metricTagDenyList",
}


def line(name: str, value: str, **tags: str) -> str:
    pairs = sorted({**tags, "cluster": "oracle"}.items())
    return f'"{name}" {value} T source="NODE"' + "".join(f' "{k}"="{v}"' for k, v in pairs)


ALPHAS = {
    "one": line("alpha.one.value", "1", app="a", zone="z1", le="1"),
    "two": line("alpha.two.value", "2", app="b", zone="z2", le="2"),
    "x1": line("alpha.x1.value", "3", app="x", zone="z1"),
    "xa": line("alpha.xa.value", "4", app="xa"),
    "xb": line("alpha.xb.value", "5", app="x,y"),
}
NOT_X = [
    line("Beta.One.value", "7", app="A"),
    ALPHAS["one"],
    ALPHAS["two"],
    line("beta.one.value", "6", zone="z1"),
    line("beta.value", "9", app="[a]"),
    line("gam.ma.gauge", "10", zone="*"),
    line("many.value", "11", app="m", aaa="1", aab="2", abc="3", Zed="4", _u="5"),
    line("ns-rule.one.value", "8", app="a.b"),
]
# Case -> (deviation, lines that we send and the collector does not, lines that it sends and we do not).
DIFFERENT: dict[str, tuple[str, list[str], list[str]]] = {
    "broken": (
        "bad_line unknown_type",
        [line("broken.value", "4", a="4"), line("weird.type.value", "6")],
        [],
    ),
    "edge": (
        "trailing_backslash",
        [
            line(
                "istio.requests.total.value",
                "16",
                app="esc",
                nl=r"one\ntwo",
                path="C:\\dir\\.",
                say=r"a \"quoted\" } , = # word",
            )
        ],
        [
            line(
                "istio.requests.total.value",
                "16",
                app="esc",
                nl=r"one\ntwo",
                path="C:\\dir\\",
                say=r"a \"quoted\" } , = # word",
            )
        ],
    ),
    "label-values": (
        "trailing_backslash",
        [
            line("l21.value", "21", before="1", v="C:\\dir\\.", zafter="2"),
            line("l23.value", "23", before="1", v="\\.", zafter="2"),
        ],
        [
            line("l21.value", "21", before="1", v="C:\\dir\\", zafter="2"),
            line("l23.value", "23", before="1", v="\\", zafter="2"),
        ],
    ),
    "types": (
        "unknown_type",
        [
            line("t.gaugehistogram.value", "1"),
            line("t.info.value", "1"),
            line("t.same.gauge", "1"),
            line("t.stateset.value", "1"),
            line("t.twice.gauge", "1"),
            line("t.unknown.value", "1"),
        ],
        [],
    ),
    "histograms": (
        "bad_line",
        [
            line("h.badle.count", "1"),
            line("h.badle.sum", "1"),
            line("s.badq.count", "0"),
            line("s.badq.sum", "2"),
        ],
        [],
    ),
    "typed-bad-value-gauge": ("bad_line", [line("g.gauge", "3", n="3")], []),
    "typed-bad-value-later": ("bad_line", [line("h.count", "4")], [line("h.count", "0")]),
    "crash-histogram": (
        "crash",
        [
            line("y.value", "1"),
            line("h.count", "0", app="a"),
            line("h.sum", "5", app="a"),
            line("z.value", "1"),
        ],
        [],
    ),
    "crash-summary": (
        "crash",
        [line("s.count", "0"), line("s.sum", "1"), line("z.value", "1")],
        [],
    ),
    "crash-cut": (
        "crash",
        [
            line("y.value", "1"),
            line("h.bucket", "1", app="a", le="1"),
            line("h.count", "0", app="a"),
            line("h.sum", "0", app="a"),
        ],
        [],
    ),
    "trailing-blanks": ("bad_line", [line(f"{n}.value", "2", n="2") for n in "abcef"], []),
    "bom": (
        "byte_order_mark",
        [line("first.value", "1", app="a"), line("first.value", "2", app="b")],
        [],
    ),
    "error-in-the-middle": ("bad_line", [line("x.value", "3", n="3")], []),
    "error-no-type-lines": ("bad_line", [line("d.value", "4")], []),
    "error-first": ("bad_line", [line("late.value", "1")], []),
    **{
        f"line-of-{n}-bytes": (
            "long_line",
            [line("after.value", "3"), line("long.value", "2", v="next")],
            [],
        )
        for n in (65536, 65537, 200000)
    },
    "long-comment": ("long_line", [line("after.value", "3")], []),
    **{
        name: ("cut_value", [], [line("second.value", "12")])
        for name in ("http-cut-in-value", "http-cut-chunked", "http-stall")
    },
    "filter-braces-nested": ("glob_library", [ALPHAS["one"], ALPHAS["x1"], ALPHAS["xa"]], []),
    "filter-star-overlap": ("glob_library", [], [ALPHAS["one"]]),
    "filter-two-entries-crash": ("glob_library", NOT_X, []),
    "filter-two-entries-common-end": ("glob_library", [ALPHAS["one"], ALPHAS["xa"]], []),
    "filter-two-entries-class": ("glob_library", [ALPHAS["x1"], ALPHAS["xa"], ALPHAS["xb"]], []),
    "filter-two-entries-question": ("glob_library", list(ALPHAS.values()), []),
}
DIFFERENT["edge-omitBucketSuffix"] = DIFFERENT["edge"]
# Lists that the collector reads otherwise than written, or not at all; for us they stop the start.
REFUSED = {
    "filter-brace-extra-close",
    "filter-brace-extra-close-in-list",
    "filter-braces-unclosed",
    "filter-braces-unclosed-in-list",
    "filter-class-empty",
    "filter-class-range-and-char",
    "filter-class-reversed",
    "filter-class-two-ranges",
    "filter-class-unclosed",
    "filter-invalid-allow",
    "filter-invalid-deny",
    "filter-invalid-tag-allow",
    "filter-invalid-tag-allow-one-of-two",
    "filter-invalid-tag-deny",
    "filter-invalid-tag-exclude",
    "filter-invalid-tag-include",
    "filter-trailing-backslash",
}


def filters(given: dict[str, Any] | None) -> FilterSettings:
    """The configuration's loader takes old names so: only where the new one is absent or empty."""
    lists = dict(given or {})
    for old, new in OLD_NAMES.items():
        value = lists.pop(old, None)
        if value and not lists.get(new):
            lists[new] = value
    return FilterSettings(**lists)


def made_for(case: dict[str, Any], prefix: str | None = None) -> Translation:
    config = case.get("config") or {}
    text = config.get("source", "")
    is_seed = "@SEED@" in text
    source = {} if is_seed else yaml.safe_load(text) or {}
    sink = yaml.safe_load(config.get("sink", "")) or {}
    top = yaml.safe_load(config.get("top", "")) or {}
    own: dict[str, Any] = {
        "prefix": source.get("prefix", "") if prefix is None else prefix,
        "source": source.get("source", ""),
        "tags": source.get("tags", {}),
        "filters": SEED_FILTERS if is_seed else filters(source.get("filters")),
        "convertHistograms": source.get("convertHistograms", False),
    }
    return translation(
        "collector",
        **own,
        common_prefix=sink.get("prefix", ""),
        common_tags=sink.get("tags", {}),
        common_filters=filters(sink.get("filters")),
        omit_bucket_suffix=top.get("omitBucketSuffix", False),
    )


def body_of(answer: dict[str, Any]) -> bytes:
    if "file" in answer:
        body = (FEDERATE / answer["file"]).read_bytes()
        first, last = answer.get("range", (0, len(body)))
        return body[first:last]
    if "parts" in answer:
        return "".join(text * number for text, number in answer["parts"]).encode()
    if "body_base64" in answer:
        return base64.b64decode(answer["body_base64"])
    return str(answer.get("body", "")).encode()


def scrapes(case: dict[str, Any]) -> list[Result]:
    """Every answer that a scraper would read, twelve seconds apart."""
    own = made_for(case)
    second = "extra" in (case.get("config") or {})
    results = []
    for number, answer in enumerate(case["answers"]):
        if answer.get("status", 200) == 200:
            if second:
                own = made_for(case, "second.")
            is_complete = not (answer.get("cut") or answer.get("stall"))
            now_s = 1795352600.0 + 12 * number
            results.append(scrape(body_of(answer), own, complete=is_complete, now_s=now_s))
    return results


def lines_of(results: list[Result]) -> list[str]:
    lines = [
        text
        for result in results
        for payload in result.payloads
        for text in payload.data.decode().split("\n")[:-1]
    ]
    return timeless(lines)


def less(lines: list[str], others: list[str]) -> list[str]:
    rest = list(lines)
    for other in others:
        if other in rest:
            rest.remove(other)
    return rest


@pytest.mark.parametrize("name", sorted(set(CASES) - ELSEWHERE - REFUSED))
def test_every_recorded_case(name: str) -> None:
    case = CASES[name]
    deviation, more, fewer = DIFFERENT.get(name, ("", [], []))
    ours, theirs = lines_of(scrapes(case)), sorted(case["lines"])
    assert sorted(less(ours, theirs)) == sorted(more)
    assert sorted(less(theirs, ours)) == sorted(fewer)
    assert bool(deviation) == bool(more or fewer)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_list_that_cannot_be_meant_stops_the_start(name: str) -> None:
    with pytest.raises(ConfigError, match="is no glob"):
        made_for(CASES[name])


def test_every_deviation_is_listed_and_shown() -> None:
    shown = {key for deviation, _, _ in DIFFERENT.values() for key in deviation.split()}
    # Refused lists are above; names of sources are the configuration's.
    assert shown | {"bad_glob", "own_names"} == set(DEVIATIONS)


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("broken", {"labels": 1, "type": 1}),
        ("error-in-the-middle", {"value": 1}),
        ("crash-histogram", {"value": 1}),
        ("crash-cut", {"cut_off": 1}),
        ("line-of-65536-bytes", {"too_long": 1}),
        ("long-comment", {"too_long": 1}),
        ("http-cut-in-value", {"cut_off": 1}),
        ("http-stall", {"cut_off": 1}),
        ("trailing-blanks", {}),
    ],
)
def test_what_a_deviation_loses_is_counted(name: str, reasons: dict[str, int]) -> None:
    [result] = scrapes(CASES[name])
    assert result.counts.bad_lines == reasons


def test_a_body_that_ends_early_says_so() -> None:
    [result] = scrapes(CASES["http-cut-in-value"])
    assert result.scrape.truncated
    [result] = scrapes(CASES["http-chunked"])
    assert not result.scrape.truncated
