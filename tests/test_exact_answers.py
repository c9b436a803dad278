"""Every odd input over a socket, through the parts that ``mapping.exact`` chooses: the proxy's answers and lines.

None is left out: Thrift, which we never take, is a 400 among these, too.
"""

import asyncio
import base64
import json
import re
import socket
from typing import Any

import pytest

from tests.conftest import JAVA_PROXY, NOW_US
from tests.line_fields import fields_of_lines
from tracefwd.compose import make_pipeline
from tracefwd.doorways import Answer
from tracefwd.ledger import Account
from tracefwd.metrics import Samples
from tracefwd.model import Payload, Signal
from tracefwd.receiver.http import HttpReceiver
from tracefwd.settings import MappingSettings, Settings, TargetSettings

ODD = json.loads((JAVA_PROXY / "odd-inputs.json").read_text())
# What an answer of 400 has to speak of, for a client to find its mistake: the proxy's word, and ours.
MEANINGS = [
    ("Unsupported URL path", "Unsupported URL path"),
    ("Unsupported Http method", "Unsupported Http method"),
    ("Illegal character", "no URI"),
    ("Decompression error", "gzip"),
    ("Could not detect", "Could not detect"),
    ("Expected json, proto3 or thrift list", "Expected json, proto3 or thrift list"),
    ("should be lower-hex", "should be lower-hex"),
    ("is all zeros", "is all zeros"),
    ("traceId == 0", "traceId == 0"),
    ("is empty", "is empty"),
    ("length >", "length >"),
    ("Missing :", "Missing :"),
    ("No enum constant", "No enum constant"),
    ("Incomplete annotation", "Incomplete annotation"),
    ("No value at", "No value at"),
    ("invalid port", "invalid port"),
    ("Expected a", "Expected a"),
    ("String index out of range", "empty"),
    ("from proto3", "proto3"),
    ("TBinary", "Thrift"),
]


class Target:
    """A direct target that keeps what it is offered."""

    name, role = "primary", "primary"

    def __init__(self) -> None:
        self.accounts = {signal: Account(lambda: 0) for signal in Signal}
        self.lines: list[str] = []

    def offer(self, payload: Payload) -> None:
        self.lines += payload.data.decode().split("\n")[:-1]

    def failover_accounts(self) -> dict[str, dict[Signal, Account]]:
        return {}

    def samples(self) -> Samples:
        return {}


async def ask(entry: dict[str, Any]) -> tuple[int, str, Target, dict[str, Any]]:
    """Status and text of the answer to one odd input on a connection of its own, and what was sent on."""
    target = Target()
    settings = Settings(mapping=MappingSettings(profile="wavefront-proxy", exact=True))
    direct = TargetSettings(kind="direct", url="https://x.wavefront.com")
    pipeline = make_pipeline(settings, [(direct, target)], now_us=lambda: NOW_US)
    receiver = HttpReceiver(settings.receiver, pipeline.ingest, exact=True)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    await receiver.start(sock)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(entry))
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 100"):
            head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"Content-Length: (\d+)", head)
        length = int(found[1]) if found and entry.get("method") != "HEAD" else 0
        text = (await reader.readexactly(length)).decode()
        writer.close()
    finally:
        await receiver.stop(0)
    return int(head.split()[1]), text, target, pipeline.ledger()


def request(entry: dict[str, Any]) -> bytes:
    raw = entry["body"].encode() if "body" in entry else base64.b64decode(entry["body_base64"])
    headers = entry.get("headers", {"content-type": "application/json"})
    lines = [f"{entry.get('method', 'POST')} {entry.get('path', '/api/v2/spans')} HTTP/1.1"]
    lines += ["host: zipkin", *[f"{name}: {value}" for name, value in headers.items()]]
    if "transfer-encoding" in headers:
        raw = b"%x\r\n%b\r\n0\r\n\r\n" % (len(raw), raw)
    else:
        lines.append(f"content-length: {len(raw)}")
    return "\r\n".join([*lines, "", ""]).encode() + raw


