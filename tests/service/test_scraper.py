"""The scrape loop over real sockets and the real translation: what is sent, counted, skipped, and never invented."""

import asyncio
import gzip
import itertools
import json
import logging
import os
import re
import signal
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.e2e.processes import request
from tests.service.exporters import Exporter, Unfinished, answer, exporter
from tracefwd.emulator.server import Emulator, EmulatorSettings
from tracefwd.errors import StartError
from tracefwd.exporter.otlp_frames import is_framed
from tracefwd.exporter.target import Target
from tracefwd.ledger import imbalance
from tracefwd.metricspath.translate import Translation
from tracefwd.model import Payload, Signal
from tracefwd.processor.ruled_points import RuledPoints
from tracefwd.processor.rules import read_rules
from tracefwd.service.config import Loaded
from tracefwd.service.scrape_client import ScrapeClient
from tracefwd.service.scraper import PointOutlets, Scraper, SourceLoop
from tracefwd.service.scraper_parts import compose
from tracefwd.service.supervisor import Service
from tracefwd.settings import (
    AdminSettings,
    CollectionSettings,
    ExporterSettings,
    FilterSettings,
    HttpConfigSettings,
    MetricsSettings,
    PrometheusSourceSettings,
    ReceiverSettings,
    ServiceSettings,
    Settings,
    TargetSettings,
)

NOW_S = 1_795_000_000.0
PATIENCE_S = 20.0


def exposition(*samples: str) -> bytes:
    return "".join(f"{sample}\n" for sample in samples).encode()


