"""The stand-in over real sockets: ports, answers, faults, tokens, queries."""

import asyncio
import base64
import gzip
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tracefwd.emulator.csp import API_TOKEN_PATH, OAUTH_PATH
from tracefwd.emulator.routes import BODY_BYTES_MAX
from tracefwd.emulator.server import Emulator, EmulatorSettings

RECORDINGS = Path(__file__).parents[1] / "fixtures" / "java-proxy"
NOW = 1_795_400_000.0
TRACE = "463ac35c-9f64-13ad-4848-5a3953bb6124"

Start = Callable[..., Awaitable[Emulator]]


def span(number: int = 1, *, tags: str = '"application"="shop" "service"="cart"') -> str:
    return (
        f'"op" source="s" spanId="00000000-0000-0000-0000-{number:012x}" traceId="{TRACE}"'
        f" {tags} 1795352648346 4"
    )


def span_log(**changes: Any) -> str:
    members = {
        "traceId": TRACE,
        "spanId": "0-0-0-0-1",
        "logs": [{"timestamp": 1, "fields": {"a": "b"}}],
    }
    return json.dumps(members | changes)


METRIC = '"∆tracing.derived.a.b.c.invocation.count" 3 1795352648 source="s" "k"="v"'
DISTRIBUTION = '!M 1795352640 #2 1.5 "tracing.derived.a.b.c.duration.micros" source="s" "k"="v"'


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts stand-ins on free ports and stops them all."""
    started: list[Emulator] = []

    async def one(**changes: Any) -> Emulator:
        settings: dict[str, Any] = {
            "listen": "127.0.0.1:0",
            "trace_listen": "127.0.0.1:0",
        } | changes
        emulator = Emulator(EmulatorSettings(**settings), clock=lambda: NOW)
        await emulator.start()
        started.append(emulator)
        return emulator

    yield one
    for emulator in started:
        await emulator.stop()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def post(client: aiohttp.ClientSession, url: str | None, body: Any, **how: Any) -> int:
    assert url is not None
    data = body.encode() if isinstance(body, str) else body
    async with client.post(url, data=data, **how) as answer:
        return answer.status


async def get(client: aiohttp.ClientSession, url: str) -> Any:
    async with client.get(url) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def connect(url: str | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    assert url is not None
    return await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))


async def send_tcp(url: str | None, *parts: bytes) -> None:
    """Sends, then waits until the stand-in has read the end of it."""
    reader, writer = await connect(url)
    for part in parts:
        writer.write(part)
        await writer.drain()
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def hung_up(reader: asyncio.StreamReader) -> bool:
    """Waits for the other side to end the connection, in whatever way."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


# --- what ports take ----------------------------------------------------------------------------


async def test_every_recorded_body_goes_through_direct_ingestion(
    start: Start, client: aiohttp.ClientSession
) -> None:
    emulator = await start()
    spans = b"\n".join(path.read_bytes() for path in sorted(RECORDINGS.glob("*.spans.txt")))
    logs = b"\n".join(path.read_bytes() for path in sorted(RECORDINGS.glob("*.spanlogs.txt")))
    compressed = {"headers": {"Content-Encoding": "gzip"}}
    assert (
        await post(client, emulator.url + "/report?f=trace", gzip.compress(spans), **compressed)
        == 202
    )
    assert (
        await post(client, emulator.url + "/report?f=spanLogs", gzip.compress(logs), **compressed)
        == 202
    )
    totals = await get(client, emulator.url + "/totals")
    assert totals["spans"]["rejected"] == totals["span_logs"]["rejected"] == 0
    assert totals["spans"]["accepted"] == len([line for line in spans.split(b"\n") if line])
    identities = re.findall(rb'spanId="(.+?)" traceId="(.+?)".*"span.kind"="(.+?)"', spans)
    assert totals["duplicates"] == len(identities) - len(set(identities))
    assert totals == json.loads(json.dumps(emulator.totals()))


