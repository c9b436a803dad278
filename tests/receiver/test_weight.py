"""Weight: what one body may ask for is bounded by work and not by bytes alone."""

import json
import time

import pytest

from tests.conftest import ENVOY
from tests.receiver.test_http import both_loops, post, serving
from tracefwd.limits import MEMBERS_PER_BODY_MAX, SPANS_PER_BODY_MAX, TAGS_PER_SPAN_MAX
from tracefwd.receiver.decode import make_decode
from tracefwd.receiver.weight import too_heavy

SPAN = b'{"traceId":"463ac35c9f6413ad48485a3953bb6124","id":"a2fb4a1d1a96d312"}'
PROTO = b"\x0a\x1c\x0a\x10" + b"\xaa" * 16 + b"\x1a\x08" + b"\xbb" * 8


def listed(part: bytes, count: int) -> bytes:
    return b"[" + b",".join([part] * count) + b"]"


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (listed(SPAN, SPANS_PER_BODY_MAX + 1), "spans"),
        (PROTO * (SPANS_PER_BODY_MAX + 1), "spans"),
        (b"\x0a\x80\x00" * (SPANS_PER_BODY_MAX + 1), "spans"),
        (listed(b"1", MEMBERS_PER_BODY_MAX + 2), "members"),
    ],
)
def test_what_would_take_seconds_is_too_heavy(body: bytes, word: str) -> None:
    assert word in too_heavy(body)


@pytest.mark.parametrize(
    "body",
    [
        listed(SPAN, SPANS_PER_BODY_MAX),
        PROTO * SPANS_PER_BODY_MAX,
        (ENVOY / "json-batch-100.json").read_bytes(),
        b"\x0a" + b"\xff" * 100_000,
        b"\x0a" * 100_000,
        b"\n[]" * 50_000,
        b"",
    ],
)
def test_what_is_usual_or_nonsense_is_left_to_the_decoder(body: bytes) -> None:
    assert too_heavy(body) == ""


def test_the_largest_body_of_real_spans_is_not_too_heavy() -> None:
    spans = json.loads((ENVOY / "json-batch-100.json").read_bytes())
    body = json.dumps(spans * 150, separators=(",", ":")).encode()
    assert len(body) > 15 * 2**20
    assert too_heavy(body) == ""


def test_looking_takes_no_time() -> None:
    body = listed(b"1", 8 * 2**20)
    begun = time.process_time()
    assert too_heavy(body)
    assert time.process_time() - begun < 0.2


@both_loops
async def test_too_heavy_is_413_and_the_connection_goes_on() -> None:
    async with serving() as server:
        client = await server.connect()
        reply = await client.ask(post(listed(SPAN, SPANS_PER_BODY_MAX + 1)))
        assert (reply.status, reply.closes) == (413, False)
        assert b"smaller batches" in reply.body
        assert server.got == []
        assert (await client.ask(post())).status == 202


def test_of_a_span_with_endless_tags_the_first_thousand_are_looked_at() -> None:
    tags = ",".join(f'"key{number}":"value"' for number in range(20_000))
    body = f'[{{"traceId":"{"1" * 32}","id":"{"2" * 16}","tags":{{{tags}}}}}]'.encode()
    decoded = make_decode()(body, "")
    [span] = decoded.spans
    assert span.tags is not None
    assert list(span.tags) == [f"key{number}" for number in range(TAGS_PER_SPAN_MAX)]
    assert decoded.repairs is not None
    assert decoded.repairs["tag_budget"] == 20_000 - TAGS_PER_SPAN_MAX
