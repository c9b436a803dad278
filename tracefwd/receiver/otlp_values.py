"""Attributes, values and events of OTLP in protobuf.  Pure."""

from struct import Struct
from typing import Any

from tracefwd.limits import JSON_DEPTH_MAX, MEMBERS_PER_BODY_MAX
from tracefwd.model import Event
from tracefwd.receiver import otlp
from tracefwd.receiver.fields import BrokenError, Mends
from tracefwd.receiver.wire import Wire

# Tags: number << 3 | wire type.
_EVENT_TIME, _EVENT_NAME, _EVENT_ATTRIBUTES, _EVENT_DROPPED = 0x09, 0x12, 0x1A, 0x20
_KEY, _VALUE = 0x0A, 0x12
_STRING, _BOOL, _INT, _DOUBLE, _ARRAY, _KVLIST, _BYTES = 0x0A, 0x10, 0x18, 0x21, 0x2A, 0x32, 0x3A
_ELEMENTS = 0x0A
_DOUBLE_OF = Struct("<d")


class ValueReader(Wire):
    """Reads what stands between ``begin`` and ``end``; BrokenError or IndexError where that is broken."""

    __slots__ = ("_members_left", "mends")

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._members_left = MEMBERS_PER_BODY_MAX
        self.mends = Mends()

    def text(self, begin: int, end: int) -> str:
        raw = self.body[begin:end]
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.mends.utf8 = True
            return raw.decode(errors="replace")

    def spend(self) -> None:
        """Count a member that is read with care; a body may have so many."""
        self._members_left -= 1
        if self._members_left < 0:
            raise BrokenError(0, f"over {MEMBERS_PER_BODY_MAX} attributes and elements in a body")

    def attribute(self, begin: int, end: int) -> tuple[str, str]:
        """Key and value as a tag's; "" for one that has no value."""
        body = self.body
        self.spend()
        # Envoy's form: a key below 128 bytes, then a string.
        key_end = begin + 2 + body[begin + 1] if end - begin > 3 else end
        if (
            end - key_end > 3
            and body[begin] == _KEY
            and body[begin + 1] < 0x80
            and body[key_end] == _VALUE
            and body[key_end + 1] == end - key_end - 2 < 0x80
            and body[key_end + 2] == _STRING
            and body[key_end + 3] == end - key_end - 4
        ):
            return self.text(begin + 2, key_end), self.text(key_end + 4, end)
        key, value = self._pair(begin, end, JSON_DEPTH_MAX)
        return key, otlp.text_of(value)

    def _pair(self, begin: int, end: int, depth_left: int) -> tuple[str, Any]:
        key, value = "", None
        for tag, at, stop in self.members(begin, end):
            if tag == _KEY:
                key = self.text(at, stop)
            elif tag == _VALUE:
                value = self._any(at, stop, depth_left)
        return key, value

    def _any(self, begin: int, end: int, depth_left: int) -> Any:
        """An AnyValue; what is nested too deep is left out."""
        if not depth_left:
            self.mends.field_type = True
            return None
        value: Any = None
        for tag, at, stop in self.members(begin, end):
            if tag == _STRING:
                value = self.text(at, stop)
            elif tag == _BOOL:
                value = at != 0
            elif tag == _INT:
                value = at - (1 << 64) if at >> 63 else at
            elif tag == _DOUBLE:
                value = otlp.double(_DOUBLE_OF.unpack(at.to_bytes(8, "little"))[0])
            elif tag == _ARRAY:
                value = []
                for element, first, last in self.members(at, stop):
                    if element == _ELEMENTS:
                        self.spend()
                        value.append(self._any(first, last, depth_left - 1))
            elif tag == _KVLIST:
                value = {}
                for element, first, last in self.members(at, stop):
                    if element == _ELEMENTS:
                        self.spend()
                        key, said = self._pair(first, last, depth_left - 1)
                        value[key] = said
            elif tag == _BYTES:
                value = self.body[at:stop]
        return value

    def event(self, begin: int, end: int) -> Event:
        time_ns = dropped = 0
        name = ""
        attributes: dict[str, str] = {}
        for tag, at, stop in self.members(begin, end):
            if tag == _EVENT_TIME:
                time_ns = at
            elif tag == _EVENT_NAME:
                name = self.text(at, stop)
            elif tag == _EVENT_ATTRIBUTES:
                key, value = self.attribute(at, stop)
                attributes[key] = value
            elif tag == _EVENT_DROPPED:
                dropped = at
        return otlp.event(time_ns, name, attributes, dropped)
