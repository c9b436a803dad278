"""Records made for the tags that a mesh's spans have.

Envoys write the same twenty keys, in an order that changes from span to span.  Decoded into a record with a place for
each of them, a span's tags cost a third less than as a dictionary, and everything behind works on tuples of values in
one order.  Keys are learned from the spans themselves: whoever finds a span with a key that has no place asks for one,
and a new class takes the old one's place.

Invariants: a record has at most ``TAG_RECORD_KEYS_MAX`` places; when ``TAG_RECORD_MISSES_MAX`` spans have come with
keys that find no place, because all are taken or because a key that looks the same when cleaned has one, all is
forgotten and learned anew, so that keys which a client made up do not stay.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tracefwd import naming
from tracefwd.limits import TAG_KEY_LENGTH_MAX, TAG_RECORD_KEYS_MAX, TAG_RECORD_MISSES_MAX
from tracefwd.tag_record import TagRecord, TagRecordMeta

# What names the sender stands together in front, where a mapper can pick it with one slice.
_FIRST = (
    "component",
    "istio.canonical_revision",
    "istio.canonical_service",
    "istio.cluster_id",
    "istio.mesh_id",
    "istio.namespace",
    "node_id",
    # Where blanks are: it has a name in every record (``_field``).
    "user_agent",
)


class TagRecords:
    """``record`` is the class for the keys known now; ``value_type`` is what a decoder wants of the tags' values."""

    def __init__(self, value_type: Any) -> None:
        self._value_type = value_type
        self._misses = 0
        self.record = self._make(_FIRST)

    def field(self, key: str) -> str:
        """The record's member for this key."""
        names = self.record.names
        return _field(names.index(key), key) if key in names else "nothing"

    def learn(self, keys: Iterable[str]) -> bool:
        """Give places to these keys of a span without escapes; False when nothing has changed."""
        known, keys = self.record.names, [*keys]
        new = [key for key in keys if key not in known or not key]
        if not new or not all(map(_is_learnable, new)) or _are_alike(keys):
            return False
        if len(known) + len(new) > TAG_RECORD_KEYS_MAX or _are_alike([*known[1:], *new]):
            self._misses += 1
            if self._misses < TAG_RECORD_MISSES_MAX:
                return False
            known = ("", *_FIRST)
            new = [key for key in new if key not in known]
            if len(known) + len(new) > TAG_RECORD_KEYS_MAX or _are_alike([*_FIRST, *new]):
                return False
        self._misses = 0
        self.record = self._make((*known[1:], *new))
        return True

    def learn_from(self, tags: Mapping[str, str]) -> bool:
        """``learn`` for tags among places: this span's are those with a value, and a known key that looks like one of
        them would hide a miss."""
        return self.learn([key for key, value in tags.items() if value])

    def _make(self, keys: tuple[str, ...]) -> type[TagRecord]:
        places = {_field(place, key): key for place, key in enumerate(keys, 1)}
        # A class statement cannot have fields that are known at run time only, and msgspec's own way takes no mapping.
        return TagRecordMeta(  # type: ignore[return-value]
            "PlacedTags",
            (TagRecord,),
            {
                "__module__": __name__,
                "__annotations__": dict.fromkeys(places, self._value_type),
                **dict.fromkeys(places, ""),
                "names": ("", *keys),
            },
            gc=False,
            rename=places,
        )


def _field(place: int, key: str) -> str:
    return key if key == "user_agent" else f"at_{place}"


def _is_learnable(key: str) -> bool:
    return 0 < len(key) <= TAG_KEY_LENGTH_MAX and key.isascii() and key.isprintable()


def _are_alike(keys: list[str]) -> bool:
    """Whether cleaning would make two of them the same: which gives way depends on an order that no record keeps."""
    return len({naming.clean_key(key) for key in keys}) < len(keys)
