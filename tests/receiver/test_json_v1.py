"""Zipkin v1 spans become the v2 spans that Zipkin's own converter makes of them."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd.model import Annotation, Decoded, Encoding, Endpoint, Span
from tracefwd.receiver.decode import make_decode

TRACE, ID, PARENT = "463ac35c9f6413ad48485a3953bb6124", "a2fb4a1d1a96d312", "bd7a977555f6b982"
FRONT = {"serviceName": "frontend", "ipv4": "127.0.0.1", "port": 1}
BACK = {"serviceName": "Backend", "ipv4": "192.168.99.101", "port": 9000}
FRONTEND, BACKEND = (
    Endpoint("frontend", "127.0.0.1", None, 1),
    Endpoint("Backend", "192.168.99.101", None, 9000),
)

decode = make_decode()


def note(at: int, value: str, endpoint: Any = None) -> dict[str, Any]:
    return {"timestamp": at, "value": value} | ({"endpoint": endpoint} if endpoint else {})


def tag(key: str, value: Any, endpoint: Any = None) -> dict[str, Any]:
    return {"key": key, "value": value} | ({"endpoint": endpoint} if endpoint else {})


def read(notes: list[Any], tags: list[Any] | None = None, **members: Any) -> Decoded:
    span = {"traceId": TRACE, "id": ID, "name": "get", "annotations": notes} | members
    if tags is not None:
        span["binaryAnnotations"] = tags
    return decode(json.dumps([span]).encode(), "application/json")


def v2(**members: Any) -> Span:
    return Span(trace_id=TRACE, span_id=ID, name="get", **members)


def test_client_annotations_make_a_client_span() -> None:
    decoded = read(
        [note(10, "cs", FRONT), note(15, "foo", FRONT), note(30, "cr", FRONT)],
        [tag("http.path", "/api", FRONT), tag("sa", True, BACK)],
        timestamp=10,
        duration=20,
        parentId=PARENT,
    )
    assert decoded.encoding is Encoding.JSON_V1
    assert decoded.spans == [
        v2(
            parent_id=PARENT,
            kind="CLIENT",
            timestamp_us=10,
            duration_us=20,
            local=FRONTEND,
            remote=BACKEND,
            annotations=[Annotation(15, "foo")],
            tags={"http.path": "/api"},
        )
    ]
    assert not decoded.rejects
    assert decoded.repairs is None


def test_without_times_of_its_own_a_span_has_those_of_its_annotations() -> None:
    (span,) = read([note(10, "sr", BACK), note(30, "ss", BACK)], [tag("ca", True, FRONT)]).spans
    assert span == v2(
        kind="SERVER", timestamp_us=10, duration_us=20, local=BACKEND, remote=FRONTEND, shared=True
    )


def test_a_span_with_both_sides_becomes_two_and_the_server_is_shared() -> None:
    notes = [
        note(10, "cs", FRONT),
        note(12, "sr", BACK),
        note(28, "ss", BACK),
        note(30, "cr", FRONT),
    ]
    tags = [
        tag("a", "client", FRONT),
        tag("b", "server", BACK),
        tag("ca", True, FRONT),
        tag("sa", True, BACK),
    ]
    spans = read(notes, tags, timestamp=10, duration=20).spans
    assert spans == [
        v2(
            kind="CLIENT",
            timestamp_us=10,
            duration_us=20,
            local=FRONTEND,
            remote=BACKEND,
            tags={"a": "client"},
        ),
        v2(
            kind="SERVER",
            timestamp_us=12,
            duration_us=16,
            local=BACKEND,
            remote=FRONTEND,
            tags={"b": "server"},
            shared=True,
        ),
    ]


def test_a_service_that_calls_itself_is_two_spans_as_well() -> None:
    notes = [
        note(10, "cs", FRONT),
        note(12, "sr", FRONT),
        note(28, "ss", FRONT),
        note(30, "cr", FRONT),
    ]
    spans = read(notes, timestamp=10, duration=20).spans
    assert [(s.kind, s.timestamp_us, s.duration_us, s.shared) for s in spans] == [
        ("CLIENT", 10, 20, None),
        ("SERVER", 12, 16, True),
    ]


@pytest.mark.parametrize(("end", "kind"), [("cr", "CLIENT"), ("ss", "SERVER")])
def test_an_end_that_fits_the_spans_times_stands_for_both(end: str, kind: str) -> None:
    (span,) = read([note(30, end, FRONT)], timestamp=10, duration=20).spans
    assert span == v2(kind=kind, timestamp_us=10, duration_us=20, local=FRONTEND)


def test_an_incomplete_call_keeps_what_is_known() -> None:
    assert read([note(10, "cs", FRONT)]).spans == [
        v2(kind="CLIENT", timestamp_us=10, local=FRONTEND)
    ]
    assert read([note(10, "sr", BACK)]).spans == [
        v2(kind="SERVER", timestamp_us=10, local=BACKEND, shared=True)
    ]
    (span,) = read([note(30, "cr", FRONT)], timestamp=11).spans
    assert span == v2(
        kind="CLIENT", timestamp_us=11, local=FRONTEND, annotations=[Annotation(30, "cr")]
    )


def test_messaging_annotations_make_producer_and_consumer() -> None:
    (producer,) = read(
        [note(10, "ms", FRONT), note(12, "ws", FRONT)], [tag("ma", True, BACK)]
    ).spans
    assert producer == v2(
        kind="PRODUCER", timestamp_us=10, duration_us=2, local=FRONTEND, remote=BACKEND
    )
    (consumer,) = read([note(18, "wr", BACK), note(20, "mr", BACK)]).spans
    assert consumer == v2(kind="CONSUMER", timestamp_us=18, duration_us=2, local=BACKEND)
    both = read(
        [note(10, "ms", FRONT), note(20, "mr", BACK)], [tag("ma", True, {"ipv4": "10.0.0.9"})]
    ).spans
    assert [(s.kind, s.timestamp_us, s.shared, s.remote) for s in both] == [
        ("PRODUCER", 10, None, Endpoint(None, "10.0.0.9")),
        ("CONSUMER", 20, True, Endpoint(None, "10.0.0.9")),
    ]


def test_addresses_without_core_annotations_say_who_is_remote() -> None:
    assert read([], [tag("sa", True, BACK)]).spans == [v2(remote=BACKEND)]
    assert read([], [tag("ca", True, FRONT)]).spans == [v2(kind="SERVER", remote=FRONTEND)]
    assert read([], [tag("ca", True, FRONT), tag("sa", True, BACK)]).spans == [
        v2(local=FRONTEND, remote=BACKEND)
    ]


def test_a_client_socket_named_after_the_server_loses_the_name() -> None:
    socket = BACK | {"port": 63840}
    (span,) = read([note(10, "sr", BACK), note(30, "ss", BACK)], [tag("ca", True, socket)]).spans
    assert span.remote == Endpoint(None, "192.168.99.101", None, 63840)


def test_a_local_component_marker_names_the_host_and_is_no_tag() -> None:
    (span,) = read([], [tag("lc", "", FRONT)], timestamp=5, duration=7).spans
    assert span == v2(local=FRONTEND, timestamp_us=5, duration_us=7)
    (span,) = read([], [tag("lc", "job", FRONT)]).spans
    assert span.tags == {"lc": "job"}


def test_a_core_annotation_without_an_endpoint_is_an_ordinary_one() -> None:
    (span,) = read([note(10, "cs")], timestamp=5).spans
    assert span == v2(timestamp_us=5, annotations=[Annotation(10, "cs")])


@pytest.mark.parametrize(
    "nobody", [{}, {"serviceName": ""}, {"ipv4": "no address"}, {"port": 0}, {"serviceName": None}]
)
def test_an_endpoint_that_tells_nothing_is_none(nobody: dict[str, Any]) -> None:
    """As Zipkin has it: else the caller's span would be split for a host that nobody named."""
    said, plain = note(10, "sr", nobody), Annotation(10, "sr")
    (span,) = read([said, note(10, "cs", FRONT), note(30, "cr", FRONT)]).spans
    assert span == v2(
        kind="CLIENT", timestamp_us=10, duration_us=20, local=FRONTEND, annotations=[plain]
    )
    (span,) = read([said], [tag("a", "b", nobody), tag("ca", True, nobody)]).spans
    assert span == v2(annotations=[plain], tags={"a": "b"})
    # Nor is it one where everything else is as usual.
    call = [note(10, "cs", nobody), note(30, "cr", nobody)]
    (span,) = read(call, [tag("a", "b", nobody)], name="get", timestamp=10, duration=20).spans
    assert (span.kind, span.local) == (None, None)


