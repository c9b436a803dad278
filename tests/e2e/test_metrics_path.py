"""The metrics path end to end: a real Prometheus with recording rules over a make-believe mesh -> tracefwd -> stand-in.

One tracefwd asks for the same bodies in many ways at once; each point says by which (tag ``via``).
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.parts import Forwarder, StandIn, stand_in
from tests.e2e.processes import Process, eventually, get_json, request, tracefwd
from tests.e2e.prometheus import (
    PASSWORD,
    RAW,
    SUMMED,
    USER,
    Front,
    Pods,
    SecuredPrometheus,
    serving,
)
from tests.service.exporters import Authority
from tracefwd.ledger import imbalance

WRONG = "wr0ng-secret"
TOKEN, NEXT_TOKEN = "t0ken-one", "t0ken-two"
# Sources that must come to nothing: name -> the result that says why.
FAILING = {
    "wrong-password": "http_401",
    "no-password": "http_401",
    "no-authority": "tls",
    "wrong-token": "http_401",
    "hung": "timeout",
    "html": "content_type",
    "broken": "http_500",
    "moved": "redirect",
    "bad-selector": "http_400",
    "selects-nothing": "empty",
    "nobody": "connect",
    "no-token-file": "file",
}


@dataclass
class World:
    prometheus: SecuredPrometheus
    front: Front
    elsewhere: Front
    pods: Pods
    wavefront: StandIn
    tracefwd: Forwarder
    token_file: Path
    log: Path

    def scrapes(self, source: str, result: str) -> float:
        return self.tracefwd.metric("tracefwd_scraper_scrapes_total", source=source, result=result)

    def up(self, source: str) -> float:
        return self.tracefwd.metric("tracefwd_scraper_up", source=source)

    def series(self, via: str) -> list[dict[str, Any]]:
        """Name, tags, last value and time of each series of one source."""
        return [row for row in self.wavefront.series()["points"] if row["tags"].get("via") == via]

    def latest_ms(self, via: str, name: str, **tags: str) -> int:
        """When the newest point of the one series with these tags was true; 0 if there is none."""
        found = [
            row["time_ms"]
            for row in self.series(via)
            if row["name"] == name and tags.items() <= row["tags"].items()
        ]
        return max(found, default=0)


def source(name: str, url: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "url": url,
        "tags": {"via": name},
        "strip_prefix": "federate:",
        "filters": {"metricTagDenyList": {"destination_principal": ["*"]}},
        "collection": {"interval": "500ms", "timeout": "10s"},
    } | more


def sources(prometheus: SecuredPrometheus, front: Front, token_file: Path) -> list[dict[str, Any]]:
    port, tls = prometheus.port, {"ca_file": str(prometheus.ca_file)}
    right = {"username": USER, "password": PASSWORD}
    query = f"{SUMMED}&{RAW}"

    def direct(name: str, query: str = query, **http: Any) -> dict[str, Any]:
        url = f"https://127.0.0.1:{port}/federate?{query}"
        return source(name, url, httpConfig={"tls_config": tls} | http)

    def by_front(name: str, path: str, **more: Any) -> dict[str, Any]:
        return source(name, f"{front.url}/{path}?{query}", **more)

    return [
        direct("good", basic_auth=right),
        direct("wrong-password", basic_auth=right | {"password": WRONG}),
        direct("no-password"),
        direct("no-authority", basic_auth=right, tls_config={}),
        direct("bad-selector", query="match[]={job=", basic_auth=right),
        direct("selects-nothing", query='match[]={job="none"}', basic_auth=right),
        by_front("token", "token", httpConfig={"bearer_token_file": str(token_file)}),
        by_front("wrong-token", "token", httpConfig={"bearer_token": WRONG}),
        by_front("no-token-file", "token", httpConfig={"bearer_token_file": "/nowhere/token"}),
        by_front("half", "half"),
        by_front("hung", "hung", collection={"interval": "500ms", "timeout": "300ms"}),
        by_front("html", "html"),
        by_front("broken", "broken"),
        by_front("moved", "moved", httpConfig={"bearer_token": TOKEN}),
        source("nobody", "http://127.0.0.1:1/federate"),
    ]


@contextmanager
def metrics_only(folder: Path, wavefront: StandIn, config: dict[str, Any]) -> Iterator[Forwarder]:
    file = folder / "tracefwd.yaml"
    file.write_text(json.dumps(config))
    flags = ["--only", "metrics", "--proxy-metrics", wavefront.url, "--admin", "127.0.0.1:0"]
    with Process(tracefwd("run", "--config", str(file), *flags), folder, "tracefwd") as process:
        ready = process.find(r"ready: scraping \d+ sources, admin (http://[^\s\"]+)")
        yield Forwarder("", ready[1], process)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("metrics-path")
    authority = Authority(folder / "authority")
    pods = Pods()
    with serving(pods), stand_in(folder) as wavefront:
        prometheus = SecuredPrometheus(folder / "prometheus", pods, authority)
        front, elsewhere = Front(prometheus), Front(prometheus)
        front.token, front.elsewhere = TOKEN, elsewhere.url
        token_file = folder / "token"
        token_file.write_text(TOKEN)
        try:
            with serving(front), serving(elsewhere):
                prometheus.wait_for('{__name__="federate:istio_requests_total"}')
                prometheus.wait_for('{__name__="pilot_services"}')
                config = {
                    "prometheus_sources": sources(prometheus, front, token_file),
                    "metrics": {"cluster": "e2e"},
                    "exporter": {"batch_age_max": "50ms"},
                }
                with metrics_only(folder, wavefront, config) as forwarder:
                    yield World(
                        prometheus,
                        front,
                        elsewhere,
                        pods,
                        wavefront,
                        forwarder,
                        token_file,
                        folder / "tracefwd.err",
                    )
                    front.released.set()
        finally:
            prometheus.stop()


def test_what_prometheus_sums_arrives_under_the_dashboards_names(world: World) -> None:
    def look() -> bool:
        names = {row["name"] for row in world.series("good")}
        return {"istio.requests.total.value", "pilot.services.value"} <= names

    eventually(look, "points of the mesh")
    [row] = [row for row in world.series("good") if row["name"] == "istio.requests.total.value"]
    found = row["tags"]
    assert found["cluster"] == "e2e"
    assert found["reporter"] == "destination"
    assert "destination_principal" not in found
    assert world.up("good") == 1
    assert (
        world.tracefwd.metric("tracefwd_scraper_last_success_timestamp_seconds", source="good")
        > 1.7e9
    )
    assert not world.wavefront.refused()


@pytest.mark.parametrize("name", FAILING)
def test_a_failure_is_seen_and_invents_nothing(world: World, name: str) -> None:
    eventually(
        lambda: world.scrapes(name, FAILING[name]),
        lambda: f"{name}: {request('GET', f'{world.tracefwd.admin}/metrics')[1].decode()}",
    )
    assert world.up(name) == 0
    assert world.scrapes(name, "ok") == 0
    assert world.series(name) == []
    status, page = request("GET", f"{world.tracefwd.admin}/readyz?verbose")
    assert status == 200
    assert f"scraper: source {name}: " in page.decode()


def test_credentials_went_nowhere_else(world: World) -> None:
    eventually(lambda: world.scrapes("moved", "redirect"), "a redirect")
    assert world.elsewhere.tokens_seen == []


def test_half_a_body_is_a_failed_scrape_with_its_whole_lines_sent(world: World) -> None:
    eventually(lambda: world.scrapes("half", "truncated"), "a truncated body")
    eventually(
        lambda: 0 < len(world.series("half")) < len(world.series("good")),
        lambda: f"half as many: {len(world.series('half'))} of {len(world.series('good'))}",
    )
    assert world.up("half") == 0

    def bad_lines() -> float:
        name = "tracefwd_scraper_bad_lines_total"
        return world.tracefwd.metric(name, source="half", reason="cut_off")

    # Scrapes go on between the two readings.
    eventually(lambda: bad_lines() == world.scrapes("half", "truncated"), "one bad line a scrape")


def test_a_token_that_rotates_is_followed(world: World) -> None:
    eventually(lambda: world.scrapes("token", "ok"), "a scrape with the token")
    world.front.token = NEXT_TOKEN
    eventually(lambda: world.scrapes("token", "http_401"), "the old token refused")
    before = world.scrapes("token", "ok")
    world.token_file.write_text(NEXT_TOKEN)
    eventually(lambda: world.scrapes("token", "ok") > before, "a scrape with the new token")
    assert world.up("token") == 1


def test_a_restart_of_prometheus_is_an_outage_and_no_more(world: World) -> None:
    eventually(lambda: world.scrapes("good", "ok"), "a scrape")
    world.prometheus.stop()
    eventually(lambda: world.up("good") == 0, "the outage is seen")
    assert world.scrapes("good", "connect") > 0
    before = world.scrapes("good", "ok")
    world.prometheus.start()
    world.prometheus.wait_for('{__name__="federate:istio_requests_total"}')
    eventually(lambda: world.scrapes("good", "ok") > before, "scraped again")
    eventually(lambda: world.up("good") == 1, "up again")


def test_a_vanished_series_stops(world: World) -> None:
    name = "go.goroutines.value"
    eventually(lambda: world.latest_ms("good", name, instance="shop-1"), "the shop's series")
    world.pods.gone.add("/application")

    def looks() -> tuple[int, int]:
        newest = world.latest_ms("good", name, instance="istiod-1.30")
        return world.latest_ms("good", name, instance="shop-1"), newest

    # The others go on for four seconds and it does not.
    eventually(lambda: looks()[1] - looks()[0] > 4_000, lambda: f"it stops: {looks()}")
    assert world.up("good") == 1


def test_nothing_is_lost_silently(world: World) -> None:
    """Every sample is a point or counted as dropped, and every point is where the ledger says."""
    for _ in range(10):
        assert imbalance(get_json(f"{world.tracefwd.admin}/ledger")["points"]) == 0
    for name in ("good", "half", "token"):
        _, page = request("GET", f"{world.tracefwd.admin}/metrics")
        counts = {
            family: sum(
                float(number)
                for number in re.findall(
                    rf'^tracefwd_scraper_{family}_total{{source="{name}"[^}}]*}} (\S+)$',
                    page.decode(),
                    re.MULTILINE,
                )
            )
            for family in ("samples", "points", "dropped_samples")
        }
        assert counts["samples"] == counts["points"] + counts["dropped_samples"] > 0
    world.tracefwd.process.terminate()
    assert world.tracefwd.process.wait() == 0, world.tracefwd.process.output
    log = world.log.read_text()
    last = re.findall(r"ledger balanced: points received (\d+) = delivered (\d+)", log)
    assert last, log
    received, delivered = map(int, last[-1])
    assert received == delivered == world.wavefront.totals()["points"]["accepted"]
    assert not world.wavefront.refused()
    for secret in (PASSWORD, WRONG, TOKEN, NEXT_TOKEN):
        assert secret not in log
