"""Real /federate bodies: what an independent model and the real collector make of them, and what we do better."""

import pytest

from tests.metricspath.parts import (
    COLLECTOR,
    FEDERATE,
    SEED_FILTERS,
    read_tsv,
    scrape,
    split_line,
    translation,
)

EXPECTED = FEDERATE / "expected"
Point = tuple[str, str, tuple[tuple[str, str], ...]]


def point(name: str, value: str, tags: dict[str, str]) -> Point:
    return name, value, tuple(sorted(tags.items()))


def body(name: str) -> bytes:
    return (FEDERATE / f"{name}.txt").read_bytes()


def cleaned(tags: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if value not in ("", "-", "/")}


def renamed(tags: dict[str, str]) -> dict[str, str]:
    """As Wavefront itself does with this key."""
    return {("_tag" if key == "tag" else key): value for key, value in tags.items()}


@pytest.mark.parametrize(
    "name", ["small", "medium", "synthetic-edge", "rules-only", "synthetic-broken"]
)
def test_the_collectors_own_points_come_out_in_its_mode(name: str) -> None:
    result = scrape(body(name), mode="collector", filters=SEED_FILTERS)
    ours = sorted(point(*split_line(line)) for line in result.lines)
    # The full stop behind a last backslash is a listed deviation.
    theirs = sorted(
        point(row[0], row[1], {k: f"{v}." if v.endswith("\\") else v for k, v in row[3].items()})
        for row in read_tsv(COLLECTOR / f"{name}.points.tsv")
    )
    assert ours == theirs


@pytest.mark.parametrize("name", ["synthetic-edge", "rules-only"])
def test_the_collectors_unfiltered_points_come_out_in_its_mode(name: str) -> None:
    result = scrape(body(name), mode="collector")
    ours = sorted(point(*split_line(line)) for line in result.lines)
    theirs = sorted(
        point(row[0], row[1], {k: f"{v}." if v.endswith("\\") else v for k, v in row[3].items()})
        for row in read_tsv(COLLECTOR / f"{name}.nofilter.tsv")
    )
    assert ours == theirs


def test_the_models_points_before_the_sink_come_out_in_the_collectors_mode() -> None:
    """The model stops before the sink: colons are still there, and values that the sink takes off."""
    result = scrape(body("synthetic-edge"), mode="collector")
    ours = sorted(point(*split_line(line)) for line in result.lines)
    model = sorted(
        point(
            name.replace(":", "-"),
            value,
            {k: f"{v}." if v.endswith("\\") else v for k, v in cleaned(tags).items()}
            | {"cluster": "oracle"},
        )
        for name, value, _, tags in read_tsv(EXPECTED / "synthetic-edge.nofilter.tsv")
    )
    assert ours == model


def test_small_is_the_models_to_the_second_in_the_default_mode() -> None:
    result = scrape(body("small"), filters=SEED_FILTERS)
    ours = sorted((p.name, p.time_s, tuple(sorted(p.tags.items()))) for p in result.points())
    model = sorted(
        (
            name,
            int(stamp) // 1000,
            tuple(sorted({**renamed(tags), "cluster": "oracle"}.items())),
        )
        for name, _, stamp, tags in read_tsv(EXPECTED / "small.points.tsv")
    )
    assert ours == model
    assert result.counts.dropped == {"tag_denied": 142, "name_not_allowed": 100}
    assert result.counts.samples == 466


def test_values_of_small_are_the_models() -> None:
    result = scrape(body("small"), filters=SEED_FILTERS)
    ours = sorted(split_line(line)[:2] for line in result.lines)
    assert ours == sorted(row[:2] for row in read_tsv(EXPECTED / "small.points.tsv"))


def test_medium_loses_no_point_and_every_line_can_be_read() -> None:
    result = scrape(body("medium"), filters=SEED_FILTERS)
    counts: dict[str, int] = {}
    for p in result.points():
        counts[p.name] = counts.get(p.name, 0) + 1
    rows = [line.split("\t") for line in (EXPECTED / "medium.counts.tsv").read_text().splitlines()]
    assert counts == {name: int(number) for number, name in rows}
    assert result.counts.dropped == {"tag_denied": 1088, "name_not_allowed": 255, "nan": 18}
    assert all("cluster" in p.tags for p in result.points())