@pytest.mark.parametrize(
    "bad", [None, 5, "x", {"value": 1}, {"key": "k"}, {"key": "k", "value": None}]
)
def test_a_binary_annotation_that_is_none_is_left_out_and_counted(bad: Any) -> None:
    decoded = read([note(10, "cs", FRONT)], [bad, tag("a", "b", FRONT)])
    assert decoded.spans[0].tags == {"a": "b"}
    assert decoded.repairs == {"field_type": 1}


def test_odd_types_are_read_as_in_v2() -> None:
    decoded = read(
        [note("10", "cs", FRONT | {"port": "1"}), {"value": "x"}, note(20, "foo", FRONT)],
        [tag("n", 1.50, FRONT), tag("t", True, FRONT), tag("x", "text", FRONT)],
        timestamp="10",
        traceId=TRACE.upper(),
    )
    (span,) = decoded.spans
    assert (span.trace_id, span.timestamp_us, span.local) == (TRACE, 10, FRONTEND)
    assert span.tags == {"n": "1.5", "t": "true", "x": "text"}
    assert decoded.repairs == {"field_type": 1}


@pytest.mark.parametrize("value", [True, "true", "1", ""])
def test_the_other_sides_address_is_no_host_of_its_own_however_it_is_said(value: Any) -> None:
    call = [note(10, "cs", FRONT), note(30, "cr", FRONT)]
    [span] = read(call, [tag("a", "b", FRONT), tag("sa", value, BACK)]).spans
    assert (span.local, span.remote, span.tags) == (FRONTEND, BACKEND, {"a": "b"})
    # Without an endpoint it says nothing.
    [span] = read(call, [tag("a", "b", FRONT), tag("sa", value)]).spans
    assert (span.remote, span.tags) == (None, {"a": "b"})


