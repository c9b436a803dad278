import gzip
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from tracefwd.exporter.compress import Packer, gzip_or_plain, plain

PIECES = st.binary(max_size=300) | st.integers(0, 900_000).map(
    lambda size: b"a line\n" * (size // 7)
)


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


@given(bodies=st.lists(st.lists(PIECES, max_size=6), max_size=3), packs=st.booleans())
@settings(deadline=None, max_examples=50)
def test_lines_packed_as_they_come_are_the_same_lines(
    bodies: list[list[bytes]], packs: bool
) -> None:
    for pieces in bodies:
        packer = Packer(packs=packs)
        for piece in pieces:
            packer.add(piece)
        whole = b"".join(pieces)
        body, encoding = packer.finish()
        assert plain(body, encoding) == whole
        assert len(body) <= len(whole)
        assert encoding in (("gzip", "") if packs else ("",))


def test_what_waits_to_be_packed_is_short() -> None:
    packer = Packer(packs=True)
    for _ in range(1_000):
        packer.add(b'"reviews" source="a" "application"="bookinfo"\n' * 100)
        assert sum(map(len, (*packer._plain, *packer._packed))) < 700_000


def test_without_isal_zlib_does_it() -> None:
    program = (
        "import sys, gzip; sys.modules['isal'] = None; sys.modules['isal.isal_zlib'] = None\n"
        "from tracefwd.exporter.compress import Packer, gzip_or_plain\n"
        "data = b'line\\n' * 999_999; packer = Packer(packs=True); packer.add(data)\n"
        "for body, encoding in (gzip_or_plain(data), packer.finish()):\n"
        "    assert encoding == 'gzip' and gzip.decompress(body) == data and 'zlib' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
