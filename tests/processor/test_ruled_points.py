"""Rules see scraped points as the proxy's own port would; what they leave is fit to send."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd.emulator.metric_reader import MetricReader
from tracefwd.emulator.rules import Limits
from tracefwd.model import Payload, Signal
from tracefwd.processor.ruled_points import RuledPoints
from tracefwd.processor.rules import read_rules

READER = MetricReader(Limits())
NOW_MS = 1_795_000_000_000
LINE = '"istio.requests.total.value" 7 1795000000 source="prom" "app"="a" "le"="+Inf" "path"="C:\\x \\"q\\"\\nz"'


def ruled(rules: str, tags_max: int = 20) -> RuledPoints:
    text = "'2878':\n" + "".join(f"  - {{rule: {line}}}\n" for line in rules.strip().split("\n"))
    return RuledPoints(read_rules(text, where="rules.yaml").for_port("2878"), tags_max)


def payload(*lines: str) -> Payload:
    return Payload(Signal.POINTS, "".join(f"{line}\n" for line in lines).encode(), len(lines))


def after(rules: str, line: str = LINE, **options: int) -> str:
    result = ruled(rules, **options).filter(payload(line)).payload
    assert result is not None
    assert result.items == 1
    [text] = result.data.decode().split("\n")[:-1]
    READER.read_point(text, NOW_MS)
    return text


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        ("r, action: addTag, tag: env, value: prod", LINE + ' "env"="prod"'),
        ("r, action: dropTag, tag: le", LINE.replace(' "le"="+Inf"', "")),
        ("r, action: renameTag, tag: app, newtag: a.p", LINE.replace('"app"', '"a.p"')),
        (
            "r, action: replaceRegex, scope: metricName, search: istio, replace: mesh",
            LINE.replace("istio", "mesh"),
        ),
        (
            "r, action: replaceRegex, scope: sourceName, search: prom, replace: other",
            LINE.replace('"prom"', '"other"'),
        ),
        ("r, action: forceLowercase, scope: path", LINE.replace("C:", "c:")),
        (
            "r, action: replaceRegex, scope: pointLine, search: 'total', replace: all",
            LINE.replace("total", "all"),
        ),
        ("r, action: addTag, tag: app, value: b, if: '{{app}} = \"none\"'", LINE),
    ],
)
def test_a_rule_changes_what_it_says_and_nothing_else(rules: str, line: str) -> None:
    assert after(rules) == line


def test_a_payload_that_nothing_touches_is_the_same_object() -> None:
    given_one = payload(LINE)
    assert RuledPoints(read_rules("", where="r").for_port("2878"), 20).filter(given_one) == (
        given_one,
        0,
        0,
    )
    distributions = Payload(Signal.DISTRIBUTIONS, b"!M 1 #1 1 x\n", 1)
    blocks_all = ruled("r, action: block, scope: metricName, match: '.*'")
    assert blocks_all.filter(distributions).payload is distributions


def test_blocked_and_invalid_points_are_counted() -> None:
    rules = ruled(
        """a, action: block, scope: app, match: a
        b, action: replaceRegex, scope: metricName, search: '.*', replace: ''
        c, action: replaceRegex, scope: pointLine, search: broken, replace: '" "'"""
    )
    other = LINE.replace('"app"="a"', '"app"="b"')
    result = rules.filter(payload(LINE, other, other.replace("requests", "broken")))
    assert result == (None, 1, 2)
    assert rules.samples()["a", "blocked"] == 1
    assert rules.samples()["a", "checked"] == 2


def test_what_rules_leave_is_within_wavefronts_limits() -> None:
    line = after(
        """a, action: addTag, tag: 'bad key', value: x
        b, action: addTag, tag: host, value: h
        c, action: addTag, tag: empty, value: ' '
        d, action: addTag, tag: end, value: 'c:\\'
        e, action: replaceRegex, scope: app, search: a, replace: '%s'"""
        % ("v" * 400)
    )
    tags = dict(READER.read_point(line, NOW_MS).tags)
    assert tags["bad-key"] == "x"
    assert tags["_host"] == "h"
    assert "empty" not in tags
    assert tags["end"] == "c:\\."
    assert len(tags["app"]) == 254 - len("app")


def test_rules_add_no_tag_above_the_budget() -> None:
    rules = ruled(
        "a, action: addTag, tag: one, value: x\n b, action: addTag, tag: two, value: x", tags_max=4
    )
    result = rules.filter(payload(LINE)).payload
    assert result is not None
    assert b'"one"="x"' in result.data
    assert b'"two"' not in result.data
    assert rules.repairs == {"tag_budget": 1}


def test_exchanged_rules_go_on_counting() -> None:
    rules = ruled("a, action: block, scope: app, match: a")
    rules.filter(payload(LINE))
    rules.exchange(ruled("b, action: dropTag, tag: app").rules)
    rules.filter(payload(LINE))
    assert rules.samples()["a", "blocked"] == 1
    assert rules.samples()["b", "applied"] == 1


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        st.text(
            st.characters(exclude_categories=["Cc", "Cs"], include_characters='\n"\\'),
            min_size=1,
            max_size=40,
        ).map(str.strip),
        max_size=5,
    )
)
def test_texts_come_through_a_rule_unharmed(tags: dict[str, str]) -> None:
    from tracefwd import naming

    kept = {key: naming.guard_end(value) for key, value in tags.items() if value}
    pairs = "".join(f' "{key}"="{naming.quoted(value)}"' for key, value in kept.items())
    line = f'"a.b" 1.5 1795000000 source="s"{pairs}'
    changed = after("r, action: addTag, tag: zz.new, value: x", line)
    assert changed == line + ' "zz.new"="x"'
