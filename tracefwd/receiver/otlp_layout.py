"""Layouts: how the bytes of a plain span lie, learned from spans of the same resource and the same length.

Such spans mostly differ in ids, times and a few values only, all of the same lengths, because a sender writes the same
attributes in one order.  A layout splits a span by one call into what is fixed and what varies; when all that is fixed
(tags, lengths, keys and most values) is byte by byte what it was, so is its meaning, and only the rest is looked at.
That halves what a span costs.  A span that does not fit is read field by field (``otlp_proto.py``), and a layout of
the same lengths learns from it what varies.  Pure.
"""

from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

from tracefwd.model import PlainSpan
from tracefwd.receiver.fields import INT64_MAX, START_US_MIN, is_plain

_ZEROS = b"\0" * 8
# Bytes that a plain value may hold wherever it likes; a blank may not stand at its edges.
_NEVER_ODD = bytes(byte for byte in range(256) if is_plain(chr(byte)))
# Lessons cost as much as ten spans, so that there must be an end of them.
_LESSONS_MAX = 48
# Values of other lengths may add up to the same.
_LAYOUTS_MAX = 4


class Place(NamedTuple):
    """An attribute whose value, of ``size`` bytes, stands ``at`` so many bytes behind the span's beginning."""

    key: str
    at: int
    size: int


class Layout:
    """``places`` are all of the span's attributes, in order; ``varying`` the keys of those whose values vary."""

    __slots__ = (
        "_fixed",
        "_has_parent",
        "_kind",
        "_name",
        "_template",
        "_unpack",
        "_varying",
        "blanks",
        "local",
        "places",
        "record",
        "varying",
    )

    def __init__(
        self,
        body: bytes,
        bounds: tuple[int, int, int],
        span: PlainSpan,
        places: Sequence[Place],
        varying: frozenset[str],
        blanks: int,
    ) -> None:
        """``bounds``: where the span begins, where its attributes do, and where it ends."""
        begin, head_end, end = bounds
        self.record = span.tags.__class__
        self.local = span.local
        self.places = tuple(places)
        self.varying = varying
        self.blanks = blanks
        self._name, self._kind = span.name, span.kind
        self._has_parent = span.parent_id is not None
        head = head_end - begin
        stretches = [(2, 16, "16s"), (20, 8, "8s")]
        if self._has_parent:
            stretches.append((30, 8, "8s"))
        # The times stand last in front of the attributes, each behind its tag.
        stretches += [(head - 17, 8, "Q"), (head - 8, 8, "Q")]
        chosen = [place for place in places if place.key in varying]
        stretches += [(place.at, place.size, f"{place.size}s") for place in chosen]
        form, at = "<", 0
        for start, size, code in stretches:
            form += f"{start - at}s{code}"
            at = start + size
        self._unpack = Struct(f"{form}{end - begin - at}s").unpack_from
        self._fixed = self._unpack(body, begin)[::2]
        names = self.record.names
        tags = span.tags.as_dict()
        self._template = [tags.get(name, "") for name in names]
        self._varying = tuple(names.index(place.key) for place in chosen)

    def read(self, body: bytes, at: int, texts: dict[bytes, str]) -> PlainSpan | None:
        """The span that begins ``at``, which has the layout's length; None if it does not fit.

        ``texts`` are plain values that are known by their bytes; others are looked at and not kept.
        """
        parts = self._unpack(body, at)
        if parts[::2] != self._fixed:
            return None
        parent_id = None
        if self._has_parent:
            trace_id, span_id, parent_id, start_ns, end_ns, *said = parts[1::2]
        else:
            trace_id, span_id, start_ns, end_ns, *said = parts[1::2]
        start_us = start_ns // 1000
        duration_us = (end_ns - start_ns) // 1000
        if (
            not START_US_MIN <= start_us <= INT64_MAX
            or not 0 <= duration_us < START_US_MIN
            or span_id in (_ZEROS, parent_id)
            or parent_id == _ZEROS
            or trace_id.startswith(_ZEROS)
        ):
            return None
        values = self._template.copy()
        for place, raw in zip(self._varying, said, strict=True):
            text = texts.get(raw)
            if text is None:
                text = raw.decode("latin-1")
                # Its length is that of a plain one; the first look costs a fourth of the second.
                if raw.translate(None, _NEVER_ODD) and not is_plain(text):
                    return None
            values[place] = text
        return PlainSpan(
            trace_id=trace_id.hex(),
            span_id=span_id.hex(),
            parent_id=None if parent_id is None else parent_id.hex(),
            kind=self._kind,
            name=self._name,
            timestamp_us=start_us,
            duration_us=duration_us,
            local=self.local,
            tags=self.record(*values),
        )

    def is_of(self, span: PlainSpan, places: Sequence[Place]) -> bool:
        """Whether this layout would fit if only more of it varied."""
        return (
            self.record is span.tags.__class__
            and self._name == span.name
            and self.places == tuple(places)
        )

    def differing(self, span: PlainSpan) -> frozenset[str]:
        """The keys whose values vary, those of ``span`` that differ among them."""
        own = dict(zip(self.record.names, self._template, strict=True))
        tags = span.tags.as_dict()
        return self.varying | {
            place.key for place in self.places if own[place.key] != tags[place.key]
        }


class Layouts:
    """The few layouts that spans of one resource, length and name may have."""

    __slots__ = ("_lessons", "_seen", "layouts")

    def __init__(self) -> None:
        self.layouts: list[Layout] = []
        self._lessons = 0
        self._seen = False

    @property
    def wants_more(self) -> bool:
        """Whether a span that fits none is worth a lesson; one of a kind never is."""
        seen, self._seen = self._seen, True
        return seen and self._lessons < _LESSONS_MAX

    def learn(
        self,
        body: bytes,
        bounds: tuple[int, int, int],
        span: PlainSpan,
        places: Sequence[Place],
        blanks: int,
    ) -> None:
        self._lessons += 1
        for number, layout in enumerate(self.layouts):
            if layout.is_of(span, places):
                varying = layout.differing(span)
                self.layouts[number] = Layout(body, bounds, span, places, varying, blanks)
                return
        self.layouts.insert(0, Layout(body, bounds, span, places, frozenset(), blanks))
        del self.layouts[_LAYOUTS_MAX:]
