"""OTLP in protobuf (``ExportTraceServiceRequest``), read by hand and only as far as it is needed.

No protobuf library: they refuse a whole body for one string that is not UTF-8, which any client of the mesh can bring
about, and handing 25 attributes of a span over to Python costs more than reading them here.

On the wire a body is resources, in each scopes, in each spans.  Lengths frame everything: a span that is broken inside
costs only itself.  Where a resource or scope is longer than what is left of the body, the spans that are there are
read, and what was cut off is one reject.

Unknown fields are skipped, whatever their wire type.  Bounded memos hold what comes again in every span: attributes,
resources, scopes.
"""

import re
from struct import Struct

from tracefwd.limits import REJECT_SAMPLE_BYTES_MAX, REJECTS_PER_BODY_MAX
from tracefwd.model import Decoded, Encoding, PlainSpan, Reject, Span
from tracefwd.receiver import otlp
from tracefwd.receiver.fields import (
    INT64_MAX,
    START_US_MIN,
    BadIdError,
    BrokenError,
    Mends,
    is_plain,
)
from tracefwd.receiver.otlp import Shared
from tracefwd.receiver.otlp_draft import DraftReader
from tracefwd.receiver.otlp_layout import Place
from tracefwd.receiver.otlp_memo import ATTRIBUTES, Memo

# Tags: number << 3 | wire type.
_RESOURCE_SPANS = 0x0A
_RESOURCE, _SCOPE_SPANS = 0x0A, 0x12
_RESOURCE_ATTRIBUTES = 0x0A
_SCOPE, _SPANS = 0x0A, 0x12
_SCOPE_NAME, _SCOPE_VERSION = 0x0A, 0x12
_PARENT_ID = 0x22
# What Envoy writes in front of a span's attributes: ids, name, a kind that Zipkin has, times.  A name is found by what
# follows it; whoever uses this compares its length.
_HEAD = re.compile(
    rb'\n\x10(.{16})\x12\x08(.{8})(?:"\x08(.{8}))?\*([\x01-\x7f])(.{1,127}?)0([\2-\5])9.{8}A.{8}',
    re.DOTALL,
)
_TIMES = Struct("<QxQ").unpack_from
# And what may stand behind them: a status that is no error, flags.
_TAIL = re.compile(rb"(?:z\x00|z\x02\x18\x01)?(?:\x85\x01.{4})?", re.DOTALL)
_ZEROS = b"\0" * 8
# Shorter spans have no attributes.
_LAID_OUT_BYTES_MIN = 64
# Attributes from here on are not remembered; a shorter one's length is a single byte.
_BYTES_KNOWN = 128
# A resource and a scope together; what is longer is read anew for each of its scopes.
_SHARED_BYTES_MAX = 2_048


class _Enough(Exception):  # noqa: N818 - a signal, not a failure
    """The body has had its share of rejects."""


def decode(body: bytes, memo: Memo, *, as_the_proxy: bool = False) -> Decoded:
    """``as_the_proxy``: as in ``otlp.finish``."""
    reader = _Reader(body, memo, as_the_proxy=as_the_proxy)
    reader.read()
    spans, rejects, repairs = reader.spans, reader.rejects, reader.repairs
    if reader.blanks:
        repairs["blank_value"] = reader.blanks
    if spans and rejects:
        repairs["batch_salvaged"] = 1
    return Decoded(Encoding.OTLP_PROTO, spans, rejects, repairs=repairs or None)


