"""Reader of expositions: chunks of bytes become lines, a line becomes a comment or a sample.

Text 0.0.4 and OpenMetrics 1.0.  Bytes may be cut anywhere; what is held is at most one line of
``EXPOSITION_LINE_BYTES_MAX``.  A bad line raises ``LineError`` and loses nothing but itself.  ``read_sample`` is exact
and thorough; the hot loop of ``translate.py`` takes the usual line apart by itself and comes here with every other one.
Pure.
"""

import re
from collections.abc import Iterator

from msgspec import Struct

from tracefwd.errors import TracefwdError
from tracefwd.limits import EXPOSITION_LINE_BYTES_MAX
from tracefwd.metricspath import go_numbers

# One slice of a chunk: decoding and splitting builds about three bytes of objects per byte.
_SLICE_BYTES = 2**18

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)
_LABEL = re.compile(
    r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"([^"\\\n]*(?:\\.[^"\\\n]*)*)"[ \t]*(,?)', re.ASCII
)
# The usual label: no blank, no escape.
_PLAIN_LABELS = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="([^"\\\n]*)"(?:,|$)', re.ASCII).findall
_BLANKS = re.compile(r"[ \t]*")
_TOKEN = re.compile(r"[^ \t]+")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"\\": "\\", '"': '"', "n": "\n"}
_COMMENT = re.compile(r"[ \t]*#[ \t]*(TYPE|HELP|UNIT|EOF)\b[ \t]*([^ \t]*)[ \t]*(.*)")
_RESERVED = "__name__"
_BOM = b"\xef\xbb\xbf"


class LineError(TracefwdError):
    """A line that is no sample; ``reason`` is one of ``limits.BAD_LINE_REASONS``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Sample(Struct, gc=False):
    """A line taken apart: ``value`` and ``stamp`` as written, ``stamp`` "" without a timestamp."""

    name: str
    labels: dict[str, str]
    value: str
    stamp: str


class Comment(Struct, gc=False):
    """``keyword`` is TYPE, HELP, UNIT, EOF, or "" for any other comment."""

    keyword: str
    name: str = ""
    text: str = ""


class LineSplitter:
    """Chunks in, lists of whole lines out.

    ``bad`` counts by reason what never became a line: too long, not UTF-8, or cut off by the body's end.
    """

    def __init__(self, bad: dict[str, int]) -> None:
        self.bad = bad
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._is_skipping = False
        self._is_first = True

    def feed(self, chunk: bytes) -> Iterator[list[str]]:
        """The lines that ``chunk`` completes, in slices."""
        for start in range(0, len(chunk), _SLICE_BYTES):
            part = chunk[start : start + _SLICE_BYTES] if len(chunk) > _SLICE_BYTES else chunk
            end = part.rfind(b"\n") + 1
            if end:
                yield self._decode(self._take(part[:end]))
            self._hold(part[end:] if end else part)

    def finish(self, *, complete: bool) -> list[str]:
        """The last line if nothing ended it; of a body that ended early it is thrown away and counted."""
        rest, self._held, self._held_bytes = b"".join(self._held), [], 0
        if self._is_skipping:
            self._is_skipping = False
            self._count("too_long")
            return []
        if not rest:
            return []
        if not complete:
            self.cut_off()
            return []
        return self._decode(rest)

    def cut_off(self) -> None:
        """The body's last line is thrown away."""
        self._count("cut_off")

    def _hold(self, rest: bytes) -> None:
        if self._is_skipping or not rest:
            return
        self._held.append(rest)
        self._held_bytes += len(rest)
        # One byte more: the carriage return of a line that just fits.
        if self._held_bytes > EXPOSITION_LINE_BYTES_MAX + 1:
            self._held, self._held_bytes, self._is_skipping = [], 0, True

    def _take(self, text: bytes) -> bytes:
        """``text``, which ends in LF, with what was held before it."""
        if self._is_skipping:
            self._is_skipping = False
            self._count("too_long")
            return text[text.index(b"\n") + 1 :]
        if self._held:
            self._held.append(text)
            text = b"".join(self._held)
            self._held, self._held_bytes = [], 0
        return text

    def _decode(self, text: bytes) -> list[str]:
        if self._is_first:
            self._is_first = False
            text = text.removeprefix(_BOM)
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").removesuffix(b"\r")
        text = text.removesuffix(b"\n")
        try:
            lines = text.decode().split("\n")
        except UnicodeDecodeError:
            return self._decode_singly(text.split(b"\n"))
        # In UTF-8 a character has up to four bytes.
        if len(text) > EXPOSITION_LINE_BYTES_MAX < 4 * max(map(len, lines)):
            return self._decode_singly(text.split(b"\n"))
        return lines

    def _decode_singly(self, lines: list[bytes]) -> list[str]:
        good: list[str] = []
        for line in lines:
            if len(line) > EXPOSITION_LINE_BYTES_MAX:
                self._count("too_long")
                continue
            try:
                good.append(line.decode())
            except UnicodeDecodeError:
                self._count("encoding")
        return good

    def _count(self, reason: str) -> None:
        self.bad[reason] = self.bad.get(reason, 0) + 1


