"""The plain path of Zipkin's proto3: a span as Envoy writes it, read with a handful of calls.

Its fields stand in the order of their numbers, all is plain (``model.PlainSpan``), and nothing is there that a plain
span does not have.  Whatever is otherwise is left to the complete path (``proto3.py``); a property test holds that both
give the same.  Bounded memos hold what comes again in every span.  Pure.
"""

import re
from collections.abc import Callable
from operator import attrgetter
from typing import TypeVar

from tracefwd.limits import MEMO_ENTRIES_MAX
from tracefwd.model import Annotation, Endpoint, PlainSpan
from tracefwd.receiver.fields import INT64_MAX, PLAIN, PORT_MAX, START_US_MIN
from tracefwd.receiver.tag_memo import Pair, TagMemo

KINDS = (None, "CLIENT", "SERVER", "PRODUCER", "CONSUMER")

_KIND_OF: dict[bytes | None, str | None] = {bytes((n,)): kind for n, kind in enumerate(KINDS)}
_KIND_OF[None] = None
# The annotations that Envoy writes, one a span; who sends others wants span logs, for which there is no plain path.
_NOTES = {note.encode(): note for note in ("cs", "cr", "sr", "ss")}

_PLAIN = PLAIN.encode()
_VARINT = rb"[\x80-\xff]{0,8}[\1-\x7f]"
# All in front of the tags, and the first byte of these.  Texts end where a byte comes that they cannot hold, or at one
# that they could: whoever uses this compares lengths, of the endpoint's name in ``_LOCAL``.
_HEAD = re.compile(
    rb"\n(?:\x10(.{16})|\x08(.{8}))(?:\x12\x08(.{8}))?\x1a\x08(.{8})(?: ([\1-\4]))?"
    rb"\*([\1-\x7f])([ -~]{1,127})1(.{8})8(" + _VARINT + rb")"
    rb"B([\0-\x7f])((?:\n.[ -~]{1,127})?(?:\x12\x04.{4})?(?: " + _VARINT + rb")?)"
    rb"(?:R\r\t(.{8})\x12\x02([cs][rs]))?Z",
    re.DOTALL,
)
_NAME = re.compile(_PLAIN)
_LOCAL = re.compile(
    rb"(?:\n(.)(" + _PLAIN + rb"))?(?:\x12\x04(.{4}))?(?: (" + _VARINT + rb"))?", re.DOTALL
)
# A tag behind its first byte.  No plain text holds what stands between key and value.
_ENTRY = re.compile(rb"(.\x01?)\n(.)(" + _PLAIN + rb")\x12(.\x01?)(" + _PLAIN + rb")", re.DOTALL)
_TAG_BEGINS = b"Z"
# How lengths are written that plain texts and tags may have.
_LENGTHS = [bytes((n,)) if n < 0x80 else bytes((n & 0x7F | 0x80, n >> 7)) for n in range(512)]
_ZEROS = b"\0" * 8

_Meaning = TypeVar("_Meaning")


