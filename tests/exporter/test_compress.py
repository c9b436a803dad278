import gzip
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd.exporter.compress import gzip_or_plain, plain


@given(data=st.binary(max_size=4000) | st.binary(min_size=1, max_size=20).map(lambda b: b * 200))
@settings(deadline=None, max_examples=100)
def test_a_round_trip_changes_nothing_and_never_grows(data: bytes) -> None:
    body, encoding = gzip_or_plain(data)
    assert len(body) <= len(data)
    assert plain(body, encoding) == data
    if encoding:
        assert encoding == "gzip"
        assert gzip.decompress(body) == data
    else:
        assert body == data


def test_lines_pack_well_and_always_to_the_same_bytes() -> None:
    data = b'"reviews" source="a" "application"="bookinfo" 1700000000000 12\n' * 500
    first, encoding = gzip_or_plain(data)
    assert encoding == "gzip"
    assert len(first) < len(data) / 6
    assert gzip_or_plain(data)[0] == first


def test_without_isal_zlib_does_it() -> None:
    program = (
        "import sys, gzip; sys.modules['isal'] = None; sys.modules['isal.isal_zlib'] = None\n"
        "from tracefwd.exporter.compress import gzip_or_plain\n"
        "data = b'line\\n' * 999; body, encoding = gzip_or_plain(data)\n"
        "assert encoding == 'gzip' and gzip.decompress(body) == data and 'zlib' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