@pytest.mark.parametrize("entry", ODD, ids=lambda entry: entry["name"])
async def test_the_answer_and_the_lines_are_the_proxys(entry: dict[str, Any]) -> None:
    status, text, target, ledger = await asyncio.wait_for(ask(entry), 10)
    assert status == entry["status"], text
    assert fields_of_lines(target.lines) == fields_of_lines(entry["lines"])
    assert (status == 400) == bool(text) or entry.get("method") == "HEAD"
    for theirs, ours in MEANINGS:
        if theirs in entry["answer"]:
            assert ours in text
    # Nothing is lost without a count: these targets keep everything at once, so nothing is held.
    spans = [line for line in target.lines if line.startswith('"')]
    rejected = sum(ledger["rejected"].values())
    assert ledger["received"] == len(spans) + rejected
    reaches_the_decoder = "span" in text or status == 202
    if status == 400 and reaches_the_decoder and entry["answer"].startswith("reason"):
        assert rejected or "URI" in text or "headers" in text


LOG = (
    '{"customer":"default","traceId":"00000000-0000-0000-500d-729af71525b2","spanId":"00000000-0000-0000-4d0b-b8fcad4f4613",'
    '"spanSecondaryId":%s,"logs":[{"timestamp":1700000000123456,"fields":{"annotation":"cr"}}],'
    '"span":"_sampledByPolicy=NONE"}'
)


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ({"name": "x" * 129}, "null"),
        ({"name": "x" * 129, "kind": "CLIENT"}, '"client"'),
        ({"tags": {"k" * 129: "v"}}, "null"),
        ({"tags": {"a": "z" * 200, "b": "\1"}}, "null"),
        ({"tags": {f"k{number}": "v" for number in range(60)}}, "null"),
        ({"tags": {"source": "s" * 1_100}}, "null"),
        ({"timestamp": 4_000_000_000_000_000}, "null"),
    ],
)
async def test_a_refused_spans_annotations_go_out_without_it(
    members: dict[str, Any], kind: str
) -> None:
    """As seen of the proxy: its check comes between the span and its log."""
    span = {
        "traceId": "500d729af71525b2",
        "id": "4d0bb8fcad4f4613",
        "name": "get",
        "timestamp": 1_700_000_000_123_456,
        "localEndpoint": {"serviceName": "a"},
        "annotations": [{"timestamp": 1_700_000_000_123_456, "value": "cr"}],
        "tags": {},
        **members,
    }
    status, _, target, ledger = await ask({"body": json.dumps([span])})
    assert (status, ledger["rejected"]) == (202, {"invalid": 1})
    assert target.lines == [LOG.replace("%s", kind)]


async def test_a_clients_word_on_the_sampling_policy_is_taken_for_the_proxys() -> None:
    """As seen of the proxy, which looks for its own tag there."""
    span = {
        "traceId": "500d729af71525b2",
        "id": "4d0bb8fcad4f4613",
        "annotations": [{"timestamp": 1_700_000_000_123_456, "value": "cr"}],
        "tags": {"_sampledByPolicy": " mine "},
    }
    _, _, target, _ = await ask({"body": json.dumps([span])})
    [log] = [line for line in target.lines if line.startswith("{")]
    assert log == LOG.replace("%s", "null").replace("=NONE", "=mine")


async def test_the_default_answers_stay() -> None:
    target = Target()
    direct = TargetSettings(kind="direct", url="https://x.wavefront.com")
    settings = Settings(mapping=MappingSettings(profile="wavefront-proxy"))
    pipeline = make_pipeline(settings, [(direct, target)], now_us=lambda: NOW_US)
    for entry in ODD:
        if entry["name"] in {"good, without id, good", "good, empty tag key, good"}:
            answer = pipeline.ingest(entry["body"].encode(), "")
            assert isinstance(answer, Answer)
            assert (answer.status, answer.body) == (202, b"")
    assert len(target.lines) == 5
