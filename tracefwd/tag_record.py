"""A plain span's tags as one record, which crosses the doorway between decoders and mappers in a dictionary's place.

A class of records is made for a set of keys (``receiver/tag_records.py``); everybody else knows only this base.
"""

from abc import ABCMeta
from collections.abc import Iterator, Mapping
from typing import ClassVar

from msgspec import Struct, StructMeta
from msgspec.structs import astuple


class TagRecordMeta(StructMeta, ABCMeta):
    """Makes records that are mappings, too."""


class TagRecord(
    Struct,
    Mapping[str, str],
    metaclass=TagRecordMeta,
    gc=False,
    eq=False,
    omit_defaults=True,
    forbid_unknown_fields=True,
    # A plain span's keys are ASCII, so that nothing comes into this place.
    rename={"nothing": "\N{EMPTY SET}"},
):
    """Tags in a record whose class was made for their keys: ``names`` by place, "" where a tag is absent.

    ``astuple`` gives the values by place, and costs less than a look at one key of a dictionary; the mapping is for all
    who are in no hurry.  The first place has no name and is always empty: the place of whatever has no other.
    """

    nothing: str = ""
    names: ClassVar[tuple[str, ...]] = ("",)

    def as_dict(self) -> dict[str, str]:
        """Shared with nobody."""
        return {name: value for name, value in zip(self.names, astuple(self), strict=True) if value}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and self.as_dict() == dict(other)

    def __ne__(self, other: object) -> bool:
        # Else msgspec's would answer, which takes records for equal to themselves alone.
        return not self == other

    def __getitem__(self, key: str) -> str:
        value = astuple(self)[self.names.index(key)] if key in self.names else ""
        if not value:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.as_dict())

    def __len__(self) -> int:
        return len(self.as_dict())
