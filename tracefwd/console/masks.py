"""What of a span's texts may be shown: values of tags that the operator's patterns name are ``***``, and so are the
values of query strings and credentials in URLs.  Names of tags are always shown.  Pure.
"""

import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import translate
from typing import Any

from tracefwd import quarantine

HIDDEN = "***"
_QUERY = re.compile(r"([?&;][^=&;\s#]{0,200}=)[^&;\s#\"\\]+")
_CREDENTIALS = re.compile(r"//[^\s/@\"]{1,2048}@")
_BEARER = re.compile(r"\b(bearer|basic)\s+[^\s\"',;]{1,2048}", re.IGNORECASE)
# A pair of a line of ours: "key"="value", quotes escaped by a backslash.
_PAIR = re.compile(r'("(?:[^"\\]|\\.)*"|[^\s"=]+)=("(?:[^"\\]|\\.)*")')
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")


class Masks:
    """``patterns`` are globs on tags' names; letter case does not count."""

    def __init__(self, patterns: Sequence[str]) -> None:
        joined = "|".join(translate(pattern) for pattern in patterns)
        self._hidden = re.compile(joined, re.IGNORECASE) if patterns else None

    def hides(self, key: str) -> bool:
        return self._hidden is not None and self._hidden.match(key) is not None

    def value(self, key: str, value: str) -> str:
        return HIDDEN if self.hides(key) else text(value)

    def tags(self, tags: Mapping[str, str]) -> dict[str, str]:
        return {key: self.value(key, value) for key, value in tags.items()}

    def line(self, line: str) -> str:
        """A line as it was sent."""

        def pair(match: re.Match[str]) -> str:
            key, value = match[1].strip('"'), match[2]
            return f'{match[1]}="{HIDDEN}"' if self.hides(key) else f"{match[1]}={text(value)}"

        return _PAIR.sub(pair, line)

    def received(self, span: str) -> str:
        """A span's JSON, laid out; what is no JSON shows its structure at most."""
        try:
            found = json.loads(span, strict=False)
        except (ValueError, RecursionError):
            return quarantine.mask(span.encode("utf-8", "replace"))
        shown = json.dumps(self._walk(found, ""), indent=2, ensure_ascii=False)
        return shown.encode("utf-8", "replace").decode()

    def field(self, path: str, value: str, reason: str) -> tuple[str, str]:
        """Value and reason of one of ``explain``'s fates; what quotes a hidden value is hidden, too."""
        key = path.removeprefix("tags.")
        shown = self.value(key, value)
        if not path.startswith("tags.") and value[:1] in "{[":
            shown = self.received(value)
        if shown == value:
            return shown, reason
        return shown, _QUOTED.sub(HIDDEN, reason)

    def _walk(self, node: Any, key: str) -> Any:
        if isinstance(node, dict):
            # Version 1 names a tag in a member beside its value.
            named = node.get("key")
            hides = isinstance(named, str) and self.hides(named) and "value" in node
            return {
                name: HIDDEN if hides and name == "value" else self._walk(value, name)
                for name, value in node.items()
            }
        if isinstance(node, list):
            return [self._walk(value, key) for value in node]
        return self.value(key, node) if isinstance(node, str) else node


def text(value: str) -> str:
    """A value without the secrets that URLs and headers carry."""
    if "?" in value or "&" in value:
        value = _QUERY.sub(rf"\1{HIDDEN}", value)
    if "//" in value and "@" in value:
        value = _CREDENTIALS.sub(f"//{HIDDEN}@", value)
    if "earer" in value or "asic" in value or "EARER" in value or "ASIC" in value:
        value = _BEARER.sub(rf"\1 {HIDDEN}", value)
    return value


__all__ = ["HIDDEN", "Masks", "text"]
