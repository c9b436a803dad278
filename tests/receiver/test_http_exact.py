"""How the Java proxy's port turns requests away."""

import asyncio
import socket

import pytest

from tracefwd.doorways import Answer
from tracefwd.receiver import http_exact
from tracefwd.receiver import http_messages as say
from tracefwd.receiver.http import HttpReceiver
from tracefwd.settings import ReceiverSettings

PATHS = say.served_paths([])


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        (b"POST", b"/api/v2/spans", None),
        (b"POST", b"/api/v1/spans%2F?a=[b]&c=%20#top", None),
        (b"POST", b"http://zipkin:9411/api/v2/spans", None),
        (b"POST", b"/api/v2/span", 400),
        (b"POST", b"/api/v2/spans?a={", 400),
        (b"POST", b"/api/v2/spans%", 400),
        (b"POST", b"/api/v2/[spans]", 400),
        (b"GET", b"/api/v2/spans", 400),
        (b"OPTIONS", b"*", 204),
        (b"OPTIONS", b"/{", 204),
    ],
)
def test_the_target_is_judged_as_a_uri_then_as_a_path(
    method: bytes, target: bytes, status: int | None
) -> None:
    answer = http_exact.route(method, target, PATHS)
    assert (None if answer is None else answer.status) == status


def test_a_head_may_be_as_large_as_nettys() -> None:
    http_exact.check_size(b"/" * 4_082, 8_192)
    for target, header_bytes in ((b"/" * 4_083, 0), (b"/", 8_193)):
        with pytest.raises(say.Refused) as raised:
            http_exact.check_size(target, header_bytes)
        assert raised.value.answer.status == 400


@pytest.mark.parametrize(
    ("head", "status", "default"),
    [
        (b"post /api/v2/spans HTTP/1.1\r\n\r\n", 400, 405),
        (b"CONNECT x:1 HTTP/1.1\r\n\r\n", 400, 405),
        (b"OPTIONS /api/v2/spans HTTP/1.1\r\n\r\n", 204, 405),
        (b"POST / HTTP/1.1\r\nx: " + b"y" * 40_000 + b"\r\n\r\n", 400, 431),
    ],
)
async def test_only_exact_answers_as_the_proxy(head: bytes, status: int, default: int) -> None:
    for exact, expected in ((True, status), (False, default)):
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        receiver = HttpReceiver(ReceiverSettings(), lambda *_: Answer(202), exact=exact)
        await receiver.start(sock)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head)
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            writer.close()
        finally:
            await receiver.stop(0)
        assert int(answer.split()[1]) == expected
        assert (b"Content-Length" in answer) == (expected != 204)