async def test_the_trace_port_takes_spans_and_span_logs_at_any_path(
    start: Start, client: aiohttp.ClientSession
) -> None:
    emulator = await start()
    body = f"{span(1)}\r\n\n  {span(2)}  \n{span_log()}\n{span_log(span='_sampledByPolicy=NONE')}\njunk"
    assert await post(client, f"{emulator.trace_url}/any/path", body) == 202
    totals = emulator.totals()
    assert (totals["spans"]["accepted"], totals["spans"]["by_reason"]) == (2, {"syntax": 1})
    assert (totals["span_logs"]["accepted"], totals["span_logs"]["by_reason"]) == (
        1,
        {"span_member": 1},
    )
    assert totals["span_logs"]["entries"] == 1


async def test_the_metrics_port_tells_lines_apart(
    start: Start, client: aiohttp.ClientSession
) -> None:
    emulator = await start()
    body = f"{METRIC}\n{DISTRIBUTION}\n{span_log()}\n{span()}\n"
    assert await post(client, emulator.url, body) == 202
    assert await post(client, emulator.url + "/x?format=trace", span()) == 202
    totals = emulator.totals()
    assert totals["points"] == {
        "accepted": 1,
        "rejected": 1,
        "by_reason": {"WF-300": 1},
        "warnings": {},
    }
    assert totals["deltas"]["red"]["invocation.count"] == 3
    assert (totals["distributions"]["count"], totals["distributions"]["sum"]) == (2, 3.0)
    assert (totals["span_logs"]["accepted"], totals["spans"]["accepted"]) == (1, 1)


async def test_direct_ingestion_goes_by_its_format(
    start: Start, client: aiohttp.ClientSession
) -> None:
    emulator = await start(trace_listen=None)
    assert emulator.trace_url is None
    report = emulator.url + "/report"
    assert await post(client, report + "?f=wavefront", METRIC) == 202
    assert await post(client, report, METRIC) == 202
    assert await post(client, report + "/?f=histogram", DISTRIBUTION) == 202
    assert await post(client, report + "?f=spanLogs", span_log(span="_sampledByPolicy=NONE")) == 202
    assert await post(client, report + "?f=logs_json_arr", METRIC) == 400
    totals = emulator.totals()
    assert [totals[signal]["accepted"] for signal in ("points", "distributions", "span_logs")] == [
        2,
        1,
        1,
    ]
    assert totals["requests"]["by_status"] == {"202": 4, "400": 1}
    assert totals["requests"]["by_port"] == {"direct": 5}


async def test_bodies_are_bounded_after_inflation(
    start: Start, client: aiohttp.ClientSession
) -> None:
    emulator = await start()
    bomb = gzip.compress(b" " * (BODY_BYTES_MAX + 1))
    headers = {"Content-Encoding": "gzip"}
    assert await post(client, emulator.trace_url, bomb, headers=headers) == 413
    fine = gzip.compress(b" " * (BODY_BYTES_MAX - 200) + span().encode())
    assert await post(client, emulator.trace_url, fine, headers=headers) == 202
    assert emulator.totals()["spans"]["accepted"] == 1


async def test_broken_compression_is_a_bad_request(
    start: Start, client: aiohttp.ClientSession
) -> None:
    emulator = await start()
    headers = {"Content-Encoding": "gzip"}
    assert await post(client, emulator.trace_url, b"no gzip at all", headers=headers) == 400


async def test_other_methods_and_expectations(start: Start, client: aiohttp.ClientSession) -> None:
    emulator = await start()
    assert emulator.trace_url is not None
    async with client.get(emulator.trace_url) as answer:
        assert answer.status == 405
    async with client.options(emulator.trace_url) as answer:
        assert answer.status == 204
    assert await post(client, emulator.trace_url, span(), expect100=True) == 202
    assert emulator.totals()["spans"]["accepted"] == 1


# --- plain TCP ----------------------------------------------------------------------------------


async def test_lines_over_tcp_are_taken_in_any_pieces(start: Start) -> None:
    emulator = await start()
    text = f"{span(1)}\r\n{span_log()}\n\n{span(2)}\nbad\n".encode()
    await send_tcp(emulator.trace_url, *(text[at : at + 1] for at in range(len(text))))
    await send_tcp(emulator.url, f"{METRIC}\n{DISTRIBUTION}\n".encode())
    totals = emulator.totals()
    assert (totals["spans"]["accepted"], totals["spans"]["rejected"]) == (2, 1)
    assert totals["span_logs"]["accepted"] == 1
    assert (totals["points"]["accepted"], totals["distributions"]["accepted"]) == (1, 1)
    assert totals["requests"]["tcp_connections"] == 2
    assert totals["requests"]["tcp_unterminated"] == 0