def test_of_two_addresses_of_one_side_the_last_counts() -> None:
    """As seen of the Java proxy, also where the last names nobody."""
    assert read([], [tag("ca", True, FRONT), tag("ca", "true")]).spans == [v2()]
    assert read([], [tag("ca", True, FRONT), tag("ca", True)]).spans[0].remote == FRONTEND
    assert read([], [tag("ca", "true"), tag("ca", True, FRONT)]).spans == [
        v2(kind="SERVER", remote=FRONTEND)
    ]


def test_an_address_among_tags_of_one_endpoint_is_no_tag() -> None:
    members = {"timestamp": 1_700_000_000_000_010, "duration": 20}
    tags = [tag("a", "b", FRONT), tag("sa", "1", FRONT)]
    notes = [note(10, "cs", FRONT), note(30, "cr", FRONT)]
    span = {"traceId": TRACE, "id": ID, "name": "get", "annotations": notes, **members}
    body = json.dumps([{**span, "binaryAnnotations": tags}], separators=(",", ":")).encode()
    [found] = decode(body, "").spans
    assert (found.remote, found.tags) == (FRONTEND, {"a": "b"})


def test_who_spoke_first_owns_the_times_in_whatever_order_it_is_told() -> None:
    times = {"timestamp": 20, "duration": 9}
    first, second = note(20, "foo", FRONT), note(30, "cr", BACK)
    for said in ([first, second], [second, first]):
        spans = read(said, **times).spans
        assert [(span.local, span.timestamp_us) for span in spans] == [
            (FRONTEND, 20),
            (BACKEND, None),
        ]
    front, back = tag("a", "x", FRONT), tag("b", "y", BACK)
    for tagged in ([front, back], [back, front]):
        spans = read([], tagged, **times).spans
        assert [(span.local, span.timestamp_us) for span in spans] == [
            (FRONTEND, 20),
            (BACKEND, None),
        ]


def test_bad_ids_reject_a_v1_span_alone() -> None:
    good = {"traceId": TRACE, "id": ID, "annotations": [note(10, "cs", FRONT)]}
    decoded = decode(json.dumps([good, good | {"id": "zz"}, good]).encode(), "")
    assert decoded.encoding is Encoding.JSON_V1
    assert len(decoded.spans) == 2
    assert [reject.reason for reject in decoded.rejects] == ["span_id"]


def test_each_span_of_a_body_is_told_by_its_own_members() -> None:
    v1 = {"traceId": TRACE, "id": ID, "annotations": [note(10, "cs", FRONT)]}
    bare = {"traceId": TRACE, "id": ID, "kind": "SERVER"}
    full = bare | {"tags": {"a": "b"}, "annotations": [note(10, "ss", FRONT)]}
    decoded = decode(json.dumps([v1, bare, full, v1]).encode(), "")
    assert [span.kind for span in decoded.spans] == ["CLIENT", "SERVER", "SERVER", "CLIENT"]
    assert decoded.spans[2].annotations == [Annotation(10, "ss")]
    assert decoded.encoding is Encoding.JSON_V2


VALUES = ["cs", "cr", "sr", "ss", "ms", "mr", "ws", "wr", "foo"]
endpoints = st.sampled_from([None, FRONT, BACK, {"ipv4": "10.0.0.1"}])
notes = st.builds(note, st.integers(0, 99), st.sampled_from(VALUES), endpoints)
tags = st.builds(
    tag,
    st.sampled_from(["sa", "ca", "ma", "lc", "a", "b"]),
    st.sampled_from([True, "", "x"]),
    endpoints,
)
optional = {"timestamp": st.integers(0, 99), "duration": st.integers(0, 99), "debug": st.booleans()}


@settings(deadline=None, max_examples=300)
@given(
    st.lists(notes, max_size=5),
    st.lists(tags, max_size=4),
    st.fixed_dictionaries({}, optional=optional),
)
def test_the_strict_and_the_lenient_reader_agree(
    said: list[Any], tagged: list[Any], members: dict[str, Any]
) -> None:
    strictly = read(said, tagged, **members)
    leniently = read(said, tagged, **members, parentId="")
    assert strictly.spans == leniently.spans
    assert strictly.spans
    assert not strictly.rejects
    said_ones = sum(len(span.annotations or ()) for span in strictly.spans)
    assert said_ones >= sum(item["value"] == "foo" for item in said)


def test_a_sender_may_change_between_the_versions() -> None:
    v1 = [{"traceId": TRACE, "id": ID, "annotations": [note(10, "cs", FRONT)]}]
    v2 = [{"traceId": TRACE, "id": ID, "kind": "CLIENT", "tags": {"a": "b"}}]
    changing = make_decode()
    for said in (v1, v2, v1, [], v2, v1, [*v1, *v2], v1, {"a": 1}, v1):
        body = json.dumps(said, separators=(",", ":")).encode()
        assert changing(body, "") == make_decode()(body, "")
