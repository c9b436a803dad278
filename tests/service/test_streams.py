"""A slow reader loses, is told what, and holds no memory; a reader of nothing is cut off."""

import asyncio
import json

import aiohttp
import msgspec
import pytest

from tests.service.watched import get, until, watched
from tracefwd.console.masks import Masks
from tracefwd.console.seen import Seen, SpanRow, TapHit, TapWish
from tracefwd.limits import TAP_QUEUE_MAX
from tracefwd.service import streams as streams_module
from tracefwd.service.streams import EventStream, Streams, TapStream, event


async def test_a_slow_console_gets_the_newest_and_how_many_it_missed() -> None:
    stream = EventStream(frozenset({"flow", "spans"}))
    lost = [stream.put("flow", event("flow", b'{"n":%d}' % n)) for n in range(100)]
    stream.put("spans", event("spans", b"{}"))
    assert sum(lost) == 99
    text = (await stream.take()).decode()
    assert text == (
        'event: skipped\ndata: {"skipped": 99}\n\nevent: flow\ndata: {"n":99}\n\nevent: spans\ndata: {}\n\n'
    )
    stream.put("flow", event("flow", b"{}"))
    assert (await stream.take()) == b"event: flow\ndata: {}\n\n"


async def test_a_slow_tap_loses_spans_and_hears_of_it() -> None:
    tap = TapStream(TapWish(rate=1_000.0))
    taken = sum(tap.put(b"%d\n" % n) for n in range(TAP_QUEUE_MAX + 100))
    assert taken == TAP_QUEUE_MAX
    tap.unexamined = 5
    *lines, missed = (await tap.take()).splitlines()
    assert len(lines) == TAP_QUEUE_MAX
    assert json.loads(missed) == {"type": "missed", "unexamined": 5, "over_rate": 0, "slow": 100}
    tap.put(b"x\n")
    assert await tap.take() == b"x\n"


def test_a_rate_below_one_is_saved_up() -> None:
    tap = TapStream(TapWish(rate=0.4))
    taken = []
    for _ in range(10):
        taken.append(tap.put(b"x"))
        tap.each_second()
    assert sum(taken) in (3, 4)


def hit(*wishes: int) -> TapHit:
    row = SpanRow(
        0.0, "t", "s", "", "a", "b", "op", "", "src", "", False, False, 1.0, "kept", "json_v2"
    )
    return TapHit(list(wishes), row, {"password": "x"})


def test_hits_come_to_whom_they_belong_masked_and_old_ones_to_nobody() -> None:
    changes = 0

    def changed() -> None:
        nonlocal changes
        changes += 1

    streams = Streams(Masks(["pass*"]), changed)
    first, second = TapStream(TapWish(rate=5.0)), TapStream(TapWish(error=True))
    streams._taps |= {first, second}
    look = streams.look()
    assert streams.look() is look
    assert {wish.error for wish in look.wishes} == {False, True}
    place = look.wishes.index(first.wish)
    over = [0, 0]
    over[place] = 3
    streams.hear(Seen(10, 4, hits=[hit(place), hit(place + 9)], over=over, number=look.number))
    streams.hear(Seen(10, 4, hits=[hit(place)], number=look.number - 1))
    assert (len(first._lines), len(second._lines)) == (1, 0)
    assert msgspec.json.decode(first._lines[0])["tags"] == {"password": "***"}
    assert (first.unexamined, first.over_rate, second.over_rate) == (6, 3, 0)
    assert streams.missed_spans == 3


async def test_who_reads_nothing_is_cut_off_and_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams_module, "STREAM_STALL_S", 0.5)
    async with watched() as service, aiohttp.ClientSession() as http:
        url = service.admin_url.removeprefix("http://")
        host, port = url.split(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=2**10)
        writer.write(b"GET /api/v1/events?views=flow HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await until(lambda: service.views.streams.number)
        for _ in range(200):
            # More than any buffer of the kernel's holds.
            service.views.streams.publish("flow", b'"%s"' % (b"x" * 2**20))
            await asyncio.sleep(0)
        await until(lambda: not service.views.streams.number)
        flow = await get(http, service, "/api/v1/flow")
        assert flow["watchers"]["skipped_events"] > 0
        writer.close()


async def test_streams_end_when_told_whatever_they_are_about_to_say() -> None:
    """News and the end may come within a few turns of the loop."""
    async with watched() as service, aiohttp.ClientSession() as http:
        streams = service.views.streams
        for turns in range(8):
            async with http.get(service.admin_url + "/api/v1/events?views=flow") as events:
                assert await events.content.readline()
                # All that it had to say at first is said.
                await asyncio.sleep(0.1)
                streams.publish("flow", b"{}")
                for _ in range(turns):
                    await asyncio.sleep(0)
                closing = asyncio.create_task(streams.close())
                done, _ = await asyncio.wait({closing}, timeout=3)
                assert done, f"still open {turns} turns after news"