async def test_a_gzip_stream_of_lines_is_inflated(start: Start) -> None:
    emulator = await start()
    body = gzip.compress("".join(f"{span(n)}\n" for n in range(500)).encode())
    await send_tcp(emulator.trace_url, body[:1], body[1:700], body[700:])
    assert emulator.totals()["spans"]["accepted"] == 500


async def test_a_broken_gzip_stream_is_counted(start: Start) -> None:
    emulator = await start()
    reader, writer = await connect(emulator.trace_url)
    writer.write(b"\x1f\x8b" + b"\xff" * 100)
    assert await hung_up(reader)
    writer.close()
    assert emulator.totals()["requests"]["tcp_failed"] == 1


async def test_an_unterminated_last_line_is_discarded_and_counted(start: Start) -> None:
    emulator = await start()
    await send_tcp(emulator.trace_url, f"{span(1)}\n{span(2)}".encode())
    totals = emulator.totals()
    assert totals["spans"]["accepted"] == 1
    assert totals["requests"]["tcp_unterminated"] == 1


@pytest.mark.parametrize(("version", "limit"), [("4.35", 4_096), ("current", 1_048_576)])
async def test_tcp_lines_end_at_the_versions_limit(start: Start, version: str, limit: int) -> None:
    emulator = await start(version=version)

    def sized(number: int, size: int) -> bytes:
        # White space between tokens is free.
        name, rest = span(number).split(" ", 1)
        return (name + " " * (size - len(span(number)) + 1) + rest).encode()

    fits, long = sized(1, limit), sized(2, limit + 1)
    assert (len(fits), len(long)) == (limit, limit + 1)
    far_too_long = b"x" * (3 * limit)
    await send_tcp(
        emulator.trace_url,
        fits + b"\r\n" + long + b"\n",
        far_too_long,
        b"y\n" + span(3).encode() + b"\n",
    )
    totals = emulator.totals()["spans"]
    assert (totals["accepted"], totals["by_reason"]) == (2, {"line_too_long": 2})


# --- versions -----------------------------------------------------------------------------------


async def test_version_4_35_answers_204_and_drops_span_logs_without_a_word(
    start: Start, client: aiohttp.ClientSession
) -> None:
    emulator = await start(version="4.35")
    assert await post(client, emulator.trace_url, f"{span()}\n{span_log()}") == 204
    assert await post(client, emulator.url + "/report?f=trace", span(2)) == 204
    assert await post(client, emulator.url, f"{METRIC}\n{DISTRIBUTION}") == 204
    long = span(3, tags=" ".join(f'"k{n}"="{"v" * 120}"' for n in range(45)))
    assert len(long) > 4_096
    assert await post(client, emulator.trace_url, long) == 204
    totals = emulator.totals()
    assert totals["version"] == "4.35"
    assert totals["spans"]["accepted"] == 2
    assert totals["span_logs"]["by_reason"] == {"not_in_this_version": 1}
    # f=trace is unknown there: the span is read as a metric.
    assert totals["points"]["by_reason"] == {"WF-300": 1}
    assert (totals["points"]["accepted"], totals["distributions"]["accepted"]) == (1, 1)


# --- tokens -------------------------------------------------------------------------------------


async def test_direct_ingestion_wants_its_token(
    start: Start, client: aiohttp.ClientSession
) -> None:
    emulator = await start(token="secret")
    report = emulator.url + "/report?f=trace"
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic secret"}, 401),
        ({"Authorization": "Bearer secret"}, 202),
    ):
        assert await post(client, report, span(), headers=headers) == status
    # A proxy's ports know no token.
    assert await post(client, emulator.trace_url, span(2)) == 202
    assert emulator.totals()["spans"]["accepted"] == 2


