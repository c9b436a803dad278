"""Records of tags hold what a dictionary would, learn what they are asked to, and forget before they grow."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ENVOY
from tracefwd import naming
from tracefwd.limits import TAG_RECORD_KEYS_MAX, TAG_RECORD_MISSES_MAX
from tracefwd.model import PlainSpan
from tracefwd.receiver import tag_memo
from tracefwd.receiver.json_v2 import StrictReader
from tracefwd.receiver.tag_memo import Pair, TagMemo
from tracefwd.receiver.tag_records import TagRecords
from tracefwd.tag_record import TagRecord

KEYS = st.text(
    st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"\\'),
    min_size=1,
    max_size=40,
)


@given(tags=st.dictionaries(KEYS, st.text(min_size=1), max_size=TAG_RECORD_KEYS_MAX - 8))
def test_a_record_is_the_mapping_that_it_was_decoded_from(tags: dict[str, str]) -> None:
    tags = {naming.clean_key(key): value for key, value in tags.items()}
    records = TagRecords(str)
    known = set(records.record.names)
    assert records.learn(tags) == bool(tags.keys() - known)
    record = msgspec.json.decode(msgspec.json.encode(tags), type=records.record)
    assert record == tags
    assert record.as_dict() == {**record} == dict(record.items()) == tags
    assert len(record) == len(tags)
    assert msgspec.to_builtins(record) == tags
    assert [getattr(record, records.field(key)) for key in tags] == list(tags.values())
    assert getattr(record, records.field("no such key")) == ""


def test_a_key_that_a_line_would_have_to_repair_gets_no_place() -> None:
    records = TagRecords(str)
    before = records.record
    for key in ("", "é", "k" * 129, "a\nb"):
        assert not records.learn([key, "fine"])
    assert not records.learn(["x y", "x-y"])
    assert records.record is before


def test_full_records_are_learned_anew_only_after_many_spans_with_other_keys() -> None:
    records = TagRecords(str)
    seeds = records.record.names
    made_up = [f"k{number}" for number in range(TAG_RECORD_KEYS_MAX - len(seeds))]
    assert records.learn(made_up)
    full = records.record
    for _ in range(TAG_RECORD_MISSES_MAX - 1):
        assert not records.learn(["http.url"])
    assert records.record is full
    assert records.learn(["http.url"])
    assert records.record.names == (*seeds, "http.url")


@pytest.mark.parametrize(
    ("first", "second"),
    [("guid-x-request-id", "guid:x-request-id"), ("guid:x-request-id", "guid-x-request-id")],
)
def test_a_key_that_came_first_does_not_keep_its_like_out_for_ever(first: str, second: str) -> None:
    records = TagRecords(str)
    assert records.learn([first])
    for _ in range(TAG_RECORD_MISSES_MAX - 1):
        assert not records.learn([second, "http.url"])
    assert records.learn([second, "http.url"])
    assert records.record.names[-2:] == (second, "http.url")
    assert not any(records.learn([first, second]) for _ in range(TAG_RECORD_MISSES_MAX))


def test_nor_does_it_where_tags_are_known_by_their_bytes() -> None:
    def read(piece: bytes) -> Pair:
        key, _, value = piece.decode().partition("=")
        return key, value

    memo = TagMemo(read)
    assert memo.record_of([b"guid-x-request-id=1"]) is not None
    for _ in range(TAG_RECORD_MISSES_MAX - 1):
        assert memo.record_of([b"guid:x-request-id=1"]) is None
    assert memo.record_of([b"guid:x-request-id=1"]) == {"guid:x-request-id": "1"}


def test_what_is_known_by_its_bytes_is_bounded_in_keys_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tag_memo, "MEMO_ENTRIES_MAX", 8)
    known = tag_memo._Known(lambda piece: (piece.decode(), ""))
    for number in range(100):
        assert known[b"%d" % number] == (f"{number}", "")
        assert len(known) <= 8


def test_a_span_with_more_keys_than_places_changes_nothing() -> None:
    records = TagRecords(str)
    before = records.record
    many = [f"k{number}" for number in range(TAG_RECORD_KEYS_MAX)]
    assert not any(records.learn(many) for _ in range(TAG_RECORD_MISSES_MAX + 1))
    assert records.record is before


def test_what_envoys_write_is_decoded_at_once_from_the_second_body_on() -> None:
    reader = StrictReader()
    body = (ENVOY / "json-batch-5.json").read_bytes()
    first, learned = reader.read(body), reader._records.record
    second = reader.read(body)
    assert reader._records.record is learned
    assert first is not None
    assert second is not None
    for span, raw in zip(second.spans, msgspec.json.decode(body), strict=True):
        assert isinstance(span, PlainSpan)
        assert isinstance(span.tags, TagRecord)
        assert span.tags == raw["tags"]
    assert first == second
