"""Regular expressions of rules: Java's meaning, RE2's linear time, and a memory of what was asked before.

``google-re2`` is imported when the first expression is compiled, so that who has no rules pays nothing.  One call into
it costs 1.5 to 3 µs, a remembered answer 0.05 µs: operation names, status codes and hosts repeat.  The memory of one
expression holds at most ``_MEMO_ENTRIES_MAX`` texts of at most ``_MEMO_TEXT_MAX`` characters (under 0.5 MiB) and is
emptied when full.

Matching is linear; finding all is at worst the number of finds times the length, which ``_WORK_MAX`` bounds.  No
text can raise: RE2 wants UTF-8, so a lone surrogate is seen as ``?``, as Java would write it.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tracefwd.processor.rules import shortcuts
from tracefwd.processor.rules.dialect import Refused
from tracefwd.processor.rules.java_regex import translate

# Texts remembered per expression; a few hundred live ones come back within a second.
_MEMO_ENTRIES_MAX = 1_024
# Longer texts (URLs with ids, statements) seldom come twice.
_MEMO_TEXT_MAX = 160
# What RE2 may use for one expression: its program and the states that it builds on the way.
_MEMORY_BYTES_MAX = 4 * 2**20
# Finds times characters of one replacement: under 0.2 s with the worst expression and value.  A value of 64 KiB may
# hold a thousand finds.
_WORK_MAX = 2**26
# The bytes of UTF-8 that begin no character.
_INSIDE = frozenset(bytes([byte]) for byte in range(0x80, 0xC0))

T = TypeVar("T")


class TooMuch(Exception):  # noqa: N818 - the value's fault, answered by leaving the rule out
    """A replacement that would take too long, or whose outcome would be too long."""


class Memo(dict[str, T]):
    """A function of a text that remembers; ask with ``memo[text]``."""

    __slots__ = ("_compute",)

    def __init__(self, compute: Callable[[str], T]) -> None:
        super().__init__()
        self._compute = compute

    def __missing__(self, text: str) -> T:
        answer = self._compute(text)
        if len(text) <= _MEMO_TEXT_MAX:
            if len(self) >= _MEMO_ENTRIES_MAX:
                self.clear()
            self[text] = answer
        return answer


class Pattern:
    """A compiled expression.

    ``full[text]``: whether all of ``text`` matches (Java's ``matches``); ``finding[text]``: whether some part does.
    """

    __slots__ = (
        "_anchored",
        "_compiled",
        "_needle",
        "_needle_bytes",
        "_whole",
        "finding",
        "full",
        "groups",
        "names",
        "text",
    )

    def __init__(self, text: str, compiled: Any, *, ignore_case: bool) -> None:
        self.text = text
        self._compiled = compiled
        texts = None if ignore_case else shortcuts.segments(text)
        self._whole = None if texts is None else shortcuts.whole_match(texts)
        self._needle = "" if ignore_case else shortcuts.needle(text)
        self._needle_bytes = encoded(self._needle)
        # Nothing is found but at the start.
        self._anchored = text.startswith("^") and "|" not in text and "(?" not in text
        self.groups: int = compiled.groups
        self.names: dict[str, int] = compiled.groupindex
        self.full: Memo[bool] = Memo(self._matches)
        self.finding: Memo[bool] = Memo(self._finds)

    def _matches(self, text: str) -> bool:
        # The dot stops at line ends, which are not printable.
        if self._whole is not None and text.isprintable():
            return self._whole(text)
        return self._compiled.fullmatch(encoded(text)) is not None

    def _finds(self, text: str) -> bool:
        return self._needle in text and self._compiled.search(encoded(text)) is not None

    def replace_all(self, text: str, parts: Sequence[bytes | int], bytes_max: int) -> str | None:
        """Java's ``replaceAll``: ``parts`` are UTF-8 and group numbers; None when nothing is found.

        Raises ``TooMuch``, also when the outcome has more than ``bytes_max`` bytes.
        """
        if self._needle not in text:
            return None
        # RE2's wrapper is three times as fast on bytes.  Its own iterator is not used: it tells some empty finds twice,
        # looks for them inside of characters, and once too often.
        data = encoded(text)
        pieces: list[bytes] = []
        size = last = finds = at = 0
        while at <= len(data) and (match := self._compiled.search(data, at)) is not None:
            start, end = match.span()
            # An empty find inside of a character is none.
            if start < end or data[start : start + 1] not in _INSIDE:
                finds += 1
                new = [part if isinstance(part, bytes) else match[part] or b"" for part in parts]
                pieces += (data[last:start], *new)
                size += start - last + sum(map(len, new))
                if size > bytes_max or finds * len(data) > _WORK_MAX:
                    raise TooMuch
                last = end
            if self._anchored:
                break
            at = end if start < end else _next_character(data, end)
            if data.find(self._needle_bytes, at) < 0:
                break
        if not finds:
            return None
        pieces.append(data[last:])
        return b"".join(pieces).decode()


def _next_character(data: bytes, at: int) -> int:
    at += 1
    while data[at : at + 1] in _INSIDE:
        at += 1
    return at


def encoded(text: str) -> bytes:
    """UTF-8; a lone surrogate becomes ``?``."""
    return text.encode("utf-8", "replace")


def compile_java(text: str, *, ignore_case: bool = False) -> Pattern:
    """Compile a Java expression; raises ``Refused``."""
    import re2

    options = re2.Options()
    # A refusal is told with the rule's name; RE2's own copy on stderr would be a second one.
    options.log_errors = False
    options.max_mem = _MEMORY_BYTES_MAX
    text = encoded(text).decode()
    translated = translate(text, ignore_case=ignore_case)
    try:
        compiled = re2.compile(translated, options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        reason = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise Refused(0, f"RE2 refuses it ({reason})", "write it more simply") from error
    return Pattern(text, compiled, ignore_case=ignore_case)
