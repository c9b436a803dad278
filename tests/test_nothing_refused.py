"""Every line is checked before it is sent: a proxy answers 2xx to lines that it throws away, so none may go out.

The judge is the stand-in, a reader that shares no code with the writer, with the back end's stricter limits.
Whatever spans come in, by whatever profile, its verdict on every line of every signal is yes.
"""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import NOW_US
from tests.test_pipeline import Sink
from tracefwd.compose import make_pipeline
from tracefwd.emulator.intake import Intake
from tracefwd.emulator.ports import Port, ProxyVersion
from tracefwd.emulator.rules import HTTP_TRIM, Limits
from tracefwd.emulator.store import Store
from tracefwd.model import Payload, Signal
from tracefwd.settings import (
    ExporterSettings,
    MappingSettings,
    ReceiverSettings,
    RedSettings,
    Settings,
    TargetSettings,
)

PROXY = TargetSettings(traces="http://p:30000", metrics="http://p:2878")
DIRECT = TargetSettings(kind="direct", url="https://x", token_file="t")
PORTS: dict[str, dict[Signal, Port]] = {
    "proxy": {
        Signal.SPANS: "trace",
        Signal.SPAN_LOGS: "trace",
        Signal.POINTS: "metrics",
        Signal.DISTRIBUTIONS: "metrics",
    },
    "direct": dict.fromkeys(Signal, "direct"),
}
FORMS = {
    Signal.SPANS: "spans",
    Signal.SPAN_LOGS: "span_logs",
    Signal.POINTS: "points",
    Signal.DISTRIBUTIONS: "distributions",
}


class KeepingSink(Sink):
    """Takes the journal's seq, too."""

    def offer(self, payload: Payload, seq: int = 0) -> None:
        super().offer(payload)


def options(profile: str, target: TargetSettings, **red: Any) -> Settings:
    return Settings(
        receiver=ReceiverSettings(trace_listen="127.0.0.1:0"),
        mapping=MappingSettings(profile=profile, long_values="span_log"),
        red=RedSettings(**red),
        exporter=ExporterSettings(targets=[target]),
    )