def read_comment(line: str) -> Comment | None:
    """None unless ``line`` is a comment (or blank, which is one too)."""
    stripped = line.lstrip(" \t")
    if stripped and stripped[0] != "#":
        return None
    match = _COMMENT.fullmatch(line)
    if match is None:
        return Comment("")
    return Comment(match[1], match[2], match[3].rstrip(" \t"))


def read_sample(line: str, *, lenient: bool = False) -> Sample:
    """The sample on ``line``; ``lenient``: what stands behind a good value does not matter, as to the collector.

    Raises ``LineError``.
    """
    match = NAME.match(line, _skip(line, 0))
    if match is None:
        raise LineError("name")
    at = _skip(line, match.end())
    labels: dict[str, str] = {}
    if line[at : at + 1] == "{":
        labels, at = _read_labels(line, at + 1)
    elif at == match.end():
        raise LineError("value")
    token = _TOKEN.match(line, _skip(line, at))
    if token is None:
        raise LineError("value")
    if go_numbers.parse(token[0]) is None:
        raise LineError("value")
    return Sample(match[0], labels, token[0], _read_end(line, token.end(), lenient=lenient))


def _read_end(line: str, at: int, *, lenient: bool) -> str:
    """The timestamp as written, or ""; an exemplar is skipped."""
    rest = _TOKEN.findall(line[at:].split(" # ", 1)[0])
    if lenient:
        return rest[0] if rest and go_numbers.parse_int64(rest[0]) is not None else ""
    if len(rest) > 1:
        raise LineError("timestamp")
    return rest[0] if rest else ""


def read_labels(text: str) -> dict[str, str] | None:
    """The labels of a whole block, what stands between ``{`` and ``}``; None if it is not one."""
    pairs = _PLAIN_LABELS(text)
    labels = dict(pairs)
    # Finds that fill the text, but for one comma, are all there is of it.
    length = sum(map(len, labels)) + sum(map(len, labels.values())) + 4 * len(pairs) - 1
    if length == len(text) and len(labels) == len(pairs) and _RESERVED not in labels:
        return labels
    try:
        labels, end = _read_labels(text + "}", 0)
    except LineError:
        return None
    return labels if end == len(text) + 1 else None


def write_labels(labels: dict[str, str]) -> str:
    """A block that ``read_labels`` reads as ``labels``."""
    return ",".join([f'{key}="{_escape(value)}"' for key, value in labels.items()])


def _escape(text: str) -> str:
    if text.isalnum():
        return text
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _read_labels(line: str, at: int) -> tuple[dict[str, str], int]:
    """Labels from ``at``, behind the opening brace, and where it goes on behind the closing one."""
    labels: dict[str, str] = {}
    is_open = True
    while True:
        at = _skip(line, at)
        if line[at : at + 1] == "}":
            return labels, at + 1
        match = _LABEL.match(line, at) if is_open else None
        if match is None or match[1] == _RESERVED or match[1] in labels:
            raise LineError("labels")
        labels[match[1]] = _unescape(match[2])
        at, is_open = match.end(), match[3] == ","


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    try:
        return _ESCAPE.sub(lambda match: _ESCAPES[match[1]], text)
    except KeyError:
        raise LineError("labels") from None


def _skip(line: str, at: int) -> int:
    match = _BLANKS.match(line, at)
    assert match is not None, "no blank is a match, too"
    return match.end()