class _Reader(DraftReader):
    """One body being read."""

    __slots__ = (
        "_as_the_proxy",
        "_cut_at",
        "_memo",
        "rejects",
        "repairs",
        "spans",
    )

    def __init__(self, body: bytes, memo: Memo, *, as_the_proxy: bool) -> None:
        super().__init__(body)
        self._memo = memo
        self._as_the_proxy = as_the_proxy
        # Where what is left of a cut resource or scope ends: that has been told.
        self._cut_at = -1
        self.spans: list[Span] = []
        self.rejects: list[Reject] = []
        self.repairs: dict[str, int] = {}

    # --- resources and scopes -------------------------------------------------------------------

    def read(self) -> None:
        try:
            if self._usual():
                return
            for begin, end in self._containers(_RESOURCE_SPANS, 0, len(self.body)):
                self._resource_spans(begin, end)
        except _Enough:
            detail = f"over {REJECTS_PER_BODY_MAX} parts of the body are no spans"
            self.rejects.append(Reject("syntax", "body", detail))

    def _usual(self) -> bool:
        """Read a body of one resource with one scope, each in front of its own; whether it is such a body."""
        body, end = self.body, len(self.body)
        try:
            if body[0] != _RESOURCE_SPANS:
                return False
            at, stop = self.frame(1, end)
            if stop != end or body[at] != _RESOURCE:
                return False
            resource = self.frame(at + 1, end)
            at = resource[1]
            if body[at] != _SCOPE_SPANS:
                return False
            at, stop = self.frame(at + 1, end)
            if stop != end or body[at] != _SCOPE:
                return False
            scope = self.frame(at + 1, end)
        except (BrokenError, IndexError):
            # The other way tells what is broken.
            return False
        self._spans(self._shared_or_bare(resource, scope), scope[1], end)
        return True

    def _containers(self, wanted: int, at: int, end: int) -> list[tuple[int, int]]:
        """Frames of that tag between ``at`` and ``end``; the last one may have been cut off, which is a reject."""
        body = self.body
        found: list[tuple[int, int]] = []
        try:
            while at < end:
                start = at
                if body[at] == wanted:
                    size, at = self.varint(at + 1, end)
                    if size > end - at:
                        found.append((at, end))
                        detail = f"{size} bytes are announced, {end - at} are there"
                        self._reject_syntax(BrokenError(end, detail), start, end)
                        self._cut_at = end
                        break
                    found.append((at, at + size))
                    at += size
                else:
                    at = self.skip_field(at, end)
        except BrokenError as broken:
            self._reject_syntax(broken, start, end)
        return found

    def _resource_spans(self, begin: int, end: int) -> None:
        scopes = self._containers(_SCOPE_SPANS, begin, end)
        resource = self._only(_RESOURCE, begin, end)
        for scope_begin, scope_end in scopes:
            self._scope_spans(resource, scope_begin, scope_end)

    def _only(self, wanted: int, at: int, end: int) -> tuple[int, int]:
        """Where the first frame of that tag is, nearly always in front; an empty one if there is none."""
        body = self.body
        try:
            while at < end:
                if body[at] == wanted:
                    return self.frame(at + 1, end)
                at = self.skip_field(at, end)
        except BrokenError:
            # The caller looks at the same stretch for other fields, and tells.
            pass
        return end, end

    def _scope_spans(self, resource: tuple[int, int], begin: int, end: int) -> None:
        scope = self._only(_SCOPE, begin, end)
        self._spans(self._shared_or_bare(resource, scope), begin, end)

    def _shared_or_bare(self, resource: tuple[int, int], scope: tuple[int, int]) -> Shared:
        try:
            return self._shared(resource, scope)
        except (BrokenError, IndexError) as error:
            self._reject_syntax(error, *resource)
            self.mends = Mends()
            return otlp.share({}, "", "", blanks=0, mends=self.mends)

    def _spans(self, shared: Shared, at: int, end: int) -> None:
        """The spans between ``at`` and ``end``, whatever else stands there."""
        body = self.body
        fits = shared.plain and not (shared.field_type or shared.utf8)
        try:
            while at < end:
                if fits:
                    at = self._fitting(shared, at, end)
                    if at >= end:
                        break
                start = at
                if body[at] == _SPANS:
                    span_begin, at = self.frame(at + 1, end)
                    self._take(span_begin, at, shared)
                else:
                    at = self.skip_field(at, end)
        except BrokenError as broken:
            self._reject_syntax(broken, start, end)

    def _shared(self, resource: tuple[int, int], scope: tuple[int, int]) -> Shared:
        body, mends = self.body, self.mends
        raw = b"%b\0%d\0%b" % (
            body[resource[0] : resource[1]],
            resource[1] - resource[0],
            body[scope[0] : scope[1]],
        )
        found = self._memo.shared.get(raw)
        if found is not None:
            return found
        attributes: dict[str, str] = {}
        blanks = 0
        for tag, at, stop in self.members(*resource):
            if tag == _RESOURCE_ATTRIBUTES:
                key, value = self.attribute(at, stop)
                if value:
                    attributes[key] = value
                else:
                    blanks += 1
        name = version = ""
        for tag, at, stop in self.members(*scope):
            if tag == _SCOPE_NAME:
                name = self.text(at, stop)
            elif tag == _SCOPE_VERSION:
                version = self.text(at, stop)
        shared = otlp.share(attributes, name, version, blanks=blanks, mends=mends)
        mends.field_type = mends.utf8 = False
        shared.number = self._memo.next_number()
        if len(raw) <= _SHARED_BYTES_MAX:
            self._memo.remember_shared(raw, shared)
        return shared

    # --- rejects --------------------------------------------------------------------------------

    def _reject(self, reason: str, where: str, detail: str, begin: int, end: int) -> None:
        sample = self.body[begin : min(end, begin + REJECT_SAMPLE_BYTES_MAX)]
        self.rejects.append(Reject(reason, where, detail, sample))
        if len(self.rejects) >= REJECTS_PER_BODY_MAX:
            raise _Enough

    def _reject_syntax(self, error: Exception, begin: int, end: int) -> None:
        if end == self._cut_at:
            return
        offset, why = end, "it ends inside a field"
        if isinstance(error, BrokenError):
            offset, why = error.offset, str(error)
        self._reject("syntax", f"byte {offset}", f"broken OTLP: {why}", begin, end)

    def _take(self, begin: int, end: int, shared: Shared) -> None:
        mends = self.mends
        blanks = self.blanks
        taken = False
        try:
            span: Span | None = self._laid_out(begin, end, shared) if shared.plain else None
            if span is None:
                draft = self.draft(begin, end, shared)
                span = otlp.finish(draft, shared, mends, as_the_proxy=self._as_the_proxy)
            self.spans.append(span)
            taken = True
        except BadIdError as bad:
            detail = f"{bad.where} {bad} (span at byte {begin})"
            self._reject(bad.reason, bad.where, detail, begin, end)
        except (BrokenError, IndexError) as error:
            self._reject_syntax(error, begin, end)
        if taken:
            self.blanks += shared.blanks
            mends.field_type |= shared.field_type
            mends.utf8 |= shared.utf8
        else:
            self.blanks = blanks
        if mends.field_type or mends.utf8:
            mends.settle(self.repairs, taken=taken)

    # --- one span -------------------------------------------------------------------------------

    def _laid_out(self, begin: int, end: int, shared: Shared) -> PlainSpan | None:
        """A plain span by what was learned of the lie of its bytes, or field by field; None as from ``_plain``."""
        memo, body = self._memo, self.body
        if end - begin < _LAID_OUT_BYTES_MIN:
            return self._plain(begin, end, shared)
        # A parent's id stands before the name, if there is one.
        name_at = begin + (40 if body[begin + 28] == _PARENT_ID else 30)
        key = (shared.number, end - begin, body[name_at : name_at + body[name_at - 1]])
        found = memo.layouts.get(key) or memo.layouts_of(key)
        for layout in found.layouts:
            if layout.record is memo.records.record:
                span = layout.read(body, begin, memo.texts)
                if span is not None:
                    self.blanks += layout.blanks
                    return span
        blanks = self.blanks
        span = self._plain(begin, end, shared)
        if span is not None and found.wants_more:
            places = self._places(begin, end)
            if places is not None:
                bounds = (begin, places[0], end)
                found.learn(body, bounds, span, places[1], self.blanks - blanks)
        return span

    def _fitting(self, shared: Shared, at: int, end: int) -> int:
        """Take spans as long as they lie as others did, which nearly all do; behind the last of them.

        ``_take`` in one piece, because this runs for every span there is.
        """
        body, memo = self.body, self._memo
        layouts, texts, record = memo.layouts, memo.texts, memo.records.record
        number, spans, blanks = shared.number, self.spans, shared.blanks
        while at + _LAID_OUT_BYTES_MIN < end and body[at] == _SPANS:
            low, high = body[at + 1], body[at + 2]
            # A length of two bytes, which is any from 128 to 16,383.
            if low < 0x80 or high >= 0x80:
                break
            begin, size = at + 3, low & 0x7F | high << 7
            stop = begin + size
            if stop > end or size < _LAID_OUT_BYTES_MIN:
                break
            name_at = begin + (40 if body[begin + 28] == _PARENT_ID else 30)
            found = layouts.get((number, size, body[name_at : name_at + body[name_at - 1]]))
            if found is None:
                break
            span = None
            for layout in found.layouts:
                if layout.record is record:
                    span = layout.read(body, begin, texts)
                    if span is not None:
                        self.blanks += layout.blanks + blanks
                        spans.append(span)
                        break
            if span is None:
                break
            at = stop
        return at

    def _places(self, begin: int, end: int) -> tuple[int, list[Place]] | None:
        """Where a plain span's attributes begin and where their values are; None if a layout could not say."""
        body = self.body
        head = _HEAD.match(body, begin, end)
        assert head is not None, "it was read as plain"
        at = head.end()
        places: list[Place] = []
        while at < end and body[at] == ATTRIBUTES:
            first, at = self.frame(at + 1, end)
            key, value = self.attribute(first, at)
            size = len(value)
            if not size:
                continue
            if body[at - size : at] != value.encode():
                return None
            places.append(Place(key, at - size - begin, size))
        if len({place.key for place in places}) != len(places):
            return None
        return head.end(), places

    def _plain(self, at: int, end: int, shared: Shared) -> PlainSpan | None:
        """The span, if it is what Envoy writes of an ordinary one; None leaves it to ``draft``.

        May raise IndexError for a field that ends behind the body, BrokenError for one behind ``end``.
        """
        body, memo = self.body, self._memo
        head = _HEAD.match(body, at, end)
        if head is None:
            return None
        trace_id, span_id, parent_id, size, raw_name, kind = head.groups()
        name = memo.names.get(raw_name) or memo.learn_name(raw_name)
        if name is None or len(raw_name) != size[0]:
            return None
        known = memo.known
        if shared.record is not memo.records.record:
            memo.give_places(shared)
        # Every known key has its place from the start, so that the values come out in the record's order.
        tags = shared.places.copy()
        places = len(shared.record.names)
        blanks = 0
        at = head.end()
        start_ns, end_ns = _TIMES(body, at - 17)
        while at < end and body[at] == ATTRIBUTES:
            stop = at + 2 + body[at + 1]
            # Only attributes below 128 bytes are known, so a longer length finds none.
            entry = known.get(body[at + 2 : stop])
            if entry is not None:
                key, value, run, pairs = entry
                if run and body.startswith(run, at):
                    tags.update(pairs)
                    at += len(run)
                    continue
                if run != b"":
                    memo.learn_run(entry, body, at, end)
                tags[key] = value
            else:
                first, stop = self.frame(at + 1, end)
                attribute = self._plain_attribute(first, stop)
                if attribute is None:
                    return None
                if attribute[1]:
                    tags[attribute[0]] = attribute[1]
                else:
                    blanks += 1
            at = stop
        start_us = start_ns // 1000
        duration_us = (end_ns - start_ns) // 1000
        if (
            (at != end and not _TAIL.fullmatch(body, at, end))
            or not START_US_MIN <= start_us <= INT64_MAX
            or not 0 <= duration_us < START_US_MIN
            or span_id in (_ZEROS, parent_id)
            or parent_id == _ZEROS
            or trace_id.startswith(_ZEROS)
        ):
            return None
        if len(tags) != places:
            return self._plain(head.start(), end, shared) if memo.records.learn_from(tags) else None
        self.blanks += blanks
        return PlainSpan(
            trace_id=trace_id.hex(),
            span_id=span_id.hex(),
            parent_id=None if parent_id is None else parent_id.hex(),
            kind=otlp.KINDS[kind[0]],
            name=name,
            timestamp_us=start_us,
            duration_us=duration_us,
            local=shared.local,
            tags=shared.record(*tags.values()),
        )

    def _plain_attribute(self, begin: int, end: int) -> tuple[str, str] | None:
        """Key and plain (or empty) value of an attribute that is not known; None if it is not plain."""
        key, value = self.attribute(begin, end)
        if value:
            if not is_plain(value) or not is_plain(key) or key in otlp.SPECIAL_KEYS:
                return None
            if end - begin < _BYTES_KNOWN:
                self._memo.remember(self.body[begin:end], key, value)
        return key, value


__all__ = ["Memo", "decode"]
