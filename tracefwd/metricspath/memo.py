"""What a source's exposition says over and over, remembered within a bound.  Pure but for the tables."""

from typing import TypeVar

from tracefwd.limits import MEMO_ENTRIES_MAX, MEMO_TEXT_LENGTH_MAX

_Key = TypeVar("_Key")
_Found = TypeVar("_Found")


def remember(table: dict[_Key, _Found], key: _Key, found: _Found, *, length: int) -> _Found:
    """``found``, and in ``table`` from now on unless its text of ``length`` characters is too long to come often."""
    if length <= MEMO_TEXT_LENGTH_MAX:
        if len(table) >= MEMO_ENTRIES_MAX:
            table.clear()
        table[key] = found
    return found


__all__ = ["remember"]
