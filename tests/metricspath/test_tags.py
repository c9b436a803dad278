"""From labels to tags: what everybody gets, what is cleaned, and what goes when there are too many."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metricspath.parts import Line, scrape
from tracefwd.limits import REPAIR_KINDS, SAMPLE_DROP_REASONS
from tracefwd.metricspath.parser import write_labels


def only(body: str, **options: object) -> Line:
    [point] = scrape(body, **options).points()
    return point


def test_a_label_wins_over_a_source_tag_unless_it_is_empty() -> None:
    tags = {"app": "tag", "env": "e", "nothing": ""}
    assert only('r{app="label"} 1\n', tags=tags).tags == {
        "app": "label",
        "env": "e",
        "cluster": "oracle",
    }
    assert only('r{app=""} 1\n', tags=tags).tags["app"] == "tag"


def test_the_cluster_is_on_every_point_and_nothing_overrides_it() -> None:
    assert only('r{cluster="mine"} 1\n', tags={"cluster": "t"}).tags == {"cluster": "oracle"}
    assert only("r 1\n", filters=_filters(tagInclude=["a"])).tags == {"cluster": "oracle"}
    assert only("r 1\n", common_filters=_filters(tagInclude=["a"])).tags == {"cluster": "oracle"}
    assert only("r 1\n", common_tags={"cluster": "x"}).tags == {"cluster": "oracle"}


def test_common_tags_replace_labels_and_an_empty_one_takes_it_off() -> None:
    assert only('r{app="a",zone="z"} 1\n', common_tags={"app": "c", "zone": ""}).tags == {
        "app": "c",
        "cluster": "oracle",
    }


def test_values_that_say_nothing_are_left_out() -> None:
    body = 'r{a="",b="-",c="/",d=" ",e=" - ",f="\u3000",g="--"} 1\n'
    assert only(body).tags == {"cluster": "oracle", "g": "--"}


def test_names_that_wavefront_would_take_for_its_own_get_an_underscore() -> None:
    result = scrape('r{host="h",source="s",tag="t",_tag="u"} 1\n')
    [point] = result.points()
    assert point.tags == {
        "_host": "h",
        "_source": "s",
        "_tag": "u",
        "_tag_2": "t",
        "cluster": "oracle",
    }
    assert point.source == "NODE"
    assert result.counts.repairs == {"key_changed": 3}


def test_a_node_name_becomes_the_source_and_stays_a_tag() -> None:
    point = only('r{nodename="n1"} 1\n', source="S")
    assert (point.source, point.tags["nodename"]) == ("n1", "n1")
    assert only('r{nodename=""} 1\n', source="S").source == "S"


def test_odd_keys_of_source_tags_are_cleaned() -> None:
    tags = only("r 1\n", tags={"odd key!": "v", "é": "w", "12": "x", "k" * 80: "y"}).tags
    assert tags == {"odd-key-": "v", "--": "w", "_12": "x", "k" * 64: "y", "cluster": "oracle"}


def test_values_are_made_fit_and_every_change_is_counted() -> None:
    body = f'r{{long="{"x" * 300}",slash="C:\\\\",control="a\x01b\rc",lines="a\\nb",quote="a\\"b"}} 1\n'
    result = scrape(body)
    [point] = result.points()
    assert point.tags["long"] == "x" * 250
    assert point.tags["slash"] == "C:\\."
    assert point.tags["control"] == "a b c"
    assert point.tags["lines"] == "a\\nb"
    assert point.tags["quote"] == 'a"b'
    assert result.counts.repairs == {
        "value_cut": 1,
        "trailing_backslash": 1,
        "control_character": 1,
    }


def test_the_budget_takes_first_what_names_rollouts_and_charts() -> None:
    pod = [
        "pod_template_hash", "helm_sh_chart", "app_kubernetes_io_name", "install_x", "operator_y", "sidecar_z",
        "istio_io_rev", "kubernetes_pod_name", "zzz",
    ]  # fmt: skip
    kept = ["app", "reporter", "le", "instance", "version"]
    names = pod + kept
    for taken_off in range(len(pod) + 1):
        labels = dict.fromkeys(names, "v")
        result = scrape(f"r{{{write_labels(labels)}}} 1\n", tags_max=len(names) + 1 - taken_off)
        [line] = result.lines
        tags = {part.split('"')[1] for part in line.split(" ")[4:]}
        assert tags == set(names[taken_off:]) | {"cluster"}
        assert result.counts.repairs.get("tag_budget", 0) == taken_off


def test_guaranteed_tags_and_the_cluster_go_last() -> None:
    labels = {"app": "a", "le": "1", "pod_template_hash": "h"}
    filters = _filters(tagGuaranteeList=["pod_template_hash"])
    assert only(f"r{{{write_labels(labels)}}} 1\n", tags_max=2, filters=filters).tags == {
        "cluster": "oracle",
        "pod_template_hash": "h",
    }
    assert only(f"r{{{write_labels(labels)}}} 1\n", tags_max=1).tags == {"cluster": "oracle"}


def test_a_series_that_the_budget_makes_equal_to_another_is_counted() -> None:
    body = 'r{app="a",pod_template_hash="1"} 1\nr{app="a",pod_template_hash="2"} 2\n'
    result = scrape(body, tags_max=2)
    assert [p.value for p in result.points()] == [1.0]
    assert result.counts.dropped == {"collided": 1}


@pytest.mark.parametrize("mode", ["default", "collector"])
def test_a_point_has_a_source_whatever_the_options_leave_out(mode: str) -> None:
    [point] = scrape("a 1\n", mode=mode, source="", common_source="").points()
    assert point.source == "prom_source"


def test_an_over_long_source_is_cut() -> None:
    result = scrape("r 1\n", source="s" * 200)
    assert [p.source for p in result.points()] == ["s" * 128]
    assert result.counts.repairs == {"source_cut": 1}


LABELS = st.dictionaries(
    st.from_regex(r"[a-z_][a-z0-9_]{0,70}", fullmatch=True).filter(
        lambda key: not key.startswith("__")
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    max_size=30,
)


@settings(deadline=None, max_examples=150)
@given(LABELS, st.sampled_from(["1", "-2.5", "1e300"]))
def test_wavefront_takes_every_point_whatever_the_labels(
    labels: dict[str, str], value: str
) -> None:
    result = scrape(f"some_name{{{write_labels(labels)}}} {value}\n")
    [point] = result.points()
    assert point.value == float(value)
    assert point.tags["cluster"] == "oracle"
    assert set(result.counts.repairs) <= REPAIR_KINDS
    assert set(result.counts.dropped) <= SAMPLE_DROP_REASONS


@pytest.mark.parametrize("value", [",x", "}x", " x", "\\\\x", "x"])
def test_a_denied_label_is_found_whatever_its_value_begins_with(value: str) -> None:
    filters = _filters(metricTagDenyList={"bad": ["*"]})
    for block in (
        f'a="1",bad="{value}"',
        f'bad="{value}"',
        f'a="1", bad = "{value}"',
        f'a="\\\\",bad="{value}"',
    ):
        assert scrape(f"r{{{block}}} 1\n", filters=filters).counts.dropped == {"tag_denied": 1}


@pytest.mark.parametrize(
    "block",
    [
        'a=",bad=",b="c"',
        'a="x,bad=" ,b="c"',
        'a="1",bad=""',
        'a=",bad=\\"x"',
        'nbad="1"',
        'a="1",bad2="x"',
    ],
)
def test_a_label_that_only_looks_denied_is_not(block: str) -> None:
    filters = _filters(metricTagDenyList={"bad": ["*"]})
    result = scrape(f"r{{{block}}} 1\n", filters=filters)
    assert result.counts.points == 1


def test_an_exemplar_denies_nothing() -> None:
    filters = _filters(metricTagDenyList={"bad": ["*"]})
    body = 'r{a="1"} 1 # {b="2",bad="x"} 3\n'
    assert scrape(body, filters=filters).counts.points == 1


def _filters(**lists: object) -> object:
    from tracefwd.settings import FilterSettings

    return FilterSettings(**lists)  # type: ignore[arg-type]
