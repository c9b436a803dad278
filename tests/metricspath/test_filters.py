"""The seven lists in their order, and that they fail closed."""

from typing import Any

import pytest

from tracefwd.errors import ConfigError
from tracefwd.metricspath.filters import Filter, check
from tracefwd.settings import FilterSettings


def made(**lists: Any) -> Filter:
    return Filter(FilterSettings(**lists), "metrics.filters")


def test_without_lists_everything_passes() -> None:
    own = made()
    assert own.judge_name("anything") == ""
    assert own.judge_tags({}) == ""
    assert own.keep({"a": "1"}) == {"a": "1"}


def test_names_must_be_allowed_and_not_denied() -> None:
    own = made(metricAllowList=["a.*"], metricDenyList=["*.b"])
    assert own.judge_name("a.x") == ""
    assert own.judge_name("c.x") == "name_not_allowed"
    assert own.judge_name("a.b") == "name_denied"


def test_one_allowed_tag_is_enough_and_one_denied_too() -> None:
    own = made(
        metricTagAllowList={"app": ["a"], "zone": ["z*"]}, metricTagDenyList={"env": ["dev"]}
    )
    assert own.judge_tags({"zone": "z1"}) == ""
    assert own.judge_tags({"app": "b"}) == "tag_not_allowed"
    assert own.judge_tags({}) == "tag_not_allowed"
    assert own.judge_tags({"app": "a", "env": "dev"}) == "tag_denied"


def test_an_absent_or_empty_tag_matches_nothing() -> None:
    assert made(metricTagDenyList={"app": ["*"]}).judge_tags({"app": ""}) == ""
    assert made(metricTagAllowList={"app": ["", "*"]}).judge_tags({"app": ""}) == "tag_not_allowed"


def test_a_tag_that_may_have_no_value_lets_nothing_pass() -> None:
    assert made(metricTagAllowList={"app": []}).judge_tags({"app": "a"}) == "tag_not_allowed"
    assert made(metricTagDenyList={"app": []}).judge_tags({"app": "a"}) == ""


def test_tags_are_kept_by_key() -> None:
    own = made(tagInclude=["a*", "zone"], tagExclude=["aa?"], tagGuaranteeList=["keep", "aab"])
    tags = dict.fromkeys(["app", "aaa", "aab", "zone", "keep", "other"], "1")
    assert set(own.keep(tags)) == {"app", "aab", "zone", "keep"}


def test_a_guarantee_is_no_glob() -> None:
    assert made(tagExclude=["*"], tagGuaranteeList=["a*"]).keep({"app": "1"}) == {}


def test_a_bad_pattern_stops_the_start_and_every_one_is_told() -> None:
    settings = FilterSettings(
        metricAllowList=["["], tagExclude=["a}"], metricTagDenyList={"app": ["{"]}
    )
    with pytest.raises(ConfigError) as raised:
        Filter(settings, "prometheus_sources[0].filters")
    assert len(raised.value.problems) == 3
    assert raised.value.problems[0].startswith("prometheus_sources[0].filters.metricAllowList: '['")
    assert check(settings, "x") != []


def test_keys_that_any_value_denies_are_known() -> None:
    assert made(metricTagDenyList={"a": ["*"], "b": ["x"], "c": ["y", "*"]}).denied_keys == (
        "a",
        "c",
    )
    # The other list's reason would come first.
    assert made(metricTagDenyList={"a": ["*"]}, metricTagAllowList={"b": ["*"]}).denied_keys == ()