async def test_csp_exchange_hands_out_tokens_that_expire(
    start: Start, client: aiohttp.ClientSession
) -> None:
    emulator = await start(token="secret", csp_expires_in=600)
    url = emulator.url + API_TOKEN_PATH
    async with client.post(
        url, data={"grant_type": "api_token", "refresh_token": "wrong"}
    ) as answer:
        assert answer.status == 401
    for field in ("refresh_token", "api_token"):
        async with client.post(url, data={"grant_type": "api_token", field: "secret"}) as answer:
            granted = await answer.json()
            assert (answer.status, granted["expires_in"]) == (200, 600)
        headers = {"Authorization": f"Bearer {granted['access_token']}"}
        assert await post(client, emulator.url + "/report?f=trace", span(), headers=headers) == 202
    assert emulator.totals()["csp_tokens_issued"] == 2

    short = await start(token="secret", csp_expires_in=0)
    async with client.post(short.url + API_TOKEN_PATH, data={"api_token": "secret"}) as answer:
        headers = {"Authorization": f"Bearer {(await answer.json())['access_token']}"}
    assert await post(client, short.url + "/report?f=trace", span(), headers=headers) == 401


async def test_csp_oauth_wants_the_apps_secret(start: Start, client: aiohttp.ClientSession) -> None:
    emulator = await start(token="secret")
    form = {"grant_type": "client_credentials", "orgId": "o"}

    async def exchange(credentials: str, form: dict[str, str]) -> int:
        basic = base64.b64encode(credentials.encode()).decode()
        headers = {"Authorization": f"Basic {basic}"}
        async with client.post(emulator.url + OAUTH_PATH, data=form, headers=headers) as answer:
            return answer.status

    assert await exchange("app:secret", form) == 200
    assert await exchange("app:wrong", form) == 401
    assert await exchange("app", form) == 401
    assert await exchange("app:secret", {"grant_type": "password"}) == 400
    assert await post(client, emulator.url + OAUTH_PATH, b"") == 401


async def test_the_csp_exchange_can_be_faulty_too(
    start: Start, client: aiohttp.ClientSession
) -> None:
    emulator = await start()
    await post(
        client, emulator.url + "/faults", json.dumps({"port": "csp", "status": 500, "count": 1})
    )
    assert await post(client, emulator.url + "/report?f=trace", span()) == 202
    form = aiohttp.FormData({"api_token": "x"})
    async with client.post(emulator.url + API_TOKEN_PATH, data=form) as answer:
        assert answer.status == 500
    async with client.post(emulator.url + API_TOKEN_PATH, data={"api_token": "x"}) as answer:
        assert answer.status == 200


# --- faults -------------------------------------------------------------------------------------


async def test_a_fault_strikes_as_often_as_asked_and_the_lines_are_not_taken(
    start: Start, client: aiohttp.ClientSession
) -> None:
    emulator = await start()
    fault = {"status": 503, "count": 2, "retry_after": 7, "port": "trace"}
    assert await post(client, emulator.url + "/faults", json.dumps(fault)) == 200
    assert emulator.trace_url is not None
    async with client.post(emulator.trace_url, data=span().encode()) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "7")
    assert await post(client, emulator.url, METRIC) == 202
    assert await post(client, emulator.trace_url, span()) == 503
    assert await post(client, emulator.trace_url, span()) == 202
    totals = emulator.totals()
    assert (totals["spans"]["accepted"], totals["requests"]["faulted"]) == (1, 2)
    assert (await get(client, emulator.url + "/faults")) == {"faults": []}


async def test_a_fault_may_take_the_lines_so_that_retries_make_doubles(
    start: Start, client: aiohttp.ClientSession
) -> None:
    emulator = await start()
    await post(
        client, emulator.url + "/faults", json.dumps({"status": 500, "accept": True, "count": 1})
    )
    assert await post(client, emulator.trace_url, span()) == 500
    assert await post(client, emulator.trace_url, span()) == 202
    totals = emulator.totals()
    assert (totals["spans"]["accepted"], totals["duplicates"]) == (2, 1)