def test_medium_gives_up_only_the_tags_that_nobody_charts() -> None:
    """With the cluster seven points have more than 20 tags; Wavefront would refuse them."""
    result = scrape(body("medium"), filters=SEED_FILTERS)
    theirs = {}
    for name, _, _, tags in read_tsv(COLLECTOR / "medium.points.tsv"):
        if len(tags) > 20:
            theirs[
                name,
                tags.get("group"),
                tags.get("type"),
                tags.get("node"),
                tags["kubernetes_pod_name"],
            ] = tags
    assert len(theirs) == 7
    gone: set[str] = set()
    for p in result.points():
        tags = dict(p.tags)
        full = theirs.get(
            (
                p.name,
                tags.get("group"),
                tags.get("type"),
                tags.get("node"),
                tags.get("kubernetes_pod_name", ""),
            )
        )
        if full is not None:
            gone |= set(full) - {"tag"} - set(tags)
            assert len(tags) == 20
    assert gone <= {"pod_template_hash", "helm_sh_chart", "app_kubernetes_io_instance"}
    assert result.counts.repairs["tag_budget"] == sum(len(tags) - 20 for tags in theirs.values())


def test_edge_in_the_default_mode() -> None:
    result = scrape(body("synthetic-edge"), filters=SEED_FILTERS)
    by_app = {
        p.tags["app"]: p
        for p in result.points()
        if p.name == "istio.requests.total.value" and "app" in p.tags
    }
    # Equal but for the order of labels: the newest stays.
    assert by_app["a"].value == 10
    assert by_app["a"].time_s == 1795351156
    assert by_app["reserved"].tags == {
        "app": "reserved",
        "cluster": "oracle",
        "_source": "s1",
        "_host": "h1",
        "_tag": "t1",
    }
    assert by_app["reserved"].source == "NODE"
    assert by_app["esc"].tags["path"] == "C:\\dir\\."
    assert len(by_app["many"].tags) == 20
    assert len(by_app["long"].tags["v"]) == 253
    assert result.counts.dropped["infinite"] == 2
    assert result.counts.dropped["nan"] == 1
    assert result.counts.dropped["duplicate"] == 1
    assert result.counts.dropped["too_old"] == 1  # before 1970 there is no timestamp for Wavefront
    # Beside these nothing is missing.
    assert result.counts.points == len(read_tsv(EXPECTED / "synthetic-edge.points.tsv")) - 4


def test_the_rest_of_a_broken_family_is_delivered_and_the_loss_is_counted() -> None:
    result = scrape(body("synthetic-broken"))
    assert sorted(split_line(line)[0] for line in result.lines) == [
        "broken.value",
        "broken.value",
        "good.after.value",
        "good.before.value",
        "good.last.value",
        "weird.type.gauge",
    ]
    assert result.counts.bad_lines == {"labels": 1}


def test_the_deny_list_is_what_keeps_the_two_populations_apart() -> None:
    """Raw and aggregated series have one name; without the list both are sent, too wide."""
    own = translation(filters=type(SEED_FILTERS)(metricAllowList=SEED_FILTERS.metricAllowList))
    result = scrape(body("medium"), own)
    assert result.counts.points == 1414 + 1088
    assert result.counts.repairs["tag_budget"] > 10_000


def test_a_second_scrape_of_the_same_body_is_the_same() -> None:
    own = translation(filters=SEED_FILTERS)
    assert scrape(body("medium"), own).lines == scrape(body("medium"), own).lines


def test_exposed_times_are_kept_or_replaced() -> None:
    times = {p.time_s for p in scrape(body("small"), filters=SEED_FILTERS).points()}
    assert len(times) > 1
    own_clock = scrape(body("small"), filters=SEED_FILTERS, honor_timestamps=False)
    assert {p.time_s for p in own_clock.points()} == {1795352610}


def test_federated_rule_names_can_be_stripped() -> None:
    result = scrape(body("rules-only"), filters=SEED_FILTERS, strip_prefix="federate:")
    assert result.counts.points == 178
    assert all(p.name.startswith("istio.") for p in result.points())
