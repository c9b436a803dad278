"""Any span of OTLP in protobuf, field by field: the complete path of ``otlp_proto.py``."""

from tracefwd.receiver import otlp
from tracefwd.receiver.fields import BrokenError
from tracefwd.receiver.otlp import Draft, Shared
from tracefwd.receiver.otlp_memo import ATTRIBUTES
from tracefwd.receiver.otlp_values import ValueReader
from tracefwd.receiver.wire import FRAMED, VARINT

# Tags: number << 3 | wire type.
_TRACE_ID, _SPAN_ID, _TRACE_STATE, _PARENT_ID, _NAME = 0x0A, 0x12, 0x1A, 0x22, 0x2A
_KIND, _START, _END = 0x30, 0x39, 0x41
_DROPPED_ATTRIBUTES, _EVENTS, _DROPPED_EVENTS = 0x50, 0x5A, 0x60
_DROPPED_LINKS, _STATUS = 0x70, 0x7A
_STATUS_MESSAGE, _STATUS_CODE = 0x12, 0x18


class DraftReader(ValueReader):
    """``blanks``: attributes without a value, up to now."""

    __slots__ = ("blanks",)

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.blanks = 0

    def draft(self, at: int, end: int, shared: Shared) -> Draft:
        """Any span.  One whose fields end behind ``end`` is noticed at the end: ``at`` is not equal to it then."""
        draft = Draft(shared.tags.copy())
        while at < end:
            if self.body[at] == ATTRIBUTES:
                begin, at = self.frame(at + 1, end)
                self._own_attribute(draft, begin, at)
            else:
                at = self._other_field(draft, at, end)
        if at != end:
            raise BrokenError(end, "a field is longer than the span")
        return draft

    def _own_attribute(self, draft: Draft, begin: int, end: int) -> None:
        key, value = self.attribute(begin, end)
        if not value:
            self.blanks += 1
            return
        draft.special |= key in otlp.SPECIAL_KEYS
        draft.tags[key] = value

    def _other_field(self, draft: Draft, at: int, end: int) -> int:
        tag, at = self.varint(at, end)
        if tag & 7 == VARINT:
            value, at = self.varint(at, end)
            self._set_number(draft, tag, value)
            return at
        if tag in (_START, _END):
            value, at = self.fixed64(at, end)
            self._set_number(draft, tag, value)
            return at
        if tag & 7 != FRAMED:
            return self.skip(tag, at, end)
        begin, at = self.frame(at, end)
        if tag == _EVENTS:
            self.spend()
            if draft.events is None:
                draft.events = []
            draft.events.append(self.event(begin, at))
        elif tag == _STATUS:
            for member, first, stop in self.members(begin, at):
                if member == _STATUS_CODE:
                    draft.status = first
                elif member == _STATUS_MESSAGE:
                    draft.status_message = self.text(first, stop)
        elif tag == _TRACE_STATE:
            draft.trace_state = self.text(begin, at)
        elif tag == _NAME:
            draft.name = self.text(begin, at)
        elif tag == _TRACE_ID:
            draft.trace_id = self.body[begin:at].hex()
        elif tag == _SPAN_ID:
            draft.span_id = self.body[begin:at].hex()
        elif tag == _PARENT_ID:
            draft.parent_id = self.body[begin:at].hex()
        return at

    def _set_number(self, draft: Draft, tag: int, value: int) -> None:
        if tag == _START:
            draft.start_ns = value
        elif tag == _END:
            draft.end_ns = value
        elif tag == _KIND:
            draft.kind = value
        elif tag == _DROPPED_ATTRIBUTES:
            draft.dropped_attributes = value
        elif tag == _DROPPED_EVENTS:
            draft.dropped_events = value
        elif tag == _DROPPED_LINKS:
            draft.dropped_links = value


__all__ = ["DraftReader"]