def refusals(chosen: Settings, bodies: list[bytes], lines: bytes = b"") -> list[dict[str, Any]]:
    """What the stand-in would not take of everything that these bodies come to."""
    [target] = chosen.exporter.targets
    sink = KeepingSink()
    pipeline = make_pipeline(chosen, [(target, sink)], now_us=lambda: NOW_US)
    for body in bodies:
        pipeline.ingest(body, "application/json")
    if lines:
        pipeline.ingest_lines(lines, "text/plain")
    for _ in pipeline.tick():
        pass
    store = Store(keep_lines=0)
    intake = Intake(
        limits=Limits.chosen(tags_max=50, backend_limits=True),
        version=ProxyVersion.named("current"),
        store=store,
    )
    for payload in sink.payloads:
        text = payload.data.decode()
        assert text.count("\n") == payload.items
        port = PORTS[target.kind][payload.signal]
        told = FORMS[payload.signal] if port == "direct" else None
        trimmed = [line.strip(HTTP_TRIM) for line in text.split("\n")[:-1]]
        intake.take(trimmed, port=port, form=told, now_ms=NOW_US // 1_000)  # type: ignore[arg-type]
    for signal, form in FORMS.items():
        # Told apart as what it is, and not a line more or less.
        tally = store.tallies[form]  # type: ignore[index]
        sent = sum(payload.items for payload in sink.payloads if payload.signal == signal)
        assert tally.accepted + tally.rejected == sent
    return list(store.rejects)


ODD = st.text(
    st.sampled_from(
        [
            '"',
            "\\",
            "\n",
            "\r",
            "\t",
            " ",
            "=",
            "#",
            "!",
            "∆",
            "~",
            "é",
            "\u3000",
            "\u00a0",
            "😀",
            "\x00",
            "a",
            "1",
            "{",
        ]
    ),
    max_size=40,
)
TEXTS = st.one_of(
    ODD,
    st.text(max_size=300),
    st.sampled_from(
        ["a" * 127 + "\\", "\\" * 130, "😀" * 80, "x" * 128, "", " ", "M", "!M 1 #1 2"]
    ),
)
KEYS = st.one_of(
    st.sampled_from(
        [
            "application", "service", "cluster", "shard", "source", "error", "component", "http.status_code",
            "istio.namespace", "istio.canonical_service", "istio.canonical_revision", "istio.cluster_id",
            "istio.mesh_id", "node_id", "span.kind", "_spanLogs", "parent", "host", "tag", "custom.tag", "spanId",
            "traceId", "∆", "Δ", "~", "∆~", "12",
        ]
    ),
    TEXTS,
)  # fmt: skip
HEX = st.text("0123456789abcdefABCDEF", min_size=1, max_size=40)
SPAN = st.fixed_dictionaries(
    {"traceId": st.one_of(st.just("a" * 32), HEX), "id": st.one_of(st.just("b" * 16), HEX)},
    optional={
        "parentId": HEX,
        "name": TEXTS,
        "kind": st.sampled_from(["CLIENT", "SERVER", "PRODUCER", "odd"]),
        "timestamp": st.sampled_from(
            [0, 1, -5, 999, NOW_US, NOW_US + 10**12, 10**18, 2**62, -(2**60)]
        ),
        "duration": st.sampled_from([0, 1, 999, 123_456, -7, 10**15, 2**62]),
        "localEndpoint": st.fixed_dictionaries({}, optional={"serviceName": TEXTS, "ipv4": TEXTS}),
        "remoteEndpoint": st.fixed_dictionaries({}, optional={"serviceName": TEXTS}),
        "tags": st.dictionaries(KEYS, TEXTS, max_size=60),
        "annotations": st.lists(
            st.fixed_dictionaries(
                {"timestamp": st.sampled_from([0, NOW_US, -1, 2**62]), "value": TEXTS}
            ),
            max_size=4,
        ),
        "shared": st.booleans(),
        "debug": st.booleans(),
    },
)
RED = [
    {},
    {"tags": ["custom.tag", "error", "host"], "source": ["{custom.tag}", "{service}"]},
    {"tags": [f"red.tag.{n}" for n in range(10)]},
]


@pytest.mark.parametrize("red", RED, ids=["plain", "tags", "many"])
@pytest.mark.parametrize("target", [PROXY, DIRECT], ids=["proxy", "direct"])
@pytest.mark.parametrize("profile", ["istio", "wavefront-proxy"])
@given(spans=st.lists(SPAN, min_size=1, max_size=5), data=st.data())
@settings(deadline=None, max_examples=25)
def test_nothing_that_zipkin_spans_become_is_refused(
    profile: str,
    target: TargetSettings,
    red: dict[str, Any],
    spans: list[dict[str, Any]],
    data: st.DataObject,
) -> None:
    for span in spans:
        if data.draw(st.booleans()):
            wanted = data.draw(st.dictionaries(st.sampled_from(red.get("tags", ["error"])), TEXTS))
            span.setdefault("tags", {}).update(wanted)
    body = json.dumps(spans).encode("utf-8", "surrogatepass")
    assert refusals(options(profile, target, **red), [body]) == []


QUOTED = TEXTS.map(lambda text: '"' + text.replace('"', '\\"').replace("\n", "\\n") + '"')
SPAN_LINES = st.builds(
    lambda name, source, ids, tags, times: " ".join(
        [name, f"source={source}", *ids, *(f"{key}={value}" for key, value in tags), times]
    ),
    name=QUOTED,
    source=QUOTED,
    ids=st.just(
        [
            "traceId=7b3bf470-9456-11e8-9eb6-529269fb1459",
            "spanId=0313bafe-9457-11e8-9eb6-529269fb1459",
        ]
    ),
    tags=st.lists(st.tuples(QUOTED, QUOTED), max_size=52),
    times=st.sampled_from(
        [
            f"{NOW_US // 1000} 5",
            f"{NOW_US // 1000} 0",
            "5 5",
            "0 1",
            f"{10**15} 1",
            f"{NOW_US} 7",
            "x y",
        ]
    ),
)


@pytest.mark.parametrize("target", [PROXY, DIRECT], ids=["proxy", "direct"])
@given(lines=st.lists(SPAN_LINES, min_size=1, max_size=4))
@settings(deadline=None, max_examples=50)
def test_nothing_that_span_lines_become_is_refused(
    target: TargetSettings, lines: list[str]
) -> None:
    body = "".join(line + "\n" for line in lines).encode("utf-8", "replace")
    assert refusals(options("istio", target), [], body) == []


@pytest.mark.parametrize("target", [PROXY, DIRECT], ids=["proxy", "direct"])
def test_the_judge_refuses_what_should_be_refused(target: TargetSettings) -> None:
    """Else the tests above would show nothing."""
    store = Store(keep_lines=0)
    intake = Intake(
        limits=Limits.chosen(tags_max=50, backend_limits=True),
        version=ProxyVersion.named("current"),
        store=store,
    )
    for signal, port in PORTS[target.kind].items():
        form = FORMS[signal] if port == "direct" else None
        intake.take(['"broken" line'], port=port, form=form, now_ms=0)  # type: ignore[arg-type]
    assert len(store.rejects) == 4
