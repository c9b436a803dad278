"""Where the mistakes of a configuration are collected, so that the operator sees all of them at once.

Every mistake is one sentence: key, given value, where it was given, reason, what to write instead.  A key that was
refused once is ``broken``; later checks leave it alone, so one mistake is told once.
"""

import difflib
from collections.abc import Iterable

# Enough to recognise a value by; a pasted certificate would bury the reason.
_SHOWN_LENGTH_MAX = 80
# The longest real key has 40 characters; a file's path may be long.
_KEY_LENGTH_MAX = 300
# Shorter beginnings fit too many words.
_PREFIX_LENGTH_MIN = 3


class Report:
    """The problems so far, and where each key was given.  Keys of list elements read ``exporter.targets[0].url``."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.broken: set[str] = set()
        self.places: dict[str, str] = {}

    def refuse(self, key: str, reason: str, *, shown: str | None = None, place: str = "") -> None:
        """Add a problem.  ``shown`` is the given value, masked already; ``place`` defaults to the key's own."""
        place = place or self._place(key)
        # A key comes from the file, too.
        key = quote(key) if not key.isprintable() or len(key) > _KEY_LENGTH_MAX else key
        value = "" if shown is None else f" = {quote(shown)}"
        end = "" if reason.endswith("?") else "."
        sentence = f"{key}{value}{f' ({place})' if place else ''}: {reason}{end}"
        self.broken.add(key)
        if sentence not in self.problems:
            self.problems.append(sentence)

    def _place(self, key: str) -> str:
        """Where the key, or the nearest thing around it, was given."""
        while key and key not in self.places:
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return self.places.get(key, "")

    def is_broken(self, key: str) -> bool:
        """Was this key, or something inside it, refused?"""
        return any(
            broken == key or broken.startswith((f"{key}.", f"{key}[")) for broken in self.broken
        )


def quote(text: str) -> str:
    """A value on one line, with what a terminal would act upon escaped."""
    if len(text) > _SHOWN_LENGTH_MAX:
        text = f"{text[:_SHOWN_LENGTH_MAX]}…"
    return f"'{text}'" if text.isprintable() else repr(text)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The one of ``words`` that was probably meant: a near spelling, or what the word begins."""
    known = list(words)
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    if not near and len(word) >= _PREFIX_LENGTH_MIN:
        near = [name for name in known if name.startswith(word.lower())]
    return near[0] if near else None


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """``did you mean X?`` when one of ``words`` is near, else the list of all."""
    known = list(words)
    near = nearest(word, known)
    return f"did you mean {near}?" if near else f"known are {', '.join(known)}"


__all__ = ["Report", "did_you_mean", "nearest", "quote"]