class Sink:
    """Takes payloads."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, payloads: Sequence[Payload]) -> None:
        for payload in payloads:
            self.lines += payload.data.decode().splitlines()

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


def make_loop(
    url: str,
    offer: Any,
    *,
    interval_s: float = 60.0,
    timeout_s: float = 10.0,
    seed: int = 1,
    name: str = "mesh",
    **source: Any,
) -> SourceLoop:
    settings = PrometheusSourceSettings(
        url=f"{url}/federate",
        name=name,
        collection=CollectionSettings(interval=interval_s, timeout=timeout_s),
        **source,
    )
    metrics = MetricsSettings(age_max=0.0, ahead_max=0.0)
    return SourceLoop(
        settings,
        Translation(settings, metrics),
        ScrapeClient(settings, body_bytes_max=2**30),
        offer,
        random=Random(seed),
        now_s=lambda: NOW_S,
    )


@asynccontextmanager
async def running(loop: SourceLoop) -> AsyncIterator[None]:
    leaving = asyncio.Event()
    task = asyncio.create_task(loop.run(leaving))
    try:
        yield
    finally:
        leaving.set()
        await task


async def once(loop: SourceLoop) -> SourceLoop:
    """One scrape without the timetable."""
    await loop._client.open()
    try:
        await loop.scrape()
    finally:
        await loop._client.close()
    return loop


async def until(look: Any, what: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not look():  # noqa: ASYNC110 - what is looked at is another's counter
            await asyncio.sleep(0.005)
    assert look(), what


def value(loop: SourceLoop, name: str, *labels: str) -> float | None:
    return loop.samples().get(f"tracefwd_scraper_{name}", {}).get(("mesh", *labels))


# What is sent and counted


async def test_a_whole_scrape_is_points_and_counts() -> None:
    sink = Sink()
    body = exposition("# TYPE a_b untyped", 'a_b{x="1"} 1 1795000000123', "a_b NaN", "denied 3")
    filters = FilterSettings(metricAllowList=["a.*"])
    async with exporter(answer(gzip.compress(body), Content_Encoding="gzip")) as server:
        loop = await once(make_loop(server.url, sink, filters=filters))
    assert sink.lines == [
        '"a.b.value" 1 1795000000 source="prom_source" "cluster"="k8s-cluster" "x"="1"'
    ]
    assert value(loop, "up") == 1
    assert value(loop, "scrapes_total", "ok") == 1
    assert value(loop, "samples_total") == 3
    assert value(loop, "points_total") == 1
    assert value(loop, "dropped_samples_total", "nan") == 1
    assert value(loop, "dropped_samples_total", "name_not_allowed") == 1
    assert value(loop, "body_bytes_total") == len(body)
    assert value(loop, "received_bytes_total") == len(gzip.compress(body))
    assert value(loop, "last_success_timestamp_seconds") == NOW_S
    assert (value(loop, "last_scrape_duration_seconds") or 0) > 0
    assert loop.trouble == ""


@pytest.mark.parametrize(
    ("said", "result"),
    [
        (answer(status="401 Unauthorized"), "http_401"),
        (answer(status="500 Internal Server Error"), "http_500"),
        (answer(content_type="text/html"), "content_type"),
        (answer(b""), "empty"),
        (answer(b"# only a comment\n"), "empty"),
        (b"\x16\x03\x01 no HTTP\r\n\r\n", "protocol"),
        (Unfinished(b"HTTP/1.1 200 OK\r\n"), "timeout"),
    ],
)
async def test_a_failed_scrape_shows_and_invents_nothing(said: bytes, result: str) -> None:
    sink = Sink()
    async with exporter(said) as server:
        loop = await once(make_loop(server.url, sink, timeout_s=0.3))
    assert sink.lines == []
    assert value(loop, "up") == 0
    assert value(loop, "scrapes_total", result) == 1
    assert value(loop, "last_success_timestamp_seconds") is None
    assert loop.trouble


@pytest.mark.parametrize("ending", ["cut", "hung"])
async def test_a_body_that_ends_early_has_sent_its_lines_and_has_failed(ending: str) -> None:
    sink = Sink()
    said = answer(exposition("one 1", "two 2") + b"three 33", length=10_000)
    async with exporter(said if ending == "cut" else Unfinished(said)) as server:
        loop = await once(make_loop(server.url, sink, timeout_s=0.3))
    names = [line.split('"')[1] for line in sink.lines]
    assert names == ["one.value", "two.value"]
    assert value(loop, "up") == 0
    assert value(loop, "scrapes_total", "truncated" if ending == "cut" else "timeout") == 1
    assert value(loop, "bad_lines_total", "cut_off") == 1
    assert value(loop, "points_total") == 2


@pytest.mark.parametrize(("end", "result"), [(b"", "truncated"), (b"# EOF\n", "ok")])
async def test_an_openmetrics_body_without_its_end_is_a_failed_scrape(
    end: bytes, result: str
) -> None:
    sink = Sink()
    body = answer(
        exposition("one 1", "two 2") + end,
        content_type="application/openmetrics-text; version=1.0.0",
    )
    async with exporter(body) as server:
        loop = await once(make_loop(server.url, sink))
    assert [line.split('"')[1] for line in sink.lines] == ["one.value", "two.value"]
    assert value(loop, "up") == int(result == "ok")
    assert value(loop, "scrapes_total", result) == 1
    assert ("# EOF" in loop.trouble) == (result != "ok")


async def test_a_vanished_series_stops() -> None:
    sink = Sink()
    bodies = [exposition("a 1", "b 1"), exposition("b 2"), exposition("a 3", "b 3")]
    async with exporter(lambda _: answer(bodies.pop(0))) as server:
        loop = make_loop(server.url, sink)
        names = []
        for _ in range(3):
            await once(loop)
            names.append([line.split('"')[1] for line in sink.take()])
    assert names == [["a.value", "b.value"], ["b.value"], ["a.value", "b.value"]]


async def test_a_fault_of_ours_is_counted_and_the_loop_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults = [ValueError("a bug")]

    def offer(_: Any) -> None:
        if faults:
            raise faults.pop()

    async with exporter(answer(exposition("a 1"))) as server:
        loop = make_loop(server.url, offer, interval_s=0.02)
        async with running(loop):
            await until(lambda: value(loop, "up") == 1, "scraped after the fault")
    assert value(loop, "scrapes_total", "internal") == 1
    assert "a bug" in caplog.text


async def test_trouble_is_logged_when_it_begins_and_ends_without_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    secret = "s3cr3t"
    said = [answer(status="500 x")] * 3 + [answer(exposition("a 1"))] * 2
    async with exporter(lambda _: said.pop(0)) as server:
        http = HttpConfigSettings(bearer_token=secret)
        loop = make_loop(server.url, Sink(), httpConfig=http)
        with caplog.at_level(logging.INFO):
            for _ in range(5):
                await once(loop)
    told = [record.getMessage() for record in caplog.records if "scraper" in record.name]
    assert [record.levelname for record in caplog.records if "scraper" in record.name] == [
        "WARNING",
        "INFO",
    ]
    assert "http_500" in told[0]
    assert secret not in "".join(told)


# When it is asked


async def test_sources_start_at_moments_of_their_own() -> None:
    firsts: list[float] = []

    def say(_: str) -> bytes:
        firsts.append(asyncio.get_running_loop().time())
        return answer()

    async with exporter(say) as server:
        loops = [make_loop(server.url, Sink(), interval_s=0.4, seed=seed) for seed in range(4)]
        async with running(loops[0]), running(loops[1]), running(loops[2]), running(loops[3]):
            begun = asyncio.get_running_loop().time()
            await until(lambda: len(server.heads) >= 4, "four scrapes")
    assert firsts[3] - firsts[0] > 0.05
    assert firsts[3] - begun < 2.0


async def test_a_slow_scrape_skips_rounds_and_never_overlaps() -> None:
    open_now, most = 0, 0

    async with exporter(answer()) as server:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal open_now, most
            await reader.readuntil(b"\r\n\r\n")
            open_now += 1
            most = max(most, open_now)
            await asyncio.sleep(0.15)
            open_now -= 1
            server.heads.append("")
            writer.write(answer(exposition("a 1"), Connection="close"))
            writer.close()

        server.serve = serve  # type: ignore[method-assign]
        loop = make_loop(server.url, Sink(), interval_s=0.04)
        async with running(loop):
            await until(lambda: len(server.heads) >= 3, "three scrapes")
    assert most == 1
    scrapes, missed = value(loop, "scrapes_total", "ok"), value(loop, "missed_scrapes_total")
    assert scrapes is not None
    assert missed is not None
    assert missed >= 2 * scrapes


async def test_a_source_that_fails_is_asked_less_and_less_often() -> None:
    asked: list[float] = []

    def say(_: str) -> bytes:
        asked.append(asyncio.get_running_loop().time())
        return answer(status="503 not ready")

    async with exporter(say) as server:
        loop = make_loop(server.url, Sink(), interval_s=0.02)
        async with running(loop):
            await until(lambda: len(asked) >= 6, "six scrapes")
    gaps = [late - early for early, late in itertools.pairwise(asked)]
    assert gaps[-1] > 6 * 0.02


async def test_a_source_that_is_back_is_asked_at_its_interval_again() -> None:
    said = [answer(status="500 x")] * 4
    async with exporter(lambda _: said.pop() if said else answer(exposition("a 1"))) as server:
        loop = make_loop(server.url, Sink(), interval_s=0.02)
        async with running(loop):
            await until(lambda: (value(loop, "scrapes_total", "ok") or 0) >= 3, "scraped again")
    assert loop._rounds() == 1


# Leaving


async def test_leaving_lets_a_scrape_end_and_begins_none() -> None:
    sink = Sink()
    go = asyncio.Event()

    async with exporter(answer()) as server:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            server.heads.append("")
            await go.wait()
            writer.write(answer(exposition("a 1"), Connection="close"))
            writer.close()

        server.serve = serve  # type: ignore[method-assign]
        scraper = Scraper([make_loop(server.url, sink, interval_s=0.02)])
        scraper.start()
        await until(lambda: server.heads, "a scrape")
        scraper.drain()
        go.set()
        await scraper.stop(PATIENCE_S)
        assert len(sink.lines) == 1
        assert len(server.heads) == 1


async def test_a_scrape_that_does_not_end_in_time_is_cut_and_sends_what_it_read() -> None:
    sink = Sink()
    async with exporter(Unfinished(answer(exposition("a 1", "b 2"), length=999))) as server:
        loop = make_loop(server.url, sink, interval_s=0.02, timeout_s=60.0)
        scraper = Scraper([loop])
        scraper.start()
        await until(lambda: server.heads, "a scrape")
        await until(lambda: loop._client.wire_bytes, "the body's beginning")
        await scraper.stop(0.01)
    assert [line.split('"')[1] for line in sink.lines] == ["a.value", "b.value"]
    assert value(loop, "scrapes_total", "cancelled") == 1
    assert value(loop, "up") is None


async def test_while_leaving_only_counters_are_said() -> None:
    async with exporter(answer(exposition("a 1"))) as server:
        loop = await once(make_loop(server.url, Sink()))
    scraper = Scraper([loop])
    assert "tracefwd_scraper_up" in scraper.samples()
    scraper.drain()
    assert "tracefwd_scraper_up" not in scraper.samples()
    assert "tracefwd_scraper_points_total" in scraper.samples()


# Where points go


@asynccontextmanager
async def stand_in() -> AsyncIterator[Emulator]:
    emulator = Emulator(EmulatorSettings(listen="127.0.0.1:0"))
    await emulator.start()
    try:
        yield emulator
    finally:
        await emulator.stop()


async def test_points_reach_the_target_and_the_ledger_balances() -> None:
    rules = read_rules(
        "'2878':\n  - {rule: no-b, action: block, scope: metricName, match: 'b.*'}\n"
        "  - {rule: team, action: addTag, tag: team, value: mesh}\n",
        where="rules.yaml",
    ).for_port("2878")
    async with stand_in() as emulator, exporter(answer(exposition("a 1", "b 2", "c 3"))) as server:
        target = Target(TargetSettings(metrics=emulator.url), ExporterSettings(batch_age_max=0.01))
        outlets = PointOutlets([target], RuledPoints(rules, 20))
        await target.start()
        await once(make_loop(server.url, outlets.offer))
        await target.drain(5.0)
        totals = emulator.totals()
    assert totals["points"]["accepted"] == 2
    assert totals["points"]["rejected"] == 0
    section = outlets.ledger()["points"]
    assert imbalance(section) == 0
    assert (section["received"], section["delivered"], section["blocked"]) == (3, 2, 1)
    assert outlets.samples()["tracefwd_rules_points_total"]["no-b", "blocked"] == 1


def service_settings(emulator: Emulator, *sources: PrometheusSourceSettings, only: str) -> Settings:
    return Settings(
        receiver=ReceiverSettings(listen="127.0.0.1:0"),
        admin=AdminSettings(listen="127.0.0.1:0"),
        service=ServiceSettings(only=only, drain_timeout=5.0),
        exporter=ExporterSettings(
            targets=[TargetSettings(traces=emulator.url, metrics=emulator.url)], batch_age_max=0.05
        ),
        metrics=MetricsSettings(age_max=0.0, ahead_max=0.0),
        prometheus_sources=list(sources),
    )


def fast_source(server: Exporter, name: str = "mesh") -> PrometheusSourceSettings:
    collection = CollectionSettings(interval=0.1, timeout=5.0)
    return PrometheusSourceSettings(url=f"{server.url}/m", name=name, collection=collection)


async def delivered(service: Service, points: int) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_S):
        while (ledger := await service.ledger())["points"]["delivered"] < points:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return ledger


@pytest.mark.parametrize("only", ["all", "metrics"])
async def test_the_scraper_is_a_process_of_its_own(only: str) -> None:
    async with stand_in() as emulator, exporter(answer(exposition("a 1"))) as server:
        settings = service_settings(emulator, fast_source(server), only=only)
        async with Service(Loaded(settings, {})) as service:
            names = [slot.name for slot in service.slots]
            assert names == (["scraper"] if only == "metrics" else ["worker 0", "scraper"])
            assert bool(service.intake_url) == (only == "all")
            await delivered(service, 2)
            samples = await service.samples()
            assert samples["tracefwd_scraper_up"] == {("mesh",): 1}
            assert samples["tracefwd_ledger_points"]["delivered",] >= 2
        ledger = await service.ledger()
    assert imbalance(ledger["points"]) == 0
    assert ledger["points"]["held"] == 0
    assert emulator.totals()["points"]["accepted"] == ledger["points"]["delivered"]


async def test_the_admin_page_says_what_filters_do() -> None:
    body = exposition("a_one 1", "b_two 2", "b_two NaN", "c_three 3")
    filters = FilterSettings(metricAllowList=["a.*", "c.*", "typo.*"], metricDenyList=["c.*"])
    async with stand_in() as emulator, exporter(answer(body)) as server:
        source = replace(fast_source(server), filters=filters, url=f"{server.url}/m?x=s3cr3t")
        settings = service_settings(emulator, source, only="metrics")
        async with Service(Loaded(settings, {})) as service:
            await delivered(service, 1)
            status, page = await asyncio.to_thread(request, "GET", f"{service.admin_url}/sources")
            [shown] = json.loads(page)
    assert status == 200
    assert (shown["name"], shown["up"], shown["last_result"]) == ("mesh", True, "ok")
    assert shown["url"].endswith("/m?x=***")
    assert shown["allowed_but_never_seen"] == ["typo.*"]
    not_sent = shown["came_but_not_sent"]
    assert set(not_sent) == {"b.two.value", "c.three.value"}
    assert list(not_sent["c.three.value"]) == ["name_denied"]
    assert shown["samples"] == shown["points"] + sum(shown["dropped"].values())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see memory")
async def test_a_body_of_a_hundred_megabytes_needs_no_hundred_megabytes() -> None:
    row = b'b_%d{app="productpage",reporter="source",destination_workload="ratings-v1"} 1\n'
    page = b"".join(row % (number % 100) for number in range(14_000))
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    huge = b"".join(packer.compress(page) for _ in range(100)) + packer.compress(b"a_one 1\n")
    huge += packer.flush()
    said = [answer(huge, Content_Encoding="gzip"), answer(exposition("a_one 1"))]
    filters = FilterSettings(metricAllowList=["a.*"])
    async with (
        stand_in() as emulator,
        exporter(lambda _: said.pop() if said else answer(exposition("a_one 1"))) as server,
    ):
        # It takes a second, and longer beside other work.
        patient = CollectionSettings(interval=0.1, timeout=60.0)
        source = replace(fast_source(server), filters=filters, collection=patient)
        settings = service_settings(emulator, source, only="metrics")
        async with Service(Loaded(settings, {})) as service:
            status = Path(f"/proc/{service.slots[0].pid}/status")
            await delivered(service, 1)
            before = peak_bytes(status)
            await delivered(service, 2)
            after = peak_bytes(status)
            samples = await service.samples()
    assert samples["tracefwd_scraper_body_bytes_total"]["mesh",] > 100_000_000
    assert samples["tracefwd_scraper_scrapes_total"].keys() == {("mesh", "ok")}
    assert after - before < 30_000_000


def peak_bytes(status: Path) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    assert found is not None
    return int(found[1]) * 1024


async def test_a_token_over_plain_http_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    def told(url: str, **http: str) -> bool:
        caplog.clear()
        target = TargetSettings(metrics="http://127.0.0.1:1")
        source = PrometheusSourceSettings(url=url, httpConfig=HttpConfigSettings(**http))
        exporter_settings = ExporterSettings(targets=[target])
        compose(Settings(exporter=exporter_settings, prometheus_sources=[source]))
        return "in clear text" in caplog.text

    assert told("http://prometheus:9090/f", bearer_token_file="/t")
    assert told("http://u:p@prometheus:9090/f")
    assert not told("http://prometheus:9090/f")
    assert not told("https://prometheus/f", bearer_token="t")
    assert not told("http://127.0.0.1:9090/f", bearer_token="t")


async def test_only_spans_scrapes_nothing() -> None:
    async with stand_in() as emulator, exporter(answer(exposition("a 1"))) as server:
        settings = service_settings(emulator, fast_source(server), only="spans")
        async with Service(Loaded(settings, {})) as service:
            assert [slot.name for slot in service.slots] == ["worker 0"]
    assert not server.heads


async def test_a_scraper_that_dies_is_replaced_and_spans_are_taken_meanwhile() -> None:
    async with stand_in() as emulator, exporter(answer(exposition("a 1"))) as server:
        settings = service_settings(emulator, fast_source(server), only="all")
        async with Service(Loaded(settings, {})) as service:
            await delivered(service, 1)
            scraper = service.slots[1]
            pid = scraper.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(PATIENCE_S):
                while not scraper.restarts:
                    assert service.ready
                    await asyncio.sleep(0.01)
            before = (await service.ledger())["points"]["delivered"]
            await delivered(service, before + 1)
        ledger = await service.ledger()
    assert imbalance(ledger["points"]) == 0


async def test_a_reload_brings_and_takes_the_scraper() -> None:
    async with (
        stand_in() as emulator,
        exporter(answer(exposition("a 1"))) as server,
        exporter(answer(exposition("b 1"))) as other,
    ):
        bare = Loaded(service_settings(emulator, only="all"), {})
        one = Loaded(service_settings(emulator, fast_source(server), only="all"), {})
        two = Loaded(service_settings(emulator, fast_source(other), only="all"), {})
        async with Service(bare) as service:
            await service.reload(one)
            ledger = await delivered(service, 1)
            await service.reload(two)
            await delivered(service, ledger["points"]["delivered"] + 1)
            await until(lambda: other.heads, "the other source is asked")
            await service.reload(bare)
            assert [slot.name for slot in service.slots] == ["worker 0"]
            asked = len(other.heads)
            assert "tracefwd_scraper_up" not in await service.samples()
            assert len(other.heads) == asked
        assert imbalance((await service.ledger())["points"]) == 0


async def test_a_missing_token_file_is_a_failed_scrape_and_no_failed_start(tmp_path: Path) -> None:
    async with stand_in() as emulator, exporter(answer(exposition("a 1"))) as server:
        token = tmp_path / "token"
        source = PrometheusSourceSettings(
            url=f"{server.url}/m",
            name="mesh",
            collection=CollectionSettings(interval=0.1, timeout=5.0),
            httpConfig=HttpConfigSettings(bearer_token_file=str(token)),
        )
        settings = service_settings(emulator, source, only="metrics")
        async with Service(Loaded(settings, {})) as service:
            key = "tracefwd_scraper_scrapes_total"
            async with asyncio.timeout(PATIENCE_S):
                while not (await service.samples()).get(key, {}).get(("mesh", "file")):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            await until(lambda: service.problems()["scraper"], "the scraper's problem")
            assert "bearer_token_file" in service.problems()["scraper"][0]
            assert not server.heads
            token.write_text("now-there")
            await delivered(service, 1)
            assert server.header("authorization") == "Bearer now-there"


async def test_a_scraper_that_cannot_start_stops_the_start(tmp_path: Path) -> None:
    async with stand_in() as emulator:
        target = TargetSettings(metrics=emulator.url, ca_file=str(tmp_path / "none"))
        base = service_settings(
            emulator, PrometheusSourceSettings(url="http://h/m"), only="metrics"
        )
        broken = replace(base, exporter=ExporterSettings(targets=[target]))
        with pytest.raises(StartError, match="ca_file"):
            await Service(Loaded(broken, {})).start()


async def test_a_target_of_otlp_gets_the_same_points_as_records() -> None:
    offered: dict[str, list[Payload]] = {}

    class Keeping(Target):
        def offer(self, payload: Payload, seq: int = 0) -> None:
            offered.setdefault(self.name, []).append(payload)

    exporter_settings = ExporterSettings()
    lines = Keeping(TargetSettings(name="lines", metrics="http://127.0.0.1:1"), exporter_settings)
    records = Keeping(
        TargetSettings(name="records", role="tee", kind="otlp", url="http://127.0.0.1:1"),
        exporter_settings,
    )
    outlets = PointOutlets([lines, records], None, {"records"})
    payload = Payload(Signal.POINTS, b'"a.value" 1 1700000000 source="s" "k"="v"\n', 1)
    outlets.offer([payload])
    assert offered["lines"] == [payload]
    [record] = offered["records"]
    assert record.items == 1
    assert is_framed(record.data)
