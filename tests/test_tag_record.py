"""A record of tags is a mapping of what is there, and of nothing else."""

import pytest

from tracefwd.receiver.tag_records import TagRecords


def test_an_absent_tag_is_no_key() -> None:
    records = TagRecords(str)
    records.learn(["http.method", "zone"])
    record = records.record(**{records.field("zone"): "a"})
    assert dict(record) == {"zone": "a"} == {**record}
    assert record["zone"] == "a"
    assert record.get("http.method") is None
    assert "http.method" not in record
    for like in (records.record(**{records.field("zone"): "a"}), {"zone": "a"}):
        assert (record == like, record != like) == (True, False)
    for other in ({}, {"zone": "b"}, {"zone": "a", "http.method": ""}, None, "zone"):
        assert (record == other, record != other) == (False, True)
    for key in ("http.method", "", "never heard of"):
        with pytest.raises(KeyError):
            record[key]