class PlainReader:
    """Belongs to one decoder."""

    __slots__ = ("_locals", "_names", "_tags", "_who")

    def __init__(self) -> None:
        self._tags = TagMemo(_read_tag)
        self._who = attrgetter(*map(self._tags.field, ("component", "node_id")))
        self._locals: dict[bytes, Endpoint] = {}
        self._names: dict[bytes, str] = {}

    def is_envoys(self, span: PlainSpan) -> bool:
        """Of a span that was read here."""
        component, node_id = self._who(span.tags)
        return bool(component == "proxy" and node_id)

    def read(self, body: bytes, begin: int, end: int, order: int) -> PlainSpan | None:
        """The span between these two, if it is plain; ``order`` is -1 where ids are to be turned round, else 1.

        On one screen, because this runs for every span there is.
        """
        head = _HEAD.match(body, begin, end)
        if head is None:
            return None
        long_id, short_id, parent_id, span_id, kind, *rest = head.groups()
        name_size, raw_name, start, duration, local_size, raw_local, noted, note = rest
        trace_id = long_id or short_id
        start_us = int.from_bytes(start, "little")
        duration_us = _varint(duration)
        name = self._names.get(raw_name) or _learn(self._names, raw_name, _read_name)
        local = self._locals.get(raw_local) or _learn(self._locals, raw_local, _read_local)
        if (
            name is None
            or local is None
            or len(raw_name) != name_size[0]
            or len(raw_local) != local_size[0]
            or not START_US_MIN <= start_us <= INT64_MAX
            or not duration_us < START_US_MIN
            or span_id in (_ZEROS, parent_id)
            or parent_id == _ZEROS
            or trace_id.startswith(_ZEROS)
        ):
            return None
        raw_tags = body[head.end() : end]
        # Where all pieces are tags, as long as each of them says, nothing else stood there.  Where one has the letter
        # inside they are not; cutting by lengths is for those, and costs half as much again.
        tags = self._tags.record_of(raw_tags.split(_TAG_BEGINS))
        if tags is None:
            tags = self._tags.record_of(_cut(raw_tags))
            if tags is None:
                return None
        notes = None
        if note is not None:
            notes = [Annotation(int.from_bytes(noted, "little", signed=True), _NOTES[note])]
        return PlainSpan(
            trace_id=trace_id.hex(),
            span_id=span_id[::order].hex(),
            parent_id=None if parent_id is None else parent_id[::order].hex(),
            kind=_KIND_OF[kind],
            name=name,
            timestamp_us=start_us,
            duration_us=duration_us,
            local=local,
            annotations=notes,
            tags=tags,
        )


def _learn(
    memo: dict[bytes, _Meaning], raw: bytes, read: Callable[[bytes], _Meaning | None]
) -> _Meaning | None:
    """What is not plain is not remembered."""
    found = read(raw)
    if found is not None:
        if len(memo) >= MEMO_ENTRIES_MAX:
            memo.clear()
        memo[raw] = found
    return found


def _varint(raw: bytes) -> int:
    if len(raw) == 2:
        # What most are, at half of the cost.
        return raw[0] - 0x80 + (raw[1] << 7)
    value = 0
    for byte in reversed(raw):
        value = value << 7 | byte & 0x7F
    return value


def _cut(raw_tags: bytes) -> list[bytes]:
    """Where lengths say that tags end; as ``split`` gives them, nothing is lost."""
    pieces: list[bytes] = []
    at, last = 0, len(raw_tags) - 1
    while at < last:
        size = raw_tags[at]
        stop = at + 1 + size
        if size >= 0x80:
            stop += (raw_tags[at + 1] - 1 << 7) + 1
        pieces.append(raw_tags[at:stop])
        at = stop + 1
    return pieces if _TAG_BEGINS.join(pieces) == raw_tags else [raw_tags]


def _read_name(raw: bytes) -> str | None:
    return raw.decode() if _NAME.fullmatch(raw) else None


def _read_local(raw: bytes) -> Endpoint | None:
    found = _LOCAL.fullmatch(raw)
    if found is None:
        return None
    size, name, ipv4, raw_port = found.groups()
    port = None if raw_port is None else _varint(raw_port)
    if (name is not None and len(name) != size[0]) or (port is not None and port > PORT_MAX):
        return None
    return Endpoint(
        None if name is None else name.decode(),
        None if ipv4 is None else ".".join(map(str, ipv4)),
        None,
        port,
    )


def _read_tag(piece: bytes) -> Pair | None:
    found = _ENTRY.fullmatch(piece)
    if found is None:
        return None
    size, key_size, key, value_size, value = found.groups()
    if (
        size != _LENGTHS[len(piece) - len(size)]
        or key_size != _LENGTHS[len(key)]
        or value_size != _LENGTHS[len(value)]
    ):
        return None
    return key.decode(), value.decode()
