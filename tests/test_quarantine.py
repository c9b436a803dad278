"""The ring of rejected samples shows shapes, never values."""

import json

from hypothesis import given
from hypothesis import strategies as st

from tracefwd.limits import REJECT_SAMPLES_MAX
from tracefwd.model import Reject
from tracefwd.quarantine import Quarantine, mask


def test_names_and_shape_stay_values_go() -> None:
    sample = b'{"id":"zz","tags":{"http.url":"http://a/?token=s3cret","n":42},"cut":"s3c'
    assert mask(sample) == '{"id":"***","tags":{"http.url":"***","n":0},"cut":"***"'
    assert mask(b"\x0a\x10secret") == "(8 bytes that are not JSON)"


def test_a_span_line_shows_its_keys_alone() -> None:
    sample = b'"op" source=web spanId=0-0 "http.url"="http://a/?token=s3cret" n=7 \'q=s 12 "cut'
    assert mask(sample) == (
        '"***" source="***" spanId="***" "http.url"="***" n=0 \'q="***" 0 "***"'
    )


@given(st.text(st.characters(categories=["L"]), min_size=3, max_size=30), st.data())
def test_no_text_value_is_ever_shown(secret: str, data: st.DataObject) -> None:
    secret = f"S3{secret}"
    text = json.dumps(
        {"a": secret, "b": [secret, {"c": secret}]}, ensure_ascii=data.draw(st.booleans())
    )
    end = data.draw(st.integers(1, len(text)))
    shown = mask(text[:end].encode())
    assert secret not in shown
    assert json.dumps(secret)[1:-1] not in shown


def test_the_ring_is_bounded_and_newest_first() -> None:
    ring = Quarantine()
    ring.add([Reject("syntax", f"byte {n}", "x") for n in range(REJECT_SAMPLES_MAX + 5)], 1_500_000)
    shown = ring.show()
    assert len(shown) == REJECT_SAMPLES_MAX
    assert shown[0]["where"] == f"byte {REJECT_SAMPLES_MAX + 4}"
    assert shown[0]["at"] == "1.500"
