"""What a reader of OTLP in protobuf remembers: attributes, runs of them, names, resources.

Nearly all that a span says has been said by the span before, so that looking a stretch of bytes up takes the place of
reading it.  Every table is bounded and can be emptied at any time.  Pure.
"""

from itertools import count
from typing import Any

from tracefwd.limits import MEMO_ENTRIES_MAX
from tracefwd.receiver import otlp
from tracefwd.receiver.fields import is_plain
from tracefwd.receiver.otlp import Shared
from tracefwd.receiver.otlp_layout import Layouts
from tracefwd.receiver.tag_records import TagRecords

ATTRIBUTES = 0x4A
"""The tag of a span's attribute."""

# Values of one key that are remembered: what has more of them (request ids) would only empty the table.
_VALUES_PER_KEY_MAX = 512
LayoutKey = tuple[int, int, bytes]
"""The shared part's number, the span's length, and its name."""

# Each weighs 3 to 12 KiB.
_LAYOUTS_MAX = 2_048
# A longer run is not worth its memory: every attribute has one.
_RUN_BYTES_MAX = 1_024


class Memo:
    """What comes again in span after span; belongs to whoever decodes, and is bounded.

    ``known`` are attributes whose value is plain and whose key means nothing but a tag, each as
    ``[key, value, run, pairs]``.  ``run`` are the bytes of the attribute's field and of those that always came behind
    it (None: not looked at; empty: nothing always comes), ``pairs`` the same as tags.  Senders write attributes in one
    order, so that comparing with a run takes the place of reading five or ten attributes one by one.
    """

    __slots__ = ("_numbers", "known", "layouts", "names", "records", "shared", "texts", "values")

    def __init__(self) -> None:
        self.known: dict[bytes, list[Any]] = {}
        self.names: dict[bytes, str] = {}
        self.values: dict[str, int] = {}
        self.shared: dict[bytes, Shared] = {}
        self.records = TagRecords(str)
        self.layouts: dict[LayoutKey, Layouts] = {}
        self.texts: dict[bytes, str] = {}
        self._numbers = count()

    def give_places(self, shared: Shared) -> None:
        """Bring what the spans of a scope share into the newest record's order."""
        if any(key not in self.records.record.names for key in shared.tags):
            self.records.learn(shared.tags)
        shared.record = self.records.record
        shared.places = dict.fromkeys(shared.record.names, "") | shared.tags

    def remember(self, raw: bytes, key: str, value: str) -> None:
        values = self.values.get(key, 0)
        if values >= _VALUES_PER_KEY_MAX:
            return
        if len(self.known) >= MEMO_ENTRIES_MAX or len(self.values) >= MEMO_ENTRIES_MAX:
            self.known.clear()
            self.values.clear()
        self.values[key] = values + 1
        self.known[raw] = [key, value, None, None]
        if len(self.texts) >= MEMO_ENTRIES_MAX:
            self.texts.clear()
        self.texts[value.encode()] = value

    def learn_name(self, raw: bytes) -> str | None:
        """A span's name, if it is plain and needs no change."""
        name = raw.decode("ascii", "replace")
        if not is_plain(name) or name.startswith(otlp.DIRECTIONS):
            return None
        if len(self.names) >= MEMO_ENTRIES_MAX:
            self.names.clear()
        self.names[raw] = name
        return name

    def remember_shared(self, raw: bytes, shared: Shared) -> None:
        if len(self.shared) >= MEMO_ENTRIES_MAX:
            self.shared.clear()
        self.shared[raw] = shared

    def layouts_of(self, key: LayoutKey) -> Layouts:
        """A new table entry."""
        if len(self.layouts) >= _LAYOUTS_MAX:
            self.layouts.clear()
        found = self.layouts[key] = Layouts()
        return found

    def next_number(self) -> int:
        return next(self._numbers)

    def learn_run(self, entry: list[Any], body: bytes, at: int, end: int) -> None:
        """What came behind the attribute of ``entry`` this time, as far as it is what came before."""
        limit = min(end, at + _RUN_BYTES_MAX)
        if entry[2] is not None:
            limit = min(limit, at + len(entry[2]))
        pairs: dict[str, str] = {}
        stop = position = at
        while position < limit and body[position] == ATTRIBUTES:
            position += 2 + body[position + 1]
            if position > limit:
                break
            known = self.known.get(body[stop + 2 : position])
            if known is None or (
                entry[2] and body[stop:position] != entry[2][stop - at : position - at]
            ):
                break
            pairs[known[0]] = known[1]
            stop = position
        # A run of one is no gain.
        entry[2:] = (body[at:stop], pairs) if len(pairs) > 1 else (b"", None)