async def test_a_fault_may_single_out_one_signal(
    start: Start, client: aiohttp.ClientSession
) -> None:
    emulator = await start()
    await post(client, emulator.url + "/faults", json.dumps({"status": 406, "signal": "span_logs"}))
    assert await post(client, emulator.trace_url, span()) == 202
    assert await post(client, emulator.trace_url, span_log()) == 406
    assert await post(client, emulator.url + "/report?f=spanLogs", span_log()) == 406
    async with client.delete(emulator.url + "/faults") as answer:
        assert answer.status == 200
    assert await post(client, emulator.trace_url, span_log()) == 202


async def test_a_connection_may_be_reset(start: Start, client: aiohttp.ClientSession) -> None:
    emulator = await start()
    await post(client, emulator.url + "/faults", json.dumps({"reset": True, "count": 1}))
    with pytest.raises(aiohttp.ClientConnectionError):
        # aiohttp repeats idempotent requests only, and a POST is none.
        await post(client, emulator.trace_url, span())
    assert await post(client, emulator.trace_url, span()) == 202
    assert emulator.totals()["requests"]["aborted"] == 1


async def test_a_tcp_connection_may_be_reset(start: Start, client: aiohttp.ClientSession) -> None:
    emulator = await start()
    await post(client, emulator.url + "/faults", json.dumps({"status": 500, "port": "trace"}))
    await send_tcp(emulator.trace_url, f"{span(1)}\n".encode())
    await post(client, emulator.url + "/faults", json.dumps({"reset": True, "count": 1}))
    reader, writer = await connect(emulator.trace_url)
    writer.write(f"{span(2)}\n".encode())
    assert await hung_up(reader)
    writer.close()
    assert emulator.totals()["spans"]["accepted"] == 1


async def test_a_delay_holds_the_answer_and_takes_the_lines(
    start: Start, client: aiohttp.ClientSession
) -> None:
    emulator = await start()
    await post(client, emulator.url + "/faults", json.dumps({"delay_ms": 60, "count": 1}))
    loop = asyncio.get_running_loop()
    before = loop.time()
    assert await post(client, emulator.trace_url, span()) == 202
    assert loop.time() - before >= 0.055
    assert emulator.totals()["spans"]["accepted"] == 1


@pytest.mark.parametrize(
    "body",
    ["", "{}", "[]", '{"status": 99}', '{"status": 503, "count": 0}', '{"stauts": 503}',
     '{"status": 503, "port": "nowhere"}', '{"status": 503, "ends_at": 1}'],
)  # fmt: skip
async def test_a_senseless_fault_is_refused_with_a_reason(
    start: Start, client: aiohttp.ClientSession, body: str
) -> None:
    emulator = await start()
    async with client.post(emulator.url + "/faults", data=body) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]
    assert (await get(client, emulator.url + "/faults")) == {"faults": []}


# --- queries ------------------------------------------------------------------------------------


async def test_what_arrived_can_be_asked_for(start: Start, client: aiohttp.ClientSession) -> None:
    emulator = await start()
    other = span(2, tags='"application"="shop" "service"="stock"')
    await post(client, emulator.trace_url, f"{span(1)}\n{other}\nbad")
    await post(
        client, emulator.url, f"{METRIC}\n{DISTRIBUTION}\n~component.heartbeat 1 source=s a=b"
    )
    found = await get(client, emulator.url + "/spans?application=shop&service=stock")
    assert [row["span_id"][-1] for row in found["spans"]] == ["2"]
    series = await get(client, emulator.url + "/series?prefix=tracing.derived.")
    assert [row["sum"] for row in series["delta_counters"]] == [3.0]
    assert series["distributions"][0]["centroids"] == [[1.5, 2]]
    assert series["heartbeats"] == []
    everything = await get(client, emulator.url + "/series")
    assert everything["heartbeats"][0]["tags"] == {"a": "b"}
    lines = await get(client, emulator.url + "/lines?signal=spans&limit=1")
    assert lines["lines"] == [other]
    rejects = await get(client, emulator.url + "/rejects")
    assert (rejects["total"], rejects["by_reason"]) == (1, {"syntax": 1})
    assert rejects["samples"][0]["line"] == "bad"
    assert rejects["samples"][0]["port"] == "trace"


async def test_reset_forgets_everything(start: Start, client: aiohttp.ClientSession) -> None:
    emulator = await start()
    fresh = emulator.totals()
    await post(client, emulator.trace_url, f"{span()}\nbad")
    assert emulator.totals() != fresh
    assert await post(client, emulator.url + "/reset", b"") == 200
    assert emulator.totals() == fresh


async def test_wrong_questions_are_answered_with_what_is_known(
    start: Start, client: aiohttp.ClientSession
) -> None:
    emulator = await start()
    for path, status in (
        ("/", 404),
        ("/lines?signal=x", 400),
        ("/spans?limit=x", 400),
        ("/reset", 404),
    ):
        async with client.get(emulator.url + path) as answer:
            assert answer.status == status
            assert (await answer.json())["error"]


# --- the rest -----------------------------------------------------------------------------------


async def test_every_line_is_recorded_with_its_verdict(
    start: Start, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    record = tmp_path / "lines.jsonl"
    record.write_text('{"earlier": true}\n')
    emulator = await start(record=record)
    await post(client, emulator.trace_url, f"{span()}\nbäd")
    await post(client, emulator.url, METRIC)
    rows = [json.loads(line) for line in record.read_text().splitlines()][1:]
    assert rows == [
        {"signal": "spans", "line": span(), "verdict": "accepted", "port": "trace"},
        {
            "signal": "spans",
            "line": "bäd",
            "verdict": "rejected",
            "port": "trace",
            "reason": "syntax",
        },
        {"signal": "points", "line": METRIC, "verdict": "accepted", "port": "metrics"},
    ]


async def test_counting_only_counts(start: Start, client: aiohttp.ClientSession) -> None:
    emulator = await start(count_only=True)
    await post(client, emulator.trace_url, f"junk\n{span()}\n{{}}\n")
    await post(client, emulator.url + "/report?f=histogram", "x\ny")
    await send_tcp(emulator.trace_url, b"a\nb\nc")
    totals = emulator.totals()
    assert totals["mode"] == "count_only"
    assert [totals[s]["accepted"] for s in ("spans", "span_logs", "distributions")] == [4, 1, 2]
    assert totals["requests"]["tcp_unterminated"] == 1


async def test_a_large_body_lets_others_in_between(
    start: Start, client: aiohttp.ClientSession
) -> None:
    emulator = await start()
    body = "\n".join(span(n) for n in range(5_000))
    status, totals = await asyncio.gather(
        post(client, emulator.trace_url, body), get(client, emulator.url + "/totals")
    )
    assert status == 202
    assert totals["mode"] == "full"
    assert emulator.totals()["spans"]["accepted"] == 5_000


async def test_a_taken_port_is_named_and_nothing_stays_open(start: Start) -> None:
    first = await start()
    taken = first.url.removeprefix("http://")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = f"127.0.0.1:{probe.getsockname()[1]}"
    second = Emulator(EmulatorSettings(listen=free, trace_listen=taken))
    with pytest.raises(OSError, match=f"cannot listen on {taken}.*choose another port"):
        await second.start()
    third = await start(listen=free)
    assert third.url == f"http://{free}"


async def test_an_unwritable_record_is_named(tmp_path: Path) -> None:
    settings = EmulatorSettings(listen="127.0.0.1:0", record=tmp_path / "none" / "lines")
    with pytest.raises(OSError, match="none/lines"):
        await Emulator(settings).start()


@pytest.mark.parametrize("listen", ["", "2878", "host:", "host:x", "host:70000"])
def test_an_address_that_is_none_is_a_mistake(listen: str) -> None:
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        Emulator(EmulatorSettings(listen=listen))


async def test_stop_closes_every_connection(start: Start) -> None:
    emulator = await start()
    opened = [await connect(url) for url in (emulator.url, emulator.trace_url, emulator.trace_url)]
    opened[0][1].write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    await opened[0][0].readuntil(b"\r\n\r\n")
    await emulator.stop()
    await emulator.stop()
    for reader, writer in opened:
        assert await hung_up(reader)
        writer.close()
